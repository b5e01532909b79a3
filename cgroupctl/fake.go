package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// Fake is a writer over cgroups in memory, for tests. It passes the same suite as
// the real one, and it can be told to fail.
type Fake struct {
	mu     sync.Mutex
	fault  func(op string, r Ref) error
	stuck  func(r Ref) bool
	groups map[string]*fakeGroup
	lastID model.CgroupID
	writes []string
}

type fakeGroup struct {
	id       model.CgroupID
	freeze   string
	pids     []int32
	omit     bool
	threaded bool
	readOnly bool
	gives    string
	limits   map[string]string // what its files hold; those that it does not have are missing
	memory   uint64            // bytes that it uses
	io       bool              // it has io.max
	rates    []IORate
	owner    Owner
	ownerErr error
}

// NewFake makes an empty hierarchy.
func NewFake() *Fake { return &Fake{groups: map[string]*fakeGroup{}, lastID: 1} }

// SetFault has fault asked before each operation ("inspect", "apply", "confirm",
// "restore"); an error that it returns is the operation's.
func (f *Fake) SetFault(fault func(op string, r Ref) error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.fault = fault
}

// SetStuck says which cgroups the kernel never confirms as frozen.
func (f *Fake) SetStuck(stuck func(r Ref) bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.stuck = stuck
}

// Make makes a cgroup, and those above it, with a new id.
func (f *Fake) Make(p string, pids ...int32) Ref {
	f.mu.Lock()
	defer f.mu.Unlock()
	for dir := path.Dir(p); dir != "/"; dir = path.Dir(dir) {
		if f.groups[dir] == nil {
			f.lastID++
			f.groups[dir] = &fakeGroup{id: f.lastID, freeze: "0"}
		}
	}
	f.lastID++
	f.groups[p] = &fakeGroup{id: f.lastID, freeze: "0", pids: pids}
	return Ref{Path: p, ID: f.lastID}
}

// Remove removes a cgroup and all below it.
func (f *Fake) Remove(p string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for q := range f.groups {
		if q == p || strings.HasPrefix(q, p+"/") {
			delete(f.groups, q)
		}
	}
}

// SetPIDs says which processes a cgroup holds.
func (f *Fake) SetPIDs(p string, pids ...int32) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].pids = pids
}

// SetFreeze writes cgroup.freeze as somebody else would.
func (f *Fake) SetFreeze(p, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].freeze = value
}

// SetThreaded makes a cgroup threaded.
func (f *Fake) SetThreaded(p string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].threaded = true
}

// SetReadOnly has a cgroup be mounted read-only, or not any more.
func (f *Fake) SetReadOnly(p string, yes bool) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].readOnly = yes
}

// SetOmit marks a cgroup to be left alone.
func (f *Fake) SetOmit(p string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].omit = true
}

// Freeze is what cgroup.freeze of a cgroup holds; "" if there is no such cgroup.
func (f *Fake) Freeze(p string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[p]; g != nil {
		return g.freeze
	}
	return ""
}

// Writes are the writes that were made, each as "path file=value".
func (f *Fake) Writes() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	return slices.Clone(f.writes)
}

func (f *Fake) begin(op string, r Ref) error {
	f.mu.Lock()
	fault := f.fault
	f.mu.Unlock()
	if fault == nil {
		return nil
	}
	return fault(op, r)
}

func (f *Fake) open(r Ref) (*fakeGroup, error) {
	if g := f.groups[r.Path]; g != nil && g.id == r.ID {
		return g, nil
	}
	return nil, fmt.Errorf("open cgroup %s: %w", r, ErrGone)
}

// Inspect reads the state of a cgroup.
func (f *Fake) Inspect(r Ref) (State, error) {
	if err := f.begin("inspect", r); err != nil {
		return State{}, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(r)
	if err != nil {
		return State{}, err
	}
	if g.threaded {
		return State{}, fmt.Errorf("read cgroup.procs of %s: %w", r, ErrThreaded)
	}
	s := State{Freeze: g.freeze, Frozen: f.frozen(r.Path), ReadOnly: g.readOnly}
	for q, sub := range f.groups {
		if q != r.Path && !strings.HasPrefix(q, r.Path+"/") {
			continue
		}
		s.PIDs = append(s.PIDs, sub.pids...)
		if q == r.Path {
			s.Own, s.Gives = slices.Clone(sub.pids), sub.gives
		} else {
			s.Below = append(s.Below, q)
		}
		if sub.omit {
			s.Omit = q
		}
	}
	slices.Sort(s.PIDs)
	slices.Sort(s.Own)
	slices.Sort(s.Below)
	return s, nil
}

func (f *Fake) frozen(p string) bool {
	for ; p != "/" && p != "."; p = path.Dir(p) {
		if g := f.groups[p]; g != nil && g.freeze == "1" {
			return true
		}
	}
	return false
}

// Apply writes a file that must still hold what it held.
func (f *Fake) Apply(r Ref, w model.FileWrite) error {
	if err := CheckWrite(w); err != nil {
		return err
	}
	if err := f.begin("apply", r); err != nil {
		return err
	}
	return f.apply(r, w)
}

func (f *Fake) apply(r Ref, w model.FileWrite) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(r)
	if err != nil {
		return err
	}
	if now := g.holds(w); now != w.Was {
		return owned(r, w, now)
	}
	if why := whyReclaimed(r, w, g.memory); why != "" {
		return &notWritten{errors.New(why)}
	}
	if g.readOnly {
		return &notWritten{fmt.Errorf("open %s of %s: %w", w.File, r, unix.EROFS)}
	}
	f.set(g, r, w, w.Wrote)
	return nil
}

func (g *fakeGroup) holds(w model.FileWrite) string {
	if w.File == freezeFile {
		return g.freeze
	}
	if now := g.limits[slot(w)]; now != "" || w.File != ioFile || !g.io {
		return now
	}
	device, key, _, _ := splitIO(w.Wrote)
	return ioText(device, key, "max")
}

func (f *Fake) set(g *fakeGroup, r Ref, w model.FileWrite, value string) {
	if w.File == freezeFile {
		g.freeze = value
	} else {
		f.limit(g, slot(w), value)
	}
	line := r.Path + " " + w.File + "=" + value
	if w.Unit != "" {
		line += " through " + w.Unit
	}
	f.writes = append(f.writes, line)
}

// Confirm answers at once, or waits for the context's end where it is stuck.
func (f *Fake) Confirm(ctx context.Context, r Ref, frozen bool) error {
	if err := f.begin("confirm", r); err != nil {
		return err
	}
	f.mu.Lock()
	_, err := f.open(r)
	is := f.frozen(r.Path)
	stuck := f.stuck
	f.mu.Unlock()
	if err != nil {
		return err
	}
	if is == frozen && !(frozen && stuck != nil && stuck(r)) {
		return nil
	}
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, DefaultConfirm)
		defer cancel()
	}
	<-ctx.Done()
	return unconfirmed(ctx, r, frozen)
}

// Restore puts back what was there before a write.
func (f *Fake) Restore(_ context.Context, r Ref, writes ...model.FileWrite) (string, error) {
	var u undone
	for _, w := range writes {
		u.add(f.restore(r, w))
	}
	return u.said()
}

func (f *Fake) restore(r Ref, w model.FileWrite) (string, error) {
	if err := CheckWrite(w); err != nil {
		return "", err
	}
	if err := f.begin("restore", r); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(r)
	if err != nil {
		return noteGone, nil
	}
	if now := g.holds(w); !ours(w, now) {
		if w.File != freezeFile && (now == w.Was || now == "") {
			return "", nil
		}
		return noteOwned(w, now), nil
	}
	if g.readOnly {
		return "", fmt.Errorf("open %s of %s: %w", w.File, r, unix.EROFS)
	}
	f.set(g, r, w, w.Was)
	if w.File != freezeFile {
		return "", nil
	}
	for dir := path.Dir(r.Path); dir != "/"; dir = path.Dir(dir) {
		if up := f.groups[dir]; up != nil && up.freeze == "1" {
			return noteAbove(dir), nil
		}
	}
	return "", nil
}
