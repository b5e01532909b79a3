package enforce

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// Whatever the kernel answers to whatever is asked of a cgroup, once, later or for a while:
// nothing is left behind, and what is not held says why.
func TestEveryErrorOfEveryFileLeavesNothing(t *testing.T) {
	errnos := []error{unix.EBUSY, unix.ENODEV, unix.ENOENT, unix.ENOSPC, unix.EPERM, unix.EROFS}
	for _, c := range []struct {
		kind string
		ops  []string
	}{
		{"freeze", []string{"inspect", "apply", "confirm", "holds", "restore"}},
		{"freeze apart", []string{"inspect", "isolate", "attach", "confirm", "holds", "restore"}},
		{"throttle", []string{"inspect", "rates", "throttle", "apply", "ease", "holds", "restore"}},
	} {
		for _, op := range c.ops {
			t.Run(c.kind+", "+op, func(t *testing.T) {
				run(t, func(t *testing.T, w *world) {
					for _, errno := range errnos {
						for nth := range nthAll + 1 { // one after the other; and all of them for a while
							w.faulty(c.kind, op, errno, nth)
						}
					}
				}, func(o *Options) {
					o.Config.Rate.PerTarget = Bucket{config.Duration(time.Millisecond), 1000}
					o.Config.Rate.Overall = o.Config.Rate.PerTarget
					o.Config.HeartbeatTimeout = 0
				})
			})
		}
	}
}

// nthAll is beyond the files of a throttle, of which there are four.
const nthAll = 4

// faulty carries one decision out while an operation fails, and looks at what is left.
func (w *world) faulty(kind, op string, errno error, nth int) {
	w.t.Helper()
	what := fmt.Sprintf("%s, %s, %v, %d", kind, op, errno, nth)
	const p = "/user.slice/session-3.scope"
	w.fake.Remove(p)
	_, d := w.limited(p, 100)
	w.fake.SetIO(p, cgroupctl.IORate{Device: "8:0", Read: 50e6})
	w.fake.SetLimit(p, "memory.high", "max")
	d.Action.MemoryHigh = 100 << 20
	pids := []int32{100, 101, 102}
	d.Action.IOPercent, d.Action.ForMS, d.Action.EaseMS = 10, 3000, 1500
	if kind != "throttle" {
		d.Action = model.Action{Kind: model.Freeze, Scope: model.ScopeTree, ForMS: time.Minute.Milliseconds()}
	}
	if kind == "freeze apart" {
		w.process(77, 1, oldStart, "bash", "/usr/bin/bash")
		pids = append(pids, 77)
		w.fake.SetPIDs(p, 77, 100, 101, 102)
	}
	seen := 0
	w.fake.SetFault(func(at string, _ cgroupctl.Ref) error {
		if at != op {
			return nil
		}
		if seen++; nth == nthAll || seen == nth+1 {
			return fmt.Errorf("%s: %w", op, errno)
		}
		return nil
	})
	out := w.e.Propose(w.t.Context(), d)
	if out.ConfirmedAt == nil && out.Error == "" && out.RefusedBy == "" {
		w.t.Errorf("%s: nothing says why it is not held: %+v", what, out)
	}
	time.Sleep(2 * time.Second)
	if out.ConfirmedAt != nil && op == "restore" {
		// The undo comes upon it, and is tried until it succeeds.
		ctx, cancel := context.WithTimeout(w.t.Context(), time.Second)
		_, err := w.e.Release(ctx, d.ID, "a test")
		cancel()
		if (err == nil) != (nth < nthAll) {
			w.t.Errorf("%s: released with %v", what, err)
		}
	}
	w.fake.SetFault(nil)
	if err := w.e.ReleaseAll(w.t.Context(), model.EndReleased); err != nil {
		w.t.Error(err)
	}
	synctest.Wait()
	w.wantHeld(p, false)
	w.wantLimits(p, "max 100000", "4915")
	if got := w.fake.Limit(p, "memory.high"); got != "max" {
		w.t.Errorf("%s: memory.high has %q", what, got)
	}
	if got := w.fake.Limit(p, "io.max 8:0 rbps"); got != "" && got != "8:0 rbps=max" {
		w.t.Errorf("%s: io.max has %q", what, got)
	}
	got := w.fake.PIDs(p)
	slices.Sort(got)
	slices.Sort(pids)
	if !slices.Equal(got, pids) || w.fake.Freeze(p+"/"+cgroupctl.InsideName(d.ID)) != "" || len(w.e.Leases()) != 0 {
		w.t.Errorf("%s: %v are there, with leases %+v", what, got, w.e.Leases())
	}
}

// Cgroups that turn read-only under a lease: the undo is tried until they can be written.
func TestCgroupsThatTurnReadOnlyWhileHeldOnTheRealKernel(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	mount := kerneltest.ReadOnly(t, g.Mount)
	kerneltest.Remount(t, mount, false)
	e, _ := kernelEngineAt(t, model.Enforce, mount)
	shell := g.Start("sleep", "600")
	time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
	root := g.Start("sleep", "600").Process.Pid
	for _, apart := range []bool{false, true} {
		d := about(t, g, fmt.Sprint("fs-1-", apart), root, time.Minute)
		d.Target.Outside = 1
		if !apart {
			d.Action.Scope, d.Target.Scope = model.ScopeCgroup, model.ScopeCgroup
		}
		if out := e.Propose(t.Context(), d); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
		kerneltest.Remount(t, mount, true)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		_, err := e.Release(ctx, d.ID, "a test")
		cancel()
		if err == nil || len(e.Leases()) != 1 || !strings.Contains(e.Leases()[0].Note, "read-only") {
			t.Errorf("released with %v; %+v", err, e.Leases())
		}
		if out := e.Propose(t.Context(), about(t, g, fmt.Sprint("fs-2-", apart), root, time.Minute)); out.RefusedBy != "feasibility" {
			t.Errorf("got %+v", out)
		}
		kerneltest.Remount(t, mount, false)
		eventually(t, "all is as before", func() bool {
			return len(e.Leases()) == 0 && !g.Frozen() && slices.Equal(g.PIDs(), []int{shell.Process.Pid, root})
		})
	}
}

// A cgroup that may have no other below it: nobody is moved, and nothing is left.
func TestACgroupThatMayHaveNoneBelowItOnTheRealKernel(t *testing.T) {
	e, _ := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	g.Start("sleep", "600")
	time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
	root := g.Start("sleep", "600").Process.Pid
	g.Write("cgroup.max.descendants", "0")
	d := about(t, g, "fs-1-1", root, time.Minute)
	d.Target.Outside = 1
	out := e.Propose(t.Context(), d)
	if out.ConfirmedAt != nil || !strings.Contains(out.Error, "make cgroup") || len(e.Leases()) != 0 || len(g.PIDs()) != 2 || g.Frozen() {
		t.Errorf("got %+v", out)
	}
}

// smallPIDs says that this test runs in a pid namespace of its own, with few pids.
const smallPIDs = "BREAKERD_TEST_SMALL_PIDS"

// A pid that was given to somebody else, which happens within a second where there are 400.
// The pids of a namespace can be bounded since 6.14.
func TestAPIDThatIsGivenOutAgainOnTheRealKernel(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	if os.Getenv(smallPIDs) == "" {
		if !kerneltest.Kernel(t, 6, 14) {
			t.Skip("needs a pid_max for each pid namespace: Linux 6.14")
		}
		inside := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$", "-test.v", "-test.timeout=60s")
		inside.Env = append(os.Environ(), smallPIDs+"=1")
		inside.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS, Pdeathsig: unix.SIGKILL}
		out, err := inside.CombinedOutput()
		t.Logf("%s", out)
		if err != nil {
			t.Fatal(err)
		}
		return
	}
	for _, err := range []error{
		unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""),
		unix.Mount("proc", "/proc", "proc", 0, ""),
		os.WriteFile("/proc/sys/kernel/pid_max", []byte("400"), 0),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	// Those below 300 are given out once only (RESERVED_PIDS in kernel/pid.c).
	if out, err := exec.Command("sh", "-c", "i=0; while [ $i -lt 300 ]; do /bin/true; i=$((i+1)); done").CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Run("before it is proposed", func(t *testing.T) {
		e, _ := kernelEngine(t, model.Enforce)
		g := kerneltest.ScratchCgroup(t)
		d := about(t, g, "fs-1-1", g.Start("sleep", "600").Process.Pid, time.Minute)
		for !replace(t, g, int(d.Target.Root.PID)) {
			d = about(t, g, "fs-1-1", g.Start("sleep", "600").Process.Pid, time.Minute)
		}
		if out := e.Propose(t.Context(), d); out.RefusedBy != "identity" || !strings.Contains(out.Reason, "another one") || g.Frozen() {
			t.Errorf("got %+v", out)
		}
	})
	t.Run("while its record is written", func(t *testing.T) {
		e, _ := kernelEngine(t, model.Enforce)
		g := kerneltest.ScratchCgroup(t)
		var out model.Outcome
		for replaced := false; !replaced; {
			d := about(t, g, "fs-1-1", g.Start("sleep", "600").Process.Pid, time.Minute)
			e.at = func(point string) {
				if point == "after record" {
					replaced = replace(t, g, int(d.Target.Root.PID))
				}
			}
			out = e.Propose(t.Context(), d)
		}
		if out.RefusedBy != "identity" || g.Frozen() || strings.Contains(g.Read("cgroup.stat.local"), "frozen_usec") && g.Read("cgroup.stat.local") != "frozen_usec 0" {
			t.Errorf("got %+v, %s", out, g.Read("cgroup.stat.local"))
		}
	})
	t.Run("while a storm is moved apart", func(t *testing.T) {
		e, _ := kernelEngine(t, model.Enforce)
		g, elsewhere := kerneltest.ScratchCgroup(t), kerneltest.ScratchCgroup(t)
		other := elsewhere.Start("sh", "-c", "while :; do /bin/true; done").Process.Pid
		shell := g.Start("sleep", "600").Process.Pid
		time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
		root := g.Start("setsid", "sh", "-c", "while :; do (sleep 0.05 & sleep 0.02 & wait) & sleep 0.002; done").Process.Pid
		eventually(t, "a storm", func() bool { return len(g.PIDs()) > 5 })
		held := 0
		for i := range 10 {
			d := about(t, g, fmt.Sprintf("fs-1-%d", i), root, time.Minute)
			d.Target.Outside = 1
			if out := e.Propose(t.Context(), d); out.ConfirmedAt != nil {
				held++
				time.Sleep(20 * time.Millisecond)
			} else if out.Error == "" && out.RefusedBy == "" {
				t.Errorf("got %+v", out)
			}
			if err := e.ReleaseAll(t.Context(), model.EndReleased); err != nil {
				t.Fatal(err)
			}
			// Those who were never meant are where they were.
			if !slices.Contains(elsewhere.PIDs(), other) || !slices.Contains(g.PIDs(), shell) || elsewhere.Frozen() {
				t.Fatalf("%v elsewhere, %v in it", elsewhere.PIDs(), g.PIDs())
			}
			r := procReader{dir: "/proc"}
			for _, pid := range g.PIDs() {
				if s, err := r.stat(int32(pid)); err == nil && s.parent == int32(other) {
					t.Fatalf("process %d of somebody else's was moved here", pid)
				}
			}
		}
		t.Logf("held %d times of 10", held)
		if held == 0 {
			t.Error("never held")
		}
	})
}

// replace ends a process, and has others start in the cgroup until one has its pid: not
// where a thread of this test was given it, and keeps it.
func replace(t *testing.T, g *kerneltest.Cgroup, pid int) (replaced bool) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is gone", func() bool { return unix.Kill(pid, 0) == unix.ESRCH })
	time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
	for range 1000 {
		cmd := g.Start("sleep", "600")
		if cmd.Process.Pid == pid {
			return true
		}
		_ = cmd.Process.Kill()
		eventually(t, strconv.Itoa(cmd.Process.Pid)+" is gone", func() bool { return unix.Kill(cmd.Process.Pid, 0) == unix.ESRCH })
	}
	if _, err := os.Stat(fmt.Sprintf("/proc/self/task/%d", pid)); err == nil {
		return false
	}
	t.Fatalf("the pid %d was not given out again", pid)
	return false
}
