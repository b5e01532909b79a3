package enforce

import (
	"fmt"
	"time"

	"golang.org/x/time/rate"

	"github.com/breakerd/breakerd/model"
)

// guardRate protects against a breakerd that has run wild, or was taken over.
func guardRate(d *model.Decision, f *facts) string {
	r := f.config.Rate
	switch {
	case f.tokensTarget < 1:
		return fmt.Sprintf("%s, or a cgroup above or below it, was acted on too often (%s)", d.Target.Cgroup, r.PerTarget)
	case f.tokensOverall < 1:
		return fmt.Sprintf("too many actions on this machine (%s)", r.Overall)
	}
	return ""
}

// limits counts actions in token buckets, one for the machine and one a target. A
// target is a path: a service that is restarted does not get a new one.
type limits struct {
	config  RateConfig
	overall *rate.Limiter
	targets map[string]*rate.Limiter
}

// maxTargets bounds the buckets: those that are full again are forgotten first, and
// the overall rate cannot keep nearly so many from being full.
const maxTargets = 1024

func newLimits(c RateConfig) limits {
	return limits{config: c, overall: c.Overall.limiter(), targets: map[string]*rate.Limiter{}}
}

func (b Bucket) limiter() *rate.Limiter { return rate.NewLimiter(rate.Every(b.Every.D()), b.Burst) }

// tokens says how many actions are left, for a target and for the machine. Who was acted on by
// a cgroup above or below was acted on, too.
func (l *limits) tokens(target string, now time.Time) (forTarget, overall float64) {
	forTarget = float64(l.config.PerTarget.Burst)
	for p, b := range l.targets {
		if nested(p, target) {
			forTarget = min(forTarget, b.TokensAt(now))
		}
	}
	return forTarget, l.overall.TokensAt(now)
}

// take counts an action.
func (l *limits) take(target string, now time.Time) {
	if l.targets[target] == nil {
		if len(l.targets) >= maxTargets {
			l.forget(now)
		}
		l.targets[target] = l.config.PerTarget.limiter()
	}
	l.targets[target].AllowN(now, 1)
	l.overall.AllowN(now, 1)
}

func (l *limits) forget(now time.Time) {
	for target, b := range l.targets {
		if b.TokensAt(now) >= float64(l.config.PerTarget.Burst) {
			delete(l.targets, target)
		}
	}
}
