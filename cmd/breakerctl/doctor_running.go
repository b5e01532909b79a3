package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
)

// askDoctor is how long breakerd and the enforcer may take to answer.
const askDoctor = 3 * time.Second

// running asks the breakerd that runs, and the enforcer.
func (a *app) running(ctx context.Context, s site) []finding {
	bounded, cancel := context.WithTimeout(ctx, askDoctor)
	defer cancel()
	all := s.unit(ctx, "breakerd.service")
	status, err := a.client().Status(bounded)
	if err != nil {
		all = append(all, finding{"breakerd", warning, err.Error(), "everything but the enforcer below is about the machine and the files alone"})
		all = append(all, s.lastErrors(ctx)...)
		return append(all, a.enforcerFindings(bounded, s, nil)...)
	}
	all = append(all, finding{"breakerd", fine, fmt.Sprintf("%s, pid %d, mode %s, %d samples", status.Version, status.PID, status.Mode, status.Samples), ""})
	if err := a.client().Ready(bounded); err != nil {
		all = append(all, finding{"samples", failure, err.Error(), "the journal says why: journalctl -t breakerd"})
	} else {
		all = append(all, finding{"samples", fine, fmt.Sprintf("one each %d ms, the last %s ago", status.TickMS, span(time.Since(status.LastSampleAt))), ""})
	}
	all = append(all, statusFindings(status)...)
	all = append(all, s.capabilities(status))
	return append(all, a.enforcerFindings(bounded, s, &status)...)
}

// statusFindings are what a breakerd's own account of itself comes to.
func statusFindings(status api.Status) (all []finding) {
	if len(status.Programs) == 0 {
		all = append(all, finding{"programs", failure, "none is attached: nobody is blamed for anything", "see BTF above"})
	} else {
		all = append(all, finding{"programs", fine, strings.Join(status.Programs, " "), ""})
	}
	if status.Version != version {
		all = append(all, finding{"versions", warning, fmt.Sprintf("breakerctl is %s and the breakerd that runs %s", version, status.Version), "restart what is older: systemctl restart breakerd"})
	} else {
		all = append(all, finding{"versions", fine, "breakerctl and breakerd are both " + version, ""})
	}
	all = append(all, budget(status))
	if l := status.LostSinceBoot; l.Cells+l.Cgroups > 0 {
		all = append(all, finding{"lost", warning, lost(status) + ", since breakerd started", "its tables were full, so that parts are missing: how many cgroups are there? (find the mount of cgroup2 -type d | wc -l)"})
	} else {
		all = append(all, finding{"lost", fine, lost(status), ""})
	}
	if status.LostSinceBoot.ClockJumpNS != 0 {
		all = append(all, finding{"clock since the start", warning, fmt.Sprintf("it was set by %s", span(time.Duration(abs(status.LostSinceBoot.ClockJumpNS)))), "what was seen across the jump was discarded; look at chrony or systemd-timesyncd"})
	}
	if status.Journal.Lost > 0 {
		all = append(all, finding{"journal", warning, fmt.Sprintf("%d entries found no place", status.Journal.Lost), "is journald running, and keeping up? (systemctl status systemd-journald)"})
	}
	for _, m := range status.Missing {
		if m.What == "block devices" { // the others were looked at directly
			all = append(all, finding{m.What, warning, m.Text, "io_pressure has no culprit here: a newer kernel, or a report with its version, would help"})
		}
	}
	for _, p := range status.Problems {
		all = append(all, finding{"problem", warning, p, ""})
	}
	for _, e := range status.LastErrors[max(0, len(status.LastErrors)-5):] {
		all = append(all, finding{"told " + clock(e.At), fine, e.Message, ""})
	}
	return all
}

func abs(n int64) int64 { return max(n, -n) }

func budget(status api.Status) finding {
	cpus := max(1, status.Host.CPUs)
	f := finding{"budget", fine, fmt.Sprintf("%.2f %% of one CPU since the start (of %d CPUs at most %.1f %%), %d MB (at most %d)",
		status.Cost.CPUPercent, cpus, api.BudgetCPUPercent*float64(cpus), status.Cost.RSSBytes>>20, uint64(api.BudgetRSSBytes>>20)), ""}
	if time.Since(status.StartedAt) <= time.Minute {
		f.Detail += "; what the start took counts still"
	} else if status.Cost.CPUPercent > api.BudgetCPUPercent*float64(cpus) {
		f.Status, f.Advice = warning, "it costs more than it should: a longer tick costs less (tick: 1s), and a report with breakerctl status -o json would help"
	}
	if status.Cost.RSSBytes > api.BudgetRSSBytes {
		f.Status, f.Advice = warning, "it takes more memory than it should at 20,000 processes and 2,000 cgroups: a report with breakerctl status -o json would help"
	}
	return f
}

// What breakerd needs to attach its programs, and nothing else.
const (
	capPerfmon = 38
	capBPF     = 39
)

// capabilities looks at those of the running breakerd.
//
//	Uid:	998	998	998	998
//	CapEff:	0000000000000000
func (s site) capabilities(status api.Status) finding {
	text, err := os.ReadFile(filepath.Join(s.proc, strconv.Itoa(status.PID), "status"))
	if err != nil {
		return finding{"privileges", warning, err.Error(), "breakerd runs where its process cannot be seen from here"}
	}
	uid, effective := "", uint64(0)
	for line := range strings.Lines(string(text)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), ":")
		switch fields := strings.Fields(value); {
		case len(fields) == 0:
		case key == "Uid":
			uid = fields[0]
		case key == "CapEff":
			if effective, err = strconv.ParseUint(fields[0], 16, 64); err != nil {
				return finding{"privileges", warning, "CapEff " + fields[0] + " is no number", ""}
			}
		}
	}
	said := or(status.Privileges, "not settled yet")
	switch others := effective &^ (1<<capBPF | 1<<capPerfmon); {
	case uid == "0":
		return finding{"privileges", warning, "breakerd runs as root", "it needs CAP_BPF and CAP_PERFMON only: start the installed unit (systemctl start breakerd), which runs it as its own user"}
	case others != 0:
		return finding{"privileges", warning, fmt.Sprintf("breakerd has more capabilities than it needs: %#x", effective), "take them away: CAP_BPF and CAP_PERFMON are enough"}
	case effective == 0:
		return finding{"privileges", fine, "uid " + uid + ", without any capability: " + said, ""}
	}
	return finding{"privileges", fine, "uid " + uid + ", CAP_BPF and CAP_PERFMON: " + said, ""}
}

// unit looks at a unit of systemd. Where there is none the program was started by hand.
func (s site) unit(ctx context.Context, name string) []finding {
	if !exists(s.run + "/systemd/system") {
		return nil
	}
	out, err := s.tool(ctx, "systemctl", "show", name, "--property=LoadState,ActiveState,UnitFileState,NRestarts,Result,StatusText")
	if err != nil {
		return []finding{{name, warning, "systemctl show: " + err.Error(), ""}}
	}
	is := make(map[string]string)
	for line := range strings.Lines(out) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		is[key] = value
	}
	if is["LoadState"] == "not-found" || is["LoadState"] == "" {
		return []finding{{name, fine, "is not installed", ""}}
	}
	f := finding{name, fine, strings.TrimSuffix(fmt.Sprintf("%s, %s: %s", is["ActiveState"], or(is["UnitFileState"], "not enabled"), is["StatusText"]), ": "), ""}
	restarts, _ := strconv.Atoi(is["NRestarts"])
	switch {
	case is["ActiveState"] == "failed":
		f.Status, f.Detail, f.Advice = failure, f.Detail+", result "+is["Result"], "why: journalctl -u "+name+" -n 20"
	case restarts > 0:
		f.Status, f.Detail, f.Advice = warning, fmt.Sprintf("%s, restarted %d times", f.Detail, restarts), "why: journalctl -u "+name+" -p warning"
	case is["ActiveState"] != "active" && strings.HasPrefix(name, "breakerd"):
		f.Status, f.Advice = warning, "start it: systemctl enable --now "+strings.TrimSuffix(name, ".service")
	}
	return []finding{f}
}

// lastErrors are what the journal has of a breakerd that does not answer.
func (s site) lastErrors(ctx context.Context) (all []finding) {
	out, err := s.tool(ctx, "journalctl", "--boot", "--no-pager", "--quiet", "--output=cat", "--priority=warning", "--lines=5", "-t", "breakerd", "-t", "breaker-enforcer", "-u", "breakerd.service")
	if err != nil {
		return nil // there is no journal, as was said before, or not for us
	}
	for line := range strings.Lines(out) {
		all = append(all, finding{"told", fine, strings.TrimSpace(line), ""})
	}
	return all
}

// enforcerFindings look at the enforcer; status is nil where breakerd does not answer.
func (a *app) enforcerFindings(ctx context.Context, s site, status *api.Status) []finding {
	all := s.unit(ctx, "breaker-enforcer.service")
	client := enforce.NewClient(a.runtimeDir)
	defer client.Close()
	is, err := client.Status(ctx)
	wanted := status != nil && status.Mode == model.Enforce
	switch {
	case err != nil && errors.Is(err, os.ErrPermission):
		return append(all, finding{"enforcer", warning, "may not be asked: " + err.Error(), "run doctor as root, or as a member of the group breakerd"})
	case err != nil && wanted:
		return append(all, finding{"enforcer", failure, err.Error(), "the mode is enforce and nothing can be done: systemctl enable --now breaker-enforcer.socket, or look at journalctl -u breaker-enforcer"})
	case err != nil:
		return append(all, finding{"enforcer", fine, "does not run: breakerd only watches", ""})
	}
	f := finding{"enforcer", fine, fmt.Sprintf("%s, pid %d, %d leases, a lease of at most %s", is.Version, is.PID, is.Leases, span(time.Duration(is.MaxLeaseMS)*time.Millisecond)), ""}
	switch {
	case is.Version != version:
		f.Status, f.Advice = warning, fmt.Sprintf("breakerctl is %s: restart the enforcer (systemctl restart breaker-enforcer), which lets go of everything first", version)
	case is.Recovered > 0:
		f.Status, f.Detail = warning, fmt.Sprintf("%s, %d leases of one before it undone", f.Detail, is.Recovered)
		f.Advice = "an enforcer was killed, or the machine lost power, while something was held: journalctl -u breaker-enforcer"
	case wanted && (is.LastHeartbeat == nil || time.Since(*is.LastHeartbeat) > 5*time.Second):
		f.Status, f.Detail, f.Advice = warning, f.Detail+", and has not heard of breakerd lately", "do both use the same --runtime-dir?"
	}
	return append(all, f)
}
