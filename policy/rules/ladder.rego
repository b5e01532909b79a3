# METADATA
# title: A ladder, the milder action first
# description: |
#   A service that stalls others is throttled to a part of the machine. Where that gives its
#   victims no relief it gets less, and is frozen for a few seconds only where nothing else
#   helped. Each action is lifted before the next begins, and all of them together hold
#   nobody longer than one may. Needs the cpu controller.
package breaker.ladder

import rego.v1

# What a culprit is left with at first, in percent of one CPU, and what where that does not help.
gentle_cpu_percent := max({100, input.host.cpus * 50})

firm_cpu_percent := 25

# Longer than this others have waited before anything is done, all of them together.
patience_ms := 2000

action contains {
	"kind": "throttle",
	"scope": "cgroup",
	"for": "2m",
	"cpu_percent": gentle_cpu_percent,
	"reason": sprintf("others waited %v ms for it", [round(waited_ms)]),
	"then": [
		{"kind": "throttle", "cpu_percent": firm_cpu_percent, "for": "1m"},
		{"kind": "freeze", "for": "10s", "reason": "limits gave no relief"},
	],
} if {
	input.incident.kind in {"cpu_contention", "noisy_neighbour"}
	input.incident.culprit.workload.kind == "service"
	input.incident.confidence >= 0.8
	waited_ms >= patience_ms
}

waited_ms := sum([victim.stall_ms |
	some victim in input.incident.victims
	victim.resource == "cpu"
])
