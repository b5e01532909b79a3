package daemon

import (
	"context"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/recording"
)

const (
	// followEvery is how often it is asked whether a lease runs still.
	followEvery = 500 * time.Millisecond
	// followSlack is how much longer than its time a lease is asked about: an undo that fails
	// is tried again.
	followSlack = 30 * time.Second
)

// follow tells the judge when a lease has ended, and why. Where nobody answers it is taken
// for ended when its time is up.
func (p *pipeline) follow(ctx context.Context, id string, hold time.Duration) {
	ctx, cancel := context.WithTimeout(ctx, hold+followSlack)
	defer cancel()
	tick := time.NewTicker(followEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		l, err := p.enforcer.lease(ctx, id)
		if err != nil || l.State != model.LeaseEnded {
			continue
		}
		end := model.LeaseEnd{LeaseID: id, Reason: l.EndReason}
		if l.EndedAt != nil {
			end.At = *l.EndedAt
		}
		select {
		case p.ends <- end:
		case <-ctx.Done():
		}
		return
	}
}

// ended takes in the end of a lease.
func (p *pipeline) ended(ctx context.Context, end model.LeaseEnd) {
	p.record(recording.Record{Ended: &end})
	p.events(ctx, p.judge.Ended(end))
}

// undo ends a lease that does not help. That it has ended is told by follow.
func (p *pipeline) undo(ctx context.Context, id string) {
	ctx, cancel := context.WithTimeout(ctx, proposeBound)
	defer cancel()
	if err := p.enforcer.undo(ctx, id); err != nil && ctx.Err() == nil {
		p.log.Warn("a lease that does not help could not be ended, and goes on until its time is up", "lease", id, "error", err)
	}
}
