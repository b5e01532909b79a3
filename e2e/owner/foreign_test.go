//go:build vm

package owner_test

import (
	"fmt"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/cgroupctl/unit"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
)

// Cases of systemd's own test of its freezer (test/units/TEST-38-FREEZER.sh), written anew: a
// slice with units in it, a unit that somebody froze before, jobs, daemon-reload. Its watchdog
// is that of TestAServiceWithAWatchdogSurvives.

// everything is what all files of a cgroup and below hold but counters, and what systemd says of
// its units.
func everything(t *testing.T, cgroup string, units ...string) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := filepath.WalkDir(cgroupfs+cgroup, func(p string, d fs.DirEntry, err error) error {
		name := d.Name()
		counter := strings.HasSuffix(name, ".pressure") || strings.Contains(name, ".stat") || strings.Contains(name, "current") ||
			strings.Contains(name, ".peak") || strings.Contains(name, ".numa_stat")
		if err != nil || d.IsDir() || counter {
			return err
		}
		if b, err := os.ReadFile(p); err == nil {
			all[p[len(cgroupfs):]] = strings.TrimSpace(string(b))
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for _, u := range units {
		all[u] = run(t, "systemctl", "show", u, "-p", "FreezerState", "-p", "ActiveState", "-p", "DropInPaths", "-p", "CPUQuotaPerSecUSec",
			"-p", "MemoryHigh", "-p", "TasksMax", "-p", "IOReadBandwidthMax", "-p", "NeedDaemonReload") + strings.Join(left(u), " ")
	}
	return all
}

func differ(t *testing.T, when string, before, after map[string]string) {
	t.Helper()
	for _, k := range slices.Sorted(maps.Keys(after)) {
		if before[k] != after[k] {
			t.Errorf("%s: %s was %q, and is %q", when, k, before[k], after[k])
		}
	}
	if len(before) != len(after) {
		t.Errorf("%s: %d files, then %d", when, len(before), len(after))
	}
}

// Monitor and dry-run, as breakerd runs them, over a real unit: no file and no property changes.
func TestMonitorAndDryRunChangeNothingOfAUnit(t *testing.T) {
	name, cgroup := start(t, "exec sleep 600", "-p", "IOAccounting=yes")
	c, err := cgroupctl.Open(cgroupfs)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	m := unit.Open()
	defer m.Close()
	c.UseUnits(m)
	var st unix.Stat_t
	if err := unix.Stat(cgroupfs+cgroup, &st); err != nil {
		t.Fatal(err)
	}
	before := everything(t, cgroup, name)
	for _, mode := range []model.Mode{model.Monitor, model.DryRun} {
		conf := enforce.DefaultConfig()
		conf.Cooldown, conf.Reach.ProcessesPercent = 0, 100
		e, err := enforce.Open(enforce.Options{Mode: mode, Config: conf, Cgroups: cgroupctl.NewDry(c)})
		if err != nil {
			t.Fatal(err)
		}
		for i, a := range []model.Action{
			{Kind: model.Freeze, ForMS: 60_000},
			{Kind: model.Throttle, ForMS: 60_000, CPUPercent: 10, MemoryHigh: 64 << 20, PIDsMax: 10},
			{Kind: model.Throttle, ForMS: 4000, EaseMS: 2000, CPUPercent: 10, MemoryHigh: 64 << 20},
		} {
			a.Scope, a.Reason = model.ScopeCgroup, "a test"
			id := fmt.Sprintf("dry-%d", i)
			out := e.Propose(t.Context(), model.Decision{
				ID: id, IncidentID: "vm", Kind: model.ForkStorm, At: time.Now(), Policy: "breaker.test", OpenedAt: time.Now(),
				Confidence: 1, Observed: 1, Action: a,
				Target: model.Target{Cgroup: cgroup, CgroupID: model.CgroupID(st.Ino), Scope: model.ScopeCgroup},
			})
			if !out.DryRun || out.Error != "" || (mode == model.DryRun) != (out.ConfirmedAt != nil) || (mode == model.Monitor) != (out.RefusedBy == "mode") {
				t.Errorf("%s: %+v", mode, out)
			}
			if a.EaseMS > 0 && mode == model.DryRun {
				eventually(t, "it is loosened", func() bool {
					e.Advance(time.Now())
					l, err := e.Lease(id)
					return err == nil && l.EasedAt != nil
				})
			}
			differ(t, string(mode)+", held", before, everything(t, cgroup, name))
			if err := e.ReleaseAll(t.Context(), model.EndReleased); err != nil {
				t.Error(err)
			}
			differ(t, string(mode)+", let go", before, everything(t, cgroup, name))
		}
		if err := e.Close(t.Context()); err != nil {
			t.Error(err)
		}
	}
}

// recursive: a slice would stand still with all its units, and whoever was frozen before goes on to
// afterwards. Its units would be started, stopped and watched meanwhile, so it is not frozen.
func TestASliceWithAUnitThatSomebodyFrozeBefore(t *testing.T) {
	first, _ := start(t, busy, "-p", "Slice=foreign.slice")
	second, other := start(t, busy, "-p", "Slice=foreign.slice")
	run(t, "systemctl", "freeze", second)
	t.Cleanup(func() { _, _ = try("systemctl", "thaw", second) })
	if out := propose(t, other, 0, time.Minute); out.RefusedBy != "feasibility" {
		t.Errorf("a unit that somebody froze: %+v", out)
	}
	before := everything(t, "/foreign.slice", "foreign.slice", first, second)
	if out := propose(t, "/foreign.slice", 0, time.Minute); out.RefusedBy != "feasibility" || !strings.Contains(out.Reason, "slice") {
		t.Errorf("got %+v", out)
	}
	differ(t, "refused", before, everything(t, "/foreign.slice", "foreign.slice", first, second))
}

// A service that is throttled to next to nothing, and then frozen: the throttle makes way.
func TestAThrottleOfAServiceMakesWayForAFreeze(t *testing.T) {
	name, cgroup := start(t, busy+" & "+busy+" & "+busy)
	before := limitsOf(t, name, cgroup)
	throttle(t, cgroup, model.Action{CPUPercent: 1})
	began := time.Now()
	out := propose(t, cgroup, 0, time.Minute)
	if strings.Contains(out.Error, "has to be lifted before") {
		// systemd takes longer to read its units again than a freeze waits for.
		t.Log(out.Error)
		if still(cgroup) {
			t.Error("frozen all the same")
		}
		eventually(t, "the throttle is lifted", func() bool { return len(leases(t)) == 0 })
		out = propose(t, cgroup, 0, time.Minute)
	}
	if out.ConfirmedAt == nil || !still(cgroup) || len(leases(t)) != 1 {
		t.Fatalf("got %+v", out)
	}
	t.Logf("lifted and frozen in %s", time.Since(began).Round(time.Millisecond))
	release(t, out.LeaseID)
	asBefore(t, name, cgroup)
	if after := limitsOf(t, name, cgroup); after != before {
		t.Errorf("before:\n%s\nafter:\n%s", before, after)
	}
}

// A journald that is gone keeps nobody from being held, or let go.
func TestWithoutAJournal(t *testing.T) {
	unit, cgroup := start(t, busy)
	sockets := []string{"systemd-journald.socket", "systemd-journald-dev-log.socket", "systemd-journald-audit.socket"}
	_, _ = try(append([]string{"systemctl", "stop", "systemd-journald.service"}, sockets...)...)
	defer func() {
		_, _ = try(append([]string{"systemctl", "start"}, sockets...)...)
		_, _ = try("systemctl", "start", "systemd-journald.service")
	}()
	if read("/system.slice/systemd-journald.service/cgroup.procs") != "" {
		t.Fatal("journald is there still")
	}
	id := hold(t, cgroup, 0, time.Minute)
	if !still(cgroup) {
		t.Error("not held")
	}
	release(t, id)
	asBefore(t, unit, cgroup)
	hold(t, cgroup, 0, time.Minute)
	run(t, "systemctl", "kill", "-s", "KILL", "breaker-enforcer.service")
	eventually(t, "let go", func() bool { return !still(cgroup) && len(inside(cgroup)) == 0 })
	eventually(t, "it answers again", func() bool { _, err := client.Status(t.Context()); return err == nil })
	eventually(t, "systemd knows", func() bool { return prop(t, unit, "FreezerState") == "running" })
}

// A clock that jumps, either way, makes a lease neither longer nor shorter; and a killed
// enforcer undoes what it wrote down at another time.
func TestAClockThatJumps(t *testing.T) {
	unit, cgroup := start(t, busy)
	jump := func(by time.Duration) {
		t.Helper()
		var now unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Fatal(err)
		}
		now.Sec += int64(by.Seconds())
		if err := unix.ClockSettime(unix.CLOCK_REALTIME, &now); err != nil {
			t.Fatal(err)
		}
	}
	for _, by := range []time.Duration{time.Hour, -2 * time.Hour} {
		const long = 3 * time.Second
		began := time.Now() // counted by the clock that does not jump
		hold(t, cgroup, 0, long)
		jump(by)
		if time.Since(began) < long && !still(cgroup) {
			t.Errorf("a jump by %s let it go", by)
		}
		eventually(t, "its time is up", func() bool { return len(leases(t)) == 0 })
		if took := time.Since(began); took < long || took > long+5*time.Second {
			t.Errorf("with a jump by %s it was held for %s", by, took)
		}
		asBefore(t, unit, cgroup)
		if by > 0 {
			jump(-by)
			continue
		}
		hold(t, cgroup, 0, 5*time.Minute)
		jump(-by)
		run(t, "systemctl", "kill", "-s", "KILL", "breaker-enforcer.service")
		eventually(t, "let go", func() bool { return !still(cgroup) && len(inside(cgroup)) == 0 })
		eventually(t, "it answers again", func() bool { _, err := client.Status(t.Context()); return err == nil })
		eventually(t, "systemd knows", func() bool { return prop(t, unit, "FreezerState") == "running" })
	}
}

// pressure is how much of the last second and a half somebody waited for a resource, in percent.
func pressure(resource string) int {
	total := func() time.Duration {
		b, _ := os.ReadFile("/proc/pressure/" + resource)
		some, _, _ := strings.Cut(string(b), "\n")
		_, us, _ := strings.Cut(some, "total=")
		n, _ := strconv.Atoi(us)
		return time.Duration(n) * time.Microsecond
	}
	before, began := total(), time.Now()
	time.Sleep(1500 * time.Millisecond)
	return int(100 * (total() - before) / time.Since(began))
}

// The enforcer on a machine whose CPU and memory are fought for, with no more memory than its
// unit keeps for it. What takes too long to be true still is refused, and may be asked for again.
func TestTheEnforcerUnderPressure(t *testing.T) {
	unit, cgroup := start(t, busy)
	// systemd writes it again when it starts the enforcer again.
	if err := os.WriteFile(cgroupfs+prop(t, "breaker-enforcer.service", "ControlGroup")+"/memory.high", []byte("12M"), 0); err != nil {
		t.Fatal(err)
	}
	start(t, "for i in 1 2 3 4 5 6; do "+busy+" & done; wait")
	// Somebody who touches three times what he may have is reclaimed from all the time.
	start(t, "exec stress-ng --quiet --vm 2 --vm-bytes 96M --vm-keep", "-p", "MemoryHigh=32M", "-p", "MemorySwapMax=0")
	cpu, memory := 0, 0
	defer func() {
		if t.Failed() {
			t.Logf("pressure: cpu %d %%, memory %d %%", cpu, memory)
		}
	}()
	eventually(t, "the machine is under pressure", func() bool {
		cpu, memory = pressure("cpu"), pressure("memory")
		return cpu > 60 && memory > 60
	})
	var out model.Outcome
	held := func() bool {
		out = propose(t, cgroup, 0, time.Minute)
		return out.ConfirmedAt != nil
	}
	began := time.Now()
	eventually(t, "held", held)
	took := time.Since(began)
	began = time.Now()
	release(t, out.LeaseID)
	released := time.Since(began)
	eventually(t, "held again", held)
	began = time.Now()
	run(t, "systemctl", "kill", "-s", "KILL", "breaker-enforcer.service")
	eventually(t, "let go", func() bool { return !still(cgroup) && len(inside(cgroup)) == 0 })
	t.Logf("pressure: cpu %d %%, memory %d %%; held in %s, let go in %s, and %s after a kill",
		cpu, memory, took.Round(time.Millisecond), released.Round(time.Millisecond), time.Since(began).Round(time.Millisecond))
	eventually(t, "it answers again", func() bool { _, err := client.Status(t.Context()); return err == nil })
	eventually(t, "systemd knows", func() bool { return prop(t, unit, "FreezerState") == "running" })
}
