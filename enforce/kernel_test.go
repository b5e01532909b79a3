package enforce

import (
	"context"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// kernelEngine is an engine over the real cgroups of this machine.
func kernelEngine(t testing.TB, mode model.Mode) (*Engine, *recorded) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	mount, err := cgroupctl.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	return kernelEngineAt(t, mode, mount)
}

// kernelEngineAt is one that finds the cgroups at a mount.
func kernelEngineAt(t testing.TB, mode model.Mode, mount string) (*Engine, *recorded) {
	t.Helper()
	c, err := cgroupctl.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	log := &recorded{}
	o := Options{Mode: mode, Config: DefaultConfig(), Cgroups: c, StateDir: t.TempDir(), Recorder: log}
	o.Config.Cooldown = 0
	o.Config.Rate.PerTarget.Burst, o.Config.Rate.Overall.Burst = 1000, 1000
	o.Config.Rate.PerTarget.Every = config.Duration(time.Millisecond)
	o.Config.Rate.Overall.Every = config.Duration(time.Millisecond)
	if mode != model.Enforce {
		o.Cgroups, o.StateDir = cgroupctl.NewDry(c), ""
	}
	e, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	go e.Run(ctx)
	t.Cleanup(func() {
		if err := e.Close(context.Background()); err != nil {
			t.Error(err)
		}
		cancel()
		c.Close()
	})
	return e, log
}

// about makes a decision about a cgroup and the process at the root of its tree.
func about(t testing.TB, g *kerneltest.Cgroup, id string, root int, hold time.Duration) model.Decision {
	t.Helper()
	r := procReader{dir: "/proc"}
	p, there := r.read(int32(root))
	if !there {
		t.Fatalf("process %d has ended", root)
	}
	return model.Decision{
		ID: id, IncidentID: "fs-1", Kind: model.ForkStorm, At: time.Now(),
		Action:   model.Action{Kind: model.Freeze, Scope: model.ScopeTree, ForMS: hold.Milliseconds()},
		Target:   model.Target{Cgroup: g.Path, CgroupID: g.ID(), Root: p.ProcID, Scope: model.ScopeTree},
		OpenedAt: time.Now(), Confidence: 1, Observed: 1,
	}
}

func eventually(t testing.TB, what string, f func() bool) {
	t.Helper()
	for until := time.Now().Add(5 * time.Second); !f(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatal("not within 5 s: " + what)
		}
	}
}

func TestAForkStormIsFrozenAndThawedOnTheRealKernel(t *testing.T) {
	e, _ := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	storm := g.Start("sh", "-c", `while :; do (sleep 1 & sleep 0.1 & wait) & sleep 0.01; done`)
	eventually(t, "a storm", func() bool { return len(g.PIDs()) > 20 })
	const held = 2 * time.Second // to confirm it takes 300 ms where others use the CPUs
	began := time.Now()
	out := e.Propose(t.Context(), about(t, g, "fs-1-1", storm.Process.Pid, held))
	if out.RefusedBy != "" || out.Error != "" {
		t.Fatalf("got %+v", out)
	}
	t.Logf("decided to confirmed in %s, %d processes", out.ConfirmedAt.Sub(began), len(g.PIDs()))
	if !g.Frozen() {
		t.Error("not frozen")
	}
	time.Sleep(100 * time.Millisecond) // who was ending already still ends: the freezer does not wait for the dying
	before := len(g.PIDs())
	time.Sleep(100 * time.Millisecond)
	if after := len(g.PIDs()); after != before {
		t.Errorf("%d processes, then %d", before, after)
	}
	eventually(t, "thawed", func() bool { return !g.Frozen() && g.Read("cgroup.freeze") == "0" })
	if took := time.Since(began); took < held {
		t.Errorf("thawed after %s already", took)
	}
}

func TestABystanderOnTheRealKernel(t *testing.T) {
	e, _ := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	g.Start("sleep", "601")
	time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
	root := g.Start("sh", "-c", "sleep 602; :")
	below := g.Child("below") // a tree that is in two cgroups cannot be moved apart and back
	eventually(t, "a child", func() bool { return len(g.PIDs()) == 3 })
	below.Write("cgroup.procs", strconv.Itoa(slices.Max(g.PIDs())))
	out := e.Propose(t.Context(), about(t, g, "fs-1-1", root.Process.Pid, time.Minute))
	if out.RefusedBy != "bystanders" || !strings.Contains(out.Reason, "sleep") || g.Frozen() {
		t.Errorf("got %+v", out)
	}
	d := about(t, g, "fs-1-2", root.Process.Pid, time.Minute)
	d.Action.Scope = model.ScopeCgroup
	if out := e.Propose(t.Context(), d); out.ConfirmedAt == nil || !g.Frozen() {
		t.Errorf("for the whole cgroup: %+v", out)
	}
}

func TestWhoIsMovedIntoAHeldCgroupIsLetGoOnTheRealKernel(t *testing.T) {
	e, log := kernelEngine(t, model.Enforce)
	g, elsewhere := kerneltest.ScratchCgroup(t), kerneltest.ScratchCgroup(t)
	other := elsewhere.Start("sleep", "601")
	time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
	root := g.Start("sleep", "600")
	if out := e.Propose(t.Context(), about(t, g, "fs-1-1", root.Process.Pid, time.Minute)); out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	time.Sleep(2 * lookEvery)
	if !g.Frozen() {
		t.Fatal("let go though nobody came")
	}
	began := time.Now()
	g.Write("cgroup.procs", strconv.Itoa(other.Process.Pid))
	eventually(t, "let go", func() bool { return g.Read("cgroup.freeze") == "0" && !g.Frozen() })
	if took := time.Since(began); took > 2*lookEvery {
		t.Errorf("let go after %s", took)
	}
	eventually(t, "ended", func() bool { return len(e.Leases()) == 0 })
	if l := last(log); l.EndReason != model.EndRefused || !strings.Contains(l.Note, "bystanders") {
		t.Errorf("got %+v", l)
	}
}

// A process whose first thread has ended is known by the others, and can be held.
func TestAProcessWithoutItsFirstThreadOnTheRealKernel(t *testing.T) {
	e, _ := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	root := g.Start("env", leaderless+"=1", self)
	// cgroup.kill sends its signal to the first thread, which does not hear it (seen on 6.18).
	t.Cleanup(func() { root.Process.Kill() })
	r := procReader{dir: "/proc"}
	eventually(t, "no first thread", func() bool {
		s, err := r.stat(int32(root.Process.Pid))
		return err == nil && s.state == 'Z' && s.threads > 1
	})
	if p, there := r.read(int32(root.Process.Pid)); !there || p.exe != self {
		t.Errorf("got %+v, want %s", p, self)
	}
	if out := e.Propose(t.Context(), about(t, g, "fs-1-1", root.Process.Pid, time.Minute)); out.ConfirmedAt == nil || !g.Frozen() {
		t.Errorf("got %+v", out)
	}
}

func TestOurselvesOnTheRealKernel(t *testing.T) {
	e, _ := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	root := g.Start("sleep", "600")
	defer e.Protect(int32(root.Process.Pid))()
	if out := e.Propose(t.Context(), about(t, g, "fs-1-1", root.Process.Pid, time.Minute)); out.RefusedBy != "protected" {
		t.Errorf("got %+v", out)
	}
}

func TestADryRunOnTheRealKernelFreezesNothing(t *testing.T) {
	e, _ := kernelEngine(t, model.DryRun)
	g := kerneltest.ScratchCgroup(t)
	root := g.Start("sleep", "600")
	out := e.Propose(t.Context(), about(t, g, "fs-1-1", root.Process.Pid, time.Minute))
	if out.ConfirmedAt == nil || !out.DryRun || g.Frozen() || g.Read("cgroup.freeze") != "0" {
		t.Errorf("got %+v, frozen %v", out, g.Frozen())
	}
	if l := e.Leases(); len(l) != 1 || !l[0].DryRun {
		t.Errorf("got %+v", l)
	}
}

func TestACgroupRemovedWhileHeldOnTheRealKernel(t *testing.T) {
	e, log := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	kerneltest.Require(t, kerneltest.Kill)
	c := g.Child("a")
	root := c.Start("sleep", "600")
	d := about(t, c, "fs-1-1", root.Process.Pid, time.Minute)
	if out := e.Propose(t.Context(), d); out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	c.Write("cgroup.kill", "1") // a frozen process can be killed
	c.Remove()
	again := g.Child("a")
	again.Write("cgroup.freeze", "1")
	if _, err := e.Release(t.Context(), d.ID, "a test"); err != nil {
		t.Fatal(err)
	}
	if l := last(log); !strings.Contains(l.Note, "gone") || again.Read("cgroup.freeze") != "1" {
		t.Errorf("got %+v; the new cgroup holds %s", l, again.Read("cgroup.freeze"))
	}
}

func BenchmarkProposeToConfirmedEightProcesses(b *testing.B) { benchmark(b, true) }
func BenchmarkUndoEightProcesses(b *testing.B)               { benchmark(b, false) }

func benchmark(b *testing.B, propose bool) {
	e, _ := kernelEngine(b, model.Enforce)
	g := kerneltest.ScratchCgroup(b)
	root := g.Start("sh", "-c", "for i in 1 2 3 4 5 6 7; do while :; do :; done & done; while :; do :; done")
	eventually(b, "eight processes", func() bool { return len(g.PIDs()) == 8 })
	d := about(b, g, "", root.Process.Pid, time.Minute)
	n := 0
	for b.Loop() {
		n++
		d.ID = "b-" + string(rune('a'+n%26)) + time.Now().Format("150405.000000000")
		d.At = time.Now()
		if !propose {
			b.StopTimer()
		}
		if out := e.Propose(b.Context(), d); out.ConfirmedAt == nil {
			b.Fatalf("got %+v", out)
		}
		if propose {
			b.StopTimer()
		} else {
			b.StartTimer()
		}
		if _, err := e.Release(b.Context(), d.ID, "a benchmark"); err != nil {
			b.Fatal(err)
		}
		if propose {
			b.StartTimer()
		}
	}
}
