# METADATA
# title: No victim, no action
# description: |
#   Nothing is done to anybody for the load alone: only where a workload that matters
#   waits for it. The workloads that matter are listed below, as beginnings of their
#   cgroups' paths. A leak and a storm without end hurt everybody in the end, and are
#   for other policies to decide.
package breaker.novictim

import rego.v1

# Who matters, and how long each may be made to wait.
protected := [
	{"cgroup": "/system.slice/nginx.service", "stall_ms": 100},
	{"cgroup": "/system.slice/postgresql@", "stall_ms": 50},
]

deny contains "nobody who matters waits" if {
	input.incident.kind in {"cpu_contention", "noisy_neighbour", "short_lived_jobs", "io_pressure", "memory_pressure"}
	not somebody_waits
}

somebody_waits if {
	some victim in input.incident.victims
	some who in protected
	startswith(victim.cgroup, who.cgroup)
	victim.stall_ms >= who.stall_ms
}
