# METADATA
# title: Throttle a noisy neighbour gently
# description: |
#   Leaves a cgroup that makes others wait half of the machine's CPUs for two minutes,
#   and at least one. It goes on working, only slower. Needs the cpu controller; a
#   tree that shares its cgroup with others is left alone.
package breaker.noisyneighbour

import rego.v1

# Half of the CPUs, in percent of one, and never less than one.
leave_cpu_percent := max({100, input.host.cpus * 50})

action contains {
	"kind": "throttle",
	"scope": input.incident.culprit.scope,
	"for": "2m",
	"cpu_percent": leave_cpu_percent,
	"reason": sprintf("its neighbours wait %v ms in each second", [input.incident.evidence.stall_ms_per_second]),
} if {
	input.incident.kind == "noisy_neighbour"
	input.incident.level in {"warning", "critical"}
	input.incident.confidence >= 0.8
}
