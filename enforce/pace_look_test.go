package enforce

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// What can be nothing is refused without a look at the machine, with the words that it always had.
func TestWhatCanBeNothingIsRefusedWithoutALook(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	defer w.close()
	r := w.tree("/a", 100)
	looked := 0
	w.fake.SetFault(func(string, cgroupctl.Ref) error { looked++; return nil })
	for what, change := range map[string]func(*model.Decision){
		"an action nobody knows": func(d *model.Decision) { d.Action.Kind = "kill" },
		"a path":                 func(d *model.Decision) { d.Target.Cgroup = "/a/../a" },
		"an old decision":        func(d *model.Decision) { d.At = d.At.Add(-time.Hour) },
		"a dry run":              func(d *model.Decision) { d.DryRun = true },
	} {
		d := w.decide(r, 100, time.Minute)
		change(&d)
		if out := e.Propose(t.Context(), d); out.RefusedBy == "" || looked != 0 {
			t.Errorf("%s: looked %d times, %+v", what, looked, out)
		}
	}
	if _, err := e.Pause(time.Hour, "a test"); err != nil {
		t.Fatal(err)
	}
	if out := e.Propose(t.Context(), w.decide(r, 100, time.Minute)); out.RefusedBy != "mode" || looked != 0 {
		t.Errorf("paused: looked %d times, %+v", looked, out)
	}
}

// Whoever proposes without a pause has the enforcer look for half of the time at most, and what
// is held ends meanwhile.
func TestTheLooksAtProposalsAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		go e.Run(t.Context())
		held := w.decide(w.tree("/held", 200), 200, 5*time.Second)
		w.mustHold(held)
		r := w.tree("/a", 100)
		w.process(102, 101, newStart+2, "x", "/usr/sbin/sshd")
		const look = 400 * time.Millisecond
		w.fake.SetFault(func(op string, r cgroupctl.Ref) error {
			if op == "inspect" && r.Path == "/a" {
				time.Sleep(look)
			}
			return nil
		})
		began := time.Now()
		const n = 50
		for range n {
			if out := e.Propose(t.Context(), w.decide(r, 100, time.Minute)); out.RefusedBy != "protected" {
				t.Fatalf("got %+v", out)
			}
		}
		if took, least := time.Since(began), n*2*look-3*time.Second; took < least {
			t.Errorf("%d looks of %s in %s, want %s at least", n, look, took, least)
		}
		if l, err := e.Lease(held.ID); err != nil || l.EndedAt == nil || l.EndedAt.After(l.ExpiresAt.Add(time.Millisecond)) {
			t.Errorf("it ended late: %+v, %v", l, err)
		}
		w.fake.SetFault(nil)
		w.close()
	})
}
