# METADATA
# title: Hold batch work during office hours
# description: |
#   What runs in batch.slice gives way to everybody else from eight to six on
#   weekdays: it is held for ten seconds at a time where others wait for it. At night
#   it may take what it needs. Name your own slice and time zone below.
package breaker.officehours

import rego.v1

batch_slice := "batch.slice"

zone := "Europe/Berlin"

first_hour := 8

last_hour := 17

workdays := {"Monday", "Tuesday", "Wednesday", "Thursday", "Friday"}

action contains {
	"kind": "freeze",
	"scope": input.incident.culprit.scope,
	"for": "10s",
	"reason": "batch work gives way during office hours",
} if {
	input.incident.kind in {"cpu_contention", "noisy_neighbour"}
	input.incident.culprit.workload.slice == batch_slice
	count(input.incident.victims) > 0
	office_hours
}

office_hours if {
	time.weekday([input.time_ns, zone]) in workdays
	[hour, _, _] := time.clock([input.time_ns, zone])
	hour >= first_hour
	hour <= last_hour
}
