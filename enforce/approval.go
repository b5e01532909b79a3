package enforce

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Questions to a person are kept in memory only. After a restart nobody knows whether what
// was asked, or said yes to, is true still, so it is asked again: that costs a person one
// command, and nobody else anything.

const (
	// maxApprovals bounds the questions that wait, and maxKept those that are remembered.
	maxApprovals, maxKept = 16, 64
	// maxApproval bounds how long one may wait.
	maxApproval = 24 * time.Hour
	// stillAsked is how long after it was asked for last something is taken to be wanted
	// still. breakerd asks each second for as long as the trouble goes on.
	stillAsked = 5 * time.Second
	// forgotten is how long nothing must have been heard of a question until it is forgotten:
	// the incident is over.
	forgotten = time.Minute
)

// ErrNoApproval says that no such question waits.
var ErrNoApproval = errors.New("no such question")

// question is one that was asked, or answered and not used yet.
type question struct {
	model.Approval
	asked time.Time // the last time
}

// about reports whether a decision is the one that a person was asked about: the same to the
// same culprit because of the same incident, and for no longer.
func (q *question) about(d *model.Decision) bool {
	was := &q.Decision
	// Whom the tree is moved away from matters: where it was nobody, all are held.
	return (was.Target.Outside == 0) == (d.Target.Outside == 0) && was.IncidentID == d.IncidentID && was.Target.Cgroup == d.Target.Cgroup && was.Target.CgroupID == d.Target.CgroupID &&
		was.Target.Root == d.Target.Root && scopeOf(was) == scopeOf(d) && was.After == d.After &&
		sameForce(&was.Action, &d.Action) && d.Action.ForMS <= was.Action.ForMS
}

// sameForce reports whether two actions do the same, however long, and are followed by the
// same.
func sameForce(a, b *model.Action) bool {
	return a.Kind == b.Kind && a.CPUPercent == b.CPUPercent && a.MemoryHigh == b.MemoryHigh && a.IOPercent == b.IOPercent &&
		a.PIDsMax == b.PIDsMax && a.EaseMS == b.EaseMS && a.ApprovalMS == b.ApprovalMS && a.Scope == b.Scope &&
		slices.EqualFunc(a.Then, b.Then, func(a, b model.Action) bool { return sameForce(&a, &b) && a.ForMS == b.ForMS })
}

// questionLocked finds the question about a decision, and notes that it is asked again.
func (e *Engine) questionLocked(d *model.Decision, now time.Time) (a model.Approval, waiting int) {
	if d.Action.ApprovalMS == 0 {
		return a, 0
	}
	if len(e.questions) >= maxKept {
		waiting = maxApprovals // a minute ago, and nobody may fill our memory
	}
	for _, q := range e.questions {
		if q.State == model.ApprovalWaiting {
			waiting++
		}
		if q.about(d) {
			q.asked = now
			a = q.Approval
			if !now.Before(a.ExpiresAt) {
				a.State = model.ApprovalExpired // lapseLocked ends it, and has it told
			}
		}
	}
	return a, waiting
}

// await asks a person, unless somebody was asked already.
func (e *Engine) await(d *model.Decision, f *facts) {
	if f.mode != model.Enforce || f.approval.ID != "" || f.questions >= maxApprovals {
		return
	}
	q := &question{asked: f.now, Approval: model.Approval{
		ID: d.ID, Decision: *d, State: model.ApprovalWaiting, AskedAt: f.now,
		ExpiresAt: f.now.Add(time.Duration(d.Action.ApprovalMS) * time.Millisecond),
	}}
	e.mu.Lock()
	e.questions[q.ID] = q
	e.mu.Unlock()
	e.recorder.Approval(q.Approval)
	e.ring()
}

// Approve says yes to a question. What was asked for is carried out when breakerd asks for it
// next, within a second, if the trouble goes on: all guards are asked again then, and the
// identity is looked at again.
func (e *Engine) Approve(id, by string) (model.Approval, error) {
	e.mu.Lock()
	q := e.questions[id]
	now := e.now()
	var err error
	switch {
	case q == nil:
		err = fmt.Errorf("approve %q: %w: breakerctl leases lists those that wait", id, ErrNoApproval)
	case q.State == model.ApprovalExpired || !now.Before(q.ExpiresAt):
		err = fmt.Errorf("approve %s: it could be said yes to until %s", id, q.ExpiresAt.Format(time.RFC3339))
	case q.State != model.ApprovalWaiting:
		err = fmt.Errorf("approve %s: %s has said yes already", id, q.By)
	case now.Sub(q.asked) > stillAsked:
		err = fmt.Errorf("approve %s: it is not asked for any more, the last time was %s ago: the trouble has passed", id, now.Sub(q.asked).Round(time.Second))
	}
	if err != nil {
		e.mu.Unlock()
		return model.Approval{}, err
	}
	q.State, q.By, q.GivenAt = model.ApprovalGiven, by, &now
	given := q.Approval
	e.mu.Unlock()
	e.recorder.Approval(given)
	return given, nil
}

// useLocked takes the yes to a decision that is carried out now: it is for once.
func (e *Engine) useLocked(d *model.Decision) {
	for id, q := range e.questions {
		if q.State == model.ApprovalGiven && q.about(d) {
			delete(e.questions, id)
		}
	}
}

// lapse is when a question is looked at by itself.
func (q *question) lapse() time.Time {
	forget := q.asked.Add(forgotten)
	if q.State != model.ApprovalExpired && q.ExpiresAt.Before(forget) {
		return q.ExpiresAt
	}
	return forget
}

// lapseLocked ends the questions whose time is up, and gives those that have just ended.
func (e *Engine) lapseLocked(now time.Time) (ended []model.Approval) {
	for id, q := range e.questions {
		if now.Before(q.lapse()) {
			continue
		}
		if q.State != model.ApprovalExpired {
			q.State = model.ApprovalExpired
			ended = append(ended, q.Approval)
		}
		// Those that are asked for still are kept, so that nobody is asked again.
		if now.Sub(q.asked) >= forgotten {
			delete(e.questions, id)
		}
	}
	return ended
}

// approvalsLocked are the questions that wait and the answers that were not used yet, the
// oldest first.
func (e *Engine) approvalsLocked() []model.Approval {
	all := []model.Approval{}
	for _, q := range e.questions {
		if q.State != model.ApprovalExpired {
			all = append(all, q.Approval)
		}
	}
	slices.SortFunc(all, func(a, b model.Approval) int {
		return cmp.Or(a.AskedAt.Compare(b.AskedAt), strings.Compare(a.ID, b.ID))
	})
	return all
}
