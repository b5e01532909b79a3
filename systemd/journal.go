package systemd

import (
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
	"golang.org/x/time/rate"
)

// journalSocket is where journald listens.
const journalSocket = "/run/systemd/journal/socket"

// ErrEntryLost says that an entry found no place: neither journald nor whoever
// reads our standard error keeps up.
var ErrEntryLost = errors.New("journal entry lost: nobody reads fast enough")

// Journal writes entries to journald, or as JSON lines where there is none. It
// never waits: a stalled journald must not stall the circuit breaker. (That is
// why it does not use journal.Send of go-systemd, which waits without end once
// the queue of the socket is full.)
type Journal struct {
	socket     string
	identifier string
	fd         int // -1: JSON lines from the start

	queue chan []byte // JSON lines on their way to the fallback
	done  chan struct{}
	lost  atomic.Uint64

	mu     sync.RWMutex // held for writing only to close
	closed bool

	rates   sync.Mutex
	buckets map[MessageID]*bucket
}

// Of each kind of entry so many may come at once, and then one more each entryEvery: the
// busiest hour of a machine on which everything flaps has 1,300 of a kind. journald's own
// bound is 10,000 in 30 s for a whole service, and then it leaves out whatever comes.
const (
	entryBurst = 100
	entryEvery = 3 * time.Second
)

// bucket bounds one kind of entry.
type bucket struct {
	limit   *rate.Limiter
	leftOut uint64 // since the last one that was let through
}

// admit says whether there is room for an entry of this kind now, and if so how many were
// left out before it.
func (j *Journal) admit(id MessageID, now time.Time) (ok bool, leftOut uint64) {
	j.rates.Lock()
	defer j.rates.Unlock()
	b := j.buckets[id]
	if b == nil {
		b = &bucket{limit: rate.NewLimiter(rate.Every(entryEvery), entryBurst)}
		j.buckets[id] = b // one a MessageID, of which there are a few
	}
	if !b.limit.AllowN(now, 1) {
		b.leftOut++
		return false, 0
	}
	leftOut, b.leftOut = b.leftOut, 0
	return true, leftOut
}

// unsaid is what was left out and not told yet.
func (j *Journal) unsaid() map[MessageID]uint64 {
	j.rates.Lock()
	defer j.rates.Unlock()
	all := make(map[MessageID]uint64)
	for id, b := range j.buckets {
		if b.leftOut > 0 {
			all[id], b.leftOut = b.leftOut, 0
		}
	}
	return all
}

// OpenJournal decides where entries go: to journald if it is there now, else to
// fallback. An entry that journald does not take goes to fallback, too. The
// identifier is what journalctl -t takes.
func OpenJournal(identifier string, fallback io.Writer) *Journal {
	return openJournal(journalSocket, identifier, fallback)
}

// queued is how many JSON lines may wait, enough for a burst of every kind of
// entry at once.
const queued = 256

func openJournal(socket, identifier string, fallback io.Writer) *Journal {
	j := &Journal{
		socket:     socket,
		identifier: identifier,
		fd:         -1,
		buckets:    make(map[MessageID]*bucket),
		queue:      make(chan []byte, queued),
		done:       make(chan struct{}),
	}
	if info, err := os.Stat(socket); err == nil && info.Mode().Type() == os.ModeSocket {
		if fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0); err == nil {
			j.fd = fd
		}
	}
	go func() {
		defer close(j.done)
		for line := range j.queue {
			if _, err := fallback.Write(line); err != nil {
				j.lost.Add(1)
			}
		}
	}()
	return j
}

// Native reports whether entries go to journald.
func (j *Journal) Native() bool { return j.fd >= 0 }

// Lost is how many entries found no place so far.
func (j *Journal) Lost() uint64 { return j.lost.Load() }

// Write writes an entry, and returns at once. Of too many of one kind the last are left
// out, and how many is said with the next one that is not.
func (j *Journal) Write(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return fmt.Errorf("write journal entry: %w", os.ErrClosed)
	}
	ok, before := j.admit(e.MessageID, time.Now())
	if !ok {
		return nil
	}
	if before > 0 {
		_ = j.send(leftOut(e.MessageID, before)) // the entry itself says whether one is lost
	}
	return j.send(e)
}

func (j *Journal) send(e Entry) error {
	// Not connected, so that a journald that was restarted is found again.
	if j.fd >= 0 && unix.Sendto(j.fd, e.native(j.identifier), unix.MSG_NOSIGNAL, &unix.SockaddrUnix{Name: j.socket}) == nil {
		return nil
	}
	select {
	case j.queue <- e.jsonLine(time.Now()):
		return nil
	default:
		j.lost.Add(1)
		return ErrEntryLost
	}
}

// Close lets the last lines out, if somebody takes them within a second.
func (j *Journal) Close() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.closed {
		return nil
	}
	j.closed = true
	for id, n := range j.unsaid() {
		_ = j.send(leftOut(id, n))
	}
	close(j.queue)
	if j.fd >= 0 {
		_ = unix.Close(j.fd)
	}
	select {
	case <-j.done:
		return nil
	case <-time.After(time.Second):
		return fmt.Errorf("close journal: %w", ErrEntryLost)
	}
}
