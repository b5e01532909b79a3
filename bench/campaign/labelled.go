package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/internal/disposable"
)

// act is what is done to a program.
type act string

const (
	kill     act = "KILL"
	stopCont act = "STOP,CONT"
	stopKill act = "STOP,KILL"
	oom      act = "OOM"
)

// blow is what is done, and to which of the programs.
type blow struct {
	at  string // breaker-enforcer or breakerd
	act act
}

var blows = []blow{
	{"enforcer", kill}, {"enforcer", stopCont}, {"enforcer", stopKill}, {"enforcer", oom},
	{"breakerd", kill}, {"breakerd", stopCont}, {"breakerd", oom},
}

// labels are the labelled moments, as the tests of package enforce have them.
type labels struct {
	Every    []string `json:"every"`
	Throttle []string `json:"throttle"`
	Inside   []string `json:"inside"`
	Assert   []string `json:"assert"`
	Ease     []string `json:"ease"`
}

func readLabels(enforcerTest string) (l labels, err error) {
	cmd := exec.Command(enforcerTest)
	cmd.Env = append(os.Environ(), "BREAKERD_TEST_POINTS=1")
	out, err := cmd.Output()
	if err != nil {
		return l, fmt.Errorf("ask %s for the labelled moments: %w", enforcerTest, err)
	}
	return l, json.Unmarshal(out, &l)
}

// of are the moments that an action comes to.
func (l *labels) of(k kind) []string {
	switch k {
	case apart:
		return slices.Concat(l.Every, l.Inside)
	case throttle:
		return slices.Concat(l.Every, l.Throttle, l.Assert, l.Ease)
	}
	return slices.Concat(l.Every, l.Assert)
}

// holds reports whether something must be held at a moment of an action.
func (l *labels) holds(k kind, label string) bool {
	if slices.Contains(l.Assert, label) {
		return k == throttle // whose other limits nobody wrote over
	}
	i := slices.Index(l.Every, label) // -1: between the first write and the undo
	return i < 0 || i >= slices.Index(l.Every, "after write") && i <= slices.Index(l.Every, "before restore")
}

// Times of a labelled moment.
const (
	shortHold = 2 * time.Second         // over while a program stands still, and not before it is held: a disk may take a second for a record
	longHold  = time.Minute             // which only the heartbeat's end cuts short
	standing  = 2200 * time.Millisecond // of who was stopped
)

// labelled strikes at labelled moments, once for each round.
func (l *lane) labelled(ctx context.Context, all *labels, moments []string, t *tally) error {
	c := l.groups[0]
	for range l.rounds {
		for _, label := range moments {
			for _, b := range blows {
				if b.act == oom && l.ground.memory == "" {
					continue
				}
				took, dirty, err := l.strike(ctx, c, label, b, all)
				if ctx.Err() != nil {
					return context.Cause(ctx)
				}
				t.add(row{Kind: c.kind, Moment: label, Program: b.at, Act: b.act}, took, dirty, err)
				if err != nil {
					return fmt.Errorf("%s, %s, %s of %s: %w", c.kind, label, b.act, b.at, err)
				}
			}
		}
	}
	return nil
}

// ends reports whether a lease is ending already at a moment.
func ends(all *labels, label string) bool {
	return slices.Index(all.Every, label) >= slices.Index(all.Every, "before restore")
}

// strike has the enforcer stop itself at a moment, does what is to be done, and measures
// until everything is as it was. dirty says that something was not.
func (l *lane) strike(ctx context.Context, c *group, label string, b blow, all *labels) (took time.Duration, dirty bool, err error) {
	e, err := l.start(label)
	if err != nil {
		return 0, false, err
	}
	defer send(e, syscall.SIGKILL)
	if err := l.answers(ctx, e); err != nil {
		return 0, false, err
	}
	hold := longHold
	if ends(all, label) || b.at == "enforcer" {
		hold = shortHold
	}
	foreign := label == "before assert"
	if foreign || slices.Contains(all.Ease, label) {
		hold = 2 * time.Second // long enough to come to it
	}
	d, err := breakerdFor(l, l.decide(c, hold))
	if err != nil {
		return 0, false, err
	}
	defer send(d, syscall.SIGKILL)
	if foreign {
		if err := l.overwrite(ctx, c); err != nil {
			return 0, false, fmt.Errorf("%w\n%s", err, said(d))
		}
	}
	if err := stopped(ctx, e); err != nil {
		return 0, false, fmt.Errorf("%w\nbreakerd: %s", err, said(d))
	}
	dirty = l.differs() != ""
	if !dirty && all.holds(c.kind, label) {
		return 0, false, errors.New("nothing is held at a moment at which something is")
	}

	var since time.Time
	if b.at == "breakerd" {
		since, err = l.strikeBreakerd(ctx, d, e, b.act)
	} else if err = l.hit(ctx, e, b.act); err == nil {
		since, err = afterStop(e, b.act, standing)
	}
	if err != nil {
		return 0, dirty, err
	}
	if b.at == "enforcer" && b.act != stopCont {
		if e, err = l.start(""); err != nil {
			return 0, dirty, err
		}
		defer send(e, syscall.SIGKILL)
	}
	if took, err = l.undone(ctx, since); err != nil {
		return took, dirty, fmt.Errorf("%w\nenforcer: %s\nbreakerd: %s", err, said(e), said(d))
	}
	if b.at == "breakerd" && b.act == stopCont {
		if err := send(d, syscall.SIGCONT); err != nil { // what it says then must have nothing held again
			return took, dirty, err
		}
	}
	if err := errors.Join(l.answers(ctx, e), l.settled(ctx)); err != nil {
		return took, dirty, err
	}
	if what := l.differs(); what != "" {
		return took, dirty, fmt.Errorf("after the recovery: %s", what)
	}
	return took, dirty, e.Stop(patience)
}

// overwrite waits until a cgroup is held, and puts back what was there: somebody else
// writes what is ours.
func (l *lane) overwrite(ctx context.Context, c *group) error {
	if err := until(ctx, patience, func() string {
		if leases, err := l.client.Leases(ctx); err != nil || len(leases) == 0 || leases[0].HeldAt == nil {
			return fmt.Sprintf("nothing is held (%v)", err)
		}
		return ""
	}); err != nil {
		return err
	}
	file := "cgroup.freeze"
	if c.kind == throttle {
		file = "pids.max"
	}
	return os.WriteFile(c.dir+"/"+file, []byte(c.original[file]), 0)
}

// hit ends a program, or has it stand still: from then on an enforcer neither holds
// nor lets go of anything, so that what is held can be looked at.
func (l *lane) hit(ctx context.Context, p *disposable.Program, a act) error {
	switch a {
	case kill:
		return send(p, syscall.SIGKILL)
	case oom:
		return l.outOfMemory(ctx, p)
	}
	// One that stands still already is none the worse for it.
	if err := send(p, syscall.SIGSTOP); err != nil {
		return err
	}
	return stopped(ctx, p)
}

// afterStop does to an enforcer that was stopped what comes then; one that goes on stands still
// for so long, and its leases are over by then. From since on the time to the undo counts: its
// going on, or its end.
func afterStop(e *disposable.Program, a act, long time.Duration) (since time.Time, err error) {
	switch a {
	case stopKill:
		time.Sleep(long / 8)
		err = send(e, syscall.SIGKILL)
	case stopCont:
		time.Sleep(long)
		err = send(e, syscall.SIGCONT)
	}
	return time.Now(), err
}

// strikeBreakerd does it to breakerd while the enforcer stands at a moment, and has the
// enforcer go on. From the end of the heartbeat on the time counts.
func (l *lane) strikeBreakerd(ctx context.Context, d, e *disposable.Program, a act) (since time.Time, err error) {
	err = l.hit(ctx, d, a)
	since = time.Now().Add(heartbeat)
	return since, errors.Join(err, send(e, syscall.SIGCONT))
}
