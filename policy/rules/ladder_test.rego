package breaker.ladder_test

import data.breaker.ladder

import rego.v1

neighbour := {
	"incident": {
		"kind": "noisy_neighbour",
		"confidence": 0.9,
		"culprit": {"scope": "cgroup", "workload": {"kind": "service"}},
		"victims": [
			{"cgroup": "/system.slice/nginx.service", "resource": "cpu", "stall_ms": 1500.4},
			{"cgroup": "/system.slice/cron.service", "resource": "cpu", "stall_ms": 700},
			{"cgroup": "/system.slice/cron.service", "resource": "io", "stall_ms": 9000},
		],
	},
	"host": {"cpus": 8},
}

test_a_noisy_service_is_throttled_and_more_only_where_that_does_not_help if {
	ladder.action == {{
		"kind": "throttle",
		"scope": "cgroup",
		"for": "2m",
		"cpu_percent": 400,
		"reason": "others waited 2200 ms for it",
		"then": [
			{"kind": "throttle", "cpu_percent": 25, "for": "1m"},
			{"kind": "freeze", "for": "10s", "reason": "limits gave no relief"},
		],
	}} with input as neighbour
}

test_on_one_cpu_it_is_left_with_that_at_first if {
	some action in ladder.action with input as neighbour with input.host.cpus as 1
	action.cpu_percent == 100
}

test_a_short_wait_is_no_reason if {
	count(ladder.action) == 0 with input as neighbour
		with input.incident.victims as [{"cgroup": "/a", "resource": "cpu", "stall_ms": 1999}]
}

test_what_is_no_service_is_left_alone if {
	count(ladder.action) == 0 with input as neighbour with input.incident.culprit.workload.kind as "session"
}

test_a_doubtful_culprit_is_left_alone if {
	count(ladder.action) == 0 with input as neighbour with input.incident.confidence as 0.79
}

test_other_trouble_is_left_alone if {
	count(ladder.action) == 0 with input as neighbour with input.incident.kind as "fork_storm"
}
