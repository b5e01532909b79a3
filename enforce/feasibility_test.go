package enforce

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// What cannot be done is told in every mode, in the same words: who only watches learns it
// before he arms anything.
func TestWhatCannotBeDoneIsToldInEveryModeOnTheRealKernel(t *testing.T) {
	half := model.Action{Kind: model.Throttle, CPUPercent: 50}
	for _, c := range []struct {
		name, guard, reason string
		action              model.Action // none is a freeze
		set                 func(t *testing.T, g *kerneltest.Cgroup) (in *kerneltest.Cgroup, root int)
		readOnly            bool
	}{
		{
			name: "a controller is missing", guard: "feasibility", reason: "does not give it the cpu controller", action: half,
			set: func(_ *testing.T, g *kerneltest.Cgroup) (*kerneltest.Cgroup, int) {
				below := g.Child("below") // the one above gives it none
				return below, below.Start("sleep", "600").Process.Pid
			},
		},
		{
			name: "a threaded cgroup", guard: "feasibility", reason: "threaded",
			set: func(_ *testing.T, g *kerneltest.Cgroup) (*kerneltest.Cgroup, int) {
				pid := g.Start("sleep", "600").Process.Pid
				threads := g.Child("threads")
				threads.Write("cgroup.type", "threaded")
				threads.Write("cgroup.threads", strconv.Itoa(pid))
				return threads, pid
			},
		},
		{
			name: "a real-time process", guard: "feasibility", reason: "real-time", action: half,
			set: func(t *testing.T, g *kerneltest.Cgroup) (*kerneltest.Cgroup, int) {
				pid := g.Start("sleep", "600").Process.Pid
				setRealTime(t, pid)
				return g, pid
			},
		},
		{
			name: "a process of which one thread is real-time", guard: "feasibility", reason: "real-time", action: half,
			set: func(t *testing.T, g *kerneltest.Cgroup) (*kerneltest.Cgroup, int) {
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				pid := g.Start("env", leaderless+"=1", self).Process.Pid
				// cgroup.kill sends its signal to the first thread, which has ended.
				t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
				r := procReader{dir: "/proc"}
				eventually(t, "its first thread has ended", func() bool {
					s, err := r.stat(int32(pid))
					return err == nil && s.state == 'Z'
				})
				threads, err := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
				if err != nil {
					t.Fatal(err)
				}
				tid, _ := strconv.Atoi(threads[len(threads)-1].Name())
				setRealTime(t, tid)
				return g, pid
			},
		},
		{
			name: "cgroups that cannot be written", guard: "feasibility", reason: "read-only", readOnly: true,
			set: func(_ *testing.T, g *kerneltest.Cgroup) (*kerneltest.Cgroup, int) {
				return g, g.Start("sleep", "600").Process.Pid
			},
		},
		{
			name: "a tree beside others where no leaf can be made for it", guard: "bystanders", reason: "cannot be moved apart",
			set: func(_ *testing.T, g *kerneltest.Cgroup) (*kerneltest.Cgroup, int) {
				if all := strings.Fields(g.Read("cgroup.controllers")); len(all) > 0 {
					g.Write("cgroup.subtree_control", "+"+all[0])
				}
				g.Child("a").Start("sleep", "600")
				time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
				return g, g.Child("b").Start("sleep", "600").Process.Pid
			},
		},
		{
			name: "one that somebody else froze", guard: "feasibility", reason: "frozen by somebody else",
			set: func(_ *testing.T, g *kerneltest.Cgroup) (*kerneltest.Cgroup, int) {
				pid := g.Start("sleep", "600").Process.Pid
				g.Write("cgroup.freeze", "1")
				return g, pid
			},
		},
	} {
		t.Run(c.name, func(t *testing.T) {
			g := kerneltest.ScratchCgroup(t)
			in, root := c.set(t, g)
			mount := g.Mount
			if c.readOnly {
				mount = kerneltest.ReadOnly(t, mount)
			}
			answers := map[model.Mode]model.Outcome{}
			for _, mode := range []model.Mode{model.Monitor, model.DryRun, model.Enforce} {
				e, _ := kernelEngineAt(t, mode, mount)
				d := about(t, in, "fs-1-1", root, time.Minute)
				d.Target.Outside = 1
				if c.action.Kind != "" {
					c.action.Scope, c.action.ForMS = model.ScopeTree, 1000
					d.Action = c.action
				}
				answers[mode] = e.Propose(t.Context(), d)
			}
			out := answers[model.Enforce]
			if out.RefusedBy != c.guard || !strings.Contains(out.Reason, c.reason) {
				t.Errorf("in enforce: %+v", out)
			}
			if dry := answers[model.DryRun]; dry.RefusedBy != out.RefusedBy || dry.Reason != out.Reason {
				t.Errorf("in dry-run: %+v", dry)
			}
			if off := answers[model.Monitor]; off.RefusedBy != "mode" || !strings.HasSuffix(off.Reason, out.RefusedBy+" would refuse it: "+out.Reason) {
				t.Errorf("in monitor: %+v", off)
			}
		})
	}
}

func setRealTime(t *testing.T, tid int) {
	t.Helper()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.SchedSetAttr(tid, &unix.SchedAttr{Size: unix.SizeofSchedAttr, Policy: unix.SCHED_FIFO, Priority: 1}, 0); err != nil {
		t.Fatalf("give thread %d a real-time policy: %v", tid, err)
	}
}

// A sandbox of breakerd's own, in which cgroups are read-only, says nothing about what the
// enforcer can write.
func TestAReadOnlySandboxIsNoReasonInADryRun(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	g.Start("sleep", "600")
	c, err := cgroupctl.Open(kerneltest.ReadOnly(t, g.Mount))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	dry := cgroupctl.NewDry(c)
	dry.Sandboxed()
	if s, err := dry.Inspect(g.Ref()); err != nil || s.ReadOnly {
		t.Errorf("got %+v, %v", s, err)
	}
}
