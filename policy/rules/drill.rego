# METADATA
# title: Freeze the offenders of a drill
# description: |
#   Holds the make-believe offenders that "breakerctl drill" starts, in cgroups of
#   its own, and nothing else. Safe to load on any machine that is to be drilled:
#   no cgroup outside the drill can match.
package breaker.drill

import rego.v1

# Where breakerctl drill makes its cgroups.
drill_prefix := "/breakerd-drill-"

action contains {
	"kind": "freeze",
	"scope": input.incident.culprit.scope,
	"for": "3s",
	"reason": "drill",
} if {
	input.incident.kind in {"fork_storm", "cpu_contention"}
	startswith(input.incident.culprit.cgroup, drill_prefix)
}
