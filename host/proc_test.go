package host

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/breakerd/breakerd/model"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

func TestProcStat(t *testing.T) {
	const rest = " S 1 1 1 0 -1 4194560 3332 14972 185 88 110 197 71 146 20 0 1 0 42 20369408 2920\n"
	want := func(comm string) ProcStat {
		return ProcStat{
			ProcID: model.ProcID{PID: 7, StartTime: 42},
			PPID:   1, Comm: comm, State: 'S', Flags: 4194560, CPUNS: (110 + 197) * tickNS,
		}
	}
	tests := []struct{ name, comm string }{
		{"an ordinary name", "systemd"},
		{"a name with a space", "tmux: server"},
		{"a name that looks like the rest of the line", "a) R 9 9"},
		{"a name that ends in parentheses", "(sd-pam)"},
		{"a name with a newline", "a\n8 (b) S 1"},
		{"terminal escapes", "\x1b]0;owned\a"},
		{"no UTF-8", "\xff\xfe"},
		{"no name at all", ""},
		{"a worker of the kernel, longer than 15 bytes", "kworker/u8:3-events_unbound"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parseProcStat([]byte("7 (" + tt.comm + ")" + rest))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want(tt.comm), got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestProcStatOfAFixture(t *testing.T) {
	r := fixture(t, "debian-6.1")
	init, err := r.ProcStat(1)
	if err != nil || init.Comm != "systemd" || init.PPID != 0 || init.StartTime != 42 || init.Kernel() {
		t.Errorf("pid 1: %+v, %v", init, err)
	}
	kthreadd, err := r.ProcStat(2)
	if err != nil || kthreadd.Comm != "kthreadd" || !kthreadd.Kernel() {
		t.Errorf("pid 2: %+v, %v", kthreadd, err)
	}
}

func TestProcStatErrors(t *testing.T) {
	for name, text := range map[string]string{
		"empty":                 "",
		"no name":               "7 systemd S 1",
		"cut short":             "7 (a) S 1 1 1 0",
		"a pid that is none":    "x (a) S 1 1 1 0 -1 4194560 3332 14972 185 88 110 197 71 146 20 0 1 0 42",
		"a start before boot":   "7 (a) S 1 1 1 0 -1 4194560 3332 14972 185 88 110 197 71 146 20 0 1 0 -42",
		"a state of two states": "7 (a) SS 1 1 1 0 -1 4194560 3332 14972 185 88 110 197 71 146 20 0 1 0 42",
	} {
		if got, err := parseProcStat([]byte(text)); err == nil || got != (ProcStat{}) {
			t.Errorf("%s: got %+v, %v", name, got, err)
		}
	}
}

func TestCmdline(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"arguments", "make\x00-j2\x00all\x00", "make -j2 all"},
		{"an empty argument within", "sh\x00-c\x00\x00x\x00", "sh -c  x"},
		{"a kernel thread has none", "", ""},
		{"written over by the process itself", "nginx: worker process\x00\x00\x00\x00", "nginx: worker process"},
		{"no UTF-8", "a\xff\xfeb\x00", "a\uFFFDb"},
		{"bounded", strings.Repeat("x", 300), strings.Repeat("x", 256)},
		{"bounded without cutting a letter in two", strings.Repeat("x", 255) + "é", strings.Repeat("x", 255)},
		{"bounded after it grew", strings.Repeat("x\xff", 128), strings.Repeat("x\uFFFD", 64)},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := parseCmdline([]byte(tt.text)); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// A letter that the bound cuts in two is not shown as a broken one.
func TestCmdlineIsReadUpToItsBound(t *testing.T) {
	r := Reader{ProcRoot: t.TempDir()}
	write(t, r.proc("7/cmdline"), strings.Repeat("x", 255)+"é"+strings.Repeat("y", 1<<20))
	got, err := r.Cmdline(7)
	if want := strings.Repeat("x", 255); err != nil || got != want {
		t.Errorf("got %d bytes ending in %q, %v", len(got), got[max(0, len(got)-3):], err)
	}
}

func TestCgroupOf(t *testing.T) {
	for name, want := range map[string]string{"debian-6.1": "/init.scope", "hybrid-6.18": "/"} {
		got, err := fixture(t, name).CgroupOf(1)
		if err != nil || got != want {
			t.Errorf("%s: got %q, %v", name, got, err)
		}
	}
	if got, err := parseProcCgroup([]byte("1:name=systemd:/0::/x\n0::/a:b\n")); err != nil || got != "/a:b" {
		t.Errorf("got %q, %v", got, err)
	}
	if got, err := parseProcCgroup([]byte("1:cpu:/\n")); err == nil {
		t.Errorf("without cgroup2: %q", got)
	}
}

func TestUID(t *testing.T) {
	got, err := parseProcUID([]byte("Name:\tx\\nUid:\\t0\nUid:\t1000\t0\t0\t0\nGid:\t5\t5\t5\t5\n"))
	if err != nil || got != 1000 {
		t.Errorf("got %d, %v", got, err)
	}
	if uid, err := fixture(t, "debian-6.1").UID(1); err != nil || uid != 0 {
		t.Errorf("fixture: %d, %v", uid, err)
	}
	for _, text := range []string{"", "Name:\tx\n", "Uid:\t-1\t0\t0\t0\n", "Uid:\t\n"} {
		if _, err := parseProcUID([]byte(text)); err == nil {
			t.Errorf("%q is accepted", text)
		}
	}
}

func TestAVanishedProcessIsGone(t *testing.T) {
	r := fixture(t, "debian-6.1")
	_, stat := r.ProcStat(99)
	_, cmdline := r.Cmdline(99)
	_, cgroup := r.CgroupOf(99)
	_, uid := r.UID(99)
	for _, err := range []error{stat, cmdline, cgroup, uid} {
		if !errors.Is(err, ErrGone) {
			t.Errorf("got %v", err)
		}
	}
}

func TestARealProcess(t *testing.T) {
	r := Reader{ProcRoot: "/proc"}
	cmd := exec.Command("cat", "-u", "-")
	in, err1 := cmd.StdinPipe()
	out, err2 := cmd.StdoutPipe()
	if err := errors.Join(err1, err2, cmd.Start()); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	// Its answer shows that exec is over: until then the command line is empty.
	if _, err := in.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	if _, err := out.Read(make([]byte, 1)); err != nil {
		t.Fatal(err)
	}
	pid := int32(cmd.Process.Pid)
	stat, err := r.ProcStat(pid)
	if err != nil || stat.PID != pid || stat.PPID != int32(os.Getpid()) || stat.StartTime == 0 || stat.Kernel() {
		t.Errorf("got %+v, %v", stat, err)
	}
	if line, err := r.Cmdline(pid); err != nil || line != "cat -u -" {
		t.Errorf("command line %q, %v", line, err)
	}
	if uid, err := r.UID(pid); err != nil || int(uid) != os.Getuid() {
		t.Errorf("uid %d, %v", uid, err)
	}

	f, err := openFile(unix.AT_FDCWD, r.proc(fmt.Sprintf("%d/stat", pid)))
	if err != nil {
		t.Fatal(err)
	}
	defer f.close()
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	if _, err := f.Read(make([]byte, 64)); !errors.Is(err, unix.ESRCH) {
		t.Errorf("an open file of a process that ended: %v", err)
	}
	if _, err := r.ProcStat(pid); !errors.Is(err, ErrGone) {
		t.Errorf("after its end: %v", err)
	}
}

func TestARealProcessIsInItsCgroup(t *testing.T) {
	r := machine(t)
	path := scratch(t, r)
	cmd := exec.Command("sleep", "60")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }()
	procs := filepath.Join(r.CgroupRoot, path, "cgroup.procs")
	if err := os.WriteFile(procs, []byte("0"), 0o644); err != nil {
		needKernel(t, "permission to move a process: "+err.Error())
	}
	defer func() { _ = os.WriteFile(filepath.Join(r.CgroupRoot, "cgroup.procs"), []byte("0"), 0o644) }()
	if got, err := r.CgroupOf(int32(os.Getpid())); err != nil || got != path {
		t.Errorf("got %q, %v; want %q", got, err, path)
	}
}
