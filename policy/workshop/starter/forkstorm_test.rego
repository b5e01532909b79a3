package breaker.mine.forkstorm_test

import data.breaker.mine.forkstorm

import rego.v1

# An incident, with as much of it as the policy looks at.
storm := {"incident": {
	"kind": "fork_storm",
	"severity": 0.8,
	"culprit": {"uid": 1000, "scope": "tree", "processes": 412},
	"victims": [{"stall_ms": 850}],
}}

test_a_storm_that_hurts_somebody_is_frozen if {
	forkstorm.action == {{
		"kind": "freeze",
		"scope": "tree",
		"for": "30s",
		"reason": "a fork storm of 412 processes",
	}} with input as storm
}

test_a_storm_that_hurts_nobody_is_left_alone if {
	count(forkstorm.action) == 0 with input as storm with input.incident.victims as []
}

test_a_mild_one_is_left_alone if {
	count(forkstorm.action) == 0 with input as storm with input.incident.severity as 0.4
}

test_other_trouble_is_left_alone if {
	count(forkstorm.action) == 0 with input as storm with input.incident.kind as "memory_leak"
}

test_people_on_call_are_left_alone if {
	count(forkstorm.deny) == 1 with input as storm with input.incident.culprit.uid as 1002
}

test_nobody_else_is_denied if {
	count(forkstorm.deny) == 0 with input as storm
}
