package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
)

// dryInside is a cgroup that was never made, with those who were never moved into it.
type dryInside struct {
	from Ref
	pids []int32
}

// Owner asks who looks after a cgroup.
func (d *Dry) Owner(ctx context.Context, r Ref) (Owner, error) { return d.real.Owner(ctx, r) }

// Isolate remembers a cgroup that the real one would have made.
func (d *Dry) Isolate(from Ref, name string) (Ref, error) {
	if err := CheckInside(name); err != nil {
		return Ref{}, &notWritten{err}
	}
	if _, err := d.real.Inspect(from); err != nil {
		return Ref{}, &notWritten{err}
	}
	child := Ref{Path: path.Join(from.Path, name)}
	if _, err := d.real.Find(child.Path); err == nil {
		return Ref{}, &notWritten{fmt.Errorf("make cgroup %s: it is there already", child)}
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	// The kernel counts up from 1 and never comes near these.
	d.lastID++
	child.ID = 1<<63 | d.lastID
	d.inside[child] = &dryInside{from: from}
	return child, nil
}

// Attach remembers who would have been moved.
func (d *Dry) Attach(to Ref, pid int32) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	in := d.inside[to]
	if in == nil {
		return fmt.Errorf("move process %d into %s: %w", pid, to, ErrGone)
	}
	in.pids = append(in.pids, pid)
	return nil
}

// Rejoin forgets a cgroup that was never made.
func (d *Dry) Rejoin(_ context.Context, from Ref, name string) (string, error) {
	if err := CheckInside(name); err != nil {
		return "", err
	}
	d.mu.Lock()
	for child, in := range d.inside {
		if in.from == from && path.Base(child.Path) == name {
			delete(d.inside, child)
		}
	}
	d.mu.Unlock()
	if _, err := d.real.Inspect(from); errors.Is(err, ErrGone) {
		return noteGone, nil
	}
	return "", nil
}

// inspectInside is the state of a cgroup that was never made; false for every other.
func (d *Dry) inspectInside(r Ref) (State, bool, error) {
	d.mu.Lock()
	in := d.inside[r]
	var pids []int32
	if in != nil {
		pids = slices.Clone(in.pids)
	}
	d.mu.Unlock()
	if in == nil {
		return State{}, false, nil
	}
	real, err := d.real.Inspect(in.from)
	if err != nil {
		return State{}, true, err
	}
	// Who has ended meanwhile is gone from there, too.
	pids = slices.DeleteFunc(pids, func(pid int32) bool { return !slices.Contains(real.Own, pid) })
	slices.Sort(pids)
	return State{Freeze: "1", Frozen: true, PIDs: pids, Own: pids}, true, nil
}

// without takes those who would have been moved out of the state of where they are.
func (d *Dry) without(r Ref, s *State) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, in := range d.inside {
		if in.from == r {
			s.Own = slices.DeleteFunc(s.Own, func(pid int32) bool { return slices.Contains(in.pids, pid) })
		}
	}
}
