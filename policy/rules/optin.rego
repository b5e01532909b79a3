# METADATA
# title: Only who has opted in
# description: |
#   Nothing is done to anybody but the units, slices and pods that are listed below,
#   whatever the other policies ask for. What cannot be told is not listed. A user's own
#   service manager chooses the names of its units, so those do not count.
package breaker.optin

import rego.v1

units := {"batch.service", "render.service"}

slices := {"batch.slice"}

pods := {"8f5c1c1e-0f5e-4a9e-9d0b-1d2f3a4b5c6d"}

deny contains "the culprit has not opted in" if not opted_in

opted_in if {
	input.incident.culprit.workload.manager == ""
	input.incident.culprit.workload.unit in units
}

opted_in if {
	input.incident.culprit.workload.manager == ""
	input.incident.culprit.workload.slice in slices
}

# Anybody who may make cgroups in a pod's can call one of them like this: list pods only
# where that is nobody.
opted_in if input.incident.culprit.workload.pod_uid in pods
