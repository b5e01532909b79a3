package breaker.memoryleak_test

import data.breaker.memoryleak

import rego.v1

leak := {"incident": {
	"kind": "memory_leak",
	"culprit": {"scope": "cgroup"},
	"evidence": {"memory_mb": 1000, "time_left_s": 240},
}}

test_a_leak_is_capped_a_little_above_what_it_has if {
	memoryleak.action == {{
		"kind": "throttle",
		"scope": "cgroup",
		"for": "10m",
		"memory_high": 1153433600,
		"reason": "it would use up the memory in 240 s",
	}} with input as leak
}

test_a_leak_with_hours_left_is_left_to_people if {
	count(memoryleak.action) == 0 with input as leak with input.incident.evidence.time_left_s as 7200
}

test_a_small_one_is_left_alone if {
	count(memoryleak.action) == 0 with input as leak with input.incident.evidence.memory_mb as 12
}

test_other_trouble_is_left_alone if {
	count(memoryleak.action) == 0 with input as leak with input.incident.kind as "memory_pressure"
}
