package enforce

import (
	"context"
	"sync"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Run ends leases when their time is up and when breakerd is not heard of, until ctx
// ends. It is a thin loop around Next and Advance; it does not end the leases that
// are left (see Close).
func (e *Engine) Run(ctx context.Context) {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if next, ok := e.Next(); ok {
			timer.Reset(next.Sub(e.now()))
		} else {
			timer.Stop()
		}
		select {
		case <-ctx.Done():
			return
		case <-e.wake:
		case <-timer.C:
		}
		// One undo that takes long must not make another late: nobody waits here.
		e.start(e.now())
	}
}

// Next is when Advance has something to do; false if nothing is planned.
func (e *Engine) Next() (time.Time, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	var next time.Time
	sooner := func(t time.Time) {
		if next.IsZero() || t.Before(next) {
			next = t
		}
	}
	for _, l := range e.active {
		switch {
		case !l.retryAt.IsZero():
			sooner(l.retryAt)
		case l.claimed:
		default:
			sooner(l.ExpiresAt)
			if !l.flying && !l.looking && !l.lookAt.IsZero() {
				sooner(l.lookAt)
			}
			if e.config.Load().HeartbeatTimeout > 0 {
				sooner(e.heardLocked(l).Add(e.config.Load().HeartbeatTimeout.D()))
			}
		}
	}
	if len(e.unfiled) > 0 {
		sooner(e.refile)
	}
	for _, q := range e.questions {
		sooner(q.lapse())
	}
	if e.missing != nil && !e.recovering {
		sooner(e.recoverAt)
	}
	return next, !next.IsZero()
}

// Advance ends what is due at now, and waits until it has ended or failed.
func (e *Engine) Advance(now time.Time) { e.start(now)() }

// start begins what is due, and returns a wait for it.
func (e *Engine) start(now time.Time) (wait func()) {
	var work sync.WaitGroup
	e.mu.Lock()
	for _, l := range e.active {
		reason := model.EndExpired
		switch {
		case !l.retryAt.IsZero() && !now.Before(l.retryAt):
			l.retryAt = time.Time{}
			e.run(&work, func() { e.undo(l) })
			continue
		case l.claimed:
			continue
		case !now.Before(l.ExpiresAt):
		case e.config.Load().HeartbeatTimeout > 0 && now.Sub(e.heardLocked(l)) >= e.config.Load().HeartbeatTimeout.D():
			reason = model.EndHeartbeat
		case !l.flying && !l.looking && !l.lookAt.IsZero() && !now.Before(l.lookAt):
			l.looking = true
			e.run(&work, func() { e.lookWhileHeld(l) })
			continue
		default:
			continue
		}
		if l.flying || l.writing {
			e.endLocked(l, reason)
			continue
		}
		l.claimed, l.EndReason = true, reason
		e.run(&work, func() { e.undo(l) })
	}
	unfiled := e.unfiled
	if len(unfiled) > 0 && !now.Before(e.refile) {
		e.unfiled = nil
		e.run(&work, func() { e.fileAgain(unfiled) })
	}
	if e.missing != nil && !e.recovering && !now.Before(e.recoverAt) {
		e.recovering = true
		e.run(&work, e.recoverAgain)
	}
	for _, a := range e.lapseLocked(now) {
		e.run(&work, func() { e.recorder.Approval(a) })
	}
	e.mu.Unlock()
	return work.Wait
}

func (e *Engine) run(work *sync.WaitGroup, f func()) {
	work.Add(1)
	e.undoing.Go(func() {
		defer work.Done()
		f()
	})
}

// lookEvery is how often the guards are asked again about what is held: systemd may move
// a service into it, and a login is a process that is born somewhere and moved. A
// quarter of a second is what a person waits without a doubt, and a look at ten
// processes takes about 0.2 ms.
const lookEvery = 250 * time.Millisecond

// lookShare bounds what the looks at one lease cost: a look that takes long, at
// thousands of processes, is followed by a pause nine times as long. A wait for systemd
// costs nothing, and nobody is left unseen for it.
const lookShare = 9

// lookWhileHeld asks the guards again about a lease that is held, and ends it if one
// refuses: nobody else than who was meant shall stand still for the rest of it.
func (e *Engine) lookWhileHeld(l *lease) {
	d := e.copyOf(l).Decision
	began := e.now()
	f := e.lookAtHeld(l, nil)
	by, why := judge(whileHeld, &d, f)
	cost := e.now().Sub(began) - f.waited
	yield := ""
	if by == "" {
		if yield = e.assert(l); yield == "" {
			e.ease(l)
		}
	}
	now := e.now()
	e.mu.Lock()
	l.looking = false
	l.lookAt = now.Add(max(lookEvery, lookShare*cost))
	if l.EasesAt != nil && l.EasesAt.After(now) && l.EasesAt.Before(l.lookAt) {
		l.lookAt = *l.EasesAt
	}
	switch {
	case l.claimed:
	case by != "":
		l.addNote(by + ": " + why)
		e.endLocked(l, model.EndRefused)
	case yield != "":
		l.addNote(yield)
		e.endLocked(l, model.EndYielded)
	}
	e.mu.Unlock()
	e.ring()
}

// heardLocked is when breakerd was last heard of: its decision counts.
func (e *Engine) heardLocked(l *lease) time.Time {
	if e.lastBeat.After(l.CreatedAt) {
		return e.lastBeat
	}
	return l.CreatedAt
}

func (e *Engine) fileAgain(all []model.Lease) {
	var left []model.Lease
	for _, l := range all {
		if err := e.file(l); err != nil {
			left = append(left, l)
		}
	}
	if len(left) == 0 {
		return
	}
	e.log.Warn("records of ended leases still not put away", keyCount, len(left))
	e.mu.Lock()
	e.unfiled = append(e.unfiled, left...)
	e.refile = e.now().Add(refileEvery)
	e.mu.Unlock()
	e.ring()
}
