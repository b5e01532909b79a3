package enforce

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// limited makes a cgroup whose files hold no limit, and a decision to throttle it.
func (w *world) limited(p string, root int32) (cgroupctl.Ref, model.Decision) {
	r := w.tree(p, root)
	w.fake.SetLimit(p, "cpu.max", "max 100000")
	w.fake.SetLimit(p, "pids.max", "4915")
	d := w.decide(r, root, 5*time.Second)
	d.Action.Kind, d.Action.CPUPercent, d.Action.PIDsMax = model.Throttle, 50, 100
	return r, d
}

func (w *world) wantLimits(p, cpu, pids string) {
	w.t.Helper()
	if c, n := w.fake.Limit(p, "cpu.max"), w.fake.Limit(p, "pids.max"); c != cpu || n != pids {
		w.t.Errorf("%s has cpu.max %q and pids.max %q, want %q and %q", p, c, n, cpu, pids)
	}
}

func TestAThrottleLimitsAndIsUndone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		go e.Run(t.Context())
		_, d := w.limited("/a", 100)
		out := e.Propose(t.Context(), d)
		if out.ConfirmedAt == nil || out.Error != "" || out.RefusedBy != "" {
			t.Fatalf("got %+v", out)
		}
		w.wantLimits("/a", "50000 100000", "100")
		w.wantHeld("/a", false)
		time.Sleep(4 * time.Second)
		synctest.Wait()
		w.wantLimits("/a", "50000 100000", "100")
		time.Sleep(2 * time.Second)
		synctest.Wait()
		w.wantLimits("/a", "max 100000", "4915")
		w.wantFiled(d.ID, endedDir)
		if l := w.log.last(); l.EndReason != model.EndExpired || l.Note != "" {
			t.Errorf("it ended %q, %q", l.EndReason, l.Note)
		}
		w.close()
	})
}

func (r *recorded) last() model.Lease {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.leases[len(r.leases)-1]
}

func TestAThrottleThatFailsHalfwayIsUndone(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	_, d := w.limited("/a", 100)
	applied := 0
	w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
		if op == "apply" {
			if applied++; applied == 2 {
				return fmt.Errorf("no space left on device")
			}
		}
		return nil
	})
	out := e.Propose(t.Context(), d)
	if out.ConfirmedAt != nil || !strings.Contains(out.Error, "no space") {
		t.Errorf("got %+v", out)
	}
	w.wantLimits("/a", "max 100000", "4915")
	w.close()
}

// A limit that cannot be lifted at once leaves no other as it is.
func TestALimitThatCannotBeLiftedKeepsNoOther(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		_, d := w.limited("/a", 100)
		w.mustHold(d)
		tries := 0
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "restore" {
				if tries++; tries == 1 {
					return fmt.Errorf("no such device")
				}
			}
			return nil
		})
		time.Sleep(5 * time.Second)
		synctest.Wait()
		w.wantLimits("/a", "50000 100000", "4915")
		time.Sleep(firstRetry)
		synctest.Wait()
		w.wantLimits("/a", "max 100000", "4915")
		if l := w.log.last(); l.EndReason != model.EndExpired || !strings.Contains(l.Note, "no such device") {
			t.Errorf("it ended as %+v", l)
		}
	})
}

func TestAThrottleOfAKilledEnforcerIsUndone(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	_, d := w.limited("/a", 100)
	e.Propose(t.Context(), d)
	w.crash()
	e = w.open()
	if _, err := e.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	w.wantLimits("/a", "max 100000", "4915")
	w.close()
}

// cutRecord has the record of a lease break off before that.
func (w *world) cutRecord(id, upTo string) {
	w.t.Helper()
	name := filepath.Join(w.state, "leases", activeDir, id+suffix)
	b, err := os.ReadFile(name)
	if err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(name, b[:strings.Index(string(b), upTo)], 0o600); err != nil {
		w.t.Fatal(err)
	}
}

func TestAThrottleWhoseRecordIsSpoiltIsUndone(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	_, d := w.limited("/a", 100)
	e.Propose(t.Context(), d)
	w.crash()
	w.cutRecord(d.ID, `"created_at"`)
	e = w.open()
	if _, err := e.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "/a") {
		t.Errorf("the recovery says %v", err)
	}
	w.wantLimits("/a", "max 100000", "4915")
	w.wantFiled(d.ID, unreadableDir)
	w.close()
}

// Of a record that breaks off between its writes, what can be read is undone, and whatever else may
// be limited is said.
func TestLimitsWhosePartOfTheRecordIsLostAreSaid(t *testing.T) {
	for _, c := range []struct {
		upTo, cpu, pids string
		says, not       string
	}{
		{`"file": "pids.max"`, "max 100000", "100", "has its limits back of cpu.max; it may have had more", "thawed"},
		{`"writes"`, "50000 100000", "100", "it may have had more limits", "was thawed"},
		{`"created_at"`, "max 100000", "4915", "has its limits back of cpu.max, pids.max", "more limits"},
	} {
		w := newWorld(t)
		e := w.open()
		_, d := w.limited("/a", 100)
		e.Propose(t.Context(), d)
		w.crash()
		w.cutRecord(d.ID, c.upTo)
		e = w.open()
		_, err := e.Recover(t.Context())
		if err == nil || !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), c.not) {
			t.Errorf("cut at %s: the recovery says %v", c.upTo, err)
		}
		w.wantLimits("/a", c.cpu, c.pids)
		w.wantFiled(d.ID, unreadableDir)
		w.close()
	}
}

// A runtime that brings its cgroups in order once is outlasted, and what it wrote is there
// afterwards; whoever means it gets it.
func TestSomebodyElseWritesWhatIsHeld(t *testing.T) {
	for _, tt := range []struct {
		name   string
		writes []string // to cpu.max, one a second
		during string
		after  string
		end    model.EndReason
	}{
		{"once, to what it was", []string{"max 100000"}, "50000 100000", "max 100000", model.EndExpired},
		{"once, to another limit", []string{"80000 100000"}, "50000 100000", "80000 100000", model.EndExpired},
		{"again and again", []string{"max 100000", "max 100000", "90000 100000", "70000 100000"}, "70000 100000", "70000 100000", model.EndYielded},
		{"more tightly", []string{"20000 100000"}, "20000 100000", "20000 100000", model.EndYielded},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t)
				e := w.open()
				go e.Run(t.Context())
				_, d := w.limited("/a", 100)
				d.Action.ForMS = 8000
				if out := e.Propose(t.Context(), d); out.ConfirmedAt == nil {
					t.Fatalf("got %+v", out)
				}
				for _, text := range tt.writes {
					w.fake.SetLimit("/a", "cpu.max", text)
					time.Sleep(time.Second)
				}
				synctest.Wait()
				if got := w.fake.Limit("/a", "cpu.max"); got != tt.during {
					t.Errorf("cpu.max holds %q, want %q", got, tt.during)
				}
				time.Sleep(10 * time.Second)
				synctest.Wait()
				w.wantLimits("/a", tt.after, "4915")
				if l := w.log.last(); l.EndReason != tt.end {
					t.Errorf("it ended %q (%s), want %q", l.EndReason, l.Note, tt.end)
				}
				w.close()
			})
		})
	}
}

func TestSomebodyElseThawsWhatIsHeld(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d := w.decide(w.tree("/a", 100), 100, time.Minute)
		w.mustHold(d)
		for range maxAsserts {
			w.fake.SetFreeze("/a", "0")
			time.Sleep(2 * lookEvery)
			synctest.Wait()
			w.wantHeld("/a", true)
		}
		w.fake.SetFreeze("/a", "0")
		time.Sleep(2 * lookEvery)
		synctest.Wait()
		w.wantHeld("/a", false)
		if l := w.log.last(); l.EndReason != model.EndYielded || !strings.Contains(l.Note, "cgroup.freeze") {
			t.Errorf("it ended %q: %s", l.EndReason, l.Note)
		}
	})
}

// An undo that comes while a write is made again waits for it: the last write is the undo's.
func TestAnAssertNeverOutlivesItsLease(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	_, d := w.limited("/a", 100)
	if out := e.Propose(t.Context(), d); out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
		if op == "apply" { // in the midst of the assert
			w.fake.SetFault(nil)
			e.mu.Lock()
			e.endLocked(e.active[d.ID], model.EndReleased)
			e.mu.Unlock()
			time.Sleep(20 * time.Millisecond)
		}
		return nil
	})
	w.fake.SetLimit("/a", "cpu.max", "max 100000")
	e.mu.Lock()
	l := e.active[d.ID]
	e.mu.Unlock()
	e.lookWhileHeld(l)
	<-l.done
	w.wantLimits("/a", "max 100000", "4915")
	w.close()
}

func TestAThrottleIsLiftedBeforeAFreeze(t *testing.T) {
	for _, c := range []struct {
		name, of, guard, err string
		mode                 model.Mode
	}{
		{name: "of the same cgroup", of: "/a/b", mode: model.Enforce},
		{name: "of one below", of: "/a/b/c", mode: model.Enforce},
		{name: "of one above, which is of others, too", of: "/a", guard: "feasibility", mode: model.Enforce},
		{name: "that cannot be lifted", of: "/a/b", err: "not undone yet", mode: model.Enforce},
		{name: "in a dry run", of: "/a/b", mode: model.DryRun},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				w.fake.Make("/a")
				r := w.tree("/a/b", 100)
				w.fake.Make("/a/b/c")
				_, throttle := w.limited(c.of, 200)
				throttle.Action.ForMS = time.Minute.Milliseconds()
				if c.of == r.Path {
					r = cgroupctl.Ref{Path: r.Path, ID: throttle.Target.CgroupID}
				}
				throttle.Action.Scope, throttle.Target.Scope = model.ScopeCgroup, model.ScopeCgroup
				if out := w.e.Propose(t.Context(), throttle); out.ConfirmedAt == nil {
					t.Fatalf("got %+v", out)
				}
				freeze := w.decide(r, 200, time.Minute)
				freeze.Action.Scope, freeze.Target.Scope = model.ScopeCgroup, model.ScopeCgroup
				if c.err != "" {
					w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
						if op == "restore" {
							return fmt.Errorf("no")
						}
						return nil
					})
				}
				out := w.e.Propose(t.Context(), freeze)
				w.fake.SetFault(nil)
				if out.RefusedBy != c.guard || !strings.Contains(out.Error, c.err) || (out.ConfirmedAt != nil) != (c.guard+c.err == "") {
					t.Fatalf("got %+v", out)
				}
				if c.guard != "" {
					w.wantLimits(c.of, "50000 100000", "100")
					return
				}
				time.Sleep(lastRetry)
				synctest.Wait()
				w.wantLimits(c.of, "max 100000", "4915")
				w.wantHeld(r.Path, c.err == "")
				for _, l := range w.log.leases {
					if l.ID == throttle.ID && l.EndedAt != nil && l.EndReason != model.EndReplaced {
						t.Errorf("the throttle ended %q", l.EndReason)
					}
				}
			}, func(o *Options) {
				if o.Mode = c.mode; c.mode != model.Enforce {
					o.StateDir = ""
				}
			})
		})
	}
}

// I/O is limited to a part of what it did, at each device, and the second look does not
// measure it anew.
func TestIOIsThrottledToAPartOfWhatItDid(t *testing.T) {
	for _, end := range []string{"released", "killed", "killed, and the record is spoilt"} {
		t.Run(end, func(t *testing.T) {
			w := newWorld(t)
			e := w.open()
			_, d := w.limited("/a", 100)
			d.Action.CPUPercent, d.Action.PIDsMax, d.Action.IOPercent = 0, 0, 10
			w.fake.SetIO("/a", cgroupctl.IORate{Device: "8:0", Read: 50e6, Write: 200e6}, cgroupctl.IORate{Device: "8:16", Read: 20e6})
			w.fake.SetLimit("/a", "io.max 8:0 wbps", "8:0 wbps=90000000")
			measured := 0
			w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
				if op == "rates" {
					measured++
				}
				return nil
			})
			if out := e.Propose(t.Context(), d); out.ConfirmedAt == nil || measured != 1 {
				t.Fatalf("measured %d times, got %+v", measured, out)
			}
			wantIO := func(when string, want ...string) {
				t.Helper()
				for _, l := range want {
					if got := w.fake.Limit("/a", "io.max "+l[:strings.Index(l, "=")]); got != l {
						t.Errorf("%s: io.max has %q, want %q", when, got, l)
					}
				}
			}
			wantIO("held", "8:0 rbps=5000000", "8:0 wbps=20000000", "8:16 rbps=2000000")
			switch end {
			case "released":
				w.release(d.ID)
			default:
				w.crash()
				name := filepath.Join(w.state, "leases", activeDir, d.ID+suffix)
				b, err := os.ReadFile(name)
				if err == nil && end != "killed" {
					err = os.WriteFile(name, b[:strings.Index(string(b), `"created_at"`)], 0o600)
				}
				if err != nil {
					t.Fatal(err)
				}
				e = w.open()
				if _, err := e.Recover(t.Context()); (err == nil) != (end == "killed") {
					t.Error(err)
				}
			}
			wantIO("undone", "8:0 rbps=max", "8:0 wbps=90000000", "8:16 rbps=max")
			w.close()
		})
	}
}

// Whoever wrote less than is used would wait while the kernel reclaims, and could undo nothing.
func TestMemoryIsNotLimitedBelowWhatIsUsed(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		const used = 300 << 20
		_, d := w.limited("/a", 100)
		w.fake.SetLimit("/a", "memory.high", "max")
		w.fake.SetMemory("/a", used)
		d.Action.MemoryHigh = used - 1
		if out := w.e.Propose(t.Context(), d); out.RefusedBy != "feasibility" || !strings.Contains(out.Reason, fmt.Sprintf("%d is the least", used)) {
			t.Errorf("got %+v", out)
		}
		d.ID, d.Action.MemoryHigh, d.Action.EaseMS = "fs-1-least", used, 2000
		if out := w.e.Propose(t.Context(), d); out.ConfirmedAt == nil || w.fake.Limit("/a", "memory.high") != strconv.Itoa(used) {
			t.Fatalf("got %+v, memory.high holds %q", out, w.fake.Limit("/a", "memory.high"))
		}
		// It has grown since: what somebody else put back is not written over again.
		w.fake.SetMemory("/a", used+4096)
		w.fake.SetLimit("/a", "memory.high", "max")
		time.Sleep(6 * lookEvery)
		synctest.Wait()
		if l := w.log.last(); l.EndReason != model.EndYielded || w.fake.Limit("/a", "memory.high") != "max" {
			t.Errorf("it ended %q (%s), memory.high holds %q", l.EndReason, l.Note, w.fake.Limit("/a", "memory.high"))
		}
		w.wantLimits("/a", "max 100000", "4915")
	})
}

func TestARealTimeProcessIsNotLimited(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	_, d := w.limited("/a", 100)
	stat := fmt.Sprintf("101 (cc1) S 100 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 -51 0 1 0 %d 0 0\n", uint64(newStart)+1)
	if err := os.WriteFile(filepath.Join(w.proc, "101", "stat"), []byte(stat), 0o644); err != nil {
		t.Fatal(err)
	}
	if out := e.Propose(t.Context(), d); out.RefusedBy != "feasibility" || !strings.Contains(out.Reason, "real-time") {
		t.Errorf("got %+v", out)
	}
	w.wantLimits("/a", "max 100000", "4915")
	w.close()
}
