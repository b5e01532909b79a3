// Package suite is the one set of tests that every writer of cgroups passes: the
// real one, the dry one where it applies, and the fake.
package suite

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// Writer is what a writer of cgroups can do.
type Writer interface {
	Inspect(cgroupctl.Ref) (cgroupctl.State, error)
	Apply(cgroupctl.Ref, model.FileWrite) error
	Confirm(ctx context.Context, r cgroupctl.Ref, frozen bool) error
	Restore(context.Context, cgroupctl.Ref, ...model.FileWrite) (note string, err error)
}

// World is a hierarchy that a writer works on, as seen by everybody else.
type World interface {
	Writer() Writer
	// Make makes a cgroup with a process in it. The name may have slashes.
	Make(t *testing.T, name string) (cgroupctl.Ref, int32)
	Remove(t *testing.T, r cgroupctl.Ref)
	// Set writes cgroup.freeze as somebody else would.
	Set(t *testing.T, r cgroupctl.Ref, value string)
	// Freeze is what cgroup.freeze really holds.
	Freeze(t *testing.T, r cgroupctl.Ref) string
	// ReadOnly is a writer of the same hierarchy, where r is mounted read-only.
	ReadOnly(t *testing.T, r cgroupctl.Ref) Writer
	// Touches reports whether writes really happen.
	Touches() bool
}

// Run runs the suite, each test in a new world.
func Run(t *testing.T, world func(t *testing.T) World) {
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			w := world(t)
			c.test(&env{T: t, World: w, w: w.Writer(), freeze: cgroupctl.FreezeWrite()})
		})
	}
}

type env struct {
	*testing.T
	World
	w      Writer
	freeze model.FileWrite
}

func (e *env) ok(err error) {
	e.Helper()
	if err != nil {
		e.Fatal(err)
	}
}

func (e *env) is(err, want error) {
	e.Helper()
	if !errors.Is(err, want) {
		e.Fatalf("got error %v, want %v", err, want)
	}
}

func (e *env) state(r cgroupctl.Ref) cgroupctl.State {
	e.Helper()
	s, err := e.w.Inspect(r)
	e.ok(err)
	return s
}

// hold freezes a cgroup and waits until it is confirmed.
func (e *env) hold(r cgroupctl.Ref) {
	e.Helper()
	e.ok(e.w.Apply(r, e.freeze))
	e.ok(e.w.Confirm(e.Context(), r, true))
}

// really checks what cgroup.freeze holds, where writes really happen.
func (e *env) really(r cgroupctl.Ref, want string) {
	e.Helper()
	if !e.Touches() {
		want = "0"
	}
	if got := e.Freeze(e.T, r); got != want {
		e.Errorf("cgroup.freeze of %s holds %q, want %q", r, got, want)
	}
}

var cases = []struct {
	name string
	test func(*env)
}{
	{"a new cgroup is thawed and lists its process", func(e *env) {
		r, pid := e.Make(e.T, "a")
		s := e.state(r)
		if s.Freeze != "0" || s.Frozen || !slices.Equal(s.PIDs, []int32{pid}) {
			e.Errorf("got %+v, want it thawed with process %d", s, pid)
		}
	}},
	{"a frozen cgroup says so and is as before once restored", func(e *env) {
		r, _ := e.Make(e.T, "a")
		before := e.state(r)
		e.hold(r)
		e.really(r, "1")
		if s := e.state(r); s.Freeze != "1" || !s.Frozen {
			e.Errorf("after the freeze: %+v", s)
		}
		note, err := e.w.Restore(e.Context(), r, e.freeze)
		e.ok(err)
		if note != "" {
			e.Errorf("note %q, want none", note)
		}
		e.really(r, "0")
		if s := e.state(r); s.Freeze != before.Freeze || s.Frozen != before.Frozen {
			e.Errorf("after the undo: %+v, before: %+v", s, before)
		}
	}},
	{"processes of the cgroups below are counted and frozen too", func(e *env) {
		r, top := e.Make(e.T, "a")
		below, deep := e.Make(e.T, "a/b/c")
		s := e.state(r)
		want := []int32{top, deep}
		slices.Sort(want)
		if !slices.Equal(s.PIDs, want) || !slices.Contains(s.Below, below.Path) {
			e.Errorf("got %+v, want processes %v and %s below", s, want, below)
		}
		e.hold(r)
		if e.Touches() && !e.state(below).Frozen {
			e.Error("the cgroup below is not frozen")
		}
		_, err := e.w.Restore(e.Context(), r, e.freeze)
		e.ok(err)
		if e.state(below).Frozen {
			e.Error("the cgroup below is still frozen")
		}
	}},
	{"a cgroup that was removed is gone for every operation", func(e *env) {
		r, _ := e.Make(e.T, "a")
		e.Remove(e.T, r)
		_, err := e.w.Inspect(r)
		e.is(err, cgroupctl.ErrGone)
		err = e.w.Apply(r, e.freeze)
		e.is(err, cgroupctl.ErrGone)
		if !cgroupctl.Untouched(err) {
			e.Error("a write to a cgroup that is gone counts as made")
		}
		e.is(e.w.Confirm(e.Context(), r, true), cgroupctl.ErrGone)
		note, err := e.w.Restore(e.Context(), r, e.freeze)
		e.ok(err)
		if note == "" {
			e.Error("nothing says that the cgroup had gone")
		}
	}},
	{"a cgroup that vanishes while it is held is restored with a note", func(e *env) {
		r, _ := e.Make(e.T, "a")
		e.hold(r)
		e.Remove(e.T, r)
		note, err := e.w.Restore(e.Context(), r, e.freeze)
		e.ok(err)
		if note == "" {
			e.Error("nothing says that the cgroup had gone")
		}
	}},
	{"a cgroup made again under the same path is another one and stays untouched", func(e *env) {
		r, _ := e.Make(e.T, "a")
		e.Remove(e.T, r)
		again, _ := e.Make(e.T, "a")
		if again.Path != r.Path || again.ID == r.ID {
			e.Fatalf("made %+v again as %+v", r, again)
		}
		e.is(e.w.Apply(r, e.freeze), cgroupctl.ErrGone)
		e.really(again, "0")
		e.Set(e.T, again, "1")
		note, err := e.w.Restore(e.Context(), r, e.freeze)
		e.ok(err)
		if note == "" || e.Freeze(e.T, again) != "1" {
			e.Errorf("the undo touched another cgroup (note %q)", note)
		}
		e.Set(e.T, again, "0")
	}},
	{"a cgroup that somebody else has frozen is refused and not taken over", func(e *env) {
		r, _ := e.Make(e.T, "a")
		e.Set(e.T, r, "1")
		err := e.w.Apply(r, e.freeze)
		e.is(err, cgroupctl.ErrOwned)
		if !cgroupctl.Untouched(err) {
			e.Error("a refused write counts as made")
		}
		e.Set(e.T, r, "0")
	}},
	{"a cgroup that somebody else thawed meanwhile is left alone with a note", func(e *env) {
		r, _ := e.Make(e.T, "a")
		e.hold(r)
		if e.Touches() {
			e.Set(e.T, r, "0")
		} else {
			_, err := e.w.Restore(e.Context(), r, e.freeze)
			e.ok(err)
		}
		note, err := e.w.Restore(e.Context(), r, e.freeze)
		e.ok(err)
		if note == "" {
			e.Error("nothing says that somebody else had written it")
		}
		e.really(r, "0")
	}},
	{"a cgroup below a frozen one says that it stands still", func(e *env) {
		up, _ := e.Make(e.T, "a")
		r, _ := e.Make(e.T, "a/b")
		e.Set(e.T, up, "1")
		e.ok(e.w.Confirm(e.Context(), r, true))
		if s := e.state(r); s.Freeze != "0" || !s.Frozen {
			e.Errorf("got %+v, want frozen by the one above", s)
		}
		e.Set(e.T, up, "0")
	}},
	{"a thaw below a cgroup that somebody else froze is done and says so", func(e *env) {
		if !e.Touches() {
			return
		}
		up, _ := e.Make(e.T, "a")
		r, _ := e.Make(e.T, "a/b")
		e.hold(r)
		e.Set(e.T, up, "1")
		note, err := e.w.Restore(e.Context(), r, e.freeze)
		e.ok(err)
		if note == "" {
			e.Error("nothing says that the one above is frozen")
		}
		e.really(r, "0")
		e.Set(e.T, up, "0")
	}},
	{"what is not confirmed within the bound is said to be so", func(e *env) {
		r, _ := e.Make(e.T, "a")
		ctx, cancel := context.WithTimeout(e.Context(), 20*time.Millisecond)
		defer cancel()
		e.is(e.w.Confirm(ctx, r, true), cgroupctl.ErrUnconfirmed)
	}},
	{"a wait that is cancelled ends at once with the cause", func(e *env) {
		r, _ := e.Make(e.T, "a")
		cause := errors.New("enough")
		ctx, cancel := context.WithCancelCause(e.Context())
		cancel(cause)
		e.is(e.w.Confirm(ctx, r, true), cause)
	}},
	{"a cgroup that is mounted read-only says so and cannot be written", func(e *env) {
		r, _ := e.Make(e.T, "a")
		if e.state(r).ReadOnly {
			e.Error("one that can be written is called read-only")
		}
		w := e.ReadOnly(e.T, r)
		s, err := w.Inspect(r)
		e.ok(err)
		if !s.ReadOnly {
			e.Error("nothing says that it is read-only")
		}
		if !e.Touches() {
			return
		}
		err = w.Apply(r, e.freeze)
		e.is(err, unix.EROFS)
		if !cgroupctl.Untouched(err) {
			e.Error("a write that was never made counts as made")
		}
		e.really(r, "0")
		// What is held stays so, and the undo says why, as long as it cannot be written.
		e.Set(e.T, r, "1")
		_, err = w.Restore(e.Context(), r, e.freeze)
		e.is(err, unix.EROFS)
		e.Set(e.T, r, "0")
	}},
	{"a write that breakerd never makes is refused", func(e *env) {
		r, _ := e.Make(e.T, "a")
		for _, w := range []model.FileWrite{
			{File: "cgroup.freeze", Was: "1", Wrote: "0"},
			{File: "cgroup.kill", Was: "0", Wrote: "1"},
			{File: "../cgroup.freeze", Was: "0", Wrote: "1"},
			{},
		} {
			if err := e.w.Apply(r, w); err == nil {
				e.Errorf("apply %+v was done", w)
			}
			if _, err := e.w.Restore(e.Context(), r, w); err == nil {
				e.Errorf("restore %+v was done", w)
			}
		}
		e.really(r, "0")
	}},
	{"a path that leaves the hierarchy is refused", func(e *env) {
		r, _ := e.Make(e.T, "a")
		for _, p := range []string{"", "a", "/..", "/../..", r.Path + "/../a", r.Path + "/", "//"} {
			if err := e.w.Apply(cgroupctl.Ref{Path: p, ID: r.ID}, e.freeze); err == nil {
				e.Errorf("apply to %q was done", p)
			}
		}
	}},
}
