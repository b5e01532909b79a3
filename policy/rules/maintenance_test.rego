package breaker.maintenance_test

import data.breaker.maintenance

import rego.v1

test_nothing_is_done_while_people_work if {
	maintenance.deny == {"maintenance until 2026-03-08T04:00:00Z"} with input.time_ns as time.parse_rfc3339_ns("2026-03-08T00:00:00Z")
}

test_before_and_after_it_is if {
	every at in ["2026-03-07T21:59:59Z", "2026-03-08T04:00:00Z"] {
		count(maintenance.deny) == 0 with input.time_ns as time.parse_rfc3339_ns(at)
	}
}
