# METADATA
# title: Maintenance windows
# description: |
#   While people work on the machine, nothing is done: a restore or an upgrade looks
#   like trouble and is none. The windows below are written as RFC 3339; a machine that
#   has its own list puts it into a data.yaml beside this and names data.windows here.
package breaker.maintenance

import rego.v1

windows := [{"from": "2026-03-07T22:00:00Z", "until": "2026-03-08T04:00:00Z"}]

deny contains sprintf("maintenance until %s", [window.until]) if {
	some window in windows
	input.time_ns >= time.parse_rfc3339_ns(window.from)
	input.time_ns < time.parse_rfc3339_ns(window.until)
}
