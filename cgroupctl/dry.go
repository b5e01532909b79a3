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

	mu      sync.Mutex
	written map[model.CgroupID]model.FileWrite
}

// NewDry makes a writer that reads through c and writes nothing.
func NewDry(c *Controller) *Dry {
	return &Dry{real: c, written: map[model.CgroupID]model.FileWrite{}}
}

// Inspect reads the real state and lays over it what would have been written.
func (d *Dry) Inspect(r Ref) (State, error) {
	s, err := d.real.Inspect(r)
	if err != nil {
		return s, err
	}
	if w, ok := d.get(r); ok {
		s.Freeze, s.Frozen = w.Wrote, true
	}
	return s, nil
}

// Apply remembers a write that the real one would have made, or gives its error.
func (d *Dry) Apply(r Ref, w model.FileWrite) error {
	if err := CheckWrite(w); err != nil {
		return err
	}
	s, err := d.Inspect(r)
	if err != nil {
		return err
	}
	if s.Freeze != w.Was {
		return owned(r, w, s.Freeze)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.written[r.ID] = w
	return nil
}

// Confirm agrees at once where a write is remembered, and looks otherwise.
func (d *Dry) Confirm(ctx context.Context, r Ref, frozen bool) error {
	if _, ok := d.get(r); ok && frozen {
		_, err := d.real.Find(r.Path)
		return err
	}
	return d.real.Confirm(ctx, r, frozen)
}

// Restore forgets the write, with the note that the real one would give.
func (d *Dry) Restore(_ context.Context, r Ref, w model.FileWrite) (string, error) {
	if err := CheckWrite(w); err != nil {
		return "", err
	}
	_, ours := d.get(r)
	d.mu.Lock()
	delete(d.written, r.ID)
	d.mu.Unlock()
	s, err := d.real.Inspect(r)
	switch {
	case errors.Is(err, ErrGone):
		return noteGone, nil
	case err != nil:
		return "", err
	case !ours:
		return noteOwned(w, s.Freeze), nil
	}
	return "", nil
}

func (d *Dry) get(r Ref) (model.FileWrite, bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	w, ok := d.written[r.ID]
	return w, ok
}
