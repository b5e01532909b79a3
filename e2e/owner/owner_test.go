//go:build vm

// Package owner_test looks at breaker-enforcer under a real systemd, as its unit has it:
// who owns a cgroup decides how it is frozen, and systemd must neither suffer from that
// nor undo it. It runs in a throw-away machine (scripts/vm): /share/bin has the programs
// and /share/units the units.
package owner_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
)

const cgroupfs = "/sys/fs/cgroup"

var (
	client  = enforce.NewClient("/run/breakerd")
	version int // of systemd
	n       int
	// beating is held where nobody may connect to the enforcer, not even a heartbeat.
	beating sync.Mutex
)

func TestMain(m *testing.M) {
	must := func(err error) {
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
	}
	sh := func(line string) {
		out, err := exec.Command("sh", "-c", line).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("%s: %w: %s", line, err, out)
		}
		must(err)
	}
	// As the package would, less breakerd itself: this test is what proposes.
	sh("getent group breakerd >/dev/null || groupadd --system breakerd")
	sh("mkdir -p /usr/libexec/breakerd /etc/breakerd && cp /share/bin/breaker-enforcer /usr/libexec/breakerd/")
	sh("cp /share/units/breaker-enforcer.service /share/units/breaker-enforcer.socket /share/units/breaker.slice /etc/systemd/system/")
	must(os.WriteFile("/etc/breakerd/enforcer.yaml", []byte("cooldown: 0s\nrate:\n  per_target: {every: 1ms, burst: 1000}\n  overall: {every: 1ms, burst: 1000}\nreach: {processes_percent: 90}\n"), 0o600))
	sh("systemctl daemon-reload && systemctl start breaker-enforcer.socket")
	out, err := exec.Command("systemctl", "--version").Output()
	must(err)
	_, err = fmt.Sscanf(string(out), "systemd %d", &version)
	must(err)
	fmt.Printf("systemd %d\n", version)
	go func() {
		for ; ; time.Sleep(time.Second) {
			beating.Lock()
			_, _ = client.Status(context.Background())
			_ = client.Heartbeat(context.Background())
			beating.Unlock()
		}
	}()
	os.Exit(m.Run())
}

// run runs a command for at most 30 s.
func run(t *testing.T, command ...string) string {
	t.Helper()
	out, err := try(command...)
	if err != nil {
		t.Fatalf("%s: %v: %s", strings.Join(command, " "), err, out)
	}
	return out
}

func try(command ...string) (string, error) {
	out, err := exec.Command("timeout", append([]string{"30"}, command...)...).CombinedOutput()
	return strings.TrimSpace(string(out)), err
}

func eventually(t *testing.T, what string, f func() bool) {
	t.Helper()
	within(t, 20*time.Second, what, f)
}

func within(t *testing.T, bound time.Duration, what string, f func() bool) {
	t.Helper()
	for until := time.Now().Add(bound); !f(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(until) {
			t.Fatalf("not within %s: %s", bound, what)
		}
	}
}

// answers reports whether the enforcer does.
func answers() bool {
	_, err := client.Status(context.Background())
	return err == nil
}

func prop(t *testing.T, unit, name string) string {
	t.Helper()
	return strings.TrimPrefix(run(t, "systemctl", "show", "-p", name, unit), name+"=")
}

func read(p string) string {
	b, _ := os.ReadFile(filepath.Join(cgroupfs, p))
	return strings.TrimSpace(string(b))
}

// start starts a unit with a shell, and returns its cgroup. It is stopped at the end.
func start(t *testing.T, script string, options ...string) (unit, cgroup string) {
	t.Helper()
	n++
	unit = fmt.Sprintf("held-%d.service", n)
	run(t, append(append([]string{"systemd-run", "--quiet", "--unit=" + unit}, options...), "/bin/sh", "-c", script)...)
	t.Cleanup(func() {
		_, _ = try("systemctl", "kill", "-s", "KILL", unit)
		_, _ = try("systemctl", "stop", unit)
		_, _ = try("systemctl", "reset-failed", unit)
	})
	cgroup = prop(t, unit, "ControlGroup")
	eventually(t, unit+" runs", func() bool { return read(cgroup+"/cgroup.procs") != "" })
	time.Sleep(200 * time.Millisecond)
	return unit, cgroup
}

func started(pid int) uint64 {
	b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	fields := strings.Fields(string(b[strings.LastIndexByte(string(b), ')')+1:]))
	start, _ := strconv.ParseUint(fields[19], 10, 64)
	return start
}

// propose asks for a freeze of a cgroup, or of the tree of root in it.
func propose(t *testing.T, cgroup string, root int, hold time.Duration) model.Outcome {
	t.Helper()
	return ask(t, cgroup, root, model.Action{Kind: model.Freeze, ForMS: hold.Milliseconds()})
}

// ask asks for an action on a cgroup, or on the tree of root in it.
func ask(t *testing.T, cgroup string, root int, a model.Action) model.Outcome {
	t.Helper()
	// Longer than the client waits by itself: the machine may be slow and is put under pressure.
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	out, err := client.Propose(ctx, decision(t, cgroup, root, a))
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// decision is one to take an action on a cgroup, or on the tree of root in it.
func decision(t *testing.T, cgroup string, root int, a model.Action) model.Decision {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(cgroupfs+cgroup, &st); err != nil {
		t.Fatal(err)
	}
	n++
	d := model.Decision{
		ID: fmt.Sprintf("vm-%d", n), IncidentID: "vm", Kind: model.ForkStorm, At: time.Now(), Policy: "breaker.test",
		OpenedAt: time.Now(), Confidence: 1, Observed: 1,
		Action: a,
		Target: model.Target{Cgroup: cgroup, CgroupID: model.CgroupID(st.Ino), Scope: model.ScopeCgroup},
	}
	d.Action.Scope, d.Action.Reason = model.ScopeCgroup, "a test"
	if root != 0 {
		d.Action.Scope, d.Target.Scope = model.ScopeTree, model.ScopeTree
		d.Target.Root = model.ProcID{PID: int32(root), StartTime: started(root)}
		d.Target.Outside = 1
	}
	return d
}

func hold(t *testing.T, cgroup string, root int, hold time.Duration) string {
	t.Helper()
	out := propose(t, cgroup, root, hold)
	if out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	return out.LeaseID
}

// still reports whether everybody of a unit stands still, in its cgroup or in one below.
func still(cgroup string) bool {
	if strings.Contains(read(cgroup+"/cgroup.events"), "frozen 1") {
		return true
	}
	in := inside(cgroup)
	return len(in) == 1 && strings.Contains(read(in[0]+"/cgroup.events"), "frozen 1") && read(cgroup+"/cgroup.procs") == ""
}

func inside(cgroup string) []string {
	in, _ := filepath.Glob(cgroupfs + cgroup + "/breakerd-*")
	for i := range in {
		in[i] = strings.TrimPrefix(in[i], cgroupfs)
	}
	return in
}

func asBefore(t *testing.T, unit, cgroup string) {
	t.Helper()
	if read(cgroup+"/cgroup.freeze") != "0" || !strings.Contains(read(cgroup+"/cgroup.events"), "frozen 0") || len(inside(cgroup)) != 0 {
		t.Errorf("%s: freeze %s, %s, %v", cgroup, read(cgroup+"/cgroup.freeze"), read(cgroup+"/cgroup.events"), inside(cgroup))
	}
	if got := prop(t, unit, "FreezerState"); got != "running" {
		t.Errorf("systemd says that %s is %s", unit, got)
	}
}

func release(t *testing.T, id string) {
	t.Helper()
	_, err := client.Release(t.Context(), id)
	if err != nil && strings.Contains(err.Error(), "tried again until it is") {
		// systemd takes longer to read its units again than the caller was made to wait.
		t.Log(err)
		eventually(t, "the lease is undone", func() bool {
			return !slices.ContainsFunc(leases(t), func(l model.Lease) bool { return id == "" || l.ID == id })
		})
		return
	}
	if err != nil {
		t.Fatal(err)
	}
}

func leases(t *testing.T) []model.Lease {
	t.Helper()
	l, err := client.Leases(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return l
}

const busy = "while :; do :; done"

func TestAServiceIsHeldThroughReloadAndReexec(t *testing.T) {
	unit, cgroup := start(t, busy)
	id := hold(t, cgroup, 0, 5*time.Minute)
	state := prop(t, unit, "FreezerState")
	t.Logf("held: FreezerState %s, inside %v", state, inside(cgroup))
	if (state == "frozen") != (version < 255) || (len(inside(cgroup)) == 1) != (version >= 255) {
		t.Errorf("systemd %d: FreezerState %s, inside %v", version, state, inside(cgroup))
	}
	for _, what := range []string{"daemon-reload", "daemon-reexec"} {
		run(t, "systemctl", what)
		time.Sleep(time.Second)
		if !still(cgroup) || len(leases(t)) != 1 || prop(t, unit, "ActiveState") != "active" {
			t.Errorf("%s undid it: %+v", what, leases(t))
		}
	}
	release(t, id)
	asBefore(t, unit, cgroup)
	if read(cgroup+"/cgroup.procs") == "" {
		t.Error("its process is not back")
	}
}

func TestAHeldServiceCanBeStoppedAndRestarted(t *testing.T) {
	// One that wants to end in order, so that it must be thawed for it.
	const orderly = "trap 'sleep 0.1; exit 0' TERM; while :; do sleep 0.1; done"
	for _, what := range []string{"stop", "restart"} {
		unit, cgroup := start(t, orderly, "-p", "TimeoutStopSec=25")
		hold(t, cgroup, 0, 5*time.Minute)
		began := time.Now()
		out, err := try("systemctl", what, unit)
		took := time.Since(began)
		t.Logf("%s took %s", what, took.Round(time.Millisecond))
		if err != nil || took > 15*time.Second {
			t.Errorf("%s: %v after %s: %s", what, err, took, out)
		}
		if result := prop(t, unit, "Result"); result != "success" {
			t.Errorf("%s: it ended with %s", what, result)
		}
		eventually(t, "the lease has ended", func() bool { return len(leases(t)) == 0 })
		if what == "restart" {
			asBefore(t, unit, cgroup)
		}
	}
}

func TestAHeldServiceWhoseMainProcessIsKilledDoesNotHangPid1(t *testing.T) {
	unit, cgroup := start(t, busy, "-p", "Restart=always", "-p", "RestartSec=100ms", "-p", "ExecStopPost=/bin/true")
	main, _ := strconv.Atoi(prop(t, unit, "MainPID"))
	hold(t, cgroup, 0, 5*time.Minute)
	if err := unix.Kill(main, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is started again, and free", func() bool {
		return prop(t, unit, "ActiveState") == "active" && prop(t, unit, "MainPID") != strconv.Itoa(main) && len(leases(t)) == 0
	})
	asBefore(t, unit, prop(t, unit, "ControlGroup"))
}

func TestAServiceWithAWatchdogSurvives(t *testing.T) {
	const lives = "systemd-notify --ready; while :; do systemd-notify WATCHDOG=1; sleep 0.5; done"
	unit, cgroup := start(t, lives, "-p", "Type=notify", "-p", "NotifyAccess=all", "-p", "WatchdogSec=20")
	main := prop(t, unit, "MainPID")
	if out := propose(t, cgroup, 0, 30*time.Second); out.RefusedBy != "feasibility" || !strings.Contains(out.Reason, "watchdog") {
		t.Errorf("got %+v", out)
	}
	hold(t, cgroup, 0, 6*time.Second)
	if !still(cgroup) {
		t.Error("not held")
	}
	eventually(t, "its time is up", func() bool { return len(leases(t)) == 0 })
	time.Sleep(22 * time.Second)
	if prop(t, unit, "ActiveState") != "active" || prop(t, unit, "MainPID") != main || prop(t, unit, "Result") != "success" {
		t.Errorf("%s %s", prop(t, unit, "ActiveState"), prop(t, unit, "Result"))
	}
	asBefore(t, unit, cgroup)
}

func TestAForkBombInASessionIsHeldAndTheShellIsNot(t *testing.T) {
	alive := filepath.Join(t.TempDir(), "alive")
	const unit = "session-99.scope"
	shell := exec.Command("systemd-run", "--quiet", "--scope", "--unit="+unit, "--slice=user-1000.slice", "/bin/sh", "-c",
		"i=0; while :; do i=$((i+1)); echo $i >"+alive+"; sleep 0.2; done")
	if err := shell.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = try("systemctl", "kill", "-s", "KILL", unit); _ = shell.Wait() })
	eventually(t, "the session is there", func() bool { _, err := os.Stat(alive); return err == nil })
	cgroup := prop(t, unit, "ControlGroup")
	time.Sleep(time.Second)
	bomb := exec.Command("setsid", "/bin/sh", "-c", "echo $$ >"+cgroupfs+cgroup+"/cgroup.procs; "+
		"i=0; while [ $i -lt 400 ]; do (sleep 30 & sleep 20 & wait) & sleep 0.02; i=$((i+1)); done; wait")
	if err := bomb.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { go bomb.Wait() })
	eventually(t, "a storm", func() bool { return strings.Count(read(cgroup+"/cgroup.procs"), "\n") > 40 })
	id := hold(t, cgroup, bomb.Process.Pid, 2*time.Minute)
	in := inside(cgroup)
	if len(in) != 1 {
		t.Fatalf("inside %v", in)
	}
	held := strings.Count(read(in[0]+"/cgroup.procs"), "\n")
	t.Logf("%d stand still, %d go on", held+1, strings.Count(read(cgroup+"/cgroup.procs"), "\n")+1)
	before, _ := os.ReadFile(alive)
	run(t, "systemctl", "daemon-reload")
	time.Sleep(2 * time.Second)
	after, _ := os.ReadFile(alive)
	if string(after) == string(before) {
		t.Error("the shell does not go on")
	}
	if now := strings.Count(read(in[0]+"/cgroup.procs"), "\n"); now != held || !strings.Contains(read(in[0]+"/cgroup.events"), "frozen 1") {
		t.Errorf("%d, then %d", held, now)
	}
	if procs := strings.Fields(read(cgroup + "/cgroup.procs")); len(procs) > 3 {
		t.Errorf("%d are outside", len(procs))
	}
	release(t, id)
	asBefore(t, unit, cgroup)
	if !strings.Contains("\n"+read(cgroup+"/cgroup.procs")+"\n", fmt.Sprintf("\n%d\n", bomb.Process.Pid)) {
		t.Error("the storm is not back in its session")
	}
	// Again, and the session is ended meanwhile.
	hold(t, cgroup, bomb.Process.Pid, 2*time.Minute)
	began := time.Now()
	if out, err := try("systemctl", "stop", unit); err != nil || time.Since(began) > 20*time.Second {
		t.Errorf("stop: %v after %s: %s", err, time.Since(began), out)
	}
	eventually(t, "the lease has ended", func() bool { return len(leases(t)) == 0 })
	if _, err := os.Stat(cgroupfs + cgroup); err == nil {
		t.Error("the session's cgroup is still there")
	}
}

func TestADelegatedTreeIsWrittenDirectly(t *testing.T) {
	unit, cgroup := start(t, busy, "-p", "Delegate=yes")
	job := cgroup + "/job"
	if err := os.Mkdir(cgroupfs+job, 0o755); err != nil {
		t.Fatal(err)
	}
	main := prop(t, unit, "MainPID")
	if err := os.WriteFile(cgroupfs+job+"/cgroup.procs", []byte(main), 0); err != nil {
		t.Fatal(err)
	}
	id := hold(t, job, 0, time.Minute)
	if read(job+"/cgroup.freeze") != "1" || len(inside(job)) != 0 || prop(t, unit, "FreezerState") != "running" {
		t.Errorf("freeze %s, inside %v, %s", read(job+"/cgroup.freeze"), inside(job), prop(t, unit, "FreezerState"))
	}
	release(t, id)
	if read(job+"/cgroup.freeze") != "0" {
		t.Error("not thawed")
	}
}

func TestAKilledOrStoppedEnforcerLetsGo(t *testing.T) {
	unit, cgroup := start(t, busy)
	for _, command := range [][]string{
		{"systemctl", "kill", "-s", "KILL", "breaker-enforcer.service"},
		{"systemctl", "restart", "breaker-enforcer.service"},
	} {
		hold(t, cgroup, 0, 5*time.Minute)
		began := time.Now()
		run(t, command...)
		eventually(t, "let go", func() bool { return !still(cgroup) && len(inside(cgroup)) == 0 })
		t.Logf("%s: let go after %s", strings.Join(command[1:], " "), time.Since(began).Round(time.Millisecond))
		eventually(t, "it answers again", func() bool { _, err := client.Status(t.Context()); return err == nil })
		eventually(t, "as before", func() bool { return prop(t, unit, "FreezerState") == "running" })
		asBefore(t, unit, cgroup)
	}
}

// Pid 1's own socket is what is used: a dbus-daemon that is gone makes no difference.
func TestWithoutADBusDaemon(t *testing.T) {
	unit, cgroup := start(t, busy)
	_, _ = try("systemctl", "stop", "dbus.socket", "dbus.service")
	defer try("systemctl", "start", "dbus.socket")
	id := hold(t, cgroup, 0, time.Minute)
	release(t, id)
	asBefore(t, unit, cgroup)
}
