//go:build vm

package owner_test

import (
	"encoding/json"
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

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
)

// Where the enforcer itself does not let go, each of three things is enough alone: its watchdog,
// ExecStopPost=, and its start, as at a boot. Each test takes the others away.

const enforcer = "breaker-enforcer.service"

// held is a frozen service and a throttled one.
type held struct {
	t                *testing.T
	frozen, limited  string
	cgroup, throttle string // of each
	before           string
}

// holdBoth holds both, and returns the pid of the enforcer that does.
func holdBoth(t *testing.T) (h held, pid int) {
	t.Helper()
	h.t = t
	h.frozen, h.cgroup = start(t, busy)
	h.limited = ownService(t)
	h.throttle = prop(t, h.limited, "ControlGroup")
	h.before = limitsOf(t, h.limited, h.throttle)
	hold(t, h.cgroup, 0, 5*time.Minute)
	throttle(t, h.throttle, tight)
	if err := client.Heartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	pid, _ = strconv.Atoi(prop(t, enforcer, "MainPID"))
	if pid < 2 || !h.stillHeld() {
		t.Fatalf("nothing is held by %d", pid)
	}
	return h, pid
}

func (h *held) stillHeld() bool {
	return still(h.cgroup) && read(h.throttle+"/cpu.max") == "20000 100000"
}

// undone wants both let go, and all as before.
func (h *held) undone(bound time.Duration) {
	h.t.Helper()
	began := time.Now()
	within(h.t, bound, "all is let go", func() bool {
		return !still(h.cgroup) && len(inside(h.cgroup)) == 0 && read(h.throttle+"/cpu.max") == "60000 100000"
	})
	h.t.Logf("let go after %s", time.Since(began).Round(time.Millisecond))
	eventually(h.t, "systemd knows it", func() bool {
		return prop(h.t, h.frozen, "FreezerState") == "running" && limitsOf(h.t, h.limited, h.throttle) == h.before
	})
	asBefore(h.t, h.frozen, h.cgroup)
}

// alone keeps everybody from connecting, which would have the socket start an enforcer, and
// puts lines into the enforcer's unit, until the test has ended or what it returns is called.
func alone(t *testing.T, lines string) (back func()) {
	t.Helper()
	beating.Lock()
	const dir = "/run/systemd/system/breaker-enforcer.service.d"
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(dir+"/alone.conf", []byte("[Service]\n"+lines), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	back = func() {
		_ = os.Remove(dir + "/alone.conf")
		run(t, "systemctl", "daemon-reload")
	}
	t.Cleanup(func() {
		back()
		_, _ = try("systemctl", "reset-failed", enforcer, "breaker-enforcer.socket")
		run(t, "systemctl", "start", "breaker-enforcer.socket")
		beating.Unlock()
		eventually(t, "it answers again", answers)
	})
	return back
}

// killed kills the enforcer, and wants it to stay away.
func killed(t *testing.T, pid int) {
	t.Helper()
	if err := unix.Kill(pid, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "systemd has seen its end", func() bool { return prop(t, enforcer, "ActiveState") == "failed" })
}

func notStartedAgain(t *testing.T, pid int) {
	t.Helper()
	time.Sleep(time.Second) // ten times RestartSec=
	if main, last := prop(t, enforcer, "MainPID"), prop(t, enforcer, "ExecMainPID"); main != "0" || last != strconv.Itoa(pid) {
		t.Errorf("an enforcer was started again: %s, after %s, and not %d", main, last, pid)
	}
}

// It stands still while it holds something: nobody but systemd's watchdog sees that.
func TestAnEnforcerThatStandsStillIsEndedByItsWatchdogAndAllIsUndone(t *testing.T) {
	h, pid := holdBoth(t)
	if err := unix.Kill(pid, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it stands still", func() bool {
		b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/status")
		return strings.Contains(string(b), "\nState:\tT")
	})
	time.Sleep(2 * time.Second)
	if !h.stillHeld() {
		t.Error("somebody let go while the enforcer stood still")
	}
	h.undone(time.Minute) // WatchdogSec=15s
	if err := unix.Kill(pid, 0); err == nil {
		t.Error("the one that stood still is there still")
	}
	if log := run(t, "journalctl", "--no-pager", "-b", "-u", enforcer, "-o", "cat"); !strings.Contains(log, "Watchdog timeout") {
		t.Error("the watchdog did not end it")
	}
	eventually(t, "it answers again", answers)
}

// It is killed, and nobody starts it again.
func TestExecStopPostAloneUndoes(t *testing.T) {
	alone(t, "Restart=no\n")
	h, pid := holdBoth(t)
	killed(t, pid)
	h.undone(20 * time.Second)
	notStartedAgain(t, pid)
}

// It is killed, nothing undoes what it held, and then the sockets are opened, which is all that
// a boot does: nobody has to connect.
func TestTheStartOfTheSocketAloneUndoes(t *testing.T) {
	back := alone(t, "Restart=no\nExecStopPost=\n")
	h, pid := holdBoth(t)
	killed(t, pid)
	notStartedAgain(t, pid)
	if !h.stillHeld() {
		t.Error("somebody let go: this test tries nothing")
	}
	back()
	run(t, "systemctl", "stop", "breaker-enforcer.socket")
	run(t, "systemctl", "reset-failed", enforcer)
	run(t, "systemctl", "start", "breaker-enforcer.socket")
	h.undone(20 * time.Second)
}

// What systemd does to a unit for us is undone wherever a SIGKILL meets the enforcer, by --undo.
// (bench/campaign does so where the enforcer writes itself.)
func TestAKillAtEachMomentOfWhatSystemdDoesIsUndone(t *testing.T) {
	var labels struct{ Every, Throttle, Ease []string }
	cmd := exec.Command(enforceTest)
	cmd.Env = append(os.Environ(), "BREAKERD_TEST_POINTS=1")
	if out, err := cmd.Output(); err != nil || json.Unmarshal(out, &labels) != nil || len(labels.Every) < 9 {
		t.Fatalf("the labelled moments: %v, %s", err, out)
	}
	frozen, cgroup := start(t, busy)
	isFree := func() bool {
		return !still(cgroup) && len(inside(cgroup)) == 0 && prop(t, frozen, "FreezerState") == "running"
	}
	limited := ownService(t)
	throttled := prop(t, limited, "ControlGroup")
	before := limitsOf(t, limited, throttled)
	isAsBefore := func() bool { return limitsOf(t, limited, throttled) == before }
	limit := tight
	limit.Kind, limit.ForMS, limit.EaseMS = model.Throttle, 12_000, 6000
	for _, label := range slices.Concat(labels.Every, labels.Throttle, labels.Ease) {
		must := !slices.Contains([]string{"before record", "after record", "after restore", "after end record", "after put away"}, label)
		if slices.Contains(labels.Every, label) {
			killAt(t, label, cgroup, model.Action{Kind: model.Freeze, ForMS: 30_000}, must, isFree)
		}
		killAt(t, label, throttled, limit, must, isAsBefore)
	}
}

// enforceTest is the tests of package enforce, which are an enforcer that kills itself at a
// labelled moment.
const enforceTest = "/share/enforce.test"

// killAt has an enforcer of its own kill itself at a moment of an action, at which something
// must be held or need not, and has what it left undone.
func killAt(t *testing.T, label, cgroup string, a model.Action, must bool, asBefore func() bool) {
	t.Helper()
	what := string(a.Kind) + ", " + label
	dir, state := t.TempDir(), t.TempDir()
	cmd := exec.Command(enforceTest, "/etc/breakerd/enforcer.yaml", dir, state)
	cmd.Env = append(os.Environ(), "BREAKERD_TEST_KILL_AT="+label)
	var said strings.Builder
	cmd.Stderr = &said
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	own := enforce.NewClient(dir)
	eventually(t, what+": it answers", func() bool { _, err := own.Status(t.Context()); return err == nil })
	out, err := own.Propose(t.Context(), decision(t, cgroup, 0, a))
	if err == nil && !strings.HasSuffix(label, "ease") { // the moment is one of the undo
		_, _ = own.Release(t.Context(), out.LeaseID)
	}
	select {
	case <-ended:
	case <-time.After(30 * time.Second):
		_ = cmd.Process.Kill()
		<-ended
		t.Fatalf("%s: it never came there: %+v, %v\n%s", what, out, err, said.String())
	}
	if ws, ok := cmd.ProcessState.Sys().(syscall.WaitStatus); !ok || ws.Signal() != syscall.SIGKILL {
		t.Fatalf("%s: it ended with %v\n%s", what, cmd.ProcessState, said.String())
	}
	if must && asBefore() {
		t.Errorf("%s: nothing is held", what)
	}
	began := time.Now()
	// It says that it is late where systemd takes longer than 1.5 s to read its units again, and
	// goes on until it has.
	if out, err := try("/usr/libexec/breakerd/breaker-enforcer", "--undo", "--runtime-dir", dir, "--state-dir", state); err != nil {
		t.Logf("%s: --undo: %v: %s", what, err, out)
	}
	eventually(t, what+": all is as before", asBefore)
	t.Logf("%s: undone after %s", what, time.Since(began).Round(time.Millisecond))
	if left, _ := filepath.Glob(state + "/leases/active/*"); len(left) > 0 {
		t.Errorf("%s: records that were not put away: %q", what, left)
	}
}
