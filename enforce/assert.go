package enforce

import (
	"errors"
	"fmt"
	"slices"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// maxAsserts is how often a write is made again that somebody else has undone: a container
// runtime that brings its cgroups in order once is outlasted, and whoever means it is not.
const maxAsserts = 3

// assert makes the writes of a lease again whose files hold something else by now. What they
// hold is put back in the end, and is on disk before it is written over. It says why the
// lease should end, where somebody keeps writing, or wants it tighter than we do.
func (e *Engine) assert(l *lease) (yield string) {
	held := e.copyOf(l)
	for i, w := range held.Writes {
		now, err := e.cgroups.Holds(l.ref(), w)
		if err != nil || now == w.Wrote {
			continue // what is gone, or cannot be read, is for the guards to judge
		}
		if now == w.Step && (held.EasedAt != nil || w.Unit != "" && w.Step != "") {
			continue // systemd may take a step after it was given up, also where none was taken in time
		}
		again := w
		again.Was = now
		if cgroupctl.CheckWrite(again) != nil {
			again.Step = "" // that would be looser than theirs
		}
		l.asserted++ // one look at a lease at a time
		switch {
		case l.asserted > maxAsserts:
			return fmt.Sprintf("somebody else keeps writing %s, which holds %q again: it is theirs", w.File, now)
		case w.Unit != "":
			// systemd does so when somebody asks it to, and not otherwise.
			return fmt.Sprintf("somebody else has had systemd write %s, which holds %q: it is theirs", w.File, now)
		case cgroupctl.CheckWrite(again) != nil:
			return fmt.Sprintf("somebody else has written %s, which holds %q: it is theirs", w.File, now)
		}
		if again != w {
			if err := e.rewrite(l, i, again); err != nil {
				return fmt.Sprintf("somebody else has written %s, which holds %q, and that could not be written down: %v", w.File, now, err)
			}
		}
		e.at("before assert")
		err = e.whileHeld(l, func() error { return e.cgroups.Apply(l.ref(), again) })
		e.log.Warn("somebody else had written what is held", keyLease, l.ID, keyCgroup, l.ref().Path, keyFile, w.File, keyFound, now, keyError, err)
	}
	return ""
}

// whileHeld makes a write of a lease that is held, unless it ends. What ends it meanwhile is
// told to wait, and undone right afterwards: a write after the undo would never be undone.
func (e *Engine) whileHeld(l *lease, write func() error) error {
	e.mu.Lock()
	if l.claimed {
		e.mu.Unlock()
		return errEnds
	}
	l.writing = true
	e.mu.Unlock()
	err := write()
	e.mu.Lock()
	defer e.mu.Unlock()
	l.writing = false
	if l.claimed {
		e.undoing.Go(func() { e.undo(l) })
	}
	return err
}

var errEnds = errors.New("the lease ends already")

// rewrite has the record of a lease say what is put back in the end.
func (e *Engine) rewrite(l *lease, i int, w model.FileWrite) error {
	l.telling.Lock()
	defer l.telling.Unlock()
	e.mu.Lock()
	if l.claimed {
		e.mu.Unlock()
		return errEnds
	}
	// Copies of the lease share the old ones.
	l.Writes = slices.Clone(l.Writes)
	l.Writes[i] = w
	e.mu.Unlock()
	return e.records.write(e.copyOf(l), durable)
}
