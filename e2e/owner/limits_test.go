//go:build vm

package owner_test

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/cgroupctl/unit"
	"github.com/breakerd/breakerd/model"
)

func usage(cgroup string) time.Duration {
	for line := range strings.Lines(read(cgroup + "/cpu.stat")) {
		if us, ok := strings.CutPrefix(strings.TrimSpace(line), "usage_usec "); ok {
			n, _ := strconv.Atoi(us)
			return time.Duration(n) * time.Microsecond
		}
	}
	return 0
}

// share is how much of one CPU a cgroup gets, in percent.
func share(cgroup string) int {
	before, began := usage(cgroup), time.Now()
	time.Sleep(1500 * time.Millisecond)
	return int(100 * (usage(cgroup) - before) / time.Since(began))
}

func left(name string) []string {
	var all []string
	for _, dir := range []string{"system.control", "transient"} {
		files, _ := filepath.Glob("/run/systemd/" + dir + "/" + name + ".d/*")
		all = append(all, files...)
	}
	return all
}

// throttle asks for limits, and returns the lease.
func throttle(t *testing.T, cgroup string, a model.Action) string {
	t.Helper()
	a.Kind, a.ForMS = model.Throttle, (5 * time.Minute).Milliseconds()
	out := ask(t, cgroup, 0, a)
	if out.ConfirmedAt == nil {
		t.Fatalf("got %+v", out)
	}
	return out.LeaseID
}

var tight = model.Action{CPUPercent: 20, MemoryHigh: 100 << 20, PIDsMax: 20}

// limitsOf is all that is known of the limits of a unit.
func limitsOf(t *testing.T, name, cgroup string) string {
	quota := read(cgroup + "/cpu.max")
	if quota == "" {
		quota = "max 100000" // the controller was not enabled
	}
	return run(t, "systemctl", "show", name, "-p", "CPUQuotaPerSecUSec", "-p", "MemoryHigh", "-p", "TasksMax", "-p", "IOWeight", "-p", "DropInPaths", "-p", "NeedDaemonReload") +
		"\n" + strings.Join([]string{quota, read(cgroup + "/memory.high"), read(cgroup + "/pids.max")}, "\n") + "\n" + strings.Join(left(name), " ")
}

// limited checks that a unit has the limits of tight.
func limited(t *testing.T, when, name, cgroup string) {
	t.Helper()
	if got := prop(t, name, "CPUQuotaPerSecUSec"); got != "200ms" || read(cgroup+"/cpu.max") != "20000 100000" {
		t.Errorf("%s: systemctl show says %s, cpu.max %s", when, got, read(cgroup+"/cpu.max"))
	}
	if read(cgroup+"/memory.high") != strconv.Itoa(100<<20) || read(cgroup+"/pids.max") != "20" {
		t.Errorf("%s: memory.high %s, pids.max %s", when, read(cgroup+"/memory.high"), read(cgroup+"/pids.max"))
	}
	if got := share(cgroup); got > 30 {
		t.Errorf("%s: it gets %d %% of a CPU", when, got)
	} else {
		t.Logf("%s: it gets %d %% of a CPU", when, got)
	}
}

func ownService(t *testing.T) string {
	own := "own-limits.service"
	if err := os.WriteFile("/etc/systemd/system/"+own, []byte("[Service]\nExecStart=/bin/sh -c '"+busy+"'\nCPUQuota=60%\nMemoryHigh=300M\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	run(t, "systemctl", "start", own)
	t.Cleanup(func() { _, _ = try("systemctl", "stop", own) })
	return own
}

func TestAServiceIsThrottledAndItsOwnLimitsAreBackToTheLetter(t *testing.T) {
	transient, _ := start(t, busy)
	for _, name := range []string{ownService(t), transient} {
		t.Run(name, func(t *testing.T) {
			cgroup := prop(t, name, "ControlGroup")
			// The operator's own, which has to stay.
			run(t, "systemctl", "set-property", "--runtime", name, "IOWeight=200")
			before := limitsOf(t, name, cgroup)
			id := throttle(t, cgroup, tight)
			limited(t, "set", name, cgroup)
			run(t, "systemctl", "daemon-reload")
			limited(t, "after a daemon-reload", name, cgroup)
			run(t, "systemctl", "daemon-reexec")
			limited(t, "after a daemon-reexec", name, cgroup)
			if len(leases(t)) != 1 {
				t.Errorf("leases %+v", leases(t))
			}
			began := time.Now()
			release(t, id)
			t.Logf("released in %s", time.Since(began).Round(time.Millisecond))
			if after := limitsOf(t, name, cgroup); after != before {
				t.Errorf("before:\n%s\nafter:\n%s", before, after)
			}
		})
	}
}

func TestAKilledEnforcerLeavesNoLimit(t *testing.T) {
	name := ownService(t)
	cgroup := prop(t, name, "ControlGroup")
	before := limitsOf(t, name, cgroup)
	for range 3 {
		throttle(t, cgroup, tight)
		began := time.Now()
		run(t, "systemctl", "kill", "-s", "KILL", "breaker-enforcer.service")
		eventually(t, "the limits are lifted", func() bool { return read(cgroup+"/cpu.max") == "60000 100000" })
		t.Logf("lifted after %s", time.Since(began).Round(time.Millisecond))
		eventually(t, "all is as before", func() bool { return limitsOf(t, name, cgroup) == before })
		eventually(t, "it answers again", func() bool { _, err := client.Status(t.Context()); return err == nil })
	}
}

func TestTheOperatorsLimitWins(t *testing.T) {
	name := ownService(t)
	cgroup := prop(t, name, "ControlGroup")
	t.Cleanup(func() { _, _ = try("systemctl", "revert", name) })
	throttle(t, cgroup, model.Action{CPUPercent: 20})
	run(t, "systemctl", "set-property", "--runtime", name, "CPUQuota=40%")
	eventually(t, "the lease ends", func() bool { return len(leases(t)) == 0 })
	time.Sleep(time.Second)
	if got := prop(t, name, "CPUQuotaPerSecUSec"); got != "400ms" || read(cgroup+"/cpu.max") != "40000 100000" {
		t.Errorf("systemctl show says %s, cpu.max %s", got, read(cgroup+"/cpu.max"))
	}
}

func TestAServiceThatEndsWhileItIsThrottledLeavesNothing(t *testing.T) {
	name, cgroup := start(t, busy)
	throttle(t, cgroup, tight)
	run(t, "systemctl", "stop", name)
	eventually(t, "the lease ends", func() bool { return len(leases(t)) == 0 })
	if files := left(name); len(files) > 0 {
		t.Errorf("left: %v", files)
	}
}

func TestADelegatedTreeIsThrottledDirectly(t *testing.T) {
	unit, cgroup := start(t, busy, "-p", "Delegate=yes")
	job := cgroup + "/job"
	if err := os.Mkdir(cgroupfs+job, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, w := range [][2]string{{job + "/cgroup.procs", prop(t, unit, "MainPID")}, {cgroup + "/cgroup.subtree_control", "+cpu"}} {
		if err := os.WriteFile(cgroupfs+w[0], []byte(w[1]), 0); err != nil {
			t.Fatal(err)
		}
	}
	id := throttle(t, job, model.Action{CPUPercent: 20})
	if read(job+"/cpu.max") != "20000 100000" || len(left(unit)) != 0 {
		t.Errorf("cpu.max %s, left %v", read(job+"/cpu.max"), left(unit))
	}
	if got := share(job); got > 30 {
		t.Errorf("it gets %d %% of a CPU", got)
	}
	// A runtime that puts its own limit back once is outlasted; its limit is there in the end.
	if err := os.WriteFile(cgroupfs+job+"/cpu.max", []byte("90000 100000"), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it is limited again", func() bool { return read(job+"/cpu.max") == "20000 100000" })
	if out := ask(t, job, 0, model.Action{Kind: model.Throttle, ForMS: 1000, MemoryHigh: 100 << 20}); out.RefusedBy != "feasibility" {
		t.Errorf("got %+v", out)
	}
	release(t, id)
	if got := read(job + "/cpu.max"); got != "90000 100000" {
		t.Errorf("cpu.max %s afterwards", got)
	}
}

func TestATreeIsLimitedInAScopeOfItsOwnAndMovedBack(t *testing.T) {
	m := unit.Open()
	defer m.Close()
	name, cgroup := start(t, "("+busy+") & "+"while :; do sleep 0.1; done")
	var pid int
	for _, p := range strings.Fields(read(cgroup + "/cgroup.procs")) {
		if n, _ := strconv.Atoi(p); n > pid && p != prop(t, name, "MainPID") && usageOf(n) {
			pid = n
		}
	}
	if err := m.StartScope(t.Context(), "breakerd-vm.scope", "system.slice", []int32{int32(pid)}, []model.UnitLimit{{Property: cgroupctl.CPUQuota, Value: 100_000}}); err != nil {
		t.Fatal(err)
	}
	const scope = "/system.slice/breakerd-vm.scope"
	eventually(t, "it is in the scope", func() bool { return read(scope+"/cgroup.procs") == strconv.Itoa(pid) })
	if got := share(scope); got > 20 {
		t.Errorf("it gets %d %% of a CPU", got)
	}
	if err := os.WriteFile(cgroupfs+cgroup+"/cgroup.procs", []byte(strconv.Itoa(pid)), 0); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the scope is gone", func() bool { _, err := os.Stat(cgroupfs + scope); return err != nil })
	if prop(t, name, "ActiveState") != "active" || prop(t, "breakerd-vm.scope", "LoadState") != "not-found" {
		t.Errorf("%s is %s", name, prop(t, name, "ActiveState"))
	}
}

// usageOf reports whether a process is the busy one: a subshell of the first.
func usageOf(pid int) bool {
	b, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/comm")
	return strings.TrimSpace(string(b)) == "sh"
}
