package cgroupctl_test

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/cgroupctl/suite"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// kernelWorld is a scratch cgroup of the real kernel.
type kernelWorld struct {
	scratch *kerneltest.Cgroup
	writer  suite.Writer
	touches bool
}

func (k kernelWorld) Writer() suite.Writer { return k.writer }
func (k kernelWorld) Touches() bool        { return k.touches }

func (k kernelWorld) Make(t *testing.T, name string) (cgroupctl.Ref, int32) {
	g := *k.scratch
	g.Path, g.Dir = g.Path+"/"+name, g.Dir+"/"+name
	if err := os.MkdirAll(g.Dir, 0o755); err != nil {
		t.Fatal(err)
	}
	cmd := g.Start("sleep", "600")
	return g.Ref(), int32(cmd.Process.Pid)
}

func (k kernelWorld) Remove(t *testing.T, r cgroupctl.Ref) {
	g := *k.scratch
	g.Path, g.Dir = r.Path, g.Mount+r.Path
	g.Remove()
}

func (k kernelWorld) Set(t *testing.T, r cgroupctl.Ref, value string) {
	if err := os.WriteFile(k.file(r), []byte(value), 0); err != nil {
		t.Fatal(err)
	}
}

func (k kernelWorld) Freeze(t *testing.T, r cgroupctl.Ref) string {
	b, err := os.ReadFile(k.file(r))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(b))
}

func (k kernelWorld) file(r cgroupctl.Ref) string {
	return filepath.Join(k.scratch.Mount, r.Path, "cgroup.freeze")
}

func (k kernelWorld) ReadOnly(t *testing.T, _ cgroupctl.Ref) suite.Writer {
	c := open(t, kerneltest.ReadOnly(t, k.scratch.Mount))
	if !k.touches {
		return cgroupctl.NewDry(c)
	}
	return c
}

func open(t testing.TB, mount string) *cgroupctl.Controller {
	t.Helper()
	c, err := cgroupctl.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func TestController(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.World {
		g := kerneltest.ScratchCgroup(t)
		return kernelWorld{g, open(t, g.Mount), true}
	})
}

func TestDry(t *testing.T) {
	suite.Run(t, func(t *testing.T) suite.World {
		g := kerneltest.ScratchCgroup(t)
		return kernelWorld{g, cgroupctl.NewDry(open(t, g.Mount)), false}
	})
}

// Every file that a cgroup has is the same before and after, and nothing ever stood
// still, although the writer answered as if it had.
func TestDryTouchesNothing(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	g.Start("sleep", "600")
	d := cgroupctl.NewDry(open(t, g.Mount))
	before := files(t, g.Dir)
	if err := d.Apply(g.Ref(), cgroupctl.FreezeWrite()); err != nil {
		t.Fatal(err)
	}
	if err := d.Confirm(t.Context(), g.Ref(), true); err != nil {
		t.Fatal(err)
	}
	if s, err := d.Inspect(g.Ref()); err != nil || !s.Frozen || s.Freeze != "1" {
		t.Errorf("the dry writer says %+v, %v, want frozen", s, err)
	}
	if diff := cmp.Diff(before, files(t, g.Dir)); diff != "" {
		t.Errorf("a file changed while held (-before +after):\n%s", diff)
	}
	if _, err := d.Restore(t.Context(), g.Ref(), cgroupctl.FreezeWrite()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(before, files(t, g.Dir)); diff != "" {
		t.Errorf("a file changed afterwards (-before +after):\n%s", diff)
	}
}

// files are the contents of all files of a cgroup but the running counters.
// The step of a limit is taken in the mind alone, whether or not the cgroup has the file.
func TestADryStep(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	d := cgroupctl.NewDry(open(t, g.Mount))
	w := model.FileWrite{
		File: "cpu.max", Wrote: "50000 100000", Step: "125000 100000", Unit: "a.service",
		Limit: model.UnitLimit{Property: cgroupctl.CPUQuota, Value: math.MaxUint64},
	}
	was, err := d.Holds(g.Ref(), w)
	if err != nil {
		t.Fatal(err)
	}
	w.Was = was
	if err := d.Ease(g.Ref(), w); !errors.Is(err, cgroupctl.ErrOwned) {
		t.Errorf("eased before it was limited: %v", err)
	}
	holds := func(want string) {
		t.Helper()
		if now, err := d.Holds(g.Ref(), w); err != nil || now != want {
			t.Errorf("it holds %q, %v, want %q", now, err, want)
		}
	}
	if err := d.Apply(g.Ref(), w); err != nil {
		t.Fatal(err)
	}
	holds(w.Wrote)
	if err := d.Ease(g.Ref(), w); err != nil {
		t.Fatal(err)
	}
	holds(w.Step)
	if note, err := d.Restore(t.Context(), g.Ref(), w); note != "" || err != nil {
		t.Errorf("restored with %q, %v", note, err)
	}
	holds(was)
}

func files(t *testing.T, dir string) map[string]string {
	t.Helper()
	out := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if strings.HasSuffix(e.Name(), ".pressure") && e.Name() != "cgroup.pressure" || strings.HasPrefix(e.Name(), "cpu.stat") {
			continue
		}
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil && !errors.Is(err, fs.ErrPermission) && !errors.Is(err, unix.EINVAL) {
			t.Fatal(err)
		}
		out[e.Name()] = string(b)
	}
	return out
}

// kernel selftests cgroup/test_freezer.c, test_cgfreezer_forkbomb: a freeze stops
// a storm, children born meanwhile included.
func TestFreezeStopsAForkStorm(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	c := open(t, g.Mount)
	g.Start("sh", "-c", `while :; do sleep 0.2 & sleep 0.005; done`)
	time.Sleep(100 * time.Millisecond)
	if err := c.Apply(g.Ref(), cgroupctl.FreezeWrite()); err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(t.Context(), g.Ref(), true); err != nil {
		t.Fatal(err)
	}
	before := g.Read("cgroup.procs")
	if !g.Frozen() || before == "" {
		t.Fatalf("frozen %v, processes %q", g.Frozen(), before)
	}
	time.Sleep(50 * time.Millisecond)
	if after := g.Read("cgroup.procs"); after != before {
		t.Errorf("the storm went on: %q, then %q", before, after)
	}
	if note, err := c.Restore(t.Context(), g.Ref(), cgroupctl.FreezeWrite()); err != nil || note != "" {
		t.Fatal(note, err)
	}
	if g.Frozen() {
		t.Error("still frozen")
	}
}

// A cgroup whose own process sleeps, over others that are busy: it counts as frozen
// only when all of them stand still.
func TestFrozenMeansEverythingBelowToo(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	c := open(t, g.Mount)
	g.Start("sleep", "600")
	var below []*kerneltest.Cgroup
	for _, name := range []string{"a", "b", "c"} {
		child := g.Child(name)
		child.Start("sh", "-c", "while :; do :; done")
		below = append(below, child)
	}
	for range 30 {
		if err := c.Apply(g.Ref(), cgroupctl.FreezeWrite()); err != nil {
			t.Fatal(err)
		}
		if err := c.Confirm(t.Context(), g.Ref(), true); err != nil {
			t.Fatal(err)
		}
		for _, child := range below {
			if !child.Frozen() {
				t.Fatalf("%s is not frozen", child.Path)
			}
		}
		if _, err := c.Restore(t.Context(), g.Ref(), cgroupctl.FreezeWrite()); err != nil {
			t.Fatal(err)
		}
	}
}

// test_cgfreezer_stopped: a process that was stopped before counts as standing
// still, and stays stopped afterwards.
func TestAStoppedProcessStaysStopped(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	c := open(t, g.Mount)
	p := g.Start("sleep", "600").Process
	if err := p.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	if err := c.Apply(g.Ref(), cgroupctl.FreezeWrite()); err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(t.Context(), g.Ref(), true); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Restore(t.Context(), g.Ref(), cgroupctl.FreezeWrite()); err != nil {
		t.Fatal(err)
	}
	// It runs for a moment on its way from one stop to the other.
	var b []byte
	for range 200 {
		b, _ = os.ReadFile("/proc/" + strconv.Itoa(p.Pid) + "/stat")
		if strings.Contains(string(b), ") T ") {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
	t.Errorf("the process is not stopped any more: %s", b)
}

func TestAThreadedCgroupIsRefusedAndItsDomainListsItsProcesses(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	c := open(t, g.Mount)
	child := g.Child("threads")
	child.Write("cgroup.type", "threaded")
	if _, err := c.Inspect(child.Ref()); !errors.Is(err, cgroupctl.ErrThreaded) {
		t.Errorf("got %v, want %v", err, cgroupctl.ErrThreaded)
	}
	pid := g.Start("sleep", "600").Process.Pid
	child.Write("cgroup.threads", strconv.Itoa(pid))
	s, err := c.Inspect(g.Ref())
	if err != nil || len(s.PIDs) != 1 || s.PIDs[0] != int32(pid) {
		t.Errorf("got %+v, %v, want process %d", s, err, pid)
	}
}

func TestMarksOfRootAreSeen(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	c := open(t, g.Mount)
	child := g.Child("precious")
	if err := unix.Setxattr(child.Dir, "user.oomd_omit", []byte("1"), 0); err != nil {
		kerneltest.Lacks(t, fmt.Sprint("user attributes on cgroups, since 5.7: ", err))
	}
	s, err := c.Inspect(g.Ref())
	if err != nil || s.Omit != child.Path {
		t.Errorf("got %+v, %v, want the mark of %s", s, err, child.Path)
	}
	if err := os.Chown(child.Dir, 65534, 65534); err != nil {
		t.Fatal(err)
	}
	if s, err := c.Inspect(g.Ref()); err != nil || s.Omit != "" {
		t.Errorf("a user's own mark counts: %+v, %v", s, err)
	}
}

func TestOpenRefusesWhatIsNoCgroup2(t *testing.T) {
	if _, err := cgroupctl.Open(t.TempDir()); err == nil || !strings.Contains(err.Error(), "no cgroup2") {
		t.Errorf("got %v", err)
	}
	if _, err := cgroupctl.Open("/nonexistent"); err == nil {
		t.Error("opened nothing")
	}
}

// The root cgroup cannot be frozen by the kernel's own rule; the error names the
// file and does not take the root for gone.
func TestTheRootCgroupHasNothingToFreeze(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	mount, err := cgroupctl.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	c := open(t, mount)
	r, err := c.Find("/")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Inspect(r); err == nil || errors.Is(err, cgroupctl.ErrGone) {
		t.Errorf("got %v", err)
	}
}

func TestASymlinkIsNotFollowed(t *testing.T) {
	// cgroupfs has no symlinks of its own; the kernel refuses a mount point within.
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	g := kerneltest.ScratchCgroup(t)
	c := open(t, g.Mount)
	child := g.Child("mounted")
	if err := unix.Mount("none", child.Dir, "tmpfs", 0, ""); err != nil {
		kerneltest.Lacks(t, fmt.Sprint("a mount within cgroup2: ", err))
	}
	defer unix.Unmount(child.Dir, unix.MNT_DETACH)
	if _, err := c.Find(child.Path); !errors.Is(err, unix.EXDEV) {
		t.Errorf("got %v, want %v", err, unix.EXDEV)
	}
}

func BenchmarkFreezeAndThawEightBusyProcesses(b *testing.B) {
	g := kerneltest.ScratchCgroup(b)
	c := open(b, g.Mount)
	for range 8 {
		g.Start("sh", "-c", "while :; do :; done")
	}
	ref := g.Ref()
	for b.Loop() {
		if err := c.Apply(ref, cgroupctl.FreezeWrite()); err != nil {
			b.Fatal(err)
		}
		if err := c.Confirm(b.Context(), ref, true); err != nil {
			b.Fatal(err)
		}
		if _, err := c.Restore(b.Context(), ref, cgroupctl.FreezeWrite()); err != nil {
			b.Fatal(err)
		}
	}
}

// Whoever may make cgroups can nest them as deep as he likes. It must not cost the memory of
// whoever looks at them.
func TestCgroupsThatAreNestedByTheHundredAreNotWalked(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	const levels = 120 // of 250 bytes: 1.8 MB of paths
	name := strings.Repeat("d", 250)
	fds := []int{}
	fd, err := unix.Open(g.Dir, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for err == nil {
		fds = append(fds, fd)
		if len(fds) > levels {
			break
		}
		if err = unix.Mkdirat(fd, name, 0o755); err == nil {
			fd, err = unix.Openat(fd, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		}
	}
	t.Cleanup(func() {
		for _, fd := range slices.Backward(fds) {
			_ = unix.Unlinkat(fd, name, unix.AT_REMOVEDIR) // the deepest has none below it
			unix.Close(fd)
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	_, err = open(t, g.Mount).Inspect(g.Ref())
	if err == nil || !strings.Contains(err.Error(), "have more than") {
		t.Errorf("got %v", err)
	}
}

// While the files of a controller are taken away, the kernel answers ENODEV to who has them open.
// Those of PSI can be taken from one cgroup alone (cgroup.pressure, since 6.1).
func TestAFileThatIsTakenAwayIsNoCgroupThatIsGone(t *testing.T) {
	kerneltest.Require(t, kerneltest.PSI)
	if !kerneltest.Kernel(t, 6, 1) {
		t.Skip("needs cgroup.pressure: Linux 6.1")
	}
	g := kerneltest.ScratchCgroup(t)
	const file, hide = "cpu.pressure", "cgroup.pressure"
	c := open(t, g.Mount)
	for _, op := range []string{"read", "write"} {
		taken := false
		cgroupctl.Failing(t, func(at, name string) error {
			if at == op && name == file && !taken {
				taken = true
				g.Write(hide, "0")
			}
			return nil
		})
		_, err := c.ReadFile(g.Ref(), file)
		if op == "write" {
			err = c.PutFile(g.Ref(), file, "some 150000 2000000")
		}
		if !taken || !errors.Is(err, unix.ENOENT) || errors.Is(err, cgroupctl.ErrGone) {
			t.Errorf("%s: %v", op, err)
		}
		g.Write(hide, "1")
	}
}
