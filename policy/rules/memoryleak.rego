# METADATA
# title: Cap a leak before it meets the host's memory
# description: |
#   Where a culprit would use up the memory within ten minutes, it gets memory.high at
#   what it has now and a tenth more: the kernel then reclaims from it and slows it
#   down, and kills nobody. What is lost is time of the leaking program. Where it has
#   more than that already, with its page cache, the enforcer refuses.
package breaker.memoryleak

import rego.v1

mib := 1048576

# It would be too late after this.
urgent_s := 600

action contains {
	"kind": "throttle",
	"scope": input.incident.culprit.scope,
	"for": "10m",
	"memory_high": round(input.incident.evidence.memory_mb * 1.1) * mib,
	"reason": sprintf("it would use up the memory in %v s", [input.incident.evidence.time_left_s]),
} if {
	input.incident.kind == "memory_leak"
	input.incident.evidence.time_left_s < urgent_s
	input.incident.evidence.memory_mb >= 64
}
