package enforce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

func last(r *recorded) model.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leases[len(r.leases)-1]
}

// run is a world with a running engine, in a bubble of its own time.
func run(t *testing.T, f func(t *testing.T, w *world), change ...func(*Options)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open(change...)
		ctx, cancel := context.WithCancel(t.Context())
		go w.e.Run(ctx)
		f(t, w)
		cancel()
		synctest.Wait()
		if w.e != nil {
			w.close()
		}
	})
}

func TestALeaseEndsExactlyWhenItsTimeIsUp(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		out := w.e.Propose(t.Context(), d)
		if out.RefusedBy != "" || out.Error != "" || out.LeaseID != d.ID || out.ConfirmedAt == nil || out.DryRun {
			t.Fatalf("got %+v", out)
		}
		w.wantHeld("/a", true)
		w.wantFiled(d.ID, activeDir)
		time.Sleep(5*time.Second - time.Nanosecond)
		synctest.Wait()
		w.wantHeld("/a", true)
		time.Sleep(time.Nanosecond)
		synctest.Wait()
		w.wantHeld("/a", false)
		w.wantFiled(d.ID, endedDir)
		l := last(w.log)
		if l.State != model.LeaseEnded || l.EndReason != model.EndExpired || l.EndedAt.Sub(l.CreatedAt) != 5*time.Second {
			t.Errorf("got %+v", l)
		}
	})
}

func TestALeaseEndsWhenHeartbeatsStop(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, time.Minute)
		w.e.Propose(t.Context(), d)
		for range 3 {
			time.Sleep(9 * time.Second)
			w.e.Heartbeat()
		}
		synctest.Wait()
		w.wantHeld("/a", true)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		w.wantHeld("/a", false)
		if l := last(w.log); l.EndReason != model.EndHeartbeat || l.EndedAt.Sub(l.CreatedAt) != 37*time.Second {
			t.Errorf("got %+v", l)
		}
	})
}

func TestALeaseLongerThanTheMaximumIsShortenedAndSaysSo(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		out := w.e.Propose(t.Context(), w.decide(w.tree("/a", 100), 100, time.Hour))
		if !strings.Contains(out.Reason, "10m0s") {
			t.Errorf("got %+v", out)
		}
		if l := w.e.Leases()[0]; l.ExpiresAt.Sub(l.CreatedAt) != 10*time.Minute {
			t.Errorf("got %+v", l)
		}
	})
}

func TestADecisionIsCarriedOutOnceEvenAcrossARestart(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		first := w.e.Propose(t.Context(), d)
		if again := w.e.Propose(t.Context(), d); again.LeaseID != first.LeaseID || !again.ConfirmedAt.Equal(*first.ConfirmedAt) {
			t.Errorf("while held: got %+v, want %+v", again, first)
		}
		if _, err := w.e.Release(t.Context(), d.ID, "joe"); err != nil {
			t.Fatal(err)
		}
		w.e.Propose(t.Context(), d)
		w.wantHeld("/a", false)
		w.crash()
		w.open()
		if again := w.e.Propose(t.Context(), d); again.LeaseID != d.ID || !again.ConfirmedAt.Equal(*first.ConfirmedAt) {
			t.Errorf("after a restart: got %+v, want %+v", again, first)
		}
		w.wantHeld("/a", false)
		if n := len(w.fake.Writes()); n != 2 {
			t.Errorf("%d writes, want 2: %q", n, w.fake.Writes())
		}
	})
}

func TestARefusedDecisionIsJudgedAnew(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		w.fake.SetFreeze("/a", "1")
		if out := w.e.Propose(t.Context(), d); out.RefusedBy != "feasibility" {
			t.Fatalf("got %+v", out)
		}
		w.fake.SetFreeze("/a", "0")
		if out := w.e.Propose(t.Context(), d); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
	})
}

func TestWhatIsNotConfirmedIsThawedAndSaysWhatBlockedIt(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		task := filepath.Join(w.proc, "101", "task", "101")
		if err := os.MkdirAll(task, 0o755); err != nil {
			t.Fatal(err)
		}
		os.WriteFile(filepath.Join(task, "stat"), []byte("101 (cc1) D 100 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 9 0 0\n"), 0o644)
		w.fake.SetStuck(func(cgroupctl.Ref) bool { return true })
		began := time.Now()
		out := w.e.Propose(t.Context(), d)
		if !strings.Contains(out.Error, `101 "cc1"`) || out.ConfirmedAt != nil {
			t.Errorf("got %+v", out)
		}
		if took := time.Since(began); took != time.Second {
			t.Errorf("it took %s, want the bound of 1 s", took)
		}
		w.wantHeld("/a", false)
		w.wantFiled(d.ID, endedDir)
		if l := last(w.log); l.EndReason != model.EndUnconfirmed {
			t.Errorf("got %+v", l)
		}
	})
}

func TestAReleaseDuringTheFreezeEndsItAtOnce(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(*Engine, string) error
		want model.EndReason
	}{
		{"released by an operator", func(e *Engine, id string) error {
			_, err := e.Release(context.Background(), id, "joe")
			return err
		}, model.EndReleased},
		{"released by a shutdown", func(e *Engine, _ string) error { return e.ReleaseAll(context.Background(), model.EndShutdown) }, model.EndShutdown},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				w.fake.SetStuck(func(cgroupctl.Ref) bool { return true })
				d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
				outcome := make(chan model.Outcome)
				go func() { outcome <- w.e.Propose(t.Context(), d) }()
				synctest.Wait()
				w.wantHeld("/a", true)
				if err := c.end(w.e, d.ID); err != nil {
					t.Fatal(err)
				}
				if out := <-outcome; out.Error == "" {
					t.Errorf("got %+v", out)
				}
				w.wantHeld("/a", false)
				if l := last(w.log); l.EndReason != c.want {
					t.Errorf("got %+v", l)
				}
			})
		})
	}
}

func TestAnUndoThatFailsIsTriedUntilItSucceeds(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		w.e.Propose(t.Context(), d)
		tries := 0
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "restore" {
				if tries++; tries < 5 {
					return errors.New("no memory")
				}
			}
			return nil
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.wantHeld("/a", true)
		if l := w.e.Leases(); len(l) != 1 || l[0].State != model.LeaseEnding || !strings.Contains(l[0].Note, "no memory") {
			t.Errorf("got %+v", l)
		}
		w.wantFiled(d.ID, activeDir)
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.wantHeld("/a", false)
		w.wantFiled(d.ID, endedDir)
		if l := last(w.log); l.EndReason != model.EndExpired {
			t.Errorf("got %+v", l)
		}
	})
}

// Whoever slips into the cgroup between the last look and the freeze is seen when
// everything stands still, and is set free.
func TestAProcessThatSlipsInIsSetFreeAtOnce(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		w.process(77, 1, oldStart, "nginx", "/usr/sbin/nginx")
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "apply" {
				w.fake.SetPIDs("/a", 77, 100, 101, 102)
			}
			return nil
		})
		out := w.e.Propose(t.Context(), d)
		if out.RefusedBy != "bystanders" || !strings.Contains(out.Reason, `77 "nginx"`) {
			t.Errorf("got %+v", out)
		}
		w.wantHeld("/a", false)
		w.wantFiled(d.ID, endedDir)
		if l := last(w.log); l.EndReason != model.EndRefused {
			t.Errorf("got %+v", l)
		}
	})
}

func TestWhoChangedWhileTheRecordWasWrittenIsNotTouched(t *testing.T) {
	for _, c := range []struct {
		name, guard string
		change      func(*world)
	}{
		{"the root ended and its pid was given out again", "identity", func(w *world) { w.process(100, 1, newStart+50, "other", "/usr/bin/other") }},
		{"the cgroup was removed and made again", "identity", func(w *world) { w.fake.Remove("/a"); w.fake.Make("/a", 100, 101, 102) }},
		{"a process became another program", "protected", func(w *world) { w.process(101, 100, newStart+1, "cc1", "/usr/sbin/sshd") }},
		{"its processes became too large a share of the machine", "reach", func(w *world) {
			pids := []int32{100}
			for i := range int32(60) {
				w.process(2000+i, 100, oldStart, "httpd", "/usr/sbin/httpd")
				pids = append(pids, 2000+i)
			}
			w.fake.SetPIDs("/a", pids...)
		}},
		{"sshd moved in", "protected", func(w *world) {
			w.process(77, 1, oldStart, "sshd", "/usr/sbin/sshd")
			w.fake.SetPIDs("/a", 77, 100)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var w *world
			run(t, func(t *testing.T, world *world) {
				w = world
				d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
				if out := w.e.Propose(t.Context(), d); out.RefusedBy != c.guard {
					t.Errorf("got %+v, want it refused by %s", out, c.guard)
				}
				if n := w.fake.Writes(); len(n) != 0 {
					t.Errorf("written: %q", n)
				}
				w.wantFiled(d.ID, endedDir)
			}, func(o *Options) {
				o.at = func(point string) {
					if point == "after record" {
						c.change(w)
					}
				}
			})
		})
	}
}

func TestACgroupThatVanishesWhileHeldEndsQuietly(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		w.e.Propose(t.Context(), d)
		w.fake.Remove("/a")
		time.Sleep(lookEvery)
		synctest.Wait()
		if l := last(w.log); l.State != model.LeaseEnded || l.EndReason != model.EndRefused || !strings.Contains(l.Note, "gone") {
			t.Errorf("got %+v", l)
		}
	})
}

func TestWithoutARecordNothingIsDone(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		active := filepath.Join(w.state, "leases", activeDir)
		if err := os.RemoveAll(active); err != nil {
			t.Fatal(err)
		}
		out := w.e.Propose(t.Context(), d)
		if !strings.Contains(out.Error, "nothing was done") || out.LeaseID != "" || len(w.fake.Writes()) != 0 || len(w.e.Leases()) != 0 {
			t.Errorf("got %+v, writes %q", out, w.fake.Writes())
		}
	})
}

// The undo does not need the disk: it is done first, and told later.
func TestAThawNeedsNoDisk(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
		w.e.Propose(t.Context(), d)
		active, away := filepath.Join(w.state, "leases", activeDir), filepath.Join(w.state, "away")
		if err := os.Rename(active, away); err != nil {
			t.Fatal(err)
		}
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.wantHeld("/a", false)
		if len(w.e.Leases()) != 0 {
			t.Errorf("still held: %+v", w.e.Leases())
		}
		if err := os.Rename(away, active); err != nil {
			t.Fatal(err)
		}
		time.Sleep(refileEvery)
		synctest.Wait()
		w.wantFiled(d.ID, endedDir)
	})
}

// Where everything is undone and only a disk is slow, nobody is told that something is held still.
func TestWhoIsLetGoIsNotSaidToBeHeldWhileHisRecordWaits(t *testing.T) {
	disk := make(chan struct{})
	w := newWorld(t)
	e := w.open(func(o *Options) {
		o.at = func(point string) {
			if point == "after end record" {
				<-disk
			}
		}
	})
	w.mustHold(w.decide(w.tree("/a", 100), 100, time.Minute))
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	err := e.ReleaseAll(ctx, model.EndReleased)
	w.wantHeld("/a", false)
	if err == nil || strings.Contains(err.Error(), "not undone") || !strings.Contains(err.Error(), "is undone, and only its record waits") {
		t.Errorf("released with %v", err)
	}
	close(disk)
	w.close()
}

// slow is a recorder that blocks when it is told that a lease is held.
type slow struct {
	*recorded
	hold chan struct{}
}

func (s slow) Lease(l model.Lease) {
	if l.State == model.LeaseHeld {
		<-s.hold
	}
	s.recorded.Lease(l)
}

// A disk or a journal that takes long to be told of a lease does not keep it from
// ending, and what it is told comes in order.
func TestATellingThatTakesLongKeepsNothingFrozen(t *testing.T) {
	// In real time: to synctest a wait for a mutex is no rest.
	hold := make(chan struct{})
	w := newWorld(t)
	w.open(func(o *Options) { o.Recorder = slow{w.log, hold} })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go w.e.Run(ctx)
	d := w.decide(w.tree("/a", 100), 100, 200*time.Millisecond)
	done := make(chan model.Outcome)
	go func() { done <- w.e.Propose(t.Context(), d) }()
	eventually(t, "frozen", func() bool { return w.held("/a") })
	eventually(t, "thawed while the recorder is stuck", func() bool { return !w.held("/a") })
	time.Sleep(50 * time.Millisecond)
	close(hold)
	if out := <-done; out.ConfirmedAt == nil || out.Error != "" {
		t.Errorf("got %+v", out)
	}
	eventually(t, "ended", func() bool { return len(w.e.Leases()) == 0 })
	w.wantFiled(d.ID, endedDir)
	var states []model.LeaseState
	w.log.mu.Lock()
	for _, l := range w.log.leases {
		states = append(states, l.State)
	}
	w.log.mu.Unlock()
	if fmt.Sprint(states) != "[intended held ended]" {
		t.Errorf("told %v", states)
	}
	if l := last(w.log); l.EndedAt.Sub(l.ExpiresAt) > 40*time.Millisecond {
		t.Errorf("ended %s late", l.EndedAt.Sub(l.ExpiresAt))
	}
	w.close()
}

// A disk that does not answer whether a lease is known keeps nothing from ending: not its time,
// not an operator, and the status is told.
func TestADiskThatDoesNotAnswerKeepsNothingFrozen(t *testing.T) {
	for _, c := range []struct {
		name string
		ask  func(*world)
	}{
		{"the next proposal", func(w *world) { w.e.Propose(w.t.Context(), w.decide(w.tree("/c", 300), 300, time.Second)) }},
		{"somebody who asks after a lease", func(w *world) { w.e.Lease("x") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				let := make(chan struct{})
				w.mustHold(w.decide(w.tree("/a", 100), 100, 5*time.Second))
				w.mustHold(w.decide(w.tree("/b", 200), 200, time.Minute))
				w.e.ended = func(string) (model.Lease, bool, error) {
					<-let
					return model.Lease{}, false, nil
				}
				go c.ask(w)
				time.Sleep(5 * time.Second)
				synctest.Wait()
				w.wantHeld("/a", false)
				w.wantHeld("/b", true)
				if n := w.e.Status().Leases; n != 1 {
					t.Errorf("the status says that %d are held, want 1", n)
				}
				if err := w.e.ReleaseAll(t.Context(), model.EndReleased); err != nil {
					t.Error(err)
				}
				w.wantHeld("/b", false)
				close(let)
			})
		})
	}
}

func TestModesOtherThanEnforce(t *testing.T) {
	for _, c := range []struct {
		mode    model.Mode
		refused string
	}{{model.Monitor, "mode"}, {model.DryRun, ""}} {
		run(t, func(t *testing.T, w *world) {
			d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
			out := w.e.Propose(t.Context(), d)
			if !out.DryRun || out.RefusedBy != c.refused || out.Error != "" {
				t.Errorf("%s: got %+v", c.mode, out)
			}
		}, func(o *Options) { o.Mode, o.StateDir = c.mode, "" })
	}
}

// A replay drives the engine with the time of its samples.
func TestAnEngineOnSomebodyElsesClock(t *testing.T) {
	w := newWorld(t)
	now := time.Date(2024, 2, 29, 12, 0, 0, 0, time.UTC)
	w.open(func(o *Options) {
		o.Mode, o.StateDir = model.DryRun, ""
		o.Config.HeartbeatTimeout = 0
		o.Now = func() time.Time { return now }
	})
	d := w.decide(w.tree("/a", 100), 100, 30*time.Second)
	d.At = now
	if out := w.e.Propose(t.Context(), d); !out.ConfirmedAt.Equal(now) {
		t.Fatalf("got %+v", out)
	}
	if next, ok := w.e.Next(); !ok || !next.Equal(now.Add(lookEvery)) {
		t.Errorf("next is %v, %v", next, ok)
	}
	now = now.Add(30*time.Second - lookEvery/2)
	w.e.Advance(now)
	if next, ok := w.e.Next(); !ok || !next.Equal(now.Add(lookEvery/2)) {
		t.Errorf("at last, next is %v, %v", next, ok)
	}
	now = now.Add(-(30*time.Second - lookEvery/2))
	now = now.Add(29 * time.Second)
	w.e.Advance(now)
	w.wantHeld("/a", true)
	now = now.Add(time.Second)
	w.e.Advance(now)
	w.wantHeld("/a", false)
	if _, ok := w.e.Next(); ok {
		t.Error("something is still planned")
	}
}

func TestTwoEnginesCannotShareAStateDirectory(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	if _, err := Open(w.options()); err == nil || !strings.Contains(err.Error(), "another breaker-enforcer") {
		t.Errorf("got %v", err)
	}
}

func TestALockThatIsAFIFOHoldsNothingUp(t *testing.T) {
	w := newWorld(t)
	if err := unix.Mkfifo(filepath.Join(w.state, "enforcer.lock"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	w.close()
}

func TestAnEngineWaitsForTheOneBeforeIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		first := w.open().records
		time.AfterFunc(time.Second, func() { _ = first.close() })
		o := w.options()
		o.LockWait = 2 * time.Second
		e, err := Open(o)
		if err != nil {
			t.Fatal(err)
		}
		w.e = e
		w.close()
	})
}

func TestAClosedEngineBeginsNothing(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
	w.close()
	if out := e.Propose(t.Context(), d); out.RefusedBy != "mode" {
		t.Errorf("got %+v", out)
	}
}

func TestCheckID(t *testing.T) {
	for id, ok := range map[string]bool{
		"fs-1-1": true, "fork_storm:2026-11-23T17:44:35Z@1.2": true,
		"": false, ".": false, "..": false, "../x": false, "a/b": false, ".a": false, "-a": false,
		"a b": false, "a\n": false, "a\x00": false, "é": false, strings.Repeat("a", maxID+1): false,
	} {
		if err := checkID(id); (err == nil) != ok {
			t.Errorf("checkID(%q) = %v", id, err)
		}
	}
}

// Who comes into a cgroup that is held does not stand still for the rest of the lease.
func TestAHeldCgroupIsLetGoWhenAGuardRefusesLater(t *testing.T) {
	for _, c := range []struct {
		name, guard string
		change      func(*world)
	}{
		{"sshd is moved in", "protected", func(w *world) {
			w.process(77, 1, oldStart, "sshd", "/usr/sbin/sshd")
			w.fake.SetPIDs("/a", 77, 100, 101, 102)
		}},
		{"somebody else is moved in", "bystanders", func(w *world) {
			w.process(77, 1, oldStart, "nginx", "/usr/sbin/nginx")
			w.fake.SetPIDs("/a", 77, 100, 101, 102)
		}},
		{"breakerd is moved in", "protected", func(w *world) { w.e.Protect(101) }},
		{"the root is killed", "identity", func(w *world) { w.end(100) }},
		{"nobody comes", "", func(*world) {}},
		{"they are more established ones than may be held anew, as when they grow old", "", func(w *world) {
			pids := []int32{100}
			for i := range int32(60) {
				w.process(2000+i, 100, oldStart, "httpd", "/usr/sbin/httpd")
				pids = append(pids, 2000+i)
			}
			w.fake.SetPIDs("/a", pids...)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				d := w.decide(w.tree("/a", 100), 100, 5*time.Second)
				w.mustHold(d)
				time.Sleep(time.Second)
				synctest.Wait()
				w.wantHeld("/a", true)
				c.change(w)
				time.Sleep(lookEvery)
				synctest.Wait()
				w.wantHeld("/a", c.guard == "")
				if c.guard == "" {
					return
				}
				w.wantFiled(d.ID, endedDir)
				if l := last(w.log); l.EndReason != model.EndRefused || !strings.HasPrefix(l.Note, c.guard+": ") {
					t.Errorf("got %+v", l)
				}
			})
		})
	}
}

// A decision waits for a disk that hangs, and is old when the disk comes back.
func TestADecisionThatWaitedTooLongForItsRecordIsNotCarriedOut(t *testing.T) {
	for _, c := range []struct {
		name       string
		age, stall time.Duration
		want       string
	}{
		{"seconds", 0, 4 * time.Second, "too long to be true still"},
		{"a decision that was old already", 58 * time.Second, 2500 * time.Millisecond, "too old to be true still"},
		{"a moment", 0, 2 * time.Second, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				d := w.decide(w.tree("/a", 100), 100, 2*time.Minute)
				d.At = d.At.Add(-c.age)
				out := w.e.Propose(t.Context(), d)
				if !strings.Contains(out.Error, c.want) || (out.Error == "") != (c.want == "") || out.RefusedBy != "" {
					t.Errorf("got %+v", out)
				}
				w.wantHeld("/a", c.want == "")
				if c.want != "" && len(w.fake.Writes()) != 0 {
					t.Errorf("written: %q", w.fake.Writes())
				}
			}, func(o *Options) {
				o.at = func(point string) {
					if point == "after record" {
						time.Sleep(c.stall)
					}
				}
			})
		})
	}
}
