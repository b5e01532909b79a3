package enforce

import (
	"errors"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// easesAt is when a throttle is loosened half way: so long before its end as was asked for,
// and not in the first half of its time. nil where nothing of it can be.
func easesAt(a *model.Action, writes []model.FileWrite, from time.Time, hold time.Duration) *time.Time {
	if a.EaseMS <= 0 || !slices.ContainsFunc(writes, func(w model.FileWrite) bool { return w.Step != "" }) {
		return nil
	}
	at := from.Add(hold - min(a.Ease(), hold/2))
	return &at
}

// ease loosens a throttle, once that is due, so that its victims show whether the culprit has
// changed while there is a limit still. What it is loosened to is in the record since before
// the first write, as is what was there before: killed at any moment, the undo finds a value
// that it knows and puts the original back. A limit that cannot be loosened stays as it is
// until the end. It is part of a look at a lease, of which there is one at a time.
func (e *Engine) ease(l *lease) {
	now := e.copyOf(l)
	if now.EasesAt == nil || now.EasedAt != nil || e.now().Before(*now.EasesAt) {
		return
	}
	eased := false
	for i, w := range now.Writes {
		if w.Step == "" {
			continue
		}
		e.at("before ease")
		err := e.whileHeld(l, func() error { return e.cgroups.Ease(l.ref(), w) })
		e.at("after ease")
		if errors.Is(err, errEnds) {
			return
		}
		e.mu.Lock()
		if err == nil {
			eased = true
			l.Writes = slices.Clone(l.Writes) // copies of the lease share the old ones
			l.Writes[i].Wrote, l.Writes[i].Step = w.Step, w.Wrote
		} else {
			l.addNote("it was not loosened half way: " + err.Error())
		}
		e.mu.Unlock()
	}
	at := e.now()
	e.mu.Lock()
	if l.EasedAt = &at; !eased {
		l.EasesAt, l.EasedAt = nil, nil
	}
	e.mu.Unlock()
	e.tell(l, model.LeaseHeld)
}
