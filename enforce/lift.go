package enforce

import (
	"context"
	"fmt"
	"time"

	"github.com/breakerd/breakerd/model"
)

// makesWay reports whether a throttle is lifted for a freeze: one of the same cgroup, or of one
// below it. A task that is held by a tight cpu.max gets to the point at which it would stand
// still only once it runs again (seen as scx#3554), so that the freeze would stay half done.
// One above is of others, too, and stays: the freeze is refused then.
func makesWay(l *lease, d *model.Decision) bool {
	return d.Action.Kind == model.Freeze && l.Decision.Action.Kind == model.Throttle &&
		l.State == model.LeaseHeld && !l.claimed && within(l.Decision.Target.Cgroup, d.Target.Cgroup)
}

// liftBound is how long a decision waits for what makes way for it. The files are written at
// once; what takes longer is systemd, where it reads its units again.
const liftBound = 3 * time.Second

// lift ends the leases whose place a decision takes, and waits until everything is as it was: a
// limit is lifted before a freeze, which it could keep a task from reaching. All guards have
// agreed by then. What cannot be lifted is followed by nothing.
func (e *Engine) lift(ctx context.Context, leases []*lease) error {
	e.mu.Lock()
	for _, l := range leases {
		e.endLocked(l, model.EndReplaced)
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, liftBound)
	defer cancel()
	if err := e.awaitAll(ctx, leases); err != nil {
		return fmt.Errorf("nothing was begun, because something has to be lifted before: %w", err)
	}
	return nil
}
