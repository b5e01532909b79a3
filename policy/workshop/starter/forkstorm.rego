# METADATA
# title: Freeze a fork storm that hurts somebody
# description: |
#   What it does and for whom, in a sentence or two: policy check -o json shows it.
# custom:
#   mode: dry-run
package breaker.mine.forkstorm

import rego.v1

# This policy is held to a dry run (by mode, below custom, at the top): whatever it asks for
# is gone through and told, and never carried out, also where breakerd acts on others. Take
# that line away when it does what you want.

# What a victim must have waited because of the culprit, in milliseconds. Every field of
# the input, with its unit: breakerctl policy schema.
min_stall_ms := 200

# An action is asked for when every line of its body holds. All of it must be said: the
# kind (freeze or throttle), the scope (tree or cgroup), for how long, and why.
action contains {
	"kind": "freeze",
	"scope": input.incident.culprit.scope,
	"for": "30s",
	"reason": sprintf("a fork storm of %d processes", [input.incident.culprit.processes]),
} if {
	input.incident.kind == "fork_storm"
	input.incident.severity > 0.5
	somebody_waits
}

somebody_waits if {
	some victim in input.incident.victims
	victim.stall_ms >= min_stall_ms
}

# A deny wins over whatever any policy asks for.
deny contains "people on call are left alone" if input.incident.culprit.uid in {1001, 1002}
