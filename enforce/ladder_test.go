package enforce

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// ladder is a throttle that may be followed by a tighter one and by a freeze, and those two.
func (w *world) ladder() (first, second, third model.Decision) {
	_, first = w.limited("/a", 100)
	first.Action.ForMS = 60_000
	tighter, freeze := first.Action, first.Action
	tighter.CPUPercent = 10
	freeze.Kind, freeze.CPUPercent, freeze.PIDsMax = model.Freeze, 0, 0
	first.Action.Then = []model.Action{tighter, freeze}
	second, third = first, first
	second.ID, second.After, second.Action = "fs-1-2", first.ID, tighter
	second.Action.Then = []model.Action{freeze}
	third.ID, third.After, third.Action = "fs-1-3", second.ID, freeze
	return first, second, third
}

func TestALadderLiftsEachActionBeforeTheNext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		go w.open(func(o *Options) { o.Config.Cooldown = config.Duration(5 * time.Second) }).Run(t.Context())
		time.Sleep(5 * time.Second)
		first, second, third := w.ladder()
		for i, d := range []*model.Decision{&first, &second, &third} {
			d.At = time.Now()
			out := w.e.Propose(t.Context(), *d)
			if out.RefusedBy != "" || out.Error != "" || out.LeaseID != d.ID {
				t.Fatalf("rung %d: %+v", i+1, out)
			}
			if all := w.e.Leases(); len(all) != 1 || all[0].ID != d.ID {
				t.Fatalf("rung %d: %d are held", i+1, len(all))
			}
			if l, err := w.e.Lease(d.After); i > 0 && (err != nil || l.EndReason != model.EndReplaced) {
				t.Errorf("the lease before ended %q, %v", l.EndReason, err)
			}
			time.Sleep(3 * time.Second)
		}
		w.wantHeld("/a", true)
		w.wantLimits("/a", "max 100000", "4915")
		w.fileOrder("/a", "cpu.max", "cgroup.freeze")
		time.Sleep(time.Minute)
		synctest.Wait()
		w.wantHeld("/a", false)
		// Who was let go of for good is left in peace.
		third.ID, third.After, third.At = "fs-1-4", "", time.Now()
		if out := w.e.Propose(t.Context(), third); out.RefusedBy != "" && out.RefusedBy != "cooldown" {
			t.Errorf("got %+v", out)
		}
		w.close()
	})
}

// fileOrder checks that nothing is written to the one file after the first write to the other.
func (w *world) fileOrder(p, before, after string) {
	w.t.Helper()
	begun := false
	for _, line := range w.fake.Writes() {
		switch {
		case strings.HasPrefix(line, p+" "+after):
			begun = true
		case begun && strings.HasPrefix(line, p+" "+before):
			w.t.Errorf("written after %s: %s", after, line)
		}
	}
	if !begun {
		w.t.Errorf("%s was never written: %q", after, w.fake.Writes())
	}
}

func TestOnlyTheNextActionOfTheSameLadderTakesThePlaceOfALease(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*model.Decision)
		guard  string
	}{
		{"the next one", func(*model.Decision) {}, ""},
		{"one that is longer, as a breaker wants it", func(d *model.Decision) { d.Action.ForMS *= 2 }, ""},
		{"one that was not to follow", func(d *model.Decision) { d.Action.CPUPercent = 5 }, "feasibility"},
		{"the one after the next", func(d *model.Decision) {
			d.Action = d.Action.Then[0]
		}, "feasibility"},
		{"one with a longer ladder", func(d *model.Decision) { d.Action.Then = append(d.Action.Then, d.Action.Then[0]) }, "feasibility"},
		{"one because of another incident", func(d *model.Decision) { d.IncidentID = "fs-2" }, "feasibility"},
		{"one after another lease", func(d *model.Decision) { d.After = "fs-0" }, "feasibility"},
		{"one that says nothing of a lease before", func(d *model.Decision) { d.After = "" }, "feasibility"},
		{"one that another guard refuses", func(d *model.Decision) { d.Confidence = 0.1 }, "confidence"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := newWorld(t)
			w.open()
			first, second, _ := w.ladder()
			w.mustHold(first)
			tt.change(&second)
			out := w.e.Propose(t.Context(), second)
			if out.RefusedBy != tt.guard || out.Error != "" {
				t.Errorf("got %+v", out)
			}
			if tt.guard != "" { // the one before goes on
				w.wantLimits("/a", "50000 100000", "100")
				if all := w.e.Leases(); len(all) != 1 || all[0].ID != first.ID {
					t.Errorf("held: %+v", all)
				}
			}
			w.close()
		})
	}
}

func TestAnActionThatCannotBeLiftedIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		go w.open().Run(t.Context())
		first, second, _ := w.ladder()
		w.mustHold(first)
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "restore" {
				return errors.New("made to fail")
			}
			return nil
		})
		if out := w.e.Propose(t.Context(), second); out.Error == "" || !strings.Contains(out.Error, "not undone yet") {
			t.Errorf("got %+v", out)
		}
		w.wantLimits("/a", "50000 100000", "100")
		w.fake.SetFault(nil)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.wantLimits("/a", "max 100000", "4915")
		w.close()
	})
}

func TestALadderHoldsNobodyLongerThanTheMaximum(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		go w.open(func(o *Options) { o.Config.MaxLease = config.Duration(20 * time.Second) }).Run(t.Context())
		first, second, third := w.ladder()
		began := time.Now()
		w.mustHold(first)
		for _, d := range []model.Decision{second, third} {
			w.e.Heartbeat()
			time.Sleep(8 * time.Second)
			w.e.Heartbeat()
			d.At = time.Now()
			w.mustHold(d)
			if l := w.e.Leases()[0]; l.ExpiresAt.Sub(began) > 20*time.Second {
				t.Errorf("%s ends after %s", l.ID, l.ExpiresAt.Sub(began))
			}
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.wantHeld("/a", false)
		w.close()
	})
}

// Killed at any moment of the change from one action to the next, nothing is left.
func TestAKillAtEachMomentOfALadderIsRecoveredFrom(t *testing.T) {
	for _, point := range []string{"before restore", "after restore", "after end record", "after put away", "before record", "after record", "after write", "after confirm", "after held"} {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			armed := false
			w.open(func(o *Options) {
				o.at = func(at string) {
					if armed && at == point {
						armed = false
						panic("killed " + point)
					}
				}
			})
			first, _, third := w.ladder()
			first.Action.Then = first.Action.Then[1:]
			third.After = first.ID
			w.mustHold(first)
			killed := make(chan struct{})
			func() {
				defer func() {
					if recover() != nil {
						close(killed)
					}
				}()
				armed = true
				if strings.HasPrefix(point, "before re") && point != "before record" || strings.HasPrefix(point, "after restore") || strings.HasPrefix(point, "after end") || strings.HasPrefix(point, "after put") {
					// The undo of the lease before, which has a goroutine of its own.
					l := w.e.active[first.ID]
					l.claimed, l.EndReason = true, model.EndReplaced
					w.e.undo(l)
					return
				}
				w.e.Propose(t.Context(), third)
			}()
			<-killed
			w.crash()
			w.open()
			if _, err := w.e.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			w.wantHeld("/a", false)
			w.wantLimits("/a", "max 100000", "4915")
			w.close()
		})
	}
}

func TestALeaseThatDidNotHelpEndsWithItsOwnReason(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	c, _, stop := serve(t, w)
	defer stop()
	d := w.decide(w.tree("/a", 100), 100, time.Minute)
	w.mustHold(d)
	if l, err := c.Lease(t.Context(), d.ID); err != nil || l.State != model.LeaseHeld {
		t.Errorf("got %+v, %v", l, err)
	}
	if err := c.Undo(t.Context(), d.ID); err != nil {
		t.Fatal(err)
	}
	w.wantHeld("/a", false)
	if l, err := c.Lease(t.Context(), d.ID); err != nil || l.EndReason != model.EndNoRelief || l.Note != "" {
		t.Errorf("got %+v, %v", l, err)
	}
}
