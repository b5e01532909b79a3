package enforce

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/model"
)

// guardApproval keeps what a policy wants only with a person's yes from being done without.
// It is the last: nobody is asked about what another guard would refuse.
func guardApproval(d *model.Decision, f *facts) string {
	long := time.Duration(d.Action.ApprovalMS) * time.Millisecond
	if long == 0 {
		return ""
	}
	if f.mode != model.Enforce {
		return fmt.Sprintf("it would wait for a person's yes, for %s at the most", long)
	}
	switch a := f.approval; {
	case a.State == model.ApprovalGiven:
		return ""
	case a.State == model.ApprovalExpired:
		return fmt.Sprintf("nobody said yes until %s, and about this incident nobody is asked again", a.ExpiresAt.Format(time.RFC3339))
	case a.State == model.ApprovalWaiting:
		return waitsFor(a.ID, a.ExpiresAt)
	case f.questions >= maxApprovals:
		return "too many questions wait for a person's yes already, or did a moment ago"
	}
	return waitsFor(d.ID, f.now.Add(long))
}

func waitsFor(id string, until time.Time) string {
	return fmt.Sprintf("it waits for a person's yes until %s: breakerctl approve %s", until.Format(time.RFC3339), id)
}
