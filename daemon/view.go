package daemon

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/observe"
)

// view is the daemon as the API shows it.
type view Daemon

var _ api.Source = (*view)(nil)

// Status implements api.Source.
func (v *view) Status(ctx context.Context) api.Status {
	cfg := v.conf.get()
	s := api.Status{
		Version:       v.version,
		PID:           os.Getpid(),
		Mode:          cfg.Mode,
		StartedAt:     v.started,
		Kernel:        v.kernel,
		CgroupMount:   v.observer.Reader().CgroupRoot,
		Controllers:   controllers(v.observer.Reader()),
		Programs:      v.observer.Programs(),
		Samples:       v.pipeline.samples.Load(),
		TickMS:        cfg.Tick.D().Milliseconds(),
		LostSinceBoot: v.pipeline.lost.get(),
		Policies:      v.policies(),
		Enforcer:      v.enforcer.state(),
		Cost:          cost(v.started),
		Missing:       []api.Missing{},
		Privileges:    v.observer.Privileges(),
		Config:        v.conf.state(),
		Problems:      []string{},
	}
	if s.Enforcer.Approvals == nil {
		s.Enforcer.Approvals = []model.Approval{}
	}
	for _, m := range v.observer.Missing() {
		s.Missing = append(s.Missing, api.Missing(m))
	}
	if v.guards != nil {
		s.Problems = append(s.Problems, "the guards are the built-in ones and not those of breaker-enforcer, so that a dry run may say something else than it would: "+v.guards.Error())
	}
	if v.memory.err != nil {
		s.Problems = append(s.Problems, "what was learned of culprits before this start is not known: "+v.memory.err.Error())
	}
	if err := v.kept.get(); err != nil {
		s.Problems = append(s.Problems, "what is learned of culprits will not outlive a restart: "+err.Error())
	}
	s.Journal.Native = v.journal != nil && v.journal.Native()
	s.LastErrors, s.Journal.Lost = v.teller.told()
	if latest := v.pipeline.latest.Load(); latest != nil {
		s.LastSampleAt, s.Host = latest.Time, latest.Host
	}
	s.OpenIncidents, s.Incidents = v.board.counts()
	if leases, err := v.enforcer.leases(ctx); err == nil {
		s.Leases = len(leases)
	}
	s.History = v.history()
	s.Problems = append(s.Problems, problems(&s)...)
	return s
}

func (v *view) history() api.History {
	cfg, is := v.conf.get().History, v.past.State()
	return api.History{Enabled: cfg.Enabled, Dir: cfg.Dir, Problem: is.Problem, SetAside: is.SetAside, Bytes: is.Bytes, Dropped: is.Dropped}
}

// problems says what is missing or wrong, and what to do about it.
func problems(s *api.Status) []string {
	var all []string
	if s.Config.Error != "" {
		all = append(all, "the configuration was refused at a reload, and the one before is in force: "+s.Config.Error)
	}
	if len(s.Config.NeedsRestart) > 0 {
		all = append(all, fmt.Sprintf("the configuration has another %s, which needs a restart: systemctl restart breakerd", strings.Join(s.Config.NeedsRestart, ", ")))
	}
	if s.Policies.Error != "" {
		all = append(all, "policies refused: "+s.Policies.Error)
	}
	if l := s.Policies.DecisionLog; l != nil && l.Error != "" {
		all = append(all, "the decision log: "+l.Error)
	}
	if t := s.Policies.Trial; t != nil && t.Withheld != "" {
		all = append(all, "the policies on trial are not put in force: "+t.Withheld+". Change them, or put them in force all the same: breakerctl policy promote")
	}
	if b := s.Policies.Bundle; b != nil && b.Error != "" {
		all = append(all, fmt.Sprintf("the bundle %s: %s. What was had before stays", b.Source, b.Error))
	}
	if s.Policies.WatchError != "" {
		all = append(all, s.Policies.WatchError+"; systemctl reload breakerd loads them")
	}
	if s.Mode != model.Monitor && len(s.Policies.Packages) == 0 && s.Policies.Error == "" {
		all = append(all, fmt.Sprintf("mode is %s and there are no policies: nothing will ever be done. Put them into /etc/breakerd/policies, or name another folder under policies.paths in the configuration", s.Mode))
	}
	if s.Enforcer.State == "unreachable" {
		all = append(all, "the enforcer does not answer, so that nothing can be done: "+s.Enforcer.Error)
	}
	if s.History.Problem != "" {
		all = append(all, "what happens is not kept: "+s.History.Problem)
	}
	if s.History.SetAside != "" {
		all = append(all, "the history was damaged, and a new one began; the damaged file is "+s.History.SetAside)
	}
	if l := s.LostSinceBoot; l.Cells+l.Cgroups > 0 {
		all = append(all, fmt.Sprintf("kernel tables were full: %d waits and %d cgroup counts are missing", l.Cells, l.Cgroups))
	}
	// What the start took counts still in the first minutes.
	most := api.BudgetCPUPercent * float64(max(1, s.Host.CPUs))
	if s.Cost.CPUPercent > most && s.LastSampleAt.Sub(s.StartedAt) > 5*time.Minute {
		all = append(all, fmt.Sprintf("breakerd itself has taken %.2f %% of one CPU since the start, and %.2f %% is the most that it should: a longer tick costs less (tick: 1s)", s.Cost.CPUPercent, most))
	}
	if s.Cost.RSSBytes > api.BudgetRSSBytes {
		all = append(all, fmt.Sprintf("breakerd itself takes %d MB of memory, and %d MB is the most that it should: GOGC=20 in its environment takes less, and more CPU time", s.Cost.RSSBytes>>20, api.BudgetRSSBytes>>20))
	}
	return all
}

// Incidents implements api.Source.
func (v *view) Incidents() []model.Incident { return v.board.all() }

// Blame implements api.Source.
func (v *view) Blame(window time.Duration) (api.Blame, error) { return v.board.blame(window) }

// Processes implements api.Source.
func (v *view) Processes(ctx context.Context, r api.Ranking) (all []model.ProcessFigures, err error) {
	err = v.pipeline.ask(ctx, func(j *judge.Judge) { all = j.Processes(r.By, r.Most) })
	v.board.nameAll(func(yield func(model.CgroupID, *string) bool) {
		for i := range all {
			if !yield(all[i].CgroupID, &all[i].Cgroup) {
				return
			}
		}
	})
	return all, err
}

// Cgroups implements api.Source.
func (v *view) Cgroups(ctx context.Context, r api.Ranking) (all []model.CgroupFigures, err error) {
	err = v.pipeline.ask(ctx, func(j *judge.Judge) { all = j.Cgroups(r.By, r.Most) })
	v.board.nameAll(func(yield func(model.CgroupID, *string) bool) {
		for i := range all {
			if !yield(all[i].CgroupID, &all[i].Cgroup) {
				return
			}
		}
	})
	for i := range all {
		name := v.board.name(all[i].Cgroup)
		all[i].Unit, all[i].Workload = name.Unit, name
	}
	return all, err
}

// WhyNot implements api.Source.
func (v *view) WhyNot(ctx context.Context, s api.Subject) (out model.WhyNot, err error) {
	var id model.CgroupID
	where := s.Cgroup
	if s.PID == 0 {
		if id, err = cgroupID(v.cgroupRoot(), where); err != nil {
			return out, err
		}
	}
	found := true
	if err := v.pipeline.ask(ctx, func(j *judge.Judge) {
		var p model.ProcessFigures
		if s.PID != 0 {
			if p, found = j.Process(s.PID); !found {
				return
			}
			id = p.CgroupID
		}
		out = j.WhyNot(id)
		if s.PID != 0 {
			out.Process = &p
		}
	}); err != nil {
		return out, err
	}
	if !found {
		return out, fmt.Errorf("process %d: %w: it has ended, or was made a moment ago and is in no sample yet", s.PID, api.ErrNotFound)
	}
	v.board.nameAll(func(yield func(model.CgroupID, *string) bool) {
		if out.Process == nil || yield(id, &out.Process.Cgroup) {
			yield(id, &out.Cgroup.Cgroup)
		}
	})
	if out.Cgroup.Cgroup == "" {
		out.Cgroup.Cgroup = where
	}
	name := v.board.name(out.Cgroup.Cgroup)
	out.Cgroup.Unit, out.Cgroup.Workload = name.Unit, name
	return out, nil
}

func (v *view) cgroupRoot() string { return v.observer.Reader().CgroupRoot }

// cgroupID is the kernel's identity of the cgroup that has this path now.
func cgroupID(root, path string) (model.CgroupID, error) {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(root, filepath.Join("/", path)), &st) // never above the root
	switch {
	case errors.Is(err, unix.ENOENT), err == nil && st.Mode&unix.S_IFMT != unix.S_IFDIR:
		return 0, fmt.Errorf("cgroup %q: %w: it is gone, or never was: name it by its path below %s", path, api.ErrNotFound, root)
	case err != nil:
		return 0, fmt.Errorf("cgroup %q: %w", path, err)
	}
	return model.CgroupID(st.Ino), nil
}

// Leases implements api.Source.
func (v *view) Leases(ctx context.Context) ([]model.Lease, error) {
	leases, err := v.enforcer.leases(ctx)
	if leases == nil {
		leases = []model.Lease{}
	}
	return leases, err
}

// Breakers implements api.Source.
func (v *view) Breakers(ctx context.Context) (all []model.Breaker, err error) {
	err = v.pipeline.ask(ctx, func(j *judge.Judge) { all = j.Breakers() })
	return all, err
}

// Release implements api.Source.
func (v *view) Release(ctx context.Context, id string) error { return v.enforcer.release(ctx, id) }

// Record implements api.Source.
func (v *view) Record(ctx context.Context, w io.Writer) error { return (*Daemon)(v).record(ctx, w) }

// Ready implements api.Source.
func (v *view) Ready() error {
	latest, tick := v.pipeline.latest.Load(), v.conf.get().Tick.D()
	if latest == nil {
		return errors.New("no sample has been taken yet")
	}
	if age := time.Since(latest.Time); age > max(10*tick, 2*observe.Longest+tick) {
		return fmt.Errorf("the last sample is %v old", age.Round(time.Millisecond))
	}
	return nil
}

// cost is what this process has used. What the kernel programs cost is not in it.
func cost(since time.Time) api.Cost {
	var c api.Cost
	var u unix.Rusage
	if unix.Getrusage(unix.RUSAGE_SELF, &u) == nil {
		used := time.Duration(u.Utime.Nano() + u.Stime.Nano())
		c.CPUPercent = float64(int(used.Seconds()/time.Since(since).Seconds()*10000)) / 100
	}
	// The second number of /proc/self/statm is resident pages.
	if text, err := os.ReadFile("/proc/self/statm"); err == nil {
		if fields := strings.Fields(string(text)); len(fields) > 1 {
			pages, _ := strconv.ParseUint(fields[1], 10, 64)
			c.RSSBytes = pages * uint64(os.Getpagesize())
		}
	}
	return c
}
