package enforce

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

func refusedBy(t *testing.T, out model.Outcome, guard string) {
	t.Helper()
	if out.RefusedBy != guard || guard != "" && !strings.Contains(out.Reason, guard) {
		t.Fatalf("got %+v, want a refusal by %q", out, guard)
	}
}

func TestNothingIsDoneBeforeTheGraceIsOver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open(func(o *Options) { o.Config.Grace = config.Duration(15 * time.Second) })
		r := w.tree("/a", 100)
		d := w.decide(r, 100, time.Second)
		refusedBy(t, e.Propose(t.Context(), d), "grace")
		opened := d.OpenedAt
		time.Sleep(15 * time.Second)
		d = w.decide(r, 100, time.Second)
		d.OpenedAt = opened
		refusedBy(t, e.Propose(t.Context(), d), "")
		w.close()
	})
}

func TestWhoWasLetGoIsLeftInPeaceForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		cool := func(o *Options) { o.Config.Cooldown = config.Duration(10 * time.Second) }
		e := w.open(cool)
		go e.Run(t.Context())
		a, b := w.tree("/a", 100), w.tree("/b", 200)
		refusedBy(t, e.Propose(t.Context(), w.decide(a, 100, time.Second)), "cooldown") // a fresh start
		time.Sleep(10 * time.Second)
		refusedBy(t, e.Propose(t.Context(), w.decide(a, 100, time.Second)), "")
		time.Sleep(3 * time.Second)
		synctest.Wait()
		refusedBy(t, e.Propose(t.Context(), w.decide(a, 100, time.Second)), "cooldown")
		refusedBy(t, e.Propose(t.Context(), w.decide(b, 200, time.Second)), "") // somebody else
		time.Sleep(8 * time.Second)
		refusedBy(t, e.Propose(t.Context(), w.decide(a, 100, time.Second)), "")
		w.crash()
		e = w.open(cool)
		if _, err := e.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		// A restart is no way around it.
		refusedBy(t, e.Propose(t.Context(), w.decide(a, 100, time.Second)), "cooldown")
		w.close()
	})
}

// Who was let go is held neither by the cgroup above nor by one below, and is not acted on more
// often by them.
func TestANestedPathIsNoWayAroundTheCooldownOrTheRate(t *testing.T) {
	for _, c := range []struct {
		cooldown time.Duration
		times    int
		guard    string
	}{{10 * time.Second, 1, "cooldown"}, {0, 3, "rate"}} {
		t.Run(c.guard, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.open(func(o *Options) { o.Config.Cooldown = config.Duration(c.cooldown) })
				time.Sleep(c.cooldown)
				above := w.tree("/a", 200)
				r, below := w.tree("/a/b", 100), w.tree("/a/b/c", 300)
				beside, like := w.tree("/a/d", 400), w.tree("/a/bc", 500)
				for range c.times {
					d := w.decide(r, 100, time.Second)
					d.Action.Scope = model.ScopeCgroup
					w.mustHold(d)
					w.release(d.ID)
				}
				for i, r := range []cgroupctl.Ref{r, above, below} {
					d := w.decide(r, int32(100*(i+1)), time.Second)
					d.Action.Scope = model.ScopeCgroup
					out := e.Propose(t.Context(), d)
					if out.RefusedBy != c.guard || !strings.Contains(out.Reason, "/a/b") && c.guard == "cooldown" {
						t.Errorf("%s: got %+v", r.Path, out)
					}
				}
				refusedBy(t, e.Propose(t.Context(), w.decide(beside, 400, time.Second)), "")
				refusedBy(t, e.Propose(t.Context(), w.decide(like, 500, time.Second)), "")
				w.close()
			})
		})
	}
}
