package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
)

// SetOwner says who looks after a cgroup, or why that cannot be told.
func (f *Fake) SetOwner(p string, o Owner, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].owner, f.groups[p].ownerErr = o, err
}

// SetGives has a cgroup give controllers to those below it.
func (f *Fake) SetGives(p, controllers string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].gives = controllers
}

// PIDs are the processes that a cgroup holds itself.
func (f *Fake) PIDs(p string) []int32 {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[p]; g != nil {
		return slices.Clone(g.pids)
	}
	return nil
}

// Owner is who SetOwner said; nobody in particular where nothing was said.
func (f *Fake) Owner(_ context.Context, r Ref) (Owner, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	g := f.groups[r.Path]
	if g == nil {
		return Owner{}, nil
	}
	return g.owner, g.ownerErr
}

// Isolate makes a frozen cgroup below one. Its faults are those of "isolate".
func (f *Fake) Isolate(from Ref, name string) (Ref, error) {
	if err := CheckInside(name); err != nil {
		return Ref{}, &notWritten{err}
	}
	if err := f.begin("isolate", from); err != nil {
		return Ref{}, &notWritten{err}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	if _, err := f.open(from); err != nil {
		return Ref{}, err
	}
	p := path.Join(from.Path, name)
	if f.groups[p] != nil {
		return Ref{}, &notWritten{fmt.Errorf("make cgroup %s: it is there already", p)}
	}
	f.lastID++
	f.groups[p] = &fakeGroup{id: f.lastID, freeze: "1"}
	f.writes = append(f.writes, p+" made")
	return Ref{Path: p, ID: f.lastID}, nil
}

// Attach moves a process. Its faults are those of "attach".
func (f *Fake) Attach(to Ref, pid int32) error {
	if err := f.begin("attach", to); err != nil {
		return err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(to)
	if err != nil {
		return err
	}
	for _, other := range f.groups {
		if i := slices.Index(other.pids, pid); i >= 0 {
			other.pids = slices.Delete(slices.Clone(other.pids), i, i+1)
			g.pids = append(g.pids, pid)
			f.writes = append(f.writes, fmt.Sprintf("%s takes %d", to.Path, pid))
			return nil
		}
	}
	return fmt.Errorf("move process %d into %s: %w", pid, to, ErrEnded)
}

// Rejoin moves everybody back and removes the cgroup. Its faults are those of "restore".
func (f *Fake) Rejoin(_ context.Context, from Ref, name string) (string, error) {
	if err := CheckInside(name); err != nil {
		return "", err
	}
	if err := f.begin("restore", from); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(from)
	if errors.Is(err, ErrGone) {
		return noteGone, nil
	}
	p := path.Join(from.Path, name)
	for q, sub := range f.groups {
		if q == p || strings.HasPrefix(q, p+"/") {
			g.pids = append(g.pids, sub.pids...)
			delete(f.groups, q)
			f.writes = append(f.writes, q+" removed")
		}
	}
	return "", nil
}
