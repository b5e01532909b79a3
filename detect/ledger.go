package detect

import (
	"cmp"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// ledger keeps how much memory cgroups have had, for longer than the window reaches.
type ledger struct {
	accounts map[model.CgroupID]*memoryAccount
	avail    series // of the host
	swept    int64  // boot time
	// Those that may make room for others, who grew least first, as of that boot time.
	idle   []model.CgroupID
	idleAt int64
}

// memoryAccount is what was read of one cgroup.
type memoryAccount struct {
	since int64  // boot time
	anon  series // anonymous and shared memory, of memory.stat
	own   series // the sum of its processes: the same, and what they share counts for each
	limit uint64 // the tightest memory.max above it, 0 where there is none
	path  string // kept as long as the account: names are forgotten sooner

	judged int64 // boot time of the reading that leak is about
	leak   leak
	leaks  bool // there is a trend
}

const (
	// A cgroup with less has not grown by anything worth to be told.
	smallestAccount = 8 << 20 // bytes
	// At 1 KB a series and two of them this is 8 MB, if every one of so many cgroups is
	// both read and resident.
	mostAccounts = 4096
	// What was not seen for so long is forgotten: longer than a calm machine's process
	// table and each cgroup's files are read in turn.
	accountKept = 3 * time.Minute
	// Who has not grown within so long makes room for others, where there is none: a leak
	// must not stay unseen because thousands had memory before.
	accountTried = 30 * time.Second
)

func newLedger() ledger { return ledger{accounts: make(map[model.CgroupID]*memoryAccount)} }

// enter takes in what a sample says of memory, after the process table has.
func (l *ledger) enter(s *model.Sample, t *table) {
	l.avail.add(s.BootNS, s.Host.MemAvailBytes)
	for i := range s.Cgroups {
		c := &s.Cgroups[i]
		if a := l.accounts[c.ID]; a != nil && c.Path != "" {
			a.path = c.Path
		}
		if c.Detail == nil || c.Detail.Repeated || c.Detail.AnonBytes == 0 {
			continue // nothing new, no memory controller, or nothing in it
		}
		bytes := c.Detail.AnonBytes + c.Detail.ShmemBytes
		if a := l.account(c.ID, bytes, s.BootNS); a != nil {
			a.anon.add(s.BootNS, bytes)
			a.limit, a.path = c.Detail.MemoryMaxBytes, c.Path
		}
	}
	if len(s.Procs.Usage) > 0 { // the process table was read
		for _, id := range sortedIDs(t.own) { // who finds room depends on the order
			if a := l.account(id, t.own[id], s.BootNS); a != nil {
				a.own.add(s.BootNS, t.own[id])
			}
		}
	}
	l.sweep(s.BootNS)
}

func (l *ledger) account(id model.CgroupID, bytes uint64, now int64) *memoryAccount {
	a := l.accounts[id]
	if a == nil {
		if bytes < smallestAccount || len(l.accounts) >= mostAccounts && !l.makeRoom(now) {
			return nil
		}
		a = &memoryAccount{since: now}
		l.accounts[id] = a
	}
	return a
}

// makeRoom closes the account that grew least, and reports whether there is one to close.
func (l *ledger) makeRoom(now int64) bool {
	if l.idleAt != now {
		grown := make(map[model.CgroupID]float64)
		for id, a := range l.accounts {
			if g := max(a.anon.grown(), a.own.grown()); g < smallestAccount && now-a.since >= int64(accountTried) {
				grown[id] = g
			}
		}
		l.idle, l.idleAt = sortedIDs(grown), now
		slices.SortStableFunc(l.idle, func(x, y model.CgroupID) int { return cmp.Compare(grown[x], grown[y]) })
	}
	if len(l.idle) == 0 {
		return false
	}
	delete(l.accounts, l.idle[0])
	l.idle = l.idle[1:]
	return true
}

func (l *ledger) sweep(now int64) {
	if since := now - l.swept; since >= 0 && since < int64(10*time.Second) {
		return
	}
	l.swept = now
	for id, a := range l.accounts {
		if now-max(a.anon.seen, a.own.seen) > int64(accountKept) {
			delete(l.accounts, id)
		}
	}
}

// resident tells by how many bytes the processes of a cgroup have grown within the last d.
func (l *ledger) resident(d time.Duration) func(model.CgroupID) uint64 {
	return func(id model.CgroupID) uint64 {
		if a := l.accounts[id]; a != nil {
			return a.own.growth(d)
		}
		return 0
	}
}

// candidates are the cgroups that have grown by so many bytes within what is kept, those
// that have most first.
func (l *ledger) candidates(bytes float64) []model.CgroupID {
	grown := make(map[model.CgroupID]float64)
	for id, a := range l.accounts {
		if g := max(a.anon.grown(), a.own.grown()); g >= bytes {
			grown[id] = g
		}
	}
	return rankedBy(grown)
}

// grown is how much more there is than at the beginning of what is kept.
func (s *series) grown() float64 {
	n := len(s.fine)
	if n == 0 {
		return 0
	}
	least := min(s.fine[0].pages, s.fine[n/2].pages, s.coarse[0].pages)
	return (float64(s.fine[n-1].pages) - float64(least)) * pageBytes
}

// fallen is by how much the host's available memory has fallen over the last d, in bytes.
func (l *ledger) fallen(d time.Duration) float64 {
	for _, points := range [][]point{l.avail.fine, l.avail.coarse} {
		n := len(points)
		if n < 2 {
			continue
		}
		last := points[n-1]
		want := uint32(min(int64(d/(100*time.Millisecond)), int64(last.at)))
		if last.at-points[0].at+fineStep < want {
			continue // it does not reach back so far
		}
		i := n - 1
		for i > 0 && last.at-points[i].at < want {
			i--
		}
		return (float64(points[i].pages) - float64(last.pages)) * pageBytes
	}
	return 0
}
