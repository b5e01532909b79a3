package enforce

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// session is a tree beside somebody else, in /user.slice/session-3.scope.
func (w *world) session() (model.Decision, string) {
	const p = "/user.slice/session-3.scope"
	r := w.tree(p, 100)
	w.process(77, 1, oldStart, "bash", "/usr/bin/bash")
	w.fake.SetPIDs(p, 77, 100, 101, 102)
	return w.decide(r, 100, time.Minute), p
}

func TestATreeIsMovedAwayFromBystandersAndBack(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d, p := w.session()
		inside := p + "/" + cgroupctl.InsideName(d.ID)
		if out := w.e.Propose(t.Context(), d); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
		if got := w.fake.PIDs(inside); !slices.Equal(got, []int32{100, 101, 102}) || !w.held(inside) {
			t.Errorf("%v stand still", got)
		}
		if got := w.fake.PIDs(p); !slices.Equal(got, []int32{77}) || w.held(p) {
			t.Errorf("%v go on", got)
		}
		if l := w.e.Leases(); len(l) != 1 || l[0].Inside != cgroupctl.InsideName(d.ID) {
			t.Errorf("got %+v", l)
		}
		time.Sleep(3 * lookEvery)
		w.release(d.ID)
		got := w.fake.PIDs(p)
		slices.Sort(got)
		if !slices.Equal(got, []int32{77, 100, 101, 102}) || w.fake.Freeze(inside) != "" {
			t.Errorf("%v are back, and %s is %q", got, inside, w.fake.Freeze(inside))
		}
	})
}

func TestWhoForksWhileItIsMovedIsCaughtWhole(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d, p := w.session()
		d.Target.Outside = 1 // so that only who can be told to be of the tree is
		n := int32(0)
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "attach" && n < 20 {
				n++
				// One that has not been moved yet has forked, and the parent of another has ended.
				w.process(200+n, 102, newStart+5, "bomb", "/usr/bin/bomb")
				w.stat(300+n, fmt.Sprintf("%d (bomb) S 1 100 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0", 300+n, int(newStart+6)))
				os.Symlink("/usr/bin/bomb", filepath.Join(w.proc, fmt.Sprint(300+n), "exe"))
				w.fake.SetPIDs(p, append(w.fake.PIDs(p), 200+n, 300+n)...)
			}
			return nil
		})
		if out := w.e.Propose(t.Context(), d); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
		if got := w.fake.PIDs(p); !slices.Equal(got, []int32{77}) {
			t.Errorf("%v are outside still", got)
		}
		if got := w.fake.PIDs(p + "/" + cgroupctl.InsideName(d.ID)); len(got) != 43 {
			t.Errorf("%d were moved, want 43", len(got))
		}
	})
}

// A pid that is given out again between a pass and the move is somebody else's, of whatever
// cgroup: it is not moved.
func TestWhoGetsThePidOfOneThatWasToBeMovedIsNotMoved(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		d, p := w.session()
		const reused = 102
		first := true
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "attach" && first {
				first = false
				w.process(reused, 1, newStart+50, "innocent", "/usr/bin/innocent")
				w.fake.SetPIDs(p, slices.DeleteFunc(w.fake.PIDs(p), func(pid int32) bool { return pid == reused })...)
			}
			return nil
		})
		if out := w.e.Propose(t.Context(), d); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
		if got := w.fake.PIDs(p + "/" + cgroupctl.InsideName(d.ID)); slices.Contains(got, reused) || len(got) != 2 {
			t.Errorf("%v were moved", got)
		}
	})
}

func TestAMoveThatFailsMovesEverybodyBack(t *testing.T) {
	for _, op := range []string{"isolate", "attach", "confirm"} {
		t.Run(op, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				d, p := w.session()
				moved := 0
				w.fake.SetFault(func(at string, _ cgroupctl.Ref) error {
					if moved++; at == op && (op != "attach" || moved > 6) {
						return errors.New("no")
					}
					return nil
				})
				out := w.e.Propose(t.Context(), d)
				if out.Error == "" || out.ConfirmedAt != nil {
					t.Errorf("got %+v", out)
				}
				if got := w.fake.PIDs(p); len(got) != 4 || w.fake.Freeze(p+"/"+cgroupctl.InsideName(d.ID)) != "" {
					t.Errorf("%v are there", got)
				}
				w.wantFiled(d.ID, endedDir)
			})
		})
	}
}

// A kill at each moment of a move is recovered from. (TestKill does it with SIGKILL.)
func TestAKillAtEachMomentOfAMoveIsRecoveredFrom(t *testing.T) {
	for _, point := range slices.Concat(points, pointsInside) {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			w.open(func(o *Options) {
				o.at = func(p string) {
					if p == point {
						panic(killed{})
					}
				}
			})
			d, p := w.session()
			func() {
				defer func() { _ = recover() }()
				w.e.Propose(t.Context(), d)
				l := w.e.active[d.ID]
				l.claimed = true
				w.e.undo(l)
			}()
			w.crash()
			w.open()
			if _, err := w.e.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			if got := w.fake.PIDs(p); len(got) != 4 || w.fake.Freeze(p+"/"+cgroupctl.InsideName(d.ID)) != "" {
				t.Errorf("%v are there", got)
			}
			w.close()
		})
	}
}

func TestASpoiltRecordOfAMoveStillMovesEverybodyBack(t *testing.T) {
	w := newWorld(t)
	w.open()
	d, p := w.session()
	if out := w.e.Propose(t.Context(), d); out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	w.crash()
	name := filepath.Join(w.state, leasesDir, activeDir, d.ID+suffix)
	text, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(name, text[:strings.Index(string(text), `"root"`)], 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	if _, err := w.e.Recover(t.Context()); err == nil {
		t.Error("nobody says that a record was spoilt")
	}
	if got := w.fake.PIDs(p); len(got) != 4 {
		t.Errorf("%v are back", got)
	}
	w.close()
}

func TestWhoOwnsACgroupDecidesHowItIsFrozen(t *testing.T) {
	const p = "/batch.slice/a.service"
	unit := func(version int) cgroupctl.Owner {
		return cgroupctl.Owner{Own: true, Version: version, Unit: cgroupctl.Unit{Name: "a.service", ControlGroup: p, ActiveState: "active", FreezerState: "running"}}
	}
	for _, c := range []struct {
		name, guard, writes string
		owner               func() (cgroupctl.Owner, error)
	}{
		{"nobody's is written directly", "", p + " cgroup.freeze=1", func() (cgroupctl.Owner, error) { return cgroupctl.Owner{}, nil }},
		{"a unit's is frozen through systemd 252", "", p + " cgroup.freeze=1 through a.service", func() (cgroupctl.Owner, error) { return unit(252), nil }},
		{"a service of systemd 257 is moved inside", "", p + "/breakerd-fs-1-1 made; " + p + "/breakerd-fs-1-1 takes 100; " + p + "/breakerd-fs-1-1 takes 101; " + p + "/breakerd-fs-1-1 takes 102", func() (cgroupctl.Owner, error) { return unit(257), nil }},
		{"where systemd does not answer nothing is begun", "feasibility", "", func() (cgroupctl.Owner, error) { return unit(252), errors.New("no answer") }},
		{"a unit that is being stopped is left alone", "feasibility", "", func() (cgroupctl.Owner, error) {
			o := unit(252)
			o.Unit.Job = "stop"
			return o, nil
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			run(t, func(t *testing.T, w *world) {
				r := w.tree(p, 100)
				owner, err := c.owner()
				w.fake.SetOwner(p, owner, err)
				d := w.decide(r, 100, time.Minute)
				out := w.e.Propose(t.Context(), d)
				if out.RefusedBy != c.guard || out.Error != "" {
					t.Fatalf("got %+v", out)
				}
				if got := strings.Join(w.fake.Writes(), "; "); got != c.writes {
					t.Errorf("written: %s", got)
				}
				if c.guard != "" {
					return
				}
				w.release(d.ID)
				if w.fake.Freeze(p) != "0" || len(w.fake.PIDs(p)) != 3 {
					t.Errorf("%s holds %s, with %v", p, w.fake.Freeze(p), w.fake.PIDs(p))
				}
			})
		})
	}
}

func TestAUnitThatIsStoppedWhileHeldIsLetGo(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		const p = "/batch.slice/a.service"
		o := cgroupctl.Owner{Own: true, Version: 252, Unit: cgroupctl.Unit{Name: "a.service", ActiveState: "active"}}
		r := w.tree(p, 100)
		w.fake.SetOwner(p, o, nil)
		d := w.decide(r, 100, time.Minute)
		if out := w.e.Propose(t.Context(), d); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
		// Pid 1 that gives no answer for a while, as at a daemon-reload, is no reason.
		w.fake.SetOwner(p, cgroupctl.Owner{}, errors.New("no answer"))
		time.Sleep(3 * lookEvery)
		w.wantHeld(p, true)
		o.Unit.Job = "restart"
		w.fake.SetOwner(p, o, nil)
		time.Sleep(2 * lookEvery)
		w.wantHeld(p, false)
		if l := last(w.log); l.EndReason != model.EndRefused || !strings.Contains(l.Note, "owner: ") {
			t.Errorf("got %+v", l)
		}
	})
}

// slowManager answers one question late.
type slowManager struct {
	*cgroupctl.Fake
	late atomic.Int64 // ns
}

func (s *slowManager) Owner(ctx context.Context, r cgroupctl.Ref) (cgroupctl.Owner, error) {
	time.Sleep(time.Duration(s.late.Swap(0)))
	return s.Fake.Owner(ctx, r)
}

// That systemd has once taken long to answer keeps nobody from being seen afterwards.
func TestASlowManagerLeavesNobodyUnseen(t *testing.T) {
	const p = "/batch.slice/a.service"
	o := cgroupctl.Owner{Own: true, Version: 252, Unit: cgroupctl.Unit{Name: "a.service", ActiveState: "active"}}
	for _, c := range []struct {
		name, guard string
		change      func(*world)
	}{
		{"sshd moves in", "protected", func(w *world) {
			w.process(77, 1, oldStart, "sshd", "/usr/sbin/sshd")
			w.fake.SetPIDs(p, 77, 100, 101, 102)
		}},
		{"it is to be stopped", "owner", func(w *world) {
			stopped := o
			stopped.Unit.Job = "stop"
			w.fake.SetOwner(p, stopped, nil)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			var manager *slowManager
			run(t, func(t *testing.T, w *world) {
				r := w.tree(p, 100)
				w.fake.SetOwner(p, o, nil)
				w.mustHold(w.decide(r, 100, time.Minute))
				manager.late.Store(int64(ownerBound))
				time.Sleep(lookEvery + ownerBound)
				synctest.Wait()
				c.change(w)
				w.wantHeld(p, true)
				time.Sleep(2 * lookEvery)
				synctest.Wait()
				w.wantHeld(p, false)
				if l := last(w.log); l.EndReason != model.EndRefused || !strings.Contains(l.Note, c.guard+": ") {
					t.Errorf("got %+v", l)
				}
			}, func(o *Options) {
				manager = &slowManager{Fake: o.Cgroups.(*cgroupctl.Fake)}
				o.Cgroups = manager
			})
		})
	}
}

// A fork bomb in a session, with a shell beside it.
func TestAForkStormBesideAShellIsMovedApartOnTheRealKernel(t *testing.T) {
	e, _ := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	shell := g.Start("sh", "-c", "while :; do sleep 0.01; done")
	time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
	storm := g.Start("setsid", "sh", "-c", `while :; do (sleep 1 & sleep 0.1 & wait) & sleep 0.005; done`)
	eventually(t, "a storm", func() bool { return len(g.PIDs()) > 30 })
	d := about(t, g, "fs-1-1", storm.Process.Pid, time.Minute)
	d.Target.Outside = 1
	began := time.Now()
	out := e.Propose(t.Context(), d)
	if out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	inside := g.Dir + "/" + cgroupctl.InsideName(d.ID)
	count := func() int {
		b, _ := os.ReadFile(inside + "/cgroup.procs")
		return strings.Count(string(b), "\n")
	}
	held := count()
	t.Logf("decided to confirmed in %s, %d processes moved", out.ConfirmedAt.Sub(began).Round(100*time.Microsecond), held)
	r := procReader{dir: "/proc"}
	for _, pid := range g.PIDs() {
		p, there := r.read(int32(pid))
		if there && pid != shell.Process.Pid && p.parent != int32(shell.Process.Pid) {
			t.Errorf("process %s of %d is outside still", p, p.parent)
		}
	}
	before, ok := r.read(int32(shell.Process.Pid))
	time.Sleep(2 * lookEvery)
	if b, _ := os.ReadFile(inside + "/cgroup.events"); !strings.Contains(string(b), "frozen 1") || count() != held {
		t.Errorf("%d then %d processes, and %s", held, count(), b)
	}
	if s, err := r.stat(int32(shell.Process.Pid)); !ok || err != nil || g.Frozen() || before.StartTime != s.start {
		t.Error("the shell does not go on")
	}
	began = time.Now()
	if _, err := e.Release(t.Context(), d.ID, "a test"); err != nil {
		t.Fatal(err)
	}
	t.Logf("undone in %s", time.Since(began).Round(100*time.Microsecond))
	if _, err := os.Stat(inside); err == nil || !slices.Contains(g.PIDs(), storm.Process.Pid) {
		t.Errorf("%s is still there, or the storm is not back: %v", inside, g.PIDs())
	}
}

// A thousand processes, as a fork bomb would have them.
func TestAThousandProcessesAreMovedApartWithinASecondOnTheRealKernel(t *testing.T) {
	e, _ := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	g.Start("sleep", "600")
	time.Sleep(20 * time.Millisecond)
	root := g.Start("sh", "-c", "i=0; while [ $i -lt 999 ]; do sleep 600 & i=$((i+1)); done; wait")
	for until := time.Now().Add(time.Minute); len(g.PIDs()) < 1001 && time.Now().Before(until); {
		time.Sleep(50 * time.Millisecond) // a slow machine takes long to start them
	}
	d := about(t, g, "fs-1-1", root.Process.Pid, time.Minute)
	var began time.Time // without the look before, and the disk
	e.at = func(point string) {
		if point == "after record" {
			began = time.Now()
		}
	}
	out := e.Propose(t.Context(), d)
	if out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	took := out.ConfirmedAt.Sub(began)
	began = time.Now()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if _, err := e.Release(ctx, d.ID, "a test"); err != nil {
		t.Fatal(err)
	}
	back := time.Since(began)
	t.Logf("1,000 processes: written down to confirmed in %s, back in %s", took.Round(time.Millisecond), back.Round(time.Millisecond))
	if took > time.Second || back > time.Second {
		t.Errorf("held after %s, and back after %s: want a second for each", took, back)
	}
	if n := len(g.PIDs()); n < 1001 {
		t.Errorf("%d are back", n)
	}
}
