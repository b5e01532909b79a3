# METADATA
# title: Slow a crash loop down
# description: |
#   Something that fails and is started again at once, over and over, gets a tenth of a
#   CPU for five minutes, where it keeps others from running. Scripts that start many
#   different programs are no crash loop.
package breaker.crashloop

import rego.v1

action contains {
	"kind": "throttle",
	"scope": input.incident.culprit.scope,
	"for": "5m",
	"cpu_percent": 10,
	"reason": sprintf("%v processes a second end as soon as they start", [input.incident.evidence.short_exits_per_second]),
} if {
	input.incident.kind == "short_lived_jobs"
	input.incident.evidence.same_command_percent >= 90
	hurts_somebody
}

hurts_somebody if {
	some victim in input.incident.victims
	victim.stall_ms >= 100
}
