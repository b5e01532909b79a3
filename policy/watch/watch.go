// Package watch tells when files below some paths have changed and are whole again: nothing
// was changed for a while, and nobody has one of them open that he wrote to.
//
// It uses inotify(7) itself, because libraries for many systems do not tell of
// IN_CLOSE_WRITE, and without it a file that is written slowly looks whole in each pause.
// What changes on a network's file system elsewhere, or through a mapping of memory, is
// not seen.
package watch

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Watch watches paths, which may come, go and be exchanged.
type Watch struct {
	settle time.Duration
	paths  []string

	mu       sync.Mutex
	writing  []string
	restless bool
	err      error
}

// New watches folders with all that is below them, and files. What changed is told once it
// has been left alone for settle.
func New(settle time.Duration, paths ...string) *Watch {
	return &Watch{settle: settle, paths: slices.Clone(paths)}
}

// Writing are the files that are being written now, by name.
func (w *Watch) Writing() []string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return slices.Clone(w.writing)
}

// Restless reports whether something has changed and was not left alone for long enough yet. It
// is told once it was.
func (w *Watch) Restless() bool {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.restless
}

// Err says why changes are not noticed; nil if they are.
func (w *Watch) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.err
}

func (w *Watch) set(writing []string, restless bool, err error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.writing, w.restless, w.err = writing, restless, err
}

// Run calls changed each time that something has changed and is whole again, until the
// context ends. It is called once in the beginning, too, when everything is watched: what
// changed between the last time that the files were read and then would be missed
// otherwise.
func (w *Watch) Run(ctx context.Context, changed func()) {
	e, err := w.arm()
	for ctx.Err() == nil {
		w.set(nil, false, err)
		// Whoever reads now sees everything that happened before, and is told of what
		// happens after.
		changed()
		if err != nil {
			<-ctx.Done() // such as no room for another watch: reload by hand
			return
		}
		e, err = w.wait(ctx, e)
	}
	if e != nil {
		e.close()
	}
}

// wait returns when something has changed and is whole again, with what watches everything as it
// is then.
func (w *Watch) wait(ctx context.Context, e *ear) (*ear, error) {
	defer e.close()
	defer context.AfterFunc(ctx, e.wake)()
	open := map[string]bool{}
	var quiet time.Time // when it was left alone for long enough; zero where nothing has changed, or one is open still
	for {
		events, err := e.read(ctx, quiet)
		switch {
		case ctx.Err() != nil:
			return nil, nil
		case errors.Is(err, os.ErrDeadlineExceeded) && stillThere(open):
			quiet = time.Time{} // until it is closed, which is an event
		case errors.Is(err, os.ErrDeadlineExceeded):
			// The old one goes on until the new one is there: what begins between the two
			// would be read half.
			next, err := w.arm()
			if !w.hear(e, e.pending(), open) {
				return next, err
			}
			if next != nil {
				next.close()
			}
			quiet = time.Now().Add(w.settle)
		case err != nil:
			return w.arm()
		case w.hear(e, events, open):
			quiet = time.Now().Add(w.settle)
		}
	}
}

// hear takes in events, and reports whether one counts.
func (w *Watch) hear(e *ear, events []event, open map[string]bool) (counts bool) {
	folders := false
	for _, ev := range events {
		if e.counts(ev) {
			e.follow(ev, open)
			counts = true
			folders = folders || ev.appears()
		}
	}
	if folders {
		// What is in a new folder has to be left alone as well, and is not heard before it is
		// watched. If it cannot be, that is said once all is watched anew.
		_ = w.add(e)
	}
	if counts {
		w.set(sorted(open), true, nil)
	}
	return counts
}

// stillThere forgets the files that are gone with their folder, and reports whether any is left:
// that they are closed may never be heard.
func stillThere(open map[string]bool) bool {
	for name := range open {
		if _, err := os.Lstat(name); err != nil {
			delete(open, name)
		}
	}
	return len(open) > 0
}

func sorted(set map[string]bool) (all []string) {
	for name := range set {
		all = append(all, name)
	}
	slices.Sort(all)
	return all
}

// arm watches everything as it is now.
func (w *Watch) arm() (*ear, error) {
	e, err := newEar()
	if err != nil {
		return nil, err
	}
	if err := w.add(e); err != nil {
		e.close()
		return nil, fmt.Errorf("changes of the policies are not noticed: %w", err)
	}
	return e, nil
}

// add watches what is not watched yet.
func (w *Watch) add(e *ear) (err error) {
	for _, p := range w.paths {
		abs, aerr := filepath.Abs(p)
		err = cmp.Or(err, aerr, e.path(abs))
	}
	return err
}

// path watches a file or a folder, and the place where it is or would be.
func (e *ear) path(p string) error {
	// The nearest folder above that there is: in it what is missing appears, and what is
	// there is exchanged for another.
	for at := p; at != "/"; {
		dir := filepath.Dir(at)
		err := e.add(dir, filepath.Base(at))
		if err == nil {
			break
		}
		if !gone(err) {
			return err
		}
		at = dir
	}
	info, err := os.Stat(p)
	switch {
	case err != nil: // whoever loads it says what is wrong with it
		return nil
	case !info.IsDir():
		return e.target(p)
	}
	if err := e.target(p); err != nil {
		return err
	}
	root, err := filepath.EvalSymlinks(p)
	if err != nil {
		return nil
	}
	return filepath.WalkDir(root, func(name string, d os.DirEntry, err error) error {
		switch {
		case err != nil:
			return nil
		case d.Type()&os.ModeSymlink != 0:
			return e.target(name)
		case !d.IsDir():
			return nil
		case name != root && strings.HasPrefix(d.Name(), "."):
			return filepath.SkipDir
		}
		if err := e.add(name, ""); err != nil && !gone(err) {
			return err
		}
		return nil
	})
}

// target watches what a symbolic link leads to.
func (e *ear) target(link string) error {
	real, err := filepath.EvalSymlinks(link)
	if err != nil || real == link {
		return nil
	}
	if err := e.add(filepath.Dir(real), filepath.Base(real)); err != nil && !gone(err) {
		return err
	}
	return nil
}

// gone reports whether there is no such folder, or none for us: who loads says so.
func gone(err error) bool {
	return errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.EACCES)
}
