# METADATA
# title: Hold whoever starves others of the CPU
# description: |
#   Gives the victims a few seconds of air where one culprit makes most of their
#   waiting, and they wait badly. A busy machine on which nobody suffers is left
#   alone, and so is a culprit that shares the blame with others. Where the
#   hypervisor takes the CPU, nobody on this machine is to blame.
package breaker.cpuhog

import rego.v1

# What a victim must have waited because of the culprit.
min_stall_ms := 500

# How much of the victims' waiting the culprit's cgroup must account for.
min_share_percent := 60

# A freeze is a rough tool for a busy process, so it is a short one. Where the
# culprit has a cgroup to itself, {"kind": "throttle", "cpu_percent": 50} does the
# same more gently and for longer.
action contains {
	"kind": "freeze",
	"scope": input.incident.culprit.scope,
	"for": "5s",
	"reason": sprintf("%d cgroups starve beside it", [count(starving)]),
} if {
	input.incident.kind == "cpu_contention"
	input.incident.level in {"warning", "critical"}
	input.incident.evidence.offender_share_percent >= min_share_percent
	count(starving) > 0
}

starving contains victim.cgroup if {
	some victim in input.incident.victims
	victim.resource == "cpu"
	victim.stall_ms >= min_stall_ms
}

deny contains "the hypervisor takes the CPU" if {
	input.incident.kind == "cpu_contention"
	input.incident.evidence.steal_percent > 10
}
