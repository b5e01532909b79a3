package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/internal/disposable"
	"github.com/breakerd/breakerd/model"
)

// undoneWithin is the promise: from the enforcer's start or its going on, or from the end
// of the heartbeat, to everything undone.
const undoneWithin = 2 * time.Second

// heartbeat is the shortest that an enforcer can be told.
const heartbeat = time.Second

// beatEvery is how often breakerd's heart beats.
const beatEvery = heartbeat / 5

// patience is for what is not measured: a start, a labelled moment that must be reached.
const patience = 30 * time.Second

// lane is an enforcer with directories and cgroups of its own; several run at once.
type lane struct {
	*options
	ground                   *ground
	name, run, state, config string
	groups                   []*group
	client                   *enforce.Client
	n                        int
}

func newLane(o *options, g *ground, temp, name string, kinds ...kind) (*lane, error) {
	dir := filepath.Join(temp, name)
	l := &lane{options: o, ground: g, name: name, run: dir + "/run", state: dir + "/state", config: dir + "/enforcer.yaml"}
	if err := os.MkdirAll(l.run, 0o755); err != nil {
		return nil, err
	}
	text := `heartbeat_timeout: 1s
cooldown: 0s
rate: {per_target: {every: 1ms, burst: 1000}, overall: {every: 1ms, burst: 1000}}
reach: {leases: 100, processes_percent: 100}
`
	if err := os.WriteFile(l.config, []byte(text), 0o600); err != nil {
		return nil, err
	}
	for i, k := range kinds {
		c, err := g.newGroup(name+"-"+strconv.Itoa(i), k, tree)
		if err != nil {
			return nil, err
		}
		l.groups = append(l.groups, c)
	}
	l.client = enforce.NewClient(l.run)
	return l, nil
}

// clear ends all that still runs in the lane's cgroups, which keeps other lanes from running.
func (l *lane) clear() {
	for _, c := range l.groups {
		disposable.Kill(c.dir)
	}
}

// start starts the enforcer, as its unit has it: in its own session, and before others; with a
// label, one that stops itself there.
func (l *lane) start(label string) (*disposable.Program, error) {
	program := []string{l.enforcer, "--config", l.config, "--runtime-dir", l.run, "--state-dir", l.state}
	if label != "" {
		program = []string{"/usr/bin/env", stopVar + "=" + label, l.enforcerTest, l.config, l.run, l.state}
	}
	// nice(1) adds, and comes no further than -20.
	return disposable.StartSession(syscall.SIGKILL, "/usr/bin/nice", append([]string{"-n", "-40"}, program...)...)
}

// stopVar is stopPoint of the tests of package enforce.
const stopVar = "BREAKERD_TEST_STOP_AT"

// answers waits until this enforcer answers.
func (l *lane) answers(ctx context.Context, e *disposable.Program) error {
	err := until(ctx, patience, func() string {
		st, err := l.client.Status(ctx)
		if err == nil && st.PID == e.PID() {
			return ""
		}
		return fmt.Sprintf("the enforcer does not answer: %v", err)
	})
	if err != nil {
		return fmt.Errorf("%w\n%s", err, said(e))
	}
	return nil
}

// beat is breakerd's heartbeat.
func (l *lane) beat(ctx context.Context) {
	for ctx.Err() == nil {
		_ = l.client.Heartbeat(ctx) // who was killed answers nothing
		select {
		case <-ctx.Done():
		case <-time.After(beatEvery):
		}
	}
}

// decide makes a decision about a cgroup.
func (l *lane) decide(c *group, hold time.Duration) model.Decision {
	l.n++
	a := model.Action{Kind: model.Freeze, Scope: model.ScopeTree, ForMS: hold.Milliseconds()}
	if c.kind == throttle {
		a = model.Action{Kind: model.Throttle, Scope: model.ScopeCgroup, ForMS: hold.Milliseconds(), EaseMS: hold.Milliseconds() / 2, CPUPercent: 50, MemoryHigh: 512 << 20, PIDsMax: 200}
	}
	now := time.Now()
	return model.Decision{
		ID: fmt.Sprintf("%s-%d", l.name, l.n), IncidentID: l.name, Kind: model.ForkStorm, At: now, OpenedAt: now,
		Action: a, Confidence: 1, Observed: 1,
		Target: model.Target{Cgroup: c.ref.Path, CgroupID: c.ref.ID, Root: c.root, Scope: a.Scope, Outside: len(c.members) - 1},
	}
}

// breakerdFor starts breakerd's part, with one decision.
func breakerdFor(l *lane, d model.Decision) (*disposable.Program, error) {
	text, err := json.Marshal(d)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	return disposable.Start(syscall.SIGKILL, "/usr/bin/env", roleVar+"="+asBreakerd, self, l.run, string(text))
}

// differs says what is not as it was in any of the cgroups.
func (l *lane) differs() string {
	for _, c := range l.groups {
		if d := c.differs(); d != "" {
			return d
		}
	}
	return ""
}

// undone waits until everything is as it was, and says how long after a moment that was. It looks
// from that moment on: an enforcer that goes on may hold something yet before it.
func (l *lane) undone(ctx context.Context, since time.Time) (time.Duration, error) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Until(since)):
	}
	err := until(ctx, time.Until(since)+undoneWithin, l.differs)
	took := max(0, time.Since(since))
	if err != nil && ctx.Err() == nil {
		// Late is one thing, left behind another.
		if until(ctx, patience, l.differs) == nil {
			err = fmt.Errorf("%w; undone after %s", err, time.Since(since).Round(time.Millisecond))
		} else {
			err = fmt.Errorf("%w, nor within %s more", err, patience)
		}
	}
	return took, err
}

// settled wants the records of all leases put away, once the enforcer answers.
func (l *lane) settled(ctx context.Context) error {
	return until(ctx, patience, func() string {
		left, _ := filepath.Glob(filepath.Join(l.state, "leases", "active", "*"))
		odd, _ := filepath.Glob(filepath.Join(l.state, "leases", "unreadable", "*"))
		if all := append(left, odd...); len(all) > 0 {
			return fmt.Sprintf("records that were not put away: %s", strings.Join(all, ", "))
		}
		return ""
	})
}

// said is the end of what a program said.
func said(p *disposable.Program) string {
	const most = 600
	out := p.Output()
	return out[max(0, len(out)-most):]
}

// until waits until nothing is wrong any more.
func until(ctx context.Context, bound time.Duration, wrong func() string) error {
	for end := time.Now().Add(bound); ; {
		what := wrong()
		switch {
		case what == "":
			return nil
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(end):
			return fmt.Errorf("not within %s: %s", bound.Round(time.Millisecond), what)
		}
		time.Sleep(500 * time.Microsecond)
	}
}

// stopped waits until a program stands still after SIGSTOP: every thread of it, for one that
// waits for a disk stops later than others.
func stopped(ctx context.Context, p *disposable.Program) error {
	return until(ctx, patience, func() string {
		threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*", p.PID()))
		still := 0
		for _, thread := range threads {
			if fields, err := stat(thread); err == nil && fields[0] == "T" {
				still++
			}
		}
		if still == 0 || still < len(threads) {
			return fmt.Sprintf("%s never stood still (%d of %d threads): %s", p.Name(), still, len(threads), said(p))
		}
		return ""
	})
}

// send sends a signal to a program, and waits for its end where it is the last one.
func send(p *disposable.Program, s syscall.Signal) error {
	err := syscall.Kill(p.PID(), s)
	if err == nil && s == syscall.SIGKILL {
		<-p.Ended()
	}
	return err
}

// outOfMemory has the kernel kill a program because its cgroup has no memory left.
func (l *lane) outOfMemory(ctx context.Context, p *disposable.Program) (err error) {
	dir := filepath.Join(l.ground.memory, l.name+"-memory")
	if err := os.Mkdir(dir, 0o755); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, disposable.Clear(dir, prefix)) }()
	limit, kills := "memory.max", "memory.events"
	if l.ground.memory != l.ground.dir() {
		limit, kills = "memory.limit_in_bytes", "memory.oom_control"
	}
	procs := filepath.Join(dir, "cgroup.procs")
	err = errors.Join(
		os.WriteFile(filepath.Join(dir, limit), []byte("33554432"), 0),
		os.WriteFile(fmt.Sprintf("/proc/%d/oom_score_adj", p.PID()), []byte("1000"), 0),
		os.WriteFile(procs, []byte(strconv.Itoa(p.PID())), 0))
	if err != nil {
		return err
	}
	if swap := filepath.Join(dir, "memory.swap.max"); l.ground.memory == l.ground.dir() {
		_ = os.WriteFile(swap, []byte("0"), 0) // where the kernel has none there is no file
	}
	// What lies in a tmpfs is charged to the cgroup and is nobody's own, so that whoever writes
	// it has the better score.
	file := "/dev/shm/" + prefix + l.name
	defer os.Remove(file)
	eater, err := disposable.Start(syscall.SIGKILL, "/bin/sh", "-c", `echo $$ >"$1" && exec cat /dev/zero >"$2"`, "sh", procs, file)
	if err != nil {
		return err
	}
	defer send(eater, syscall.SIGKILL)
	select {
	case <-p.Ended():
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(patience):
		return fmt.Errorf("%s was not killed for want of memory: %s", p.Name(), said(eater))
	}
	text, err := os.ReadFile(filepath.Join(dir, kills))
	if err != nil {
		return err
	}
	if !strings.Contains(string(text), "oom_kill ") || strings.Contains(string(text), "oom_kill 0") {
		return fmt.Errorf("%s ended, and not for want of memory: %s", p.Name(), text)
	}
	return nil
}
