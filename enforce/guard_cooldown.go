package enforce

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/model"
)

// guardCooldown leaves who was let go in peace for a while: the same processes may be held by
// a cgroup above theirs as well, and by one below. A fresh start is one for
// everybody: what was done right before it is not known as a rule. The next action of a
// ladder takes the place of the one before at once.
func guardCooldown(d *model.Decision, f *facts) string {
	cool := f.config.Cooldown.D()
	switch {
	case f.now.Sub(f.started) < cool:
		return fmt.Sprintf("the enforcer has just started, and nothing is done in its first %s (cooldown)", cool)
	case f.before != nil:
		return ""
	case !f.letGo.IsZero() && f.now.Sub(f.letGo) < cool:
		return fmt.Sprintf("%s was let go %s ago, and is left in peace for %s (cooldown)", f.letGoOf, f.now.Sub(f.letGo).Round(time.Millisecond), cool)
	}
	return ""
}

// ends remembers when each target was last let go.
type ends map[string]time.Time

// last is when a target was let go the last time, or what is above or below it.
func (t ends) last(target string) (of string, at time.Time) {
	for p, then := range t {
		if nested(p, target) && (then.After(at) || then.Equal(at) && p < of) {
			of, at = p, then
		}
	}
	return of, at
}

// end notes that a target is let go.
func (t ends) end(target string, now time.Time, cool time.Duration) {
	if len(t) >= maxTargets {
		for old, at := range t {
			if now.Sub(at) >= cool {
				delete(t, old)
			}
		}
	}
	t[target] = now
}
