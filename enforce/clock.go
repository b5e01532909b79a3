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
			if e.config.HeartbeatTimeout > 0 {
				sooner(e.heardLocked(l).Add(e.config.HeartbeatTimeout.D()))
			}
		}
	}
	if len(e.unfiled) > 0 {
		sooner(e.refile)
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
		case e.config.HeartbeatTimeout > 0 && now.Sub(e.heardLocked(l)) >= e.config.HeartbeatTimeout.D():
			reason = model.EndHeartbeat
		default:
			continue
		}
		if l.flying {
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
