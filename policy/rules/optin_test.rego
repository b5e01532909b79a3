package breaker.optin_test

import data.breaker.optin

import rego.v1

stranger := {"incident": {"culprit": {"workload": {
	"unit": "nginx.service",
	"slice": "system.slice",
	"manager": "",
	"pod_uid": "",
}}}}

test_nothing_is_done_to_a_stranger if {
	optin.deny == {"the culprit has not opted in"} with input as stranger
}

test_a_unit_that_is_listed_is_not_spared if {
	count(optin.deny) == 0 with input as stranger
		with input.incident.culprit.workload.unit as "batch.service"
}

test_nor_is_a_slice if {
	count(optin.deny) == 0 with input as stranger
		with input.incident.culprit.workload.slice as "batch.slice"
}

test_nor_is_a_pod if {
	count(optin.deny) == 0 with input as stranger
		with input.incident.culprit.workload.pod_uid as "8f5c1c1e-0f5e-4a9e-9d0b-1d2f3a4b5c6d"
}

test_a_unit_that_a_user_called_so_does_not_count if {
	count(optin.deny) == 1 with input as stranger
		with input.incident.culprit.workload.unit as "batch.service"
		with input.incident.culprit.workload.manager as "user@1000.service"
}

test_what_cannot_be_told_is_a_stranger if {
	count(optin.deny) == 1 with input as {"incident": {"culprit": {"workload": {}}}}
}
