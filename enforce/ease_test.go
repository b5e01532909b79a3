package enforce

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// eased is a throttle for a minute, of which the last ten seconds are loosened half way: on the
// machine of the Fake, which has two CPUs, from half a CPU to one and a quarter.
func (w *world) eased(p string) model.Decision {
	_, d := w.limited(p, 100)
	d.Action.ForMS, d.Action.EaseMS = 60_000, 10_000
	return d
}

func noHeartbeat(o *Options) { o.Config.HeartbeatTimeout = 0 }

func TestAThrottleIsLoosenedHalfWayBeforeItEnds(t *testing.T) {
	for _, mode := range []model.Mode{model.Enforce, model.DryRun} {
		t.Run(string(mode), func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				d := w.eased("/a")
				out := w.e.Propose(t.Context(), d)
				if out.EasesAt == nil || time.Until(*out.EasesAt) != 50*time.Second {
					t.Fatalf("got %+v", out)
				}
				time.Sleep(50*time.Second - time.Nanosecond)
				synctest.Wait()
				w.wantLimits("/a", "50000 100000", "100")
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				w.wantLimits("/a", "125000 100000", "100")
				l := w.log.last()
				want := []model.FileWrite{
					{File: "cpu.max", Was: "max 100000", Wrote: "125000 100000", Step: "50000 100000"},
					{File: "pids.max", Was: "4915", Wrote: "100"},
				}
				if diff := cmp.Diff(want, l.Writes); diff != "" || l.State != model.LeaseHeld || l.EasedAt == nil || !l.EasedAt.Equal(*out.EasesAt) {
					t.Errorf("told %+v\n%s", l, diff)
				}
				time.Sleep(10*time.Second - time.Nanosecond)
				synctest.Wait()
				w.wantLimits("/a", "125000 100000", "100")
				time.Sleep(time.Nanosecond)
				synctest.Wait()
				w.wantLimits("/a", "max 100000", "4915")
				if l := w.log.last(); l.EndReason != model.EndExpired || l.Note != "" || l.EndedAt.Sub(l.CreatedAt) != time.Minute {
					t.Errorf("it ended as %+v", l)
				}
			}, noHeartbeat, func(o *Options) {
				if o.Mode = mode; mode != model.Enforce {
					o.StateDir = ""
				}
			})
		})
	}
}

func TestWhatEndsEarlyIsNotLoosenedBefore(t *testing.T) {
	for _, reason := range []model.EndReason{model.EndReleased, model.EndNoRelief, model.EndHeartbeat, model.EndShutdown} {
		t.Run(string(reason), func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				d := w.eased("/a")
				w.mustHold(d)
				time.Sleep(time.Second)
				switch reason {
				case model.EndReleased:
					w.release(d.ID)
				case model.EndNoRelief:
					if err := w.e.Undo(t.Context(), d.ID); err != nil {
						t.Fatal(err)
					}
				case model.EndShutdown:
					w.e.Stop()
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				w.wantLimits("/a", "max 100000", "4915")
				if l := w.log.last(); l.EndReason != reason || l.EasedAt != nil {
					t.Errorf("it ended as %+v", l)
				}
				for _, line := range w.fake.Writes() {
					if strings.Contains(line, "125000") {
						t.Errorf("written: %s", line)
					}
				}
			})
		})
	}
}

func TestHowLongBeforeItsEndAThrottleIsLoosened(t *testing.T) {
	step := []model.FileWrite{{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000", Step: "125000 100000"}}
	none := []model.FileWrite{{File: "pids.max", Was: "max", Wrote: "100"}}
	for _, tt := range []struct {
		name   string
		ease   int64
		writes []model.FileWrite
		hold   time.Duration
		want   time.Duration // since it was held; 0 is never
	}{
		{"as was asked for", 10_000, step, time.Minute, 50 * time.Second},
		{"not in the first half of a lease that was shortened", 10_000, step, 6 * time.Second, 3 * time.Second},
		{"not at all", 0, step, time.Minute, 0},
		{"where nothing lies between", 10_000, none, time.Minute, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			from := time.Now()
			at := easesAt(&model.Action{EaseMS: tt.ease}, tt.writes, from, tt.hold)
			if (at == nil) != (tt.want == 0) || at != nil && at.Sub(from) != tt.want {
				t.Errorf("got %v after %v, want %v", at, from, tt.want)
			}
		})
	}
}

func TestOnlyWhatIsLoosenedIsTightenedAgain(t *testing.T) {
	for _, tt := range []struct {
		name   string
		after  time.Duration
		change func(*model.Decision)
		guard  string
	}{
		{"by another incident, for longer", 52 * time.Second, func(d *model.Decision) { d.IncidentID, d.Action.ForMS = "fs-2", 120_000 }, ""},
		{"by the same incident", 52 * time.Second, func(*model.Decision) {}, ""},
		{"before it is loosened", 40 * time.Second, func(d *model.Decision) { d.IncidentID = "fs-2" }, "feasibility"},
		{"before it is loosened, by the same incident", 40 * time.Second, func(*model.Decision) {}, "feasibility"},
		{"with another action", 52 * time.Second, func(d *model.Decision) { d.Action.CPUPercent = 20 }, "feasibility"},
		{"for another kind of trouble", 52 * time.Second, func(d *model.Decision) { d.IncidentID, d.Kind = "fs-2", model.IOPressure }, "feasibility"},
		{"of another cgroup", 52 * time.Second, func(d *model.Decision) { d.Target.CgroupID++ }, "feasibility"},
		{"where another guard refuses", 52 * time.Second, func(d *model.Decision) { d.Confidence = 0.1 }, "confidence"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				time.Sleep(time.Second) // of the cooldown
				first := w.eased("/a")
				w.mustHold(first)
				time.Sleep(tt.after)
				synctest.Wait()
				again := first
				again.ID, again.After, again.At = "fs-2-1", first.ID, time.Now()
				again.OpenedAt = again.At.Add(-time.Second)
				tt.change(&again)
				out := w.e.Propose(t.Context(), again)
				if out.RefusedBy != tt.guard || out.Error != "" {
					t.Fatalf("got %+v", out)
				}
				if tt.guard != "" {
					return
				}
				w.wantLimits("/a", "50000 100000", "100")
				l := w.e.Leases()
				if len(l) != 1 || l[0].ID != again.ID || l[0].EasedAt != nil || l[0].Writes[0].Was != "max 100000" || !l[0].BeganAt.Equal(first.At) {
					t.Errorf("held: %+v", l)
				}
				if was, err := w.e.Lease(first.ID); err != nil || was.EndReason != model.EndReplaced {
					t.Errorf("the one before ended %q, %v", was.EndReason, err)
				}
			}, noHeartbeat, func(o *Options) { o.Config.Cooldown = config.Duration(time.Second) })
		})
	}
}

func TestNobodyIsHeldLongerThanTheMaximumByTighteningAgain(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		time.Sleep(time.Second) // of the cooldown
		d := w.eased("/a")
		began := time.Now()
		w.mustHold(d)
		for i := range 10 {
			next := w.e.Leases()
			if len(next) == 0 {
				break
			}
			time.Sleep(time.Until(*next[0].EasesAt) + time.Second)
			synctest.Wait()
			d.After, d.At, d.OpenedAt = d.ID, time.Now(), time.Now()
			d.ID, d.IncidentID = "again-"+string(rune('a'+i)), "another"
			d.Action.ForMS *= 2
			w.e.Propose(t.Context(), d)
		}
		time.Sleep(time.Until(began.Add(10 * time.Minute)))
		synctest.Wait()
		w.wantLimits("/a", "max 100000", "4915")
		if l := w.log.last(); l.EndedAt == nil || l.EndedAt.Sub(began) != 10*time.Minute {
			t.Errorf("it ended as %+v, want 10 min after the first", l)
		}
	}, noHeartbeat, func(o *Options) {
		o.Config.Cooldown = config.Duration(time.Second)
		o.Config.Rate.PerTarget = Bucket{config.Duration(time.Second), 50}
	})
}

func TestAThrottleThatCannotBeLoosenedIsHeldToItsEnd(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.eased("/a")
		w.mustHold(d)
		tried := 0
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "ease" {
				tried++
				return errors.New("made to fail")
			}
			return nil
		})
		time.Sleep(55 * time.Second)
		synctest.Wait()
		w.wantLimits("/a", "50000 100000", "100")
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.wantLimits("/a", "max 100000", "4915")
		l := w.log.last()
		if l.EndReason != model.EndExpired || l.EasedAt != nil || l.Note != "it was not loosened half way: made to fail" || tried != 1 {
			t.Errorf("tried %d times; it ended as %+v", tried, l)
		}
	}, noHeartbeat)
}

// systemd may loosen a limit after that was given up: nobody else has then, and the lease goes on.
func TestAStepThatSystemdTakesLateIsNoReasonToYield(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		const p = "/a.service"
		d := w.eased(p)
		w.fake.SetOwner(p, cgroupctl.Owner{Own: true, Version: 257, Unit: cgroupctl.Unit{Name: "a.service", ActiveState: "active"}}, nil)
		w.fake.SetLimit(p, "pids.max", "max") // as systemd says
		w.mustHold(d)
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "ease" {
				return cgroupctl.ErrUnconfirmed
			}
			return nil
		})
		time.Sleep(52 * time.Second)
		w.fake.SetLimit(p, "cpu.max", "125000 100000")
		time.Sleep(7 * time.Second)
		synctest.Wait()
		w.wantLimits(p, "125000 100000", "100")
		time.Sleep(time.Second)
		synctest.Wait()
		w.wantLimits(p, "max 100000", "max")
		if l := w.log.last(); l.EndReason != model.EndExpired || l.EasedAt != nil || l.Writes[0].Unit == "" || l.Writes[0].Step != "125000 100000" {
			t.Errorf("it ended as %+v", l)
		}
	}, noHeartbeat)
}

// An undo that comes while a limit is loosened waits for it: the last write is the undo's.
func TestAStepNeverOutlivesItsLease(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	d := w.eased("/a")
	w.mustHold(d)
	l := e.active[d.ID]
	l.EasesAt = &l.CreatedAt
	w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
		if op == "ease" { // in the midst of it
			e.mu.Lock()
			e.endLocked(l, model.EndReleased)
			e.mu.Unlock()
		}
		return nil
	})
	e.lookWhileHeld(l)
	<-l.done
	w.wantLimits("/a", "max 100000", "4915")
	if got := w.fake.Writes(); !slices.Equal(got[len(got)-2:], []string{"/a cpu.max=max 100000", "/a pids.max=4915"}) {
		t.Errorf("written: %q", got)
	}
	w.close()
}

// The record that was written first is enough, also where it is spoilt, and also where the
// step was taken and could not be written down any more.
func TestTheFirstRecordUndoesALoosenedThrottle(t *testing.T) {
	for _, spoilt := range []bool{false, true} {
		w := newWorld(t)
		e := w.open()
		d := w.eased("/a")
		w.mustHold(d)
		name := filepath.Join(w.state, "leases", activeDir, d.ID+suffix)
		first, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		l := e.active[d.ID]
		l.EasesAt = &l.CreatedAt
		e.ease(l)
		w.wantLimits("/a", "125000 100000", "100")
		w.crash()
		if spoilt {
			first = first[:strings.Index(string(first), `"created_at"`)]
		}
		if err := os.WriteFile(name, first, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := w.open().Recover(t.Context()); (err != nil) != spoilt {
			t.Error(err)
		}
		w.wantLimits("/a", "max 100000", "4915")
		w.close()
	}
}

func TestSomebodyElseWritesWhatIsLoosened(t *testing.T) {
	for _, tt := range []struct {
		name, before, during string // what somebody writes before it is loosened, and while it is
		loosened, after      string
		end                  model.EndReason
	}{
		{"once, to what it was", "", "max 100000", "125000 100000", "max 100000", model.EndExpired},
		{"more tightly than the step", "", "60000 100000", "60000 100000", "60000 100000", model.EndYielded},
		{"before, to less than the step", "80000 100000", "", "50000 100000", "80000 100000", model.EndExpired},
		{"before, to more than the step", "150000 100000", "", "125000 100000", "150000 100000", model.EndExpired},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				w.mustHold(w.eased("/a"))
				time.Sleep(40 * time.Second)
				if tt.before != "" {
					w.fake.SetLimit("/a", "cpu.max", tt.before)
				}
				time.Sleep(12 * time.Second)
				if tt.during != "" {
					w.fake.SetLimit("/a", "cpu.max", tt.during)
				}
				time.Sleep(time.Second)
				synctest.Wait()
				if got := w.fake.Limit("/a", "cpu.max"); got != tt.loosened {
					t.Errorf("cpu.max holds %q while it is loosened, want %q", got, tt.loosened)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				w.wantLimits("/a", tt.after, "4915")
				if l := w.log.last(); l.EndReason != tt.end {
					t.Errorf("it ended %q (%s), want %q", l.EndReason, l.Note, tt.end)
				}
			}, noHeartbeat)
		})
	}
}
