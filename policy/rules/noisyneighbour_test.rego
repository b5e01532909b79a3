package breaker.noisyneighbour_test

import data.breaker.noisyneighbour

import rego.v1

noise := {
	"host": {"cpus": 8},
	"incident": {
		"kind": "noisy_neighbour",
		"level": "warning",
		"confidence": 0.95,
		"culprit": {"scope": "cgroup"},
		"evidence": {"stall_ms_per_second": 412},
	},
}

test_a_noisy_neighbour_keeps_half_of_the_cpus if {
	noisyneighbour.action == {{
		"kind": "throttle",
		"scope": "cgroup",
		"for": "2m",
		"cpu_percent": 400,
		"reason": "its neighbours wait 412 ms in each second",
	}} with input as noise
}

test_a_small_machine_leaves_one_cpu if {
	some action in noisyneighbour.action with input as noise with input.host.cpus as 1
	action.cpu_percent == 100
}

test_who_is_not_surely_the_cause_is_left_alone if {
	count(noisyneighbour.action) == 0 with input as noise with input.incident.confidence as 0.7
}

test_other_trouble_is_left_alone if {
	count(noisyneighbour.action) == 0 with input as noise with input.incident.kind as "fork_storm"
}
