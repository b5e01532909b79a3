package enforce

import (
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// How many requests a user may make, over all of its connections. breakerd makes a few each
// second; who is above it waits, and keeps nobody else waiting.
const (
	trustedPace, trustedBurst = 100, 200 // requests/s of those who may propose, and at once
	otherPace, otherBurst     = 20, 40   // of all others
)

// The looks at proposals take half of a CPU at most, with what systemd is asked meanwhile: the
// enforcer comes before everybody else on it. At 20,000 processes one takes some tenths of a second.
const (
	looksTime  = 500 * time.Millisecond // each second; a single look costs no more either
	looksBurst = time.Second            // of which there is so much at first
)

// newLooks counts the microseconds that looks take.
func newLooks() *rate.Limiter {
	return rate.NewLimiter(rate.Limit(looksTime.Microseconds()), int(looksBurst.Microseconds()))
}

// paces holds the pace of each user who is connected.
type paces struct {
	mu     sync.Mutex
	byUser map[uint32]*pace
}

type pace struct {
	*rate.Limiter
	connections int
}

// of gives the pace of a user, and how many connections it has, until the returned function is
// called.
func (p *paces) of(uid uint32, trusted bool) (_ *rate.Limiter, connections int, leave func()) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.byUser == nil {
		p.byUser = make(map[uint32]*pace)
	}
	u := p.byUser[uid]
	if u == nil {
		u = &pace{Limiter: rate.NewLimiter(otherPace, otherBurst)}
		if trusted {
			u.Limiter = rate.NewLimiter(trustedPace, trustedBurst)
		}
		p.byUser[uid] = u
	}
	u.connections++
	return u.Limiter, u.connections, func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		// Who comes again before it is full again must not find it full.
		if u.connections--; u.connections == 0 && (u.Tokens() >= float64(u.Burst()) || len(p.byUser) > maxPaces) {
			delete(p.byUser, uid)
		}
	}
}

// maxPaces bounds the users who are remembered though they are not connected.
const maxPaces = 256
