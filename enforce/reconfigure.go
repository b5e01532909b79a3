package enforce

import (
	"strings"
	"time"

	"golang.org/x/time/rate"

	"github.com/breakerd/breakerd/config"
)

// Reconfigure puts another configuration in force, for everything from now on: leases keep
// their ends, and what a guard now protects is let go of when it is looked at next.
// It names the keys that have another value now, and those that need a restart: who may
// talk to the enforcer is settled when its socket is opened.
func (e *Engine) Reconfigure(c Config) (changed, pending []string, err error) {
	if err := c.check(); err != nil {
		return nil, nil, err
	}
	was := *e.config.Load()
	for _, change := range config.Changes(was, c) {
		if strings.HasPrefix(change.Key, "allow.") {
			pending = append(pending, change.Key)
		} else {
			changed = append(changed, change.Key)
		}
	}
	c.Allow = was.Allow
	e.mu.Lock()
	e.config.Store(&c)
	e.limits.change(c.Rate, e.now())
	e.mu.Unlock()
	e.ring() // an earlier end may be due
	return changed, pending, nil
}

// change gives the buckets other bounds. What was used up stays so: a reload is no way
// around the rate.
func (l *limits) change(c RateConfig, now time.Time) {
	l.config = c
	set := func(b *rate.Limiter, to Bucket) {
		b.SetLimitAt(now, rate.Every(to.Every.D()))
		b.SetBurstAt(now, to.Burst)
	}
	set(l.overall, c.Overall)
	for _, b := range l.targets {
		set(b, c.PerTarget)
	}
}
