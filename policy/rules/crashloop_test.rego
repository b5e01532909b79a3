package breaker.crashloop_test

import data.breaker.crashloop

import rego.v1

loop := {"incident": {
	"kind": "short_lived_jobs",
	"culprit": {"scope": "tree"},
	"victims": [{"cgroup": "/system.slice/nginx.service", "stall_ms": 240}],
	"evidence": {"short_exits_per_second": 31, "same_command_percent": 98},
}}

test_a_crash_loop_is_slowed_down if {
	crashloop.action == {{
		"kind": "throttle",
		"scope": "tree",
		"for": "5m",
		"cpu_percent": 10,
		"reason": "31 processes a second end as soon as they start",
	}} with input as loop
}

test_a_script_of_many_programs_is_left_alone if {
	count(crashloop.action) == 0 with input as loop with input.incident.evidence.same_command_percent as 40
}

test_one_that_hurts_nobody_is_left_alone if {
	count(crashloop.action) == 0 with input as loop
		with input.incident.victims as [{"cgroup": "/a", "stall_ms": 99}]
}

test_other_trouble_is_left_alone if {
	count(crashloop.action) == 0 with input as loop with input.incident.kind as "fork_storm"
}
