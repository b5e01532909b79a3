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

// liftBound is how long a freeze waits for the throttle before it to be lifted. The files are
// written at once; what takes longer is systemd, where it reads its units again.
const liftBound = 3 * time.Second

// lift ends the throttles that make way, and waits until they have ended. All guards have
// agreed to the freeze by then. If they cannot be lifted, nothing is frozen.
func (e *Engine) lift(ctx context.Context, f *facts) error {
	e.mu.Lock()
	for _, l := range f.lifted {
		e.endLocked(l, model.EndReplaced)
	}
	e.mu.Unlock()
	ctx, cancel := context.WithTimeout(ctx, liftBound)
	defer cancel()
	for _, l := range f.lifted {
		select {
		case <-l.done:
		case <-ctx.Done():
			return fmt.Errorf("nothing was frozen: the throttle %s, which has to be lifted before, is not lifted yet: %w", l.ID, context.Cause(ctx))
		}
	}
	return nil
}
