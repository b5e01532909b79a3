package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// The real program answers signals, refuses a second one, and its --undo refuses
// while it runs.
func TestProgram(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	k := &killer{t: t, program: build(t), run: t.TempDir(), state: t.TempDir(), proposed: map[string]bool{}}
	g := kerneltest.ScratchCgroup(t)
	root := g.Start("sleep", "600").Process.Pid
	k.groups, k.roots = []*kerneltest.Cgroup{g}, []int{root}
	k.config = filepath.Join(t.TempDir(), "enforcer.yaml")
	if err := os.WriteFile(k.config, []byte("cooldown: 0s # and the defaults\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.client = NewClient(k.run)
	cmd := k.start("")
	k.answers(cmd)

	k.propose(0, time.Minute)
	if !g.Frozen() {
		t.Fatal("not frozen")
	}
	if err := cmd.Process.Signal(unix.SIGUSR2); err != nil {
		t.Fatal(err)
	}
	eventually(t, "thawed after SIGUSR2", func() bool { return !g.Frozen() })
	k.answers(cmd)

	for _, c := range []struct {
		name string
		args []string
		want string
	}{
		{"a second one with the same state", []string{"--runtime-dir", t.TempDir(), "--state-dir", k.state}, "another breaker-enforcer is running with it"},
		{"a second one on the same socket", []string{"--runtime-dir", k.run, "--state-dir", t.TempDir()}, "another breaker-enforcer answers there"},
		{"an undo while it runs", []string{"--undo", "--state-dir", k.state}, "another breaker-enforcer is running"},
		{"a configuration that is not there", []string{"--config", "/nonexistent"}, "/nonexistent"},
		{"a root that is no cgroup2", []string{"--cgroup-root", "/tmp"}, "no cgroup2"},
		{"a flag nobody knows", []string{"--force"}, "--force"},
		{"an argument", []string{"x"}, `"x"`},
		{"a state directory that is a file", []string{"--state-dir", k.config}, "state directory"},
	} {
		out, err := exec.Command(k.program, c.args...).CombinedOutput()
		if err == nil || !bytes.Contains(out, []byte(c.want)) || bytes.Contains(out, []byte("is ready")) {
			t.Errorf("%s: %v: %s, want %s", c.name, err, out, c.want)
		}
	}

	k.propose(0, time.Minute)
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || g.Frozen() {
		t.Errorf("SIGTERM: %v, frozen %v\n%s", err, g.Frozen(), k.log())
	}
	if _, err := os.Stat(filepath.Join(k.run, SocketName)); err == nil {
		t.Error("the socket was left behind")
	}

	// --undo after a kill, as a unit's ExecStopPost does.
	cmd = k.start("")
	k.answers(cmd)
	id := k.propose(0, time.Minute)
	cmd.Process.Kill()
	cmd.Wait()
	if !g.Frozen() {
		t.Fatal("not frozen")
	}
	out, err := exec.Command(k.program, "--undo", "--state-dir", k.state).CombinedOutput()
	if err != nil || g.Frozen() || !bytes.Contains(out, []byte("undone: lease "+id)) {
		t.Errorf("--undo: %v: %s, frozen %v", err, out, g.Frozen())
	}
	out, err = exec.Command(k.program, "--undo", "--state-dir", k.state).CombinedOutput()
	if err != nil || !bytes.Contains(out, []byte("nothing to undo")) {
		t.Errorf("a second --undo: %v: %s", err, out)
	}
}

// A disk that is full: what was held is thawed, and nothing new is begun.
func TestAFullDisk(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	w := newWorld(t)
	if err := unix.Mount("none", w.state, "tmpfs", 0, "size=256k,mode=755"); err != nil {
		kerneltest.Lacks(t, fmt.Sprint("a small disk: ", err))
	}
	defer unix.Unmount(w.state, unix.MNT_DETACH)
	w.open()
	held := w.decide(w.tree("/a", 100), 100, time.Minute)
	w.mustHold(held)
	fill, err := os.Create(filepath.Join(w.state, "fill"))
	if err != nil {
		t.Fatal(err)
	}
	for _, err = fill.Write(make([]byte, 4096)); err == nil; {
		_, err = fill.Write(make([]byte, 4096))
	}
	fill.Close()
	out := w.e.Propose(t.Context(), w.decide(w.tree("/b", 200), 200, time.Minute))
	if !strings.Contains(out.Error, "no space left") || out.LeaseID != "" || w.held("/b") {
		t.Errorf("got %+v", out)
	}
	w.release(held.ID)
	w.wantHeld("/a", false)
	w.wantFiled(held.ID, endedDir)
	os.Remove(fill.Name())
	w.crash()
	w.open()
	if again := w.e.Propose(t.Context(), held); again.LeaseID != held.ID || w.held("/a") {
		t.Errorf("done twice: %+v", again)
	}
	w.close()
}

// A disk that turned read-only, as one with errors does: what was held by an enforcer
// that was killed is thawed, and nothing new is begun.
func TestAReadOnlyDiskKeepsNothingFrozen(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	w := newWorld(t)
	if err := unix.Mount("none", w.state, "tmpfs", 0, "size=256k,mode=755"); err != nil {
		kerneltest.Lacks(t, fmt.Sprint("a small disk: ", err))
	}
	defer unix.Unmount(w.state, unix.MNT_DETACH)
	w.open()
	held := w.decide(w.tree("/a", 100), 100, time.Minute)
	w.mustHold(held)
	w.crash()
	if err := unix.Mount("none", w.state, "", unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	w.open()
	if _, err := Open(w.options()); err == nil || !strings.Contains(err.Error(), "another breaker-enforcer") {
		t.Errorf("the lock does not hold: %v", err)
	}
	if leases, err := w.e.Recover(t.Context()); err != nil || len(leases) != 1 {
		t.Errorf("recovered %+v, %v", leases, err)
	}
	w.wantHeld("/a", false)
	out := w.e.Propose(t.Context(), w.decide(w.tree("/b", 200), 200, time.Minute))
	if !strings.Contains(out.Error, "read-only") || out.LeaseID != "" || w.held("/b") {
		t.Errorf("got %+v", out)
	}
	// Writable again, the record is put away.
	if err := unix.Mount("none", w.state, "", unix.MS_REMOUNT, "size=256k,mode=755"); err != nil {
		t.Fatal(err)
	}
	w.wantFiled(held.ID, activeDir)
	w.e.Advance(time.Now().Add(refileEvery))
	w.wantFiled(held.ID, endedDir)
	w.close()
}

// heldByAProgram has a real program, not started yet, and a cgroup for it to hold.
func heldByAProgram(t *testing.T) (*killer, *kerneltest.Cgroup) {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	k := &killer{t: t, program: build(t), run: t.TempDir(), state: t.TempDir(), proposed: map[string]bool{}}
	g := kerneltest.ScratchCgroup(t)
	root := g.Start("sleep", "600").Process.Pid
	k.groups, k.roots = []*kerneltest.Cgroup{g}, []int{root}
	k.config = filepath.Join(t.TempDir(), "enforcer.yaml")
	if err := os.WriteFile(k.config, []byte("cooldown: 0s # and the defaults\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	k.client = NewClient(k.run)
	return k, g
}

// fill fills a pipe, so that the next write to it waits. It is opened once more, for a
// descriptor that does not wait is one thing with whatever was made from it.
func fill(t *testing.T, pipe *os.File) {
	t.Helper()
	fd, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", pipe.Fd()), unix.O_WRONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	for size := 4096; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = unix.Write(fd, make([]byte, size))
		}
	}
	if err != unix.EAGAIN {
		t.Fatal(err)
	}
}

func TestABrokenConfigurationKeepsNothingFrozen(t *testing.T) {
	k, g := heldByAProgram(t)
	for _, undo := range []bool{false, true} {
		cmd := k.start("")
		k.answers(cmd)
		k.propose(0, time.Minute)
		cmd.Process.Kill()
		cmd.Wait()
		if !g.Frozen() {
			t.Fatal("not frozen")
		}
		if err := os.WriteFile(k.config, []byte("max_leese: 1m\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		args := []string{"--config", k.config, "--runtime-dir", k.run, "--state-dir", k.state}
		if undo {
			args = append(args, "--undo")
		}
		out, err := exec.Command(k.program, args...).CombinedOutput()
		if (err == nil) != undo || !bytes.Contains(out, []byte("max_leese")) || bytes.Contains(out, []byte("is ready")) {
			t.Errorf("undo %v: %v: %s", undo, err, out)
		}
		if g.Frozen() {
			t.Errorf("undo %v: still frozen: %s", undo, out)
		}
		if err := os.WriteFile(k.config, []byte("cooldown: 0s # and the defaults\n"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// After a downgrade: what a newer enforcer left held is let go, nothing new is begun, and
// the message says what to do.
func TestRecordsOfANewerEnforcerAreRefusedAndLeaveNothingFrozen(t *testing.T) {
	k, g := heldByAProgram(t)
	cmd := k.start("")
	k.answers(cmd)
	id := k.propose(0, time.Minute)
	cmd.Process.Kill()
	cmd.Wait()
	if !g.Frozen() {
		t.Fatal("not frozen")
	}
	version := filepath.Join(k.state, leasesDir, versionFile)
	if b, err := os.ReadFile(version); err != nil || string(b) != fmt.Sprintf("%d\n", model.LeaseVersion) {
		t.Fatalf("the version says %q, %v", b, err)
	}
	record := filepath.Join(k.state, leasesDir, activeDir, id+suffix)
	text, err := os.ReadFile(record)
	if err != nil {
		t.Fatal(err)
	}
	newer := bytes.Replace(text, fmt.Appendf(nil, `"version": %d,`, model.LeaseVersion), fmt.Appendf(nil, `"version": %d, "thaw_slowly": true,`, model.LeaseVersion+1), 1)
	if bytes.Equal(newer, text) {
		t.Fatalf("no version in %s", text)
	}
	for name, b := range map[string][]byte{record: newer, version: fmt.Appendf(nil, "%d\n", model.LeaseVersion+1)} {
		if err := os.WriteFile(name, b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	args := []string{"--config", k.config, "--runtime-dir", k.run, "--state-dir", k.state}
	out, err := exec.Command(k.program, args...).CombinedOutput()
	if err == nil || !bytes.Contains(out, fmt.Appendf(nil, "of version %d, from a newer breaker-enforcer", model.LeaseVersion+1)) || bytes.Contains(out, []byte("is ready")) {
		t.Errorf("%v: %s", err, out)
	}
	if g.Frozen() {
		t.Errorf("still frozen: %s", out)
	}
	if out, err := exec.Command(k.program, append(args, "--undo")...).CombinedOutput(); err != nil {
		t.Errorf("an undo: %v: %s", err, out)
	}
	if err := os.WriteFile(version, nil, 0o600); err != nil { // as a loss of power leaves it
		t.Fatal(err)
	}
	cmd = k.start("")
	k.answers(cmd)
}

// A configuration whose disk does not answer a reload, which a FIFO stands for, does not keep
// SIGUSR2 from letting everything go, nor SIGTERM.
func TestAReloadThatHangsKeepsNothingFrozen(t *testing.T) {
	k, g := heldByAProgram(t)
	cmd := k.start("")
	k.answers(cmd)
	if err := errors.Join(os.Remove(k.config), unix.Mkfifo(k.config, 0o600), cmd.Process.Signal(unix.SIGHUP)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(200 * time.Millisecond) // it reads by now
	for _, signal := range []unix.Signal{unix.SIGUSR2, unix.SIGTERM} {
		k.propose(0, time.Minute)
		if !g.Frozen() {
			t.Fatal("not frozen")
		}
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
		eventually(t, "thawed after "+signal.String(), func() bool { return !g.Frozen() })
	}
	if err := cmd.Wait(); err != nil {
		t.Errorf("it ended with %v\n%s", err, k.log())
	}
}

// Nobody reads standard error any more: what is held is let go all the same, also by a
// program whose log waits for its reader.
func TestALogThatNobodyReadsKeepsNothingFrozen(t *testing.T) {
	for _, c := range []struct {
		name   string
		waits  bool
		signal unix.Signal
	}{
		{"SIGUSR2", false, unix.SIGUSR2},
		{"SIGTERM", false, unix.SIGTERM},
		{"SIGUSR2, where the log waits", true, unix.SIGUSR2},
		{"SIGTERM, where the log waits", true, unix.SIGTERM},
	} {
		t.Run(c.name, func(t *testing.T) {
			k, g := heldByAProgram(t)
			out, in, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			defer out.Close()
			defer in.Close()
			cmd := exec.Command(k.program, "--config", k.config, "--runtime-dir", k.run, "--state-dir", k.state)
			if c.waits {
				self, err := os.Executable()
				if err != nil {
					t.Fatal(err)
				}
				cmd = exec.Command(self, k.config, k.run, k.state)
				cmd.Env = append(os.Environ(), killPoint+"=never")
			}
			cmd.Stderr = in
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				defer close(ended)
				cmd.Wait()
			}()
			defer func() { cmd.Process.Kill(); <-ended }()
			eventually(t, "an answer", func() bool { return k.client.Heartbeat(t.Context()) == nil })
			k.propose(0, time.Minute)
			if !g.Frozen() {
				t.Fatal("not frozen")
			}
			fill(t, in)
			if err := cmd.Process.Signal(c.signal); err != nil {
				t.Fatal(err)
			}
			eventually(t, "thawed", func() bool { return !g.Frozen() })
			if c.signal == unix.SIGUSR2 || c.waits {
				return
			}
			select {
			case <-ended:
			case <-time.After(5 * time.Second):
				t.Error("it does not end")
			}
		})
	}
}

// A log whose reader is gone, as journald's is where it was stopped, ends no enforcer: Go would
// have it die of SIGPIPE with the first line.
func TestALogWhoseReaderIsGoneEndsNothing(t *testing.T) {
	k, g := heldByAProgram(t)
	out, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	cmd := exec.Command(k.program, "--config", k.config, "--runtime-dir", k.run, "--state-dir", k.state)
	cmd.Stdout, cmd.Stderr = in, in
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		cmd.Wait()
	}()
	defer func() { cmd.Process.Kill(); <-ended }()
	eventually(t, "an answer", func() bool { return k.client.Heartbeat(t.Context()) == nil })
	out.Close()
	for range 3 {
		k.propose(0, time.Minute)
		if !g.Frozen() {
			t.Fatal("not frozen")
		}
		if err := cmd.Process.Signal(unix.SIGUSR2); err != nil {
			t.Fatal(err)
		}
		eventually(t, "thawed and told", func() bool {
			held, err := k.client.Leases(t.Context())
			return err == nil && len(held) == 0 && !g.Frozen()
		})
	}
	// It is the same one that answers.
	if err := k.client.Heartbeat(t.Context()); err != nil {
		t.Error(err)
	}
	select {
	case <-ended:
		t.Error("it has ended")
	default:
	}
}

// What the enforcer is made of stays small enough to read: it can reach neither the
// policy engine, nor HTTP, nor eBPF.
func TestTheEnforcerReachesNothingItMustNot(t *testing.T) {
	out, err := exec.Command("go", "list", "-deps", "../enforce", "../cgroupctl", "../cmd/breaker-enforcer").Output()
	if err != nil {
		t.Fatal(err)
	}
	for dep := range strings.Lines(string(out)) {
		for _, bad := range []string{"net/http", "open-policy-agent", "cilium/ebpf", "breakerd/host", "breakerd/bpf", "breakerd/policy", "breakerd/detect"} {
			if strings.Contains(dep, bad) {
				t.Errorf("depends on %s", strings.TrimSpace(dep))
			}
		}
	}
}

// Many leases left by a killed enforcer are undone together, well within the bound.
func TestRecoveryOfManyLeasesIsQuick(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	e, _ := kernelEngine(t, model.Enforce)
	e.config.Load().Reach.Leases = 100
	var groups []*kerneltest.Cgroup
	for range 40 {
		g := kerneltest.ScratchCgroup(t)
		root := g.Start("sleep", "600").Process.Pid
		if out := e.Propose(t.Context(), about(t, g, "many-"+g.Path[len("/breakerd-test-"):], root, time.Minute)); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
		groups = append(groups, g)
	}
	// The killed one: its lock is free, its leases are on the disk.
	state := filepath.Dir(e.records.root.Name())
	e.mu.Lock()
	e.active = map[string]*lease{}
	e.mu.Unlock()
	e.records.lock.Close()
	next, err := Open(Options{Mode: model.Enforce, Config: DefaultConfig(), Cgroups: e.cgroups, StateDir: state})
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	leases, err := next.Recover(context.Background())
	took := time.Since(began)
	if err != nil || len(leases) != len(groups) || took > time.Second {
		t.Errorf("%d leases in %s, %v", len(leases), took, err)
	}
	for _, g := range groups {
		if g.Frozen() {
			t.Errorf("%s is frozen", g.Path)
		}
	}
	t.Logf("%d leases recovered in %s", len(leases), took)
	next.Close(context.Background())
	e.mu.Lock()
	e.records = nil // it is dead
	e.mu.Unlock()
}
