package breaker.officehours_test

import data.breaker.officehours

import rego.v1

# Monday, 2026-03-02, at noon in Berlin.
noon := time.parse_rfc3339_ns("2026-03-02T12:00:00+01:00")

busy := {
	"time_ns": noon,
	"incident": {
		"kind": "cpu_contention",
		"culprit": {"scope": "cgroup", "workload": {"slice": "batch.slice"}},
		"victims": [{"cgroup": "/system.slice/nginx.service"}],
	},
}

test_batch_work_gives_way_at_noon if {
	officehours.action == {{
		"kind": "freeze",
		"scope": "cgroup",
		"for": "10s",
		"reason": "batch work gives way during office hours",
	}} with input as busy
}

test_at_night_it_may_take_what_it_needs if {
	every at in ["2026-03-02T07:59:00+01:00", "2026-03-02T18:00:00+01:00", "2026-03-02T02:00:00+01:00"] {
		count(officehours.action) == 0 with input as busy with input.time_ns as time.parse_rfc3339_ns(at)
	}
}

test_on_a_sunday_too if {
	count(officehours.action) == 0 with input as busy
		with input.time_ns as time.parse_rfc3339_ns("2026-03-01T12:00:00+01:00")
}

test_other_slices_are_left_alone if {
	count(officehours.action) == 0 with input as busy
		with input.incident.culprit.workload.slice as "system.slice"
}

test_where_nobody_waits_it_goes_on if {
	count(officehours.action) == 0 with input as busy with input.incident.victims as []
}

test_other_trouble_is_left_alone if {
	count(officehours.action) == 0 with input as busy with input.incident.kind as "memory_leak"
}
