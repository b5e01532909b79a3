package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// The cases by which others prove a freezer, written anew and asked of our engine: those of
// the kernel's own selftests (tools/testing/selftests/cgroup/test_freezer.c), of the Linux
// Test Project (testcases/kernel/controllers/freezer) and of systemd
// (test/units/TEST-38-FREEZER.sh; what of it needs systemd is in e2e/owner). Each runs in
// three modes: monitor and dry-run must leave every file as it was, and enforce must hold,
// and undo.

// scene is what a case plays in.
type scene struct {
	*testing.T
	e    *Engine
	log  *recorded
	g    *kerneltest.Cgroup // all below it belongs to the case
	mode model.Mode
	root int
	n    int
}

// foreignCase is a case of somebody else's.
type foreignCase struct {
	name string
	from string // where it was found, by its name there
	// set makes what is there before, and says what is asked for.
	set func(*scene) model.Decision
	// moves says that what is there changes by itself, so that its processes are not compared.
	moves bool
	// frozen says that somebody else has frozen a part of it.
	frozen bool
	// refused is the guard that refuses; "" if none does.
	refused string
	// held and after look at it in enforce. What held ends by itself is not released.
	held, after func(*scene)
}

var foreignCases = []foreignCase{
	{
		name: "a hundred processes", from: "test_freezer.c simple; freeze_thaw.sh",
		set: func(s *scene) model.Decision {
			d := s.tree(s.g, "i=0; while [ $i -lt 99 ]; do sleep 600 & i=$((i+1)); done; wait")
			eventually(s, "a hundred", func() bool { return len(s.g.PIDs()) == 100 })
			return d
		},
		held: func(s *scene) { s.still(s.g) },
	},
	{
		name: "a hierarchy, of which some hold nobody", from: "test_freezer.c tree",
		set: func(s *scene) model.Decision {
			s.hierarchy()
			return s.whole(s.g)
		},
		held: func(s *scene) {
			for _, p := range []string{"", "B", "B/C", "E", "E/F", "E/F/G/H", "K"} {
				s.still(s.below(p))
			}
			// Whoever asks for a part of it meanwhile gets nothing.
			out := s.e.Propose(s.Context(), s.whole(s.below("B")))
			if out.RefusedBy != "feasibility" || !strings.Contains(out.Reason, "holds") {
				s.Errorf("a part of it: %+v", out)
			}
		},
	},
	{
		name: "one below that somebody froze before", from: "test_freezer.c tree; TEST-38-FREEZER.sh recursive",
		frozen: true,
		set: func(s *scene) model.Decision {
			s.hierarchy()
			s.below("E/F").Write("cgroup.freeze", "1")
			eventually(s, "F is frozen", s.below("E/F").Frozen)
			return s.whole(s.g)
		},
		held: func(s *scene) { s.still(s.below("K")) },
		after: func(s *scene) {
			if f := s.below("E/F"); f.Read("cgroup.freeze") != "1" || !f.Frozen() || !s.below("E/F/G/H").Frozen() {
				s.Error("what somebody else froze is thawed")
			}
			if s.below("B/C").Frozen() {
				s.Error("what nobody else froze stands still")
			}
		},
	},
	{
		name: "one whose parent somebody froze before", from: "TEST-38-FREEZER.sh recursive",
		frozen: true,
		set: func(s *scene) model.Decision {
			s.hierarchy()
			s.below("E").Write("cgroup.freeze", "1")
			eventually(s, "H stands still", s.below("E/F/G/H").Frozen)
			return s.whole(s.below("E/F"))
		},
		refused: "feasibility",
	},
	{
		name: "a fork bomb, whose processes are killed while they stand still", from: "test_freezer.c forkbomb; freeze_kill_thaw.sh",
		set: func(s *scene) model.Decision {
			kerneltest.Require(s, kerneltest.Kill)
			d := s.tree(s.g, `while :; do (sleep 1 & sleep 0.1 & wait) & sleep 0.01; done`)
			eventually(s, "a storm", func() bool { return len(s.g.PIDs()) > 20 })
			return d
		},
		moves: true,
		held: func(s *scene) {
			s.still(s.g)
			s.g.Write("cgroup.kill", "1")
			eventually(s, "everybody has ended", func() bool { return s.g.Read("cgroup.procs") == "" })
			eventually(s, "the lease has ended", func() bool { return len(s.e.Leases()) == 0 })
			if l := last(s.log); l.EndReason != model.EndRefused || !strings.Contains(l.Note, "is empty") {
				s.Errorf("it ended %q: %s", l.EndReason, l.Note)
			}
		},
	},
	{
		name: "one that forks and execs in a loop, frozen again and again", from: "fork_freeze.sh",
		set: func(s *scene) model.Decision {
			return s.tree(s.g, "while :; do /bin/true; done")
		},
		moves: true,
		held: func(s *scene) {
			s.still(s.g)
			for range 10 {
				s.release()
				d := s.about(s.g)
				if out := s.e.Propose(s.Context(), d); out.ConfirmedAt == nil {
					s.Fatalf("got %+v", out)
				}
				s.still(s.g)
			}
		},
	},
	{
		name: "a cgroup made within while it is held, and somebody in it", from: "test_freezer.c mkdir",
		set: func(s *scene) model.Decision {
			s.tree(s.g, "exec sleep 600")
			return s.whole(s.g)
		},
		moves: true, // the case itself makes a cgroup
		held: func(s *scene) {
			child := s.g.Child("B")
			pid := s.elsewhere()
			child.Write("cgroup.procs", strconv.Itoa(pid))
			eventually(s, "who came stands still", func() bool { return child.Frozen() && s.g.Frozen() })
		},
		after: func(s *scene) {
			if s.below("B").Frozen() {
				s.Error("who came stands still still")
			}
		},
	},
	{
		name: "a cgroup removed within while it is held", from: "test_freezer.c rmdir",
		set: func(s *scene) model.Decision {
			s.tree(s.g, "exec sleep 600")
			s.g.Child("B")
			return s.whole(s.g)
		},
		held: func(s *scene) {
			s.below("B").Remove()
			s.still(s.g)
			if !s.g.Child("B").Frozen() {
				s.Error("one made in a held cgroup is not frozen")
			}
		},
	},
	{
		name: "one that somebody moves out", from: "test_freezer.c migrate; freeze_move_thaw.sh",
		set: func(s *scene) model.Decision {
			s.g.Child("B")
			a := s.g.Child("A")
			s.tree(a, "while :; do sleep 0.01; done")
			return s.whole(a)
		},
		moves: true,
		held: func(s *scene) {
			for _, pid := range s.below("A").PIDs() {
				_ = os.WriteFile(s.below("B").Dir+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0)
			}
			eventually(s, "it goes on", func() bool { return len(s.below("B").PIDs()) > 0 && !s.below("B").Frozen() })
			eventually(s, "the lease has ended", func() bool { return len(s.e.Leases()) == 0 })
		},
	},
	{
		name: "one that somebody moves from one that is held to another", from: "test_freezer.c migrate",
		set: func(s *scene) model.Decision {
			a, b := s.g.Child("A"), s.g.Child("B")
			b.Start("sleep", "600")
			s.tree(a, "exec sleep 600")
			return s.whole(a)
		},
		moves: true,
		held: func(s *scene) {
			a, b := s.below("A"), s.below("B")
			d := s.whole(b)
			if out := s.e.Propose(s.Context(), d); out.ConfirmedAt == nil {
				s.Fatalf("got %+v", out)
			}
			b.Write("cgroup.procs", strconv.Itoa(s.root))
			s.still(b)
			eventually(s, "the lease of the empty one has ended", func() bool { return len(s.e.Leases()) == 1 })
			if a.Read("cgroup.freeze") != "0" || !b.Frozen() {
				s.Errorf("A holds %s, B is frozen: %v", a.Read("cgroup.freeze"), b.Frozen())
			}
		},
	},
	{
		name: "one that is traced while it stands still", from: "test_freezer.c ptrace",
		set: func(s *scene) model.Decision { return s.tree(s.g, "exec sleep 600") },
		held: func(s *scene) {
			s.still(s.g)
			defer s.trace()()
			s.still(s.g)
		},
	},
	{
		name: "one that is traced before", from: "test_freezer.c ptraced",
		set: func(s *scene) model.Decision {
			d := s.tree(s.g, "exec sleep 600")
			s.Cleanup(s.trace())
			return d
		},
		after: func(s *scene) {
			eventually(s, "it is in the hands of its tracer", func() bool { return s.state() == 't' })
		},
	},
	{
		name: "one that was stopped before", from: "test_freezer.c stopped; stop_freeze_sleep_thaw_cont.sh",
		set: func(s *scene) model.Decision {
			d := s.tree(s.g, "exec sleep 600")
			s.signal(unix.SIGSTOP)
			eventually(s, "it is stopped", func() bool { return s.state() == 'T' })
			return d
		},
		after: func(s *scene) {
			eventually(s, "it is stopped still", func() bool { return s.state() == 'T' })
			s.signal(unix.SIGCONT)
			eventually(s, "it goes on", func() bool { return s.state() == 'S' })
		},
	},
	{
		name: "one that was stopped before and is continued meanwhile", from: "stop_freeze_thaw_cont.sh",
		set: func(s *scene) model.Decision {
			d := s.tree(s.g, "exec sleep 600")
			s.signal(unix.SIGSTOP)
			eventually(s, "it is stopped", func() bool { return s.state() == 'T' })
			return d
		},
		held: func(s *scene) {
			s.signal(unix.SIGCONT)
			s.still(s.g)
		},
		after: func(s *scene) { eventually(s, "it goes on", func() bool { return s.state() == 'S' }) },
	},
	{
		name: "one that waits for its child after vfork", from: "test_freezer.c vfork; vfork_freeze.sh",
		set: func(s *scene) model.Decision {
			self, err := os.Executable()
			if err != nil {
				s.Fatal(err)
			}
			s.root = s.g.Start("env", vforker+"=1", self).Process.Pid
			eventually(s, "it has a child", func() bool { return len(s.g.PIDs()) == 2 })
			return s.about(s.g)
		},
		held: func(s *scene) { s.still(s.g) },
	},
	{
		name: "one that is asked to end while it stands still, and does so in its own way", from: "freeze_kill_thaw.sh",
		set: func(s *scene) model.Decision {
			ready := filepath.Join(s.TempDir(), "ready")
			d := s.tree(s.g, "trap 'exit 0' TERM; echo >"+ready+"; while :; do sleep 0.01; done")
			eventually(s, "it has set its trap", func() bool { _, err := os.Stat(ready); return err == nil })
			return d
		},
		held: func(s *scene) {
			s.signal(unix.SIGTERM)
			time.Sleep(50 * time.Millisecond)
			if !slices.Contains(s.g.PIDs(), s.root) {
				s.Error("it has ended while it was held")
			}
			s.still(s.g)
		},
		after: func(s *scene) {
			eventually(s, "it has ended", func() bool { return s.g.Read("cgroup.procs") == "" })
		},
		moves: true,
	},
	{
		// A signal that ends a process ends a frozen one, too: the kernel makes a SIGKILL of it.
		name: "one that is asked to end while it stands still, and has no say in it", from: "freeze_kill_thaw.sh",
		set: func(s *scene) model.Decision { return s.tree(s.g, "exec sleep 600") },
		held: func(s *scene) {
			s.signal(unix.SIGTERM)
			eventually(s, "it has ended", func() bool { return s.g.Read("cgroup.procs") == "" })
			eventually(s, "the lease has ended", func() bool { return len(s.e.Leases()) == 0 })
		},
		moves: true,
	},
	{
		name: "one whose sleep is over before it is let go", from: "freeze_sleep_thaw.sh",
		set: func(s *scene) model.Decision { return s.tree(s.g, "exec sleep 0.6") },
		held: func(s *scene) {
			time.Sleep(700 * time.Millisecond)
			if len(s.g.PIDs()) != 1 {
				s.Error("it has ended while it was held")
			}
		},
		after: func(s *scene) {
			eventually(s, "it has ended", func() bool { return s.g.Read("cgroup.procs") == "" })
		},
		moves: true,
	},
	{
		name: "the enforcer itself", from: "freeze_self_thaw.sh",
		set: func(s *scene) model.Decision {
			// Its parent stands for it: who could never thaw himself is never frozen.
			s.tree(s.g, "exec sleep 600")
			s.Cleanup(s.e.Protect(int32(s.root)))
			return s.about(s.g)
		},
		refused: "protected",
	},
}

func TestForeignCasesOfTheFreezerOnTheRealKernel(t *testing.T) {
	for _, c := range foreignCases {
		for _, mode := range []model.Mode{model.Monitor, model.DryRun, model.Enforce} {
			t.Run(fmt.Sprintf("%s, %s", c.name, mode), func(t *testing.T) { play(t, c, mode) })
		}
	}
}

func play(t *testing.T, c foreignCase, mode model.Mode) {
	e, log := kernelEngine(t, mode)
	config := *e.config.Load()
	config.Reach.ProcessesPercent = 100 // some cases have more processes than this machine
	e.config.Store(&config)
	s := &scene{T: t, e: e, log: log, g: kerneltest.ScratchCgroup(t), mode: mode}
	d := c.set(s)
	before, limits := s.files(!c.moves, !c.frozen), s.files(false, false)
	out := e.Propose(t.Context(), d)
	if out.DryRun != (mode != model.Enforce) || out.Error != "" {
		t.Errorf("got %+v", out)
	}
	switch {
	case mode == model.Monitor:
		if out.RefusedBy != "mode" {
			t.Errorf("got %+v", out)
		}
	case out.RefusedBy != c.refused, (out.ConfirmedAt == nil) != (c.refused != ""):
		t.Fatalf("got %+v, want refused by %q", out, c.refused)
	}
	if mode != model.Enforce || c.refused != "" {
		// Nothing is written: not while it would be held, nor when it would be let go.
		s.same("while it would be held", before, s.files(!c.moves, !c.frozen))
		s.release()
		s.same("after it would have been let go", before, s.files(!c.moves, !c.frozen))
		return
	}
	if c.held != nil {
		c.held(s)
	}
	s.release()
	if s.g.Frozen() {
		t.Error("it stands still after it was let go")
	}
	if c.after != nil {
		c.after(s)
	}
	for file, now := range s.files(false, false) {
		if was, ok := limits[file]; ok && was != now {
			t.Errorf("%s held %q before, and %q in the end", file, was, now)
		}
	}
}

// tree starts a shell in a cgroup, and asks for a freeze of its tree.
func (s *scene) tree(g *kerneltest.Cgroup, script string) model.Decision {
	s.root = g.Start("sh", "-c", script).Process.Pid
	return s.about(g)
}

func (s *scene) about(g *kerneltest.Cgroup) model.Decision {
	s.n++
	return about(s, g, fmt.Sprintf("foreign-%d", s.n), s.root, time.Minute)
}

// whole asks for a freeze of all that is in a cgroup.
func (s *scene) whole(g *kerneltest.Cgroup) model.Decision {
	d := s.about(g)
	d.Action.Scope, d.Target.Scope = model.ScopeCgroup, model.ScopeCgroup
	return d
}

// hierarchy is the one of test_freezer.c: B with C and D, E with F, G and H below one
// another, I, and K; somebody in C and H, and three in K.
func (s *scene) hierarchy() {
	for _, p := range []string{"B", "B/C", "B/D", "E", "E/F", "E/F/G", "E/F/G/H", "I", "K"} {
		s.g.Child(p)
	}
	s.root = s.below("B/C").Start("sleep", "600").Process.Pid
	for _, p := range []string{"E/F/G/H", "K", "K", "K"} {
		s.below(p).Start("sleep", "600")
	}
}

func (s *scene) below(p string) *kerneltest.Cgroup {
	g := *s.g
	if p != "" {
		g.Path, g.Dir = g.Path+"/"+p, g.Dir+"/"+p
	}
	return &g
}

// elsewhere is a process that is in no cgroup of the case.
func (s *scene) elsewhere() int {
	return kerneltest.ScratchCgroup(s.T).Start("sleep", "600").Process.Pid
}

// still checks that everybody in a cgroup stands still.
func (s *scene) still(g *kerneltest.Cgroup) {
	s.Helper()
	if !g.Frozen() {
		s.Errorf("%s does not stand still: %s", g.Path, g.Read("cgroup.events"))
	}
}

func (s *scene) release() {
	s.Helper()
	for _, l := range s.e.Leases() {
		if _, err := s.e.Release(s.Context(), l.ID, "a test"); err != nil && !errors.Is(err, ErrNoLease) {
			s.Error(err)
		}
	}
}

func (s *scene) signal(sig syscall.Signal) {
	s.Helper()
	if err := unix.Kill(s.root, sig); err != nil {
		s.Fatal(err)
	}
}

// state is that of the process at the root, as proc has it.
func (s *scene) state() byte {
	r := procReader{dir: "/proc"}
	st, err := r.stat(int32(s.root))
	if err != nil {
		return 0
	}
	return st.state
}

// trace seizes and stops the process at the root, until the returned function is called. A
// tracer is a thread, so all of it happens in one.
func (s *scene) trace() (detach func()) {
	s.Helper()
	seized, end, ended := make(chan error), make(chan struct{}), make(chan error)
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		if _, _, errno := unix.Syscall6(unix.SYS_PTRACE, unix.PTRACE_SEIZE, uintptr(s.root), 0, 0, 0, 0); errno != 0 {
			seized <- fmt.Errorf("seize: %w", errno)
			return
		}
		if err := unix.PtraceInterrupt(s.root); err != nil {
			seized <- fmt.Errorf("interrupt: %w", err)
			return
		}
		seized <- nil
		<-end
		err := unix.PtraceDetach(s.root)
		// It is stopped for its tracer only once the kernel has it so.
		for until := time.Now().Add(5 * time.Second); err == unix.ESRCH && time.Now().Before(until); time.Sleep(time.Millisecond) {
			err = unix.PtraceDetach(s.root)
		}
		ended <- err
	}()
	if err := <-seized; err != nil {
		s.Fatal(err)
	}
	eventually(s, "its tracer has it", func() bool { return s.state() == 't' })
	return func() {
		close(end)
		if err := <-ended; err != nil {
			s.Errorf("detach: %v", err)
		}
	}
}

// files are all files of the case's cgroups with what they hold, but running counters.
// Where processes come and go by themselves, what follows from that is left out; what was
// ever frozen (cgroup.stat.local, since 6.18) is left out where something should be.
func (s *scene) files(processes, times bool) map[string]string {
	s.Helper()
	out := map[string]string{}
	err := filepath.WalkDir(s.g.Dir, func(p string, d fs.DirEntry, err error) error {
		name := d.Name()
		switch {
		case errors.Is(err, fs.ErrNotExist):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return nil
		case strings.HasSuffix(name, ".pressure") && name != "cgroup.pressure", strings.HasPrefix(name, "cpu.stat"):
			return nil
		case !processes && slices.Contains([]string{"cgroup.procs", "cgroup.threads", "cgroup.stat", "cgroup.events"}, name):
			return nil
		case !times && name == "cgroup.stat.local":
			return nil
		}
		b, err := os.ReadFile(p)
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, unix.EINVAL) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) {
			return nil // it is for writing only, or has gone
		}
		out[p[len(s.g.Dir)+1:]] = strings.TrimSpace(string(b))
		return err
	})
	if err != nil {
		s.Fatal(err)
	}
	if out["cgroup.freeze"] == "" {
		s.Fatalf("nothing to compare: %v", out)
	}
	return out
}

func (s *scene) same(when string, before, after map[string]string) {
	s.Helper()
	if diff := cmp.Diff(before, after); diff != "" {
		s.Errorf("a file changed %s (-before +after):\n%s", when, diff)
	}
}

// LTP freeze_cancel.sh: a freeze that is given up while it is under way.
func TestAFreezeThatIsGivenUpUnderWayOnTheRealKernel(t *testing.T) {
	e, log := kernelEngine(t, model.Enforce)
	g := kerneltest.ScratchCgroup(t)
	root := g.Start("sh", "-c", "while :; do :; done").Process.Pid
	var cancel context.CancelCauseFunc
	e.at = func(point string) {
		if point == "after write" {
			cancel(errors.New("given up"))
		}
	}
	for i := range 20 {
		var ctx context.Context
		ctx, cancel = context.WithCancelCause(t.Context())
		out := e.Propose(ctx, about(t, g, fmt.Sprintf("given-up-%d", i), root, time.Minute))
		// The kernel may have been quicker than the one who gives up.
		if out.ConfirmedAt != nil {
			if err := e.ReleaseAll(t.Context(), model.EndReleased); err != nil {
				t.Fatal(err)
			}
		} else if !strings.Contains(out.Error, "given up") {
			t.Errorf("got %+v", out)
		}
		if g.Read("cgroup.freeze") != "0" || len(e.Leases()) != 0 {
			t.Fatalf("it holds %s, with %+v", g.Read("cgroup.freeze"), last(log))
		}
		cancel(nil)
		eventually(t, "it goes on", func() bool { return !g.Frozen() })
	}
}

// LTP write_freezing.sh and freeze_write_freezing.sh: what nobody may write, nobody writes.
func TestNothingButAFreezeIsWrittenToTheFreezer(t *testing.T) {
	for _, value := range []string{"FREEZING", "FROZEN", "2", "-1", "", "0"} {
		w := cgroupctl.FreezeWrite()
		w.Wrote = value
		if err := cgroupctl.CheckWrite(w); err == nil {
			t.Errorf("%q is let through", value)
		}
	}
}

// vforker makes this test binary a process that waits for its child after vfork(2).
const vforker = "BREAKERD_TEST_VFORK"

// waitAfterVfork never returns: the child only sleeps, and has its parent wait.
func waitAfterVfork() {
	runtime.LockOSThread()
	unix.RawSyscall(unix.SYS_CLONE, unix.CLONE_VFORK|unix.CLONE_VM|uintptr(unix.SIGCHLD), 0, 0)
	for {
		unix.RawSyscall6(unix.SYS_PPOLL, 0, 0, 0, 0, 0, 0) // without an end
	}
}
