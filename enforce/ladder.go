package enforce

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/model"
)

// whyNotAfter says why a decision may not take the place of a lease. It may only be the next
// action of the very ladder that the policy asked for when the lease was made, or, where the
// lease is loosened by now, the same again: that its victims suffer again may well be another
// incident. Nobody gets around the cooldown with it: the ladder ends, and so does the time that
// all of them have together.
func whyNotAfter(d *model.Decision, f *facts) string {
	if d.After == "" {
		return ""
	}
	b := f.before
	if b == nil {
		return fmt.Sprintf("lease %s, whose place it should take, is not held", d.After)
	}
	was := &b.Decision
	again := b.EasedAt != nil && was.Kind == d.Kind && sameForce(&d.Action, &was.Action)
	switch {
	case !again && was.IncidentID != d.IncidentID, was.Target.Cgroup != d.Target.Cgroup, was.Target.CgroupID != d.Target.CgroupID:
		return fmt.Sprintf("lease %s, whose place it should take, is about something else", d.After)
	case b.Inside != "":
		return fmt.Sprintf("lease %s has moved processes apart, and nothing takes its place", d.After)
	case !again && (len(was.Action.Then) == 0 || !sameForce(&d.Action, rungAfter(&was.Action))):
		return fmt.Sprintf("it is not what was to follow lease %s", d.After)
	case !f.now.Before(began(b).Add(f.config.MaxLease.D())):
		return fmt.Sprintf("%s has been held since %s, and that is the maximum", d.Target.Cgroup, began(b).Format(time.RFC3339))
	}
	return ""
}

// rungAfter is the next action of a ladder, with those that follow it.
func rungAfter(a *model.Action) *model.Action {
	next := a.Then[0]
	next.Then = a.Then[1:]
	return &next
}

// began is when somebody was first held, by this lease or by those whose places it took.
func began(l *model.Lease) time.Time {
	if l.BeganAt != nil {
		return *l.BeganAt
	}
	return l.CreatedAt
}
