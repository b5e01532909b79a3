package cgroupctl

import (
	"context"
	"errors"
	"sync"

	"github.com/breakerd/breakerd/model"
)

// Dry reads the real cgroups and writes nowhere. It remembers what it would have
// written, so that whoever uses it sees the answers that the kernel would give.
type Dry struct {
	real *Controller
	// sandboxed says that our mount is no other program's: see Sandboxed.
	sandboxed bool

	mu      sync.Mutex
	written map[dryFile]model.FileWrite
	inside  map[Ref]*dryInside
	lastID  model.CgroupID
}

// dryFile is a file that would have been written.
type dryFile struct {
	cgroup model.CgroupID
	file   string
}

// NewDry makes a writer that reads through c and writes nothing.
func NewDry(c *Controller) *Dry {
	return &Dry{real: c, written: map[dryFile]model.FileWrite{}, inside: map[Ref]*dryInside{}}
}

// Sandboxed says that the program runs in a mount namespace of its own, where cgroups are
// read-only (ProtectControlGroups=): that says nothing about what the enforcer can write.
func (d *Dry) Sandboxed() { d.sandboxed = true }

// Inspect reads the real state and lays over it what would have been written.
func (d *Dry) Inspect(r Ref) (State, error) {
	if s, ok, err := d.inspectInside(r); ok {
		return s, err
	}
	s, err := d.real.Inspect(r)
	if err != nil {
		return s, err
	}
	s.ReadOnly = s.ReadOnly && !d.sandboxed
	d.without(r, &s)
	if w, ok := d.get(r, freezeFile); ok {
		s.Freeze, s.Frozen = w.Wrote, true
	}
	return s, nil
}

// Apply remembers a write that the real one would have made, or gives its error.
func (d *Dry) Apply(r Ref, w model.FileWrite) error {
	if err := CheckWrite(w); err != nil {
		return err
	}
	now, err := d.Holds(r, w)
	if err != nil {
		return err
	}
	return d.remember(r, w, now)
}

// Ease remembers a step that the real one would have taken, or gives its error.
func (d *Dry) Ease(r Ref, w model.FileWrite) error {
	_, step, err := toStep(w)
	if err != nil {
		return err
	}
	now, err := d.Holds(r, w)
	if err != nil {
		return err
	}
	return d.remember(r, step, now)
}

func (d *Dry) remember(r Ref, w model.FileWrite, now string) error {
	if now != w.Was {
		return owned(r, w, now)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written[dryFile{r.ID, slot(w)}] = w
	return nil
}

// Throttle decides which writes the real one would make.
func (d *Dry) Throttle(ctx context.Context, r Ref, o Owner, a model.Action, rates []IORate) ([]model.FileWrite, string, error) {
	return d.real.Throttle(ctx, r, o, a, rates)
}

// IORates looks for a moment at what a cgroup reads and writes.
func (d *Dry) IORates(ctx context.Context, r Ref) ([]IORate, error) { return d.real.IORates(ctx, r) }

// Holds is what a file of a write would hold now.
func (d *Dry) Holds(r Ref, w model.FileWrite) (string, error) {
	now, err := d.real.Holds(r, w)
	if ours, ok := d.get(r, slot(w)); ok && err == nil {
		now = ours.Wrote
	}
	return now, err
}

// Confirm agrees at once where a write is remembered, and looks otherwise.
func (d *Dry) Confirm(ctx context.Context, r Ref, frozen bool) error {
	if _, ok, err := d.inspectInside(r); ok && frozen {
		return err
	}
	if _, ok := d.get(r, freezeFile); ok && frozen {
		_, err := d.real.Find(r.Path)
		return err
	}
	return d.real.Confirm(ctx, r, frozen)
}

// Restore forgets the writes, with the note that the real one would give.
func (d *Dry) Restore(_ context.Context, r Ref, writes ...model.FileWrite) (string, error) {
	var u undone
	for _, w := range writes {
		u.add(d.restore(r, w))
	}
	return u.said()
}

func (d *Dry) restore(r Ref, w model.FileWrite) (string, error) {
	if err := CheckWrite(w); err != nil {
		return "", err
	}
	_, ours := d.get(r, slot(w))
	d.mu.Lock()
	delete(d.written, dryFile{r.ID, slot(w)})
	d.mu.Unlock()
	now, err := d.real.Holds(r, w)
	switch {
	case errors.Is(err, ErrGone):
		return noteGone, nil
	case err != nil:
		return "", err
	case !ours && w.File == freezeFile, ours && now != w.Was:
		return noteOwned(w, now), nil
	}
	return "", nil
}

func (d *Dry) get(r Ref, file string) (model.FileWrite, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w, ok := d.written[dryFile{r.ID, file}]
	return w, ok
}
