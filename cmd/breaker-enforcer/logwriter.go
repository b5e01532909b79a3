package main

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// logWriter passes lines on to a writer that may block, and never blocks itself: a
// terminal that was stopped, or a pipe that nobody reads, must not keep anything frozen.
// What finds no room is dropped and counted.
type logWriter struct {
	to   io.Writer
	done chan struct{}

	mu     sync.Mutex
	lines  chan []byte
	lost   int
	closed bool
}

const (
	queuedLines = 256         // enough for every lease to be told a few times over
	flushBound  = time.Second // for whoever reads, at the end
)

func newLogWriter(to io.Writer) *logWriter {
	w := &logWriter{to: to, done: make(chan struct{}), lines: make(chan []byte, queuedLines)}
	go func() {
		defer close(w.done)
		for line := range w.lines {
			w.to.Write(line)
			w.mu.Lock()
			lost := w.lost
			w.lost = 0
			w.mu.Unlock()
			if lost > 0 {
				fmt.Fprintf(w.to, "{\"level\":\"WARN\",\"msg\":\"log lines lost: nobody reads fast enough\",\"count\":%d}\n", lost)
			}
		}
	}()
	return w
}

// Write takes a line, or drops it. It never fails, for nobody could do better.
func (w *logWriter) Write(line []byte) (int, error) {
	own := append([]byte(nil), line...) // the caller's is used again
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return len(line), nil
	}
	select {
	case w.lines <- own:
	default:
		w.lost++
	}
	return len(line), nil
}

// Close lets the last lines out, if somebody takes them in time.
func (w *logWriter) Close() {
	w.mu.Lock()
	if !w.closed {
		w.closed = true
		close(w.lines)
	}
	w.mu.Unlock()
	select {
	case <-w.done:
	case <-time.After(flushBound):
	}
}
