package enforce

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

func TestAReloadHoldsFromTheNextDecisionOn(t *testing.T) {
	w := newWorld(t)
	w.open()
	held := w.decide(w.tree("/a", 100), 100, time.Minute)
	w.mustHold(held)

	c := DefaultConfig()
	c.Cooldown = 0
	c.MaxLease = config.Duration(5 * time.Second)
	c.Protected.Cgroups = []string{"/b"}
	c.Allow.User = "somebody"
	changed, pending, err := w.e.Reconfigure(c)
	if err != nil || !cmp.Equal(changed, []string{"max_lease", "protected.cgroups"}) || !cmp.Equal(pending, []string{"allow.user"}) {
		t.Fatalf("changed %q, pending %q, %v", changed, pending, err)
	}
	if !w.held("/a") {
		t.Error("what was held before was let go")
	}
	if out := w.e.Propose(t.Context(), w.decide(w.tree("/b", 200), 200, time.Minute)); out.RefusedBy != "protected" {
		t.Errorf("what is protected now: %+v", out)
	}
	out := w.e.Propose(t.Context(), w.decide(w.tree("/c", 300), 300, time.Minute))
	if out.LeaseID == "" || !strings.Contains(out.Reason, "shortened") {
		t.Errorf("a longer wish than the new maximum: %+v", out)
	}
	// Who may talk to it stays, also for the next comparison.
	if _, pending, _ := w.e.Reconfigure(c); !cmp.Equal(pending, []string{"allow.user"}) {
		t.Errorf("pending at the second reload: %q", pending)
	}
	w.close()
}

func TestAReloadIsNoWayAroundTheRate(t *testing.T) {
	w := newWorld(t)
	w.open()
	r := w.tree("/a", 100)
	act := func() model.Outcome {
		d := w.decide(r, 100, time.Minute)
		out := w.e.Propose(t.Context(), d)
		if out.LeaseID != "" {
			w.release(d.ID)
		}
		return out
	}
	for range 3 {
		if out := act(); out.LeaseID == "" {
			t.Fatalf("%+v", out)
		}
	}
	c := DefaultConfig()
	c.Cooldown = 0
	if _, _, err := w.e.Reconfigure(c); err != nil {
		t.Fatal(err)
	}
	if out := act(); out.RefusedBy != "rate" {
		t.Errorf("after a reload of the same: %+v", out)
	}
	c.Rate.PerTarget.Every = config.Duration(time.Millisecond)
	if changed, _, err := w.e.Reconfigure(c); err != nil || !cmp.Equal(changed, []string{"rate.per_target.every"}) {
		t.Fatalf("changed %q, %v", changed, err)
	}
	time.Sleep(5 * time.Millisecond)
	if out := act(); out.LeaseID == "" {
		t.Errorf("with one more each millisecond: %+v", out)
	}
	w.close()
}

func TestAConfigurationThatCannotBeIsNotPutInForce(t *testing.T) {
	w := newWorld(t)
	w.open()
	c := DefaultConfig()
	c.Cooldown = 0
	c.MaxLease = config.Duration(time.Hour)
	if _, _, err := w.e.Reconfigure(c); err == nil || w.e.config.Load().MaxLease.D() != HardMaxLease {
		t.Errorf("%v, and %v is in force", err, w.e.config.Load().MaxLease)
	}
	w.close()
}

// The real program reads it again at SIGHUP, and a broken one neither ends it nor lets go.
func TestTheProgramReloads(t *testing.T) {
	k, g := heldByAProgram(t)
	cmd := k.start("")
	k.answers(cmd)
	most := func() int64 {
		st, err := k.client.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return st.MaxLeaseMS
	}
	k.propose(0, time.Minute)
	for _, c := range []struct {
		text string
		want int64 // ms
	}{{"max_lease: 90s\n", 90_000}, {"max_leese: 1s\n", 90_000}, {"max_lease: 80s\n", 80_000}} {
		if err := errors.Join(os.WriteFile(k.config, []byte(c.text), 0o600), cmd.Process.Signal(unix.SIGHUP)); err != nil {
			t.Fatal(err)
		}
		if c.want == most() {
			time.Sleep(300 * time.Millisecond) // in which it would have changed
		}
		eventually(t, "reloaded", func() bool { return most() == c.want })
	}
	if !g.Frozen() {
		t.Error("a reload let go what was held")
	}
	cmd.Process.Signal(unix.SIGTERM)
	if err := cmd.Wait(); err != nil || g.Frozen() {
		t.Errorf("end: %v, frozen %v", err, g.Frozen())
	}
}
