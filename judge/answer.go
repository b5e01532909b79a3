package judge

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/policy"
)

// Answer is what the policies said about an incident, and what they saw.
type Answer struct {
	ID         string
	At         time.Time
	Input      policy.Input
	Verdict    policy.Verdict
	PolicyHash string
}

// Log says whether answers are told from now on.
func (j *Judge) Log(on bool) { j.logs = on }

// log tells what the policies answered, if it is something else than before.
func (j *Judge) log(d *docket, input policy.Input, v policy.Verdict, now time.Time) []Event {
	if !j.logs {
		return nil
	}
	said := fmt.Sprintf("%s %+v %v %+v %v %s", j.policies.Hash(), v.Action, v.DryRun, v.Denied, v.Asked, v.Error)
	if said == d.said {
		return nil
	}
	d.said = said
	d.answers++
	return []Event{{Type: Answered, Incident: d.incident.Clone(), Answer: &Answer{
		ID: fmt.Sprintf("%s-answer-%d", d.incident.ID, d.answers), At: now, Input: input, Verdict: v, PolicyHash: j.policies.Hash(),
	}}}
}
