package enforce

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

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
