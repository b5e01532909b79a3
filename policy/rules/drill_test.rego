package breaker.drill_test

import data.breaker.drill

import rego.v1

offender := {"incident": {
	"kind": "fork_storm",
	"culprit": {"cgroup": "/breakerd-drill-7f/offender", "scope": "tree"},
}}

test_an_offender_of_the_drill_is_frozen_for_three_seconds if {
	drill.action == {{"kind": "freeze", "scope": "tree", "for": "3s", "reason": "drill"}} with input as offender
}

test_a_hog_of_the_drill_is_frozen_too if {
	count(drill.action) == 1 with input as offender with input.incident.kind as "cpu_contention"
}

test_a_cgroup_outside_the_drill_is_left_alone if {
	every cgroup in ["/", "/system.slice/nginx.service", "/breakerd.slice", "/user.slice/breakerd-drill-7f"] {
		count(drill.action) == 0 with input as offender with input.incident.culprit.cgroup as cgroup
	}
}

test_trouble_that_the_drill_does_not_make_is_left_alone if {
	count(drill.action) == 0 with input as offender with input.incident.kind as "memory_leak"
}
