package main

import (
	"fmt"
	"runtime"
	"sync"
	"time"

	"github.com/breakerd/breakerd/internal/cputime"
)

// spin keeps CPUs busy: with -n more than one in so many processes, with -threads in so
// many threads of each, with -on and -off for a part of the time.
func (w *worker) spin() error {
	if w.n > 1 {
		args := []string{"-threads", fmt.Sprint(w.threads), "-on", w.on.String(), "-off", w.off.String(), "-life", w.life.String()}
		for range w.n {
			if err := command("spin", args...).Start(); err != nil {
				return err
			}
		}
		time.Sleep(w.life)
		return nil
	}
	return w.everywhere(func() {
		for end := time.Now().Add(w.life); time.Now().Before(end); {
			if w.off == 0 {
				burn(100 * time.Millisecond)
				continue
			}
			for until := time.Now().Add(w.on); time.Now().Before(until); {
				turn()
			}
			time.Sleep(w.off)
		}
	})
}

// serve works off requests: each needs -work of a CPU, and one comes -every so often. A
// request that was held up is answered late; an old queue does not go on for ever.
func (w *worker) serve() error {
	return w.everywhere(func() {
		due := time.Now()
		for end := due.Add(w.life); time.Now().Before(end); {
			time.Sleep(time.Until(due))
			burn(w.work)
			if due = due.Add(w.every); time.Since(due) > 4*w.every {
				due = time.Now()
			}
		}
	})
}

// once uses a CPU for so long, and ends.
func (w *worker) once() error {
	burn(w.work)
	return nil
}

// pool starts so many threads at once, each of which works for a moment.
func (w *worker) pool() error {
	return w.everywhere(func() {
		burn(w.work)
		time.Sleep(w.life)
	})
}

// everywhere does it in so many threads.
func (w *worker) everywhere(do func()) error {
	var all sync.WaitGroup
	for range w.threads - 1 {
		all.Go(func() {
			lockThread()
			do()
		})
	}
	do()
	all.Wait()
	return nil
}

// burn uses a CPU for so long, by the time of the thread and not of the clock.
func burn(d time.Duration) {
	for begin := cputime.Thread(); cputime.Thread()-begin < d; {
		turn()
	}
}

// turn is some 20 µs of work, so that asking for the time is not all that is done.
func turn() {
	x := uint64(1)
	for range 1 << 14 {
		x = x*6364136223846793005 + 1442695040888963407
	}
	runtime.KeepAlive(x)
}
