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

// Write writes an entry, and returns at once.
func (j *Journal) Write(e Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	j.mu.RLock()
	defer j.mu.RUnlock()
	if j.closed {
		return fmt.Errorf("write journal entry: %w", os.ErrClosed)
	}
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
