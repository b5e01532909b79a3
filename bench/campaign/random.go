package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/internal/disposable"
)

// atRandom is the moment of what is done at any instant.
const atRandom = "random"

// anyActs are what is done at random, so often: more kills than anything else.
func (l *lane) anyActs(times int) []act {
	acts := make([]act, times)
	for i := range acts {
		switch n := rand.IntN(10); {
		case n >= 8 && l.ground.memory != "":
			acts[i] = oom
		case n == 7:
			acts[i] = stopKill
		case n == 6:
			acts[i] = stopCont
		default:
			acts[i] = kill
		}
	}
	return acts
}

// enforcers strikes at the enforcer, while leases are made, end and are released.
func (l *lane) enforcers(ctx context.Context, acts []act, t *tally) error {
	e, err := l.start("")
	if err != nil {
		return err
	}
	defer func() { send(e, syscall.SIGKILL) }()
	if err := l.answers(ctx, e); err != nil {
		return err
	}
	window := l.window(ctx)
	for _, a := range acts {
		open, struck := context.WithCancel(ctx)
		done := make(chan struct{})
		go func() {
			defer close(done)
			for open.Err() == nil {
				l.propose(ctx, open)
			}
		}()
		time.Sleep(rand.N(window))
		err := l.hit(ctx, e, a)
		struck()
		dirty := l.differs() != ""
		var since time.Time
		if err == nil {
			since, err = afterStop(e, a, 3*longestAtRandom)
		}
		if err == nil && a != stopCont {
			since, e, err = l.again(ctx)
		}
		var took time.Duration
		if err == nil {
			took, err = l.undone(ctx, since)
		}
		<-done
		if err == nil {
			// What was being proposed may be held when the enforcer goes on, and has an end as well.
			err = errors.Join(l.answers(ctx, e), l.settled(ctx))
		}
		if what := l.differs(); err == nil && what != "" {
			err = fmt.Errorf("after the recovery: %s", what)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		t.add(row{Kind: "leases of every kind", Moment: atRandom, Program: "enforcer", Act: a}, took, dirty, err)
		if err != nil {
			return fmt.Errorf("%s of the enforcer at random: %w\n%s", a, err, said(e))
		}
	}
	return e.Stop(patience)
}

// again starts the enforcer, one time in four only to kill it while it recovers.
func (l *lane) again(ctx context.Context) (since time.Time, e *disposable.Program, err error) {
	if rand.IntN(4) == 0 {
		if e, err = l.start(""); err != nil {
			return since, nil, err
		}
		time.Sleep(rand.N(30 * time.Millisecond))
		if err = send(e, syscall.SIGKILL); err != nil {
			return since, nil, err
		}
	}
	since = time.Now()
	e, err = l.start("")
	return since, e, err
}

// longestAtRandom is a hold that is often still on when the enforcer is struck at: a record
// takes 10 to 50 ms where the disk is busy, and several times that beside a compile.
const longestAtRandom = 400 * time.Millisecond

// propose asks for a lease of each cgroup, for as long as it is open. Some end by themselves
// within the time, some are released, some stay. The enforcer may die meanwhile.
func (l *lane) propose(ctx, open context.Context) {
	bounded, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	for _, i := range rand.Perm(len(l.groups)) {
		if open.Err() != nil {
			return
		}
		c := l.groups[i]
		d := l.decide(c, rand.N(longestAtRandom)+time.Millisecond)
		if _, err := l.client.Propose(bounded, d); err == nil && rand.IntN(3) == 0 {
			_, _ = l.client.Release(bounded, d.ID)
		}
	}
}

// window is how long it takes to propose all that at most, and for it to end, so that every
// instant of it is struck at, on machines fast and slow.
func (l *lane) window(ctx context.Context) (most time.Duration) {
	for range 5 {
		began := time.Now()
		l.propose(ctx, ctx)
		most = max(most, time.Since(began))
	}
	return most + longestAtRandom
}

// storm makes up to 100 processes a second that live for a second; policyText has it frozen.
const (
	storm      = "while :; do sleep 1 & sleep 0.01; done"
	policyText = `package breaker.campaign

import rego.v1

action contains {"kind": "freeze", "scope": "tree", "for": "30s", "reason": "campaign"} if {
	input.incident.kind == "fork_storm"
	startswith(input.incident.culprit.cgroup, "%s")
}
`
	quick = "tick: 100ms\ndetect: {fork_storm: {hold: 100ms}, hysteresis: {close_after: 300ms}}\n"
)

// breakerds strikes at the real breakerd, which sees a storm and has it frozen.
func (l *lane) breakerds(ctx context.Context, acts []act, t *tally) error {
	c, err := l.ground.newGroup(l.name+"-storm", whole, storm)
	if err != nil {
		return err
	}
	l.groups = append(l.groups, c)
	dir := filepath.Dir(l.run)
	files := map[string]string{"quick.yaml": quick, "rules/storm.rego": fmt.Sprintf(policyText, c.ref.Path)}
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			return err
		}
	}
	e, err := l.start("")
	if err != nil {
		return err
	}
	defer send(e, syscall.SIGKILL)
	if err := l.answers(ctx, e); err != nil {
		return err
	}
	for i, a := range acts {
		d, err := disposable.Start(syscall.SIGKILL, l.breakerd, "--config", dir+"/quick.yaml", "--mode", "enforce",
			"--policy", dir+"/rules", "--runtime-dir", l.run, "--state-dir", dir+"/breakerd")
		if err != nil {
			return err
		}
		took, dirty, err := l.strikeRealBreakerd(ctx, c, d, a, i%4 != 0)
		if ctx.Err() != nil {
			send(d, syscall.SIGKILL)
			return context.Cause(ctx)
		}
		t.add(row{Kind: "fork storm, frozen", Moment: atRandom, Program: "breakerd", Act: a}, took, dirty, err)
		if err != nil {
			err = fmt.Errorf("%s of breakerd at random: %w\nenforcer: %s\nbreakerd: %s", a, err, said(e), said(d))
		}
		send(d, syscall.SIGKILL)
		if err = errors.Join(err, l.settled(ctx)); err != nil {
			return err
		}
	}
	return e.Stop(patience)
}

func (l *lane) strikeRealBreakerd(ctx context.Context, c *group, d *disposable.Program, a act, held bool) (took time.Duration, dirty bool, err error) {
	client := api.NewClient(l.run)
	if err := until(ctx, patience, func() string {
		if s, err := client.Status(ctx); err != nil || s.Samples == 0 {
			return fmt.Sprintf("breakerd is not ready (%v)", err)
		}
		return ""
	}); err != nil {
		return 0, false, err
	}
	if held { // most strike while something is held, the rest anywhere before
		if err := until(ctx, 2*patience, func() string {
			if c.differs() == "" {
				return "the storm is not frozen"
			}
			return ""
		}); err != nil {
			return 0, false, err
		}
	}
	time.Sleep(rand.N(200 * time.Millisecond))
	err = l.hit(ctx, d, a)
	since := time.Now().Add(heartbeat)
	if err != nil {
		return 0, false, err
	}
	dirty = c.differs() != ""
	took, err = l.undone(ctx, since)
	if err == nil && a == stopCont {
		err = send(d, syscall.SIGCONT)
	}
	return took, dirty, err
}
