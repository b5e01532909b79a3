# METADATA
# title: Freeze a fork storm
# description: |
#   Holds a process tree that keeps forking for a minute, if it hurts somebody or
#   if it grows without end. A build that forks and reaps thousands of short
#   processes does neither, and is left alone. People on call are never frozen:
#   put their user ids below.
package breaker.forkstorm

import rego.v1

# User ids whose shells stay usable, whatever they do. Replace these by your own.
oncall_uids := {1001, 1002}

action contains {
	"kind": "freeze",
	"scope": input.incident.culprit.scope,
	"for": "60s",
	"reason": sprintf("fork storm of %d processes below pid %d", [
		input.incident.culprit.processes,
		input.incident.culprit.root.pid,
	]),
} if {
	input.incident.kind == "fork_storm"
	input.incident.severity > 0.5
	harmful
}

# Somebody is made to wait.
harmful if some victim in input.incident.victims

# Nobody waits yet, but more is born than dies: at 50 a second, a machine with
# 32768 pids is full in eleven minutes.
harmful if input.incident.evidence.net_growth_per_second > 50

deny contains "the culprit belongs to somebody on call" if {
	input.incident.kind == "fork_storm"
	input.incident.culprit.uid in oncall_uids
}
