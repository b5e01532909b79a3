package breaker.forkstorm_test

import data.breaker.forkstorm

import rego.v1

storm := {"incident": {
	"kind": "fork_storm",
	"severity": 0.8,
	"culprit": {"uid": 1000, "scope": "tree", "processes": 412, "root": {"pid": 4711}},
	"victims": [{"cgroup": "/system.slice/nginx.service", "resource": "cpu", "stall_ms": 850}],
	"evidence": {"forks_per_second": 600, "net_growth_per_second": 3},
}}

test_a_storm_that_hurts_somebody_is_frozen if {
	forkstorm.action == {{
		"kind": "freeze",
		"scope": "tree",
		"for": "60s",
		"reason": "fork storm of 412 processes below pid 4711",
	}} with input as storm
}

test_a_storm_that_grows_is_frozen_before_it_hurts if {
	count(forkstorm.action) == 1 with input as storm
		with input.incident.victims as []
		with input.incident.evidence.net_growth_per_second as 51
}

test_a_storm_that_reaps_its_children_and_hurts_nobody_is_left_alone if {
	count(forkstorm.action) == 0 with input as storm with input.incident.victims as []
}

test_a_mild_storm_is_left_alone if {
	count(forkstorm.action) == 0 with input as storm with input.incident.severity as 0.5
}

test_other_trouble_is_left_alone if {
	count(forkstorm.action) == 0 with input as storm with input.incident.kind as "cpu_contention"
}

test_nobody_is_denied_by_default if {
	count(forkstorm.deny) == 0 with input as storm
}

test_somebody_on_call_is_never_frozen if {
	forkstorm.deny == {"the culprit belongs to somebody on call"} with input as storm
		with input.incident.culprit.uid as 1002
}

test_somebody_on_call_is_not_spared_in_other_trouble if {
	count(forkstorm.deny) == 0 with input as storm
		with input.incident.kind as "cpu_contention"
		with input.incident.culprit.uid as 1002
}
