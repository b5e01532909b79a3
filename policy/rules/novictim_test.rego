package breaker.novictim_test

import data.breaker.novictim

import rego.v1

fight := {"incident": {
	"kind": "cpu_contention",
	"victims": [
		{"cgroup": "/system.slice/cron.service", "stall_ms": 5000},
		{"cgroup": "/system.slice/postgresql@16-main.service", "stall_ms": 80},
	],
}}

test_where_the_database_waits_something_may_be_done if {
	count(novictim.deny) == 0 with input as fight
}

test_where_only_others_wait_nothing_is_done if {
	novictim.deny == {"nobody who matters waits"} with input as fight
		with input.incident.victims as [{"cgroup": "/system.slice/cron.service", "stall_ms": 5000}]
}

test_a_short_wait_is_no_harm if {
	count(novictim.deny) == 1 with input as fight
		with input.incident.victims as [{"cgroup": "/system.slice/nginx.service", "stall_ms": 99}]
}

test_nobody_at_all_is_no_victim if {
	count(novictim.deny) == 1 with input as fight with input.incident.victims as []
}

test_a_storm_is_not_its_business if {
	count(novictim.deny) == 0 with input as fight
		with input.incident.kind as "fork_storm"
		with input.incident.victims as []
}
