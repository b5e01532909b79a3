// Package kerneltest is what tests against the real kernel share: they say what
// they need, and get scratch cgroups that leave nothing behind.
package kerneltest

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// Need is something that a test cannot do without.
type Need string

// What a test may need.
const (
	Root    Need = "root"       // uid 0
	Cgroup2 Need = "cgroup2"    // a mounted cgroup2 in which cgroups can be made
	BTF     Need = "BTF"        // /sys/kernel/btf/vmlinux
	PSI     Need = "PSI"        // /proc/pressure
	Systemd Need = "systemd"    // as pid 1
	Kill    Need = "cgroupkill" // cgroup.kill, since 5.14
)

// Require skips the test, saying what is missing, unless everything it needs is
// there. Where BREAKERD_REQUIRE_KERNEL=1 is set, as in CI, it fails instead, so that
// a test can never be lost in silence.
func Require(t testing.TB, needs ...Need) {
	t.Helper()
	for _, need := range needs {
		missing := lacks(need)
		if missing == "" {
			continue
		}
		Lacks(t, fmt.Sprintf("%s: %s", need, missing))
	}
}

// Lacks skips the test, or fails it as Require does, because of what it has found missing.
func Lacks(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("BREAKERD_REQUIRE_KERNEL") == "1" {
		t.Fatalf("needs %s (BREAKERD_REQUIRE_KERNEL=1, so this is a failure)", missing)
	}
	t.Skipf("needs %s", missing)
}

// lacks says what is missing, or nothing.
func lacks(need Need) string {
	switch need {
	case Root:
		if os.Geteuid() != 0 {
			return "run the tests as root"
		}
	case Cgroup2, Kill:
		mount, err := cgroupctl.FindRoot()
		if err != nil {
			return err.Error()
		}
		dir, err := os.MkdirTemp(mount, "breakerd-test-")
		if err != nil {
			return "cannot make a cgroup: " + err.Error()
		}
		defer os.Remove(dir)
		file := "cgroup.freeze"
		if need == Kill {
			file = "cgroup.kill"
		}
		if _, err := os.Stat(filepath.Join(dir, file)); err != nil {
			return "this kernel is too old: " + err.Error()
		}
	case BTF:
		if _, err := os.Stat("/sys/kernel/btf/vmlinux"); err != nil {
			return err.Error()
		}
	case PSI:
		if _, err := os.ReadFile("/proc/pressure/cpu"); err != nil {
			return err.Error()
		}
	case Systemd:
		if _, err := os.Stat("/run/systemd/system"); err != nil {
			return "systemd is not running: " + err.Error()
		}
	default:
		return fmt.Sprintf("no such need: %q", string(need))
	}
	return ""
}

// Cgroup is a cgroup that a test made.
type Cgroup struct {
	t     testing.TB
	Mount string // where cgroup2 is mounted
	Path  string // below the mount, with a leading slash
	Dir   string // Mount and Path
}

// ScratchCgroup makes a cgroup of the test's own. When the test ends, it and all
// below it is thawed, what runs there is killed, and it is removed.
func ScratchCgroup(t testing.TB) *Cgroup {
	t.Helper()
	return scratch(t, "breakerd-test-")
}

// ScratchUnit makes a cgroup where systemd would have that of a service. There is no such
// service.
func ScratchUnit(t testing.TB) *Cgroup {
	t.Helper()
	return scratch(t, "breakerd-test-*.service")
}

func scratch(t testing.TB, pattern string) *Cgroup {
	t.Helper()
	Require(t, Root, Cgroup2)
	mount, err := cgroupctl.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	dir, err := os.MkdirTemp(mount, pattern)
	if err != nil {
		t.Fatal(err)
	}
	g := &Cgroup{t: t, Mount: mount, Path: dir[len(mount):], Dir: dir}
	t.Cleanup(g.Remove)
	return g
}

// Child makes a cgroup below.
func (g *Cgroup) Child(name string) *Cgroup {
	g.t.Helper()
	c := &Cgroup{t: g.t, Mount: g.Mount, Path: g.Path + "/" + name, Dir: g.Dir + "/" + name}
	if err := os.Mkdir(c.Dir, 0o755); err != nil {
		g.t.Fatal(err)
	}
	return c
}

// ID is the kernel's id of the cgroup.
func (g *Cgroup) ID() model.CgroupID {
	g.t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(g.Dir, &st); err != nil {
		g.t.Fatal(err)
	}
	return model.CgroupID(st.Ino)
}

// Ref names the cgroup for cgroupctl.
func (g *Cgroup) Ref() cgroupctl.Ref { return cgroupctl.Ref{Path: g.Path, ID: g.ID()} }

// Read returns what a file of the cgroup holds; "" if there is none.
func (g *Cgroup) Read(file string) string {
	b, err := os.ReadFile(filepath.Join(g.Dir, file))
	if err != nil && !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, unix.ENODEV) {
		g.t.Error(err)
	}
	return strings.TrimSpace(string(b))
}

// Write writes a file of the cgroup.
func (g *Cgroup) Write(file, value string) {
	g.t.Helper()
	if err := os.WriteFile(filepath.Join(g.Dir, file), []byte(value), 0); err != nil {
		g.t.Fatal(err)
	}
}

// Frozen reports whether cgroup.events says that everything stands still.
func (g *Cgroup) Frozen() bool { return strings.Contains(g.Read("cgroup.events"), "frozen 1") }

// PIDs are the processes in the cgroup itself.
func (g *Cgroup) PIDs() []int {
	var pids []int
	for f := range strings.FieldsSeq(g.Read("cgroup.procs")) {
		if pid, err := strconv.Atoi(f); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids
}

// Start runs a command within the cgroup from its first instruction on
// (CLONE_INTO_CGROUP, since 5.7). It dies with the cgroup at the latest.
func (g *Cgroup) Start(name string, args ...string) *exec.Cmd {
	g.t.Helper()
	dir, err := os.Open(g.Dir)
	if err != nil {
		g.t.Fatal(err)
	}
	defer dir.Close()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd())}
	if err := cmd.Start(); err != nil {
		g.t.Fatal(err)
	}
	go cmd.Wait() // reaps it, however it ends
	return cmd
}

// Remove thaws, kills and removes the cgroup and all below it.
func (g *Cgroup) Remove() {
	var dirs []string
	_ = filepath.WalkDir(g.Dir, func(p string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, p)
		}
		return nil
	})
	for _, dir := range dirs {
		_ = os.WriteFile(filepath.Join(dir, "cgroup.freeze"), []byte("0"), 0)
	}
	slices.Reverse(dirs)
	until := time.Now().Add(5 * time.Second)
	for _, dir := range dirs {
		for unix.Rmdir(dir) == unix.EBUSY {
			if time.Now().After(until) {
				g.t.Errorf("scratch cgroup %s cannot be removed: something still runs in it", dir)
				return
			}
			kill(dir)
			kill(g.Dir) // a threaded cgroup can only be killed from its domain
			time.Sleep(time.Millisecond)
		}
	}
}

func kill(dir string) {
	if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) == nil {
		return
	}
	b, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	for f := range strings.FieldsSeq(string(b)) {
		if pid, err := strconv.Atoi(f); err == nil && pid > 1 {
			_ = unix.Kill(pid, unix.SIGKILL)
		}
	}
}

// ReadOnly mounts a file system once more, read-only, until the test ends, and says where.
func ReadOnly(t testing.TB, mount string) string {
	t.Helper()
	at, err := os.MkdirTemp("", "breakerd-test-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.Remove(at) })
	if err := unix.Mount(mount, at, "", unix.MS_BIND, ""); err != nil {
		t.Fatalf("mount %s once more: %v", mount, err)
	}
	t.Cleanup(func() { _ = unix.Unmount(at, unix.MNT_DETACH) })
	Remount(t, at, true)
	return at
}

// Remount has a mount that ReadOnly made be read-only or not.
func Remount(t testing.TB, at string, readOnly bool) {
	t.Helper()
	flags := uintptr(unix.MS_BIND | unix.MS_REMOUNT)
	if readOnly {
		flags |= unix.MS_RDONLY
	}
	if err := unix.Mount("", at, "", flags, ""); err != nil {
		t.Fatalf("mount %s again: %v", at, err)
	}
}

// DiskDir makes a directory on a file system that has a disk of its own, so that what is
// read and written there becomes block requests. It goes when the test ends.
func DiskDir(t testing.TB) string {
	t.Helper()
	tried := []string{os.TempDir(), "/var/tmp", "."}
	for _, parent := range tried {
		var st unix.Stat_t
		// Major 0 is tmpfs, overlayfs, NFS and other file systems without one.
		if unix.Stat(parent, &st) != nil || unix.Major(st.Dev) == 0 {
			continue
		}
		dir, err := os.MkdirTemp(parent, "breakerd-test-")
		if err != nil {
			continue
		}
		t.Cleanup(func() { _ = os.RemoveAll(dir) })
		return dir
	}
	Lacks(t, fmt.Sprintf("a file system on a disk: none of %q is on one; set TMPDIR", tried))
	return ""
}

// Kernel reports whether the running kernel is of this version or later.
func Kernel(t testing.TB, major, minor int) bool {
	t.Helper()
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		t.Fatal(err)
	}
	var ma, mi int
	if _, err := fmt.Sscanf(unix.ByteSliceToString(u.Release[:]), "%d.%d", &ma, &mi); err != nil {
		t.Fatal(err)
	}
	return ma > major || ma == major && mi >= minor
}
