package enforce

import (
	"context"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// Whoever starts thousands of processes chooses the paths of their programs, and the enforcer has
// 64 MiB.
func TestALookKeepsNoPathsThatAnybodyChose(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	long := "/" + strings.Repeat("x", 4000)
	pids := []int32{100}
	w.process(100, 1, newStart, "sshd", "/usr/sbin/sshd")
	for pid := int32(101); pid < 200; pid++ {
		w.process(pid, 1, newStart, "x", long)
		pids = append(pids, pid)
	}
	r := w.fake.Make("/a", pids...)
	d := w.decide(r, 101, time.Minute)
	f := w.e.look(&d, nil, nil)
	kept := 0
	for i := range f.procs {
		kept += len(f.procs[i].exe)
	}
	if len(f.procs) != len(pids) || kept > 200 || !strings.Contains(guardProtected(&d, f), "sshd") {
		t.Errorf("%d processes, %d bytes of paths, %q", len(f.procs), kept, guardProtected(&d, f))
	}
}

// Whoever keeps his processes from being moved back keeps nobody else from being held.
func TestAnUndoThatLeavesNobodyFrozenCountsForNothing(t *testing.T) {
	for fault, refused := range map[error]string{fmt.Errorf("/a: %w", cgroupctl.ErrThawed): "", unix.EIO: "reach"} {
		w := newWorld(t)
		w.open(func(o *Options) { o.Config.Reach.Leases = 1 })
		out := w.e.Propose(t.Context(), w.decide(w.tree("/a", 100), 100, time.Minute))
		w.fake.SetFault(func(op string, r cgroupctl.Ref) error {
			if op == "restore" && r.Path == "/a" {
				return fault
			}
			return nil
		})
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		if _, err := w.e.Release(ctx, out.LeaseID, ""); err == nil {
			t.Error("it was undone")
		}
		cancel()
		if out := w.e.Propose(t.Context(), w.decide(w.tree("/b", 200), 200, time.Minute)); out.RefusedBy != refused {
			t.Errorf("%v: %+v", fault, out)
		}
		if out := w.e.Propose(t.Context(), w.decide(w.tree("/a/below", 300), 300, time.Minute)); out.RefusedBy != "feasibility" {
			t.Errorf("%v: below it: %+v", fault, out)
		}
		w.fake.SetFault(nil)
		w.e.Advance(time.Now().Add(time.Minute))
		w.close()
	}
}

// Nor are there more of those than can be looked after.
func TestUndosThatDoNotEndAreBounded(t *testing.T) {
	w := newWorld(t)
	w.open(func(o *Options) {
		o.Config.Rate.Overall.Burst, o.Config.Rate.PerTarget.Burst = 1000, 1000
		o.Config.Reach.MemoryPercent, o.Config.Reach.ProcessesPercent = 100, 100
	})
	w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
		if op == "restore" {
			return cgroupctl.ErrThawed
		}
		return nil
	})
	for i := range mostLeft + 5 {
		p := fmt.Sprint("/c", i)
		out := w.e.Propose(t.Context(), w.decide(w.tree(p, int32(1000+10*i)), int32(1000+10*i), time.Minute))
		if (out.RefusedBy == "reach") != (i >= mostLeft) {
			t.Fatalf("number %d: %+v", i, out)
		}
		if out.LeaseID != "" {
			ctx, cancel := context.WithTimeout(t.Context(), 5*time.Millisecond)
			_, _ = w.e.Release(ctx, out.LeaseID, "")
			cancel()
		}
	}
	w.fake.SetFault(nil)
	w.e.Advance(time.Now().Add(time.Hour))
	w.close()
}

// Each guard refuses what it is there to refuse, with its reason, and nothing is
// written; the same decision without the change is carried out.
func TestGuardsRefuse(t *testing.T) {
	for _, c := range []struct {
		name, guard, reason string
		change              func(w *world, d *model.Decision)
	}{
		{"a good decision is carried out", "", "", func(*world, *model.Decision) {}},
		{"a good decision about a whole cgroup is carried out", "", "", func(w *world, d *model.Decision) {
			d.Action.Scope = model.ScopeCgroup
			w.end(100)
			w.fake.SetPIDs("/a/b", 101, 102)
		}},

		{"what its author holds to a dry run", "mode", "holds it to a dry run", func(_ *world, d *model.Decision) { d.DryRun = true }},
		{"what was hardly seen", "observation", "20 %", func(_ *world, d *model.Decision) { d.Observed = 0.2 }},
		{"what nobody says was seen", "observation", "0 %", func(_ *world, d *model.Decision) { d.Observed = 0 }},
		{"a part of 1 that is none", "observation", "NaN", func(_ *world, d *model.Decision) { d.Observed = math.NaN() }},
		{"a verdict that is not sure", "confidence", "40 %", func(_ *world, d *model.Decision) { d.Confidence = 0.4 }},
		{"a throttle without a limit", "feasibility", "names no limit", func(_ *world, d *model.Decision) { d.Action.Kind = model.Throttle }},
		{"no action", "feasibility", "no action", func(_ *world, d *model.Decision) { d.Action.Kind = model.NoAction }},
		{"an action nobody knows", "feasibility", `"kill"`, func(_ *world, d *model.Decision) { d.Action.Kind = "kill" }},
		{"a scope nobody knows", "feasibility", `"machine"`, func(_ *world, d *model.Decision) { d.Action.Scope = "machine" }},
		{"no scope at all", "feasibility", "scope", func(_ *world, d *model.Decision) { d.Action.Scope, d.Target.Scope = "", "" }},
		{"no time", "feasibility", "0 ms", func(_ *world, d *model.Decision) { d.Action.ForMS = 0 }},
		{"a negative time", "feasibility", "-5 ms", func(_ *world, d *model.Decision) { d.Action.ForMS = -5 }},
		{"a time that overflows", "feasibility", "ms cannot be given", func(_ *world, d *model.Decision) { d.Action.ForMS = 1 << 62 }},
		{"a path that climbs", "feasibility", "not clean", func(_ *world, d *model.Decision) { d.Target.Cgroup = "/a/../a/b" }},
		{"a path that is relative", "feasibility", "slash", func(_ *world, d *model.Decision) { d.Target.Cgroup = "a/b" }},
		{"no cgroup id", "feasibility", "id is missing", func(_ *world, d *model.Decision) { d.Target.CgroupID = 0 }},
		{"an id that is a path", "feasibility", "decision id", func(_ *world, d *model.Decision) { d.ID = "../../etc/passwd" }},
		{"a decision of two minutes ago", "feasibility", "too old", func(_ *world, d *model.Decision) { d.At = d.At.Add(-2 * time.Minute) }},
		{"a decision of the future", "feasibility", "too old", func(_ *world, d *model.Decision) { d.At = d.At.Add(time.Hour) }},
		{"a cgroup that somebody else froze", "feasibility", "frozen by somebody else", func(w *world, _ *model.Decision) { w.fake.SetFreeze("/a/b", "1") }},
		{"a cgroup below one that somebody else froze", "feasibility", "above it", func(w *world, _ *model.Decision) { w.fake.SetFreeze("/a", "1") }},
		{"a cgroup that is mounted read-only", "feasibility", "read-only", func(w *world, _ *model.Decision) { w.fake.SetReadOnly("/a/b", true) }},
		{"a throttle of a tree beside somebody else", "bystanders", "can have no controllers", func(w *world, d *model.Decision) {
			w.process(77, 1, oldStart, "bash", "/usr/bin/bash")
			w.fake.SetPIDs("/a/b", 77, 100, 101, 102)
			w.fake.SetLimit("/a/b", "pids.max", "max")
			d.Action.Kind, d.Action.PIDsMax, d.Target.Outside = model.Throttle, 10, 1
		}},
		{"a threaded cgroup", "feasibility", "threaded", func(w *world, _ *model.Decision) { w.fake.SetThreaded("/a/b") }},
		{"a cgroup below one that we hold", "feasibility", "holds /a/b already", func(w *world, d *model.Decision) {
			w.mustHold(*d)
			r := w.tree("/a/b/c", 300)
			*d = w.decide(r, 300, time.Second)
		}},

		{"a reason without end", "feasibility", "63", func(_ *world, d *model.Decision) { d.Action.Reason = strings.Repeat("<", 63000) }},
		{"denials without end", "feasibility", "denials", func(_ *world, d *model.Decision) { d.Denied = make([]string, 20000) }},
		{"names without end", "feasibility", "names", func(_ *world, d *model.Decision) {
			d.Policy, d.IncidentID = strings.Repeat("a", 9000), strings.Repeat("b", 9000)
		}},

		{"the root cgroup", "protected", "root cgroup", func(w *world, d *model.Decision) { d.Target.Cgroup = "/" }},
		{"pid 1", "protected", "pid 1", func(w *world, _ *model.Decision) { w.fake.SetPIDs("/a/b", 1, 100) }},
		{"a kernel thread", "protected", "kernel thread", func(w *world, _ *model.Decision) {
			w.stat(80, "80 (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0")
			w.fake.SetPIDs("/a/b", 80, 100)
		}},
		{"the enforcer", "protected", "the enforcer", func(w *world, _ *model.Decision) { w.fake.SetPIDs("/a/b", 100, testSelf) }},
		{"the enforcer in a cgroup below", "protected", "the enforcer", func(w *world, _ *model.Decision) { w.fake.Make("/a/b/c/d", testSelf) }},
		{"an ancestor of the enforcer", "protected", "the enforcer's ancestor", func(w *world, _ *model.Decision) {
			w.process(testSelf, 77, oldStart, "breaker-enforce", "/usr/sbin/breaker-enforcer")
			w.process(77, 1, oldStart, "bash", "/usr/bin/bash")
			w.fake.SetPIDs("/a/b", 77, 100)
		}},
		{"breakerd", "protected", "it is breakerd", func(w *world, _ *model.Decision) {
			w.process(950, 1, oldStart, "whatever", "/opt/whatever")
			w.e.Protect(950)
			w.fake.SetPIDs("/a/b", 100, 950)
		}},
		{"an ancestor of breakerd", "protected", "breakerd's ancestor", func(w *world, _ *model.Decision) { w.process(950, 102, newStart, "b", "/opt/b"); w.e.Protect(950) }},
		{"sshd", "protected", "/usr/sbin/sshd is protected", func(w *world, _ *model.Decision) { w.process(102, 101, newStart+2, "x", "/usr/sbin/sshd") }},
		{"sshd that was upgraded under way", "protected", "sshd", func(w *world, _ *model.Decision) {
			w.process(102, 101, newStart+2, "x", "/usr/sbin/sshd (deleted)")
		}},
		{"what the operator lists by program", "protected", "/opt/bank is protected", func(w *world, _ *model.Decision) { w.process(102, 101, newStart+2, "x", "/opt/bank") }},
		{"what the operator lists by unit", "protected", "bank@1.service", func(w *world, d *model.Decision) {
			*d = w.decide(w.tree("/x.slice/bank@1.service/c", 300), 300, time.Second)
		}},
		{"what the operator lists by slice", "protected", "precious.slice", func(w *world, d *model.Decision) {
			*d = w.decide(w.tree("/precious.slice/any.service", 300), 300, time.Second)
		}},
		{"what the operator lists by cgroup", "protected", "/kept", func(w *world, d *model.Decision) { *d = w.decide(w.tree("/kept/a", 300), 300, time.Second) }},
		{"a cgroup above what the operator lists", "protected", "/deep/kept", func(w *world, d *model.Decision) { *d = w.decide(w.tree("/deep", 300), 300, time.Second) }},
		{"a unit of systemd", "protected", "systemd-journald.service", func(w *world, d *model.Decision) {
			*d = w.decide(w.tree("/system.slice/systemd-journald.service", 300), 300, time.Second)
		}},
		{"a cgroup above a protected unit", "protected", "dbus.service", func(w *world, d *model.Decision) {
			r := w.tree("/system.slice", 300)
			w.fake.Make("/system.slice/dbus.service")
			*d = w.decide(r, 300, time.Second)
		}},
		{"a cgroup that root marked for oomd", "protected", "oomd_omit", func(w *world, _ *model.Decision) { w.fake.SetOmit("/a/b") }},
		{"a program that cannot be told", "protected", "in doubt", func(w *world, _ *model.Decision) { w.process(102, 101, newStart+2, "x", "") }},
		{"a process of another pid namespace", "protected", "pid namespace", func(w *world, _ *model.Decision) { w.fake.SetPIDs("/a/b", 0, 100) }},
		{"a process whose stat is nonsense", "protected", "in doubt", func(w *world, _ *model.Decision) { w.stat(102, "nonsense") }},
		{"a leader that has ended while its threads go on", "protected", "in doubt", func(w *world, _ *model.Decision) {
			w.stat(102, "102 (x) Z 101 1 1 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 3 0 999702 0 0")
		}},
		{"a leader that has ended while its threads go on in a program that is protected", "protected", "/usr/sbin/sshd is protected", func(w *world, _ *model.Decision) {
			w.stat(102, "102 (x) Z 101 1 1 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 3 0 999702 0 0")
			w.thread(102, 103, "/usr/sbin/sshd")
		}},
		{"a leader that has ended while its threads go on in a program that is not", "", "", func(w *world, _ *model.Decision) {
			w.stat(102, "102 (x) Z 101 1 1 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 3 0 999702 0 0")
			w.thread(102, 103, "/usr/bin/cc1")
		}},
		{"a cgroup that cannot be looked at", "protected", "in doubt", func(w *world, _ *model.Decision) {
			w.fake.SetFault(func(op string, _ cgroupctl.Ref) error { return fmt.Errorf("%s: no", op) })
		}},

		{"a cgroup that is gone", "identity", "gone", func(w *world, _ *model.Decision) { w.fake.Remove("/a") }},
		{"another cgroup under the same path", "identity", "gone", func(w *world, _ *model.Decision) { w.fake.Make("/a/b", 100) }},
		{"an empty cgroup", "identity", "empty", func(w *world, _ *model.Decision) { w.fake.SetPIDs("/a/b") }},
		{"a cgroup whose processes have all ended", "identity", "empty", func(w *world, _ *model.Decision) { w.end(100); w.end(101); w.end(102) }},
		{"a root that has ended", "identity", "root of the tree", func(w *world, _ *model.Decision) { w.end(100) }},
		{"a root that moved elsewhere", "identity", "root of the tree", func(w *world, _ *model.Decision) { w.fake.SetPIDs("/a/b", 101, 102) }},
		{"a pid that was given out again", "identity", "another one", func(w *world, _ *model.Decision) { w.process(100, 1, newStart+7, "make", "/usr/bin/make") }},

		{"an older process beside the tree", "bystanders", `77 "nginx"`, func(w *world, _ *model.Decision) {
			w.process(77, 1, oldStart, "nginx", "/usr/sbin/nginx")
			w.fake.SetPIDs("/a/b", 77, 100, 101)
			w.fake.SetGives("/a/b", "memory pids")
		}},
		{"a younger process beside the tree where breakerd saw somebody outside", "bystanders", `200 "nginx"`, func(w *world, d *model.Decision) {
			w.process(200, 1, newStart+9, "nginx", "/usr/sbin/nginx")
			w.fake.SetPIDs("/a/b", 100, 101, 200)
			w.fake.SetGives("/a/b", "memory pids")
			d.Target.Outside = 1
		}},
		{"a child that was handed to pid 1 belongs to the tree where nobody is outside", "", "", func(w *world, _ *model.Decision) {
			w.process(200, 1, newStart+9, "cc1", "/usr/bin/cc1")
			w.fake.SetPIDs("/a/b", 100, 101, 200)
		}},
		{"a negative number of processes outside", "bystanders", "-1", func(_ *world, d *model.Decision) { d.Target.Outside = -1 }},
		{"a process that ended meanwhile is nobody", "", "", func(w *world, _ *model.Decision) { w.fake.SetPIDs("/a/b", 77, 100, 101) }},
		{"a process that was just reaped is nobody", "", "", func(w *world, _ *model.Decision) {
			w.stat(102, "102 (x) Z 101 1 1 0 -1 4194308 0 0 0 0 0 0 0 0 20 0 1 0 999702 0 0")
		}},
		{"a grandchild whose parent is in another cgroup belongs to the tree", "", "", func(w *world, d *model.Decision) {
			w.fake.SetPIDs("/a/b", 100, 102)
			d.Target.Outside = 1
		}},

		{"a target that was acted on three times", "rate", "too often", func(w *world, d *model.Decision) {
			for range 3 {
				w.mustHold(*d)
				w.release(d.ID)
				d.ID += "x"
			}
		}},
		{"an eleventh action on the machine", "rate", "this machine", func(w *world, d *model.Decision) {
			for i := range int32(10) {
				pid := 300 + 10*i
				o := w.decide(w.tree(fmt.Sprintf("/o%d", i), pid), pid, time.Minute)
				w.mustHold(o)
				w.release(o.ID)
			}
		}},

		{"a fourth lease at once", "reach", "3 leases", func(w *world, d *model.Decision) {
			for i := range int32(3) {
				pid := 300 + 10*i
				w.mustHold(w.decide(w.tree(fmt.Sprintf("/o%d", i), pid), pid, time.Minute))
			}
		}},
		{"more than a quarter of the established processes", "reach", "28.2 %", func(w *world, d *model.Decision) {
			pids := []int32{100}
			for i := range int32(40) {
				w.process(2000+i, 100, oldStart, "httpd", "/usr/sbin/httpd")
				pids = append(pids, 2000+i)
			}
			w.fake.SetPIDs("/a/b", pids...)
		}},
		{"a share that kernel threads and young processes elsewhere do not make smaller", "reach", "28.2 %", func(w *world, d *model.Decision) {
			pids := []int32{100}
			for i := range int32(40) {
				w.process(2000+i, 100, oldStart, "httpd", "/usr/sbin/httpd")
				pids = append(pids, 2000+i)
			}
			w.fake.SetPIDs("/a/b", pids...)
			for i := range int32(50) {
				w.process(3000+i, 1, newStart, "young", "/usr/bin/young")
				w.stat(4000+i, fmt.Sprintf("%d (kworker/0:1) I 2 0 0 0 -1 69238880 0 0 0 0 0 0 0 0 20 0 1 0 5 0 0", 4000+i))
			}
		}},
		{"more than half of the machine's memory", "reach", "53.0 %", func(w *world, d *model.Decision) {
			w.heavy(102, oldStart, 530<<20)
			d.Action.Scope = model.ScopeCgroup
		}},
		{"a storm of young processes with most of the memory may be stopped", "", "", func(w *world, d *model.Decision) {
			w.heavy(102, newStart+2, 530<<20)
		}},
		{"what waits for a person's yes", "approval", "breakerctl approve fs-1-1", func(_ *world, d *model.Decision) { d.Action.ApprovalMS = 60_000 }},
		{"a yes that may come whenever", "feasibility", "cannot be waited for", func(_ *world, d *model.Decision) { d.Action.ApprovalMS = 1 << 62 }},
		{"what should take the place of what is not held", "feasibility", "is not held", func(_ *world, d *model.Decision) { d.After = "fs-1-0" }},
		{"a ladder without end", "feasibility", "more than 8", func(_ *world, d *model.Decision) { d.Action.Then = make([]model.Action, 9) }},
		{"an incident that has just opened", "grace", "grace", func(w *world, _ *model.Decision) {
			config := DefaultConfig()
			config.Cooldown, config.Grace = 0, config.Grace+1e10
			if _, _, err := w.e.Reconfigure(config); err != nil {
				w.t.Fatal(err)
			}
		}},
		{"a storm of young processes may be most of the machine", "", "", func(w *world, d *model.Decision) {
			pids := []int32{100}
			for i := range int32(300) {
				w.process(2000+i, 100, newStart+3, "bomb", "/usr/bin/bomb")
				pids = append(pids, 2000+i)
			}
			w.fake.SetPIDs("/a/b", pids...)
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t)
			w.open(func(o *Options) {
				o.Config.Protected = ProtectedConfig{
					Units: []string{"bank@*.service", "precious.slice"}, Exes: []string{"/opt/bank"}, Cgroups: []string{"/kept", "/deep/kept"},
				}
			})
			d := w.decide(w.tree("/a/b", 100), 100, time.Minute)
			c.change(w, &d)
			before := len(w.fake.Writes())
			out := w.e.Propose(t.Context(), d)
			if out.RefusedBy != c.guard || !strings.Contains(out.Reason, c.reason) || out.Error != "" {
				t.Errorf("refused by %q: %q, error %q; want %q: %q", out.RefusedBy, out.Reason, out.Error, c.guard, c.reason)
			}
			if n := len(w.fake.Writes()) - before; (n == 0) != (c.guard != "") {
				t.Errorf("%d writes", n)
			}
			w.fake.SetFault(nil)
			w.close()
		})
	}
}

// heavy gives a process so much memory.
func (w *world) heavy(pid int32, start uint64, bytes int) {
	w.t.Helper()
	text := fmt.Sprintf("%d (x) S 101 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 %d\n", pid, start, bytes/os.Getpagesize())
	if err := os.WriteFile(filepath.Join(w.proc, fmt.Sprint(pid), "stat"), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) mustHold(d model.Decision) {
	w.t.Helper()
	if out := w.e.Propose(w.t.Context(), d); out.RefusedBy != "" || out.Error != "" {
		w.t.Fatalf("propose %s: %+v", d.ID, out)
	}
}

func (w *world) release(id string) {
	w.t.Helper()
	if _, err := w.e.Release(w.t.Context(), id, "a test"); err != nil {
		w.t.Fatal(err)
	}
}

func (w *world) stat(pid int32, text string) {
	w.t.Helper()
	dir := filepath.Join(w.proc, fmt.Sprint(pid))
	os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(text+"\n"), 0o644); err != nil {
		w.t.Fatal(err)
	}
}

// thread gives a process a thread that runs a program.
func (w *world) thread(pid, tid int32, exe string) {
	w.t.Helper()
	dir := filepath.Join(w.proc, fmt.Sprint(pid), "task", fmt.Sprint(tid))
	if err := os.MkdirAll(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Symlink(exe, filepath.Join(dir, "exe")); err != nil {
		w.t.Fatal(err)
	}
}

func TestProtectedProgramsAreNamedExactly(t *testing.T) {
	for exe, want := range map[string]bool{
		"/sbin/init": true, "/usr/sbin/init": true, "/usr/lib/systemd/systemd": true,
		"/usr/lib/systemd/systemd-journald": true, "/lib/systemd/systemd-udevd": true, "/usr/bin/systemd-run": true,
		"/usr/sbin/sshd": true, "/usr/sbin/sshd (deleted)": true, "/usr/bin/dockerd": true, "/usr/local/bin/k3s": true,
		"/usr/libexec/openssh/sshd-session": true, "/usr/lib/ssh/sshd-auth": true, "/usr/libexec/ssh/sshd-session": true,
		"/usr/libexec/gdm-session-worker": true,
		"/usr/sbin/sssd":                  true, "/usr/libexec/sssd/sssd_be": true, "/usr/libexec/iwd": true, "/usr/lib/iwd/iwd": true,
		"/usr/bin/vmtoolsd": true, "/usr/bin/etcd": true, "/usr/local/bin/etcd": true, "/usr/local/bin/kube-apiserver": true,
		"/snap/docker/2932/bin/dockerd": true, "/snap/docker/2932/bin/containerd-shim-runc-v2": true,
		"/snap/microk8s/7180/kubelite": true, "/var/lib/snapd/snap/microk8s/7180/bin/containerd": true,
		"/snap/amazon-ssm-agent/9565/amazon-ssm-agent": true, "/snap/docker/2932/bin/dockerd (deleted)": true,
		"/opt/bank": true, "/opt/bank (deleted)": true,

		"/usr/lib/postgresql/15/bin/initdb": false, "/usr/bin/initdb": false, "/usr/bin/init-script": false,
		"/home/joe/sshd": false, "/tmp/usr/sbin/sshd": false, "/usr/sbin/sshd2": false, "/usr/sbin/xsshd": false,
		"/usr/sbin/sub/sshd": false, "sshd": false, "": false, " (deleted)": false, "/opt/bank2": false,
		"/home/joe/usr/lib/systemd/systemd": false, "/usr/bin/make": false, "/usr/bin/bash": false,
		"/usr/bin/systemd-notify": false, "/usr/bin/systemd-inhibit": false,
		"/usr/bin/etcdctl": false, "/usr/libexec/sssd/sssd": true, "/usr/libexec/sssd/sssd_x": false, "/tmp/kubelite": false,
		"/snap/dockerx/2932/bin/dockerd": false, "/snap/x/1/bin/dockerd": false, "/snap/docker/bin/dockerd": false,
		"/home/joe/snap/docker/2932/bin/dockerd": false, "/snap/docker/2932/tmp/dockerd": false, "/snap/docker/2932/bin/sub/dockerd": false,
		"/snap/docker/2932/bin/docker": false, "/snap/microk8s/7180/bin/make": false, "/snap/docker": false,
	} {
		if got := protectedExe(exe, []string{"/opt/bank"}); got != want {
			t.Errorf("protectedExe(%q) = %v", exe, got)
		}
	}
}

func TestProtectedUnitsAreNamedExactly(t *testing.T) {
	for p, want := range map[string]string{
		"/init.scope": "init.scope", "/system.slice/ssh.service": "ssh.service",
		"/system.slice/systemd-udevd.service/udev":                       "systemd-udevd.service",
		"/system.slice/system-getty.slice/getty@tty1.service":            "getty@tty1.service",
		"/system.slice/sssd.service":                                     "sssd.service",
		"/system.slice/sssd-kcm.service":                                 "sssd-kcm.service",
		"/system.slice/iwd.service":                                      "iwd.service",
		"/system.slice/open-vm-tools.service":                            "open-vm-tools.service",
		"/system.slice/vmtoolsd.service":                                 "vmtoolsd.service",
		"/system.slice/etcd.service":                                     "etcd.service",
		"/system.slice/kube-apiserver.service":                           "kube-apiserver.service",
		"/system.slice/snap.docker.dockerd.service":                      "snap.docker.dockerd.service",
		"/system.slice/snap.microk8s.daemon-kubelite.service":            "snap.microk8s.daemon-kubelite.service",
		"/system.slice/snap.amazon-ssm-agent.amazon-ssm-agent.service":   "snap.amazon-ssm-agent.amazon-ssm-agent.service",
		"/system.slice/snap.dockerx.dockerd.service":                     "",
		"/system.slice/snap.mine.etcd.service":                           "",
		"/system.slice/mysssd.service":                                   "",
		"/system.slice/etcd-backup.service":                              "",
		"/system.slice/batch.service":                                    "",
		"/system.slice/initdb.service":                                   "",
		"/system.slice/myssh.service":                                    "",
		"/system.slice/ssh.service.d":                                    "",
		"/user.slice/user-1000.slice/user@1000.service/app/sshd.service": "", // a user's own name
		"/system.slice/docker-1.scope/init.scope":                        "", // a container's own name
		"/systemd.slice":                                                 "",
		"/a":                                                             "",
	} {
		if got := protectedUnit(p, nil); got != want {
			t.Errorf("protectedUnit(%q) = %q, want %q", p, got, want)
		}
	}
}

// Where nothing can be written, an unreadable program is judged by its name, so that
// a dry run without rights says something; the enforcer always refuses.
func TestAnUnreadableProgramInADryRun(t *testing.T) {
	for _, c := range []struct {
		mode model.Mode
		comm string
		free bool
	}{
		{model.Enforce, "make", false},
		{model.DryRun, "make", true},
		{model.DryRun, "sshd", false},
		{model.DryRun, "breaker-enforce", false}, // cut off by the kernel
		{model.DryRun, "systemd-udevd", false},
	} {
		config := DefaultConfig()
		f := &facts{mode: c.mode, config: &config}
		p := &process{ProcID: model.ProcID{PID: 9}, comm: c.comm, denied: true}
		if why := protectedProcess(p, f); (why == "") != c.free {
			t.Errorf("%s, %s: %q", c.mode, c.comm, why)
		}
	}
}

func TestGuardsStandInTheirOrder(t *testing.T) {
	var names []string
	for _, g := range guards {
		names = append(names, g.name)
	}
	if got, want := strings.Join(names, " "), "mode feasibility observation confidence protected identity bystanders grace cooldown rate reach approval"; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}
