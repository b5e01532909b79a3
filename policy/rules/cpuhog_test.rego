package breaker.cpuhog_test

import data.breaker.cpuhog

import rego.v1

fight := {"incident": {
	"kind": "cpu_contention",
	"level": "warning",
	"culprit": {"scope": "cgroup", "share": 1},
	"victims": [
		{"cgroup": "/system.slice/nginx.service", "resource": "cpu", "stall_ms": 900},
		{"cgroup": "/system.slice/cron.service", "resource": "cpu", "stall_ms": 20},
	],
	"evidence": {"host_cpu_some_percent": 71, "offender_share_percent": 90, "steal_percent": 0},
}}

test_a_hog_that_starves_somebody_is_held_for_a_moment if {
	cpuhog.action == {{
		"kind": "freeze",
		"scope": "cgroup",
		"for": "5s",
		"reason": "1 cgroups starve beside it",
	}} with input as fight
}

test_a_hog_that_starves_nobody_is_left_alone if {
	count(cpuhog.action) == 0 with input as fight with input.incident.victims as []
}

test_waiting_for_something_else_than_the_cpu_does_not_count if {
	count(cpuhog.action) == 0 with input as fight
		with input.incident.victims as [{"cgroup": "/a", "resource": "io", "stall_ms": 900}]
}

test_one_hog_among_many_is_left_alone if {
	count(cpuhog.action) == 0 with input as fight with input.incident.evidence.offender_share_percent as 50
}

test_information_is_no_trouble if {
	count(cpuhog.action) == 0 with input as fight with input.incident.level as "info"
}

test_other_trouble_is_left_alone if {
	count(cpuhog.action) == 0 with input as fight with input.incident.kind as "fork_storm"
}

test_nobody_is_denied_on_a_machine_of_its_own if {
	count(cpuhog.deny) == 0 with input as fight
}

test_the_hypervisor_is_nobody_to_freeze if {
	cpuhog.deny == {"the hypervisor takes the CPU"} with input as fight
		with input.incident.evidence.steal_percent as 25
}
