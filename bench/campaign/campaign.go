package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/disposable"
)

// campaign takes the times of an idle machine, and then strikes everywhere at once on a
// busy one.
func campaign(ctx context.Context, o options, temp string) (r Report, err error) {
	all, err := readLabels(o.enforcerTest)
	if err != nil {
		return r, err
	}
	g, err := newGround()
	if err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, g.clear()) }()
	began := time.Now()
	r = Report{Kernel: kernel(), Systemd: systemd(), CPUs: runtime.NumCPU(), Controllers: append([]string{}, g.controllers...)}
	if !o.gentle && o.Only.MatchString("latencies") {
		if r.Latency, err = latencies(ctx, &o, g, temp); err != nil {
			return r, err
		}
	}

	if !o.gentle {
		load, err := hogs()
		defer func() {
			for _, p := range load {
				send(p, syscall.SIGKILL)
			}
		}()
		if err != nil {
			return r, err
		}
	}
	kinds := []kind{whole, apart}
	if len(g.controllers) == 3 {
		kinds = append(kinds, throttle)
	} else {
		r.NotPossible = append(r.NotPossible, fmt.Sprintf("throttle: %s has no controllers but %q", g.mount, g.controllers))
	}
	if g.memory == "" {
		r.NotPossible = append(r.NotPossible, "OOM: there is no memory controller")
	}
	c := &crew{options: &o, ground: g, temp: temp}
	for _, k := range kinds {
		c.start(ctx, "labelled "+string(k), func(l *lane) error { return l.labelled(ctx, &all, all.of(k), &c.tally) }, k)
	}
	// A tenth of the random moments are of breakerd, which is not struck at more than once
	// in two seconds or so.
	breakerds := o.kills / 10
	half := (o.kills - breakerds) / 2
	enforcers := func(times int) func(*lane) error {
		return func(l *lane) error { return l.enforcers(ctx, l.anyActs(times), &c.tally) }
	}
	c.start(ctx, "random 0", enforcers(half), slices.Concat(kinds, []kind{whole})...)
	c.start(ctx, "random 1", enforcers(o.kills-breakerds-half), slices.Concat(kinds, []kind{apart})...)
	for i, times := range []int{breakerds / 2, breakerds - breakerds/2} {
		c.start(ctx, fmt.Sprintf("breakerd %d", i), func(l *lane) error { return l.breakerds(ctx, l.anyActs(times), &c.tally) })
	}
	c.work.Wait()
	if ctx.Err() != nil {
		return r, errors.New("interrupted")
	}
	r.Seconds = time.Since(began).Seconds()
	r.take(&c.tally)
	return r, nil
}

// crew is lanes that strike at the same time, and what they find.
type crew struct {
	*options
	ground *ground
	temp   string
	tally  tally
	work   sync.WaitGroup
}

// start has a lane strike, if it is one of those that were asked for.
func (c *crew) start(ctx context.Context, name string, strike func(*lane) error, kinds ...kind) {
	if !c.Only.MatchString(name) {
		return
	}
	if c.gentle {
		c.work.Wait()
	}
	c.work.Go(func() {
		l, err := newLane(c.options, c.ground, c.temp, strings.ReplaceAll(name, " ", "-"), kinds...)
		if err == nil {
			err = strike(l)
			l.clear()
		}
		if err != nil && ctx.Err() == nil {
			c.tally.fail(fmt.Errorf("%s: %w", name, err))
		}
	})
}

// hogs keep every CPU busy.
func hogs() (all []*disposable.Program, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	for range runtime.NumCPU() {
		p, err := disposable.Start(syscall.SIGKILL, "/usr/bin/env", roleVar+"="+asHog, self)
		if err != nil {
			return all, err
		}
		all = append(all, p)
	}
	return all, nil
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "unknown"
	}
	return unix.ByteSliceToString(u.Release[:])
}

// systemd is its version; "none" where it does not run.
func systemd() string {
	if _, err := os.Stat("/run/systemd/system"); err != nil {
		return "none"
	}
	out, _ := exec.Command("systemctl", "--version").Output()
	line, _, _ := strings.Cut(string(out), "\n")
	return strings.TrimSpace(strings.TrimPrefix(line, "systemd "))
}

// Limits of the latencies.
const (
	mostEight    = 270 * time.Millisecond // one tick of 250 ms and 20 ms
	mostThousand = time.Second
)

// latencies measures from a decision to the kernel's confirmation, and the undo.
func latencies(ctx context.Context, o *options, g *ground, temp string) (out []Latency, err error) {
	const rounds = 20
	for i, c := range []struct {
		what  string
		kind  kind
		tasks int
		sh    string
		limit time.Duration
	}{
		{"8 busy processes frozen", whole, 8, "while [ $((i+=1)) -le 8 ]; do sh -c 'while :; do :; done' & done; wait", mostEight},
		{"1,000 processes frozen", whole, 1000, "while [ $((i+=1)) -le 1000 ]; do sleep 3600 & done; wait", mostThousand},
		{"1,000 processes moved apart and frozen", apart, 1000, "while [ $((i+=1)) -le 1000 ]; do sleep 3600 & done; wait", mostThousand},
	} {
		l, err := newLane(o, g, temp, fmt.Sprintf("latency-%d", i), c.kind)
		if err != nil {
			return nil, err
		}
		confirmed, undone, err := l.latency(ctx, c.sh, c.tasks, rounds)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", c.what, err)
		}
		figures := figuresOf(confirmed)
		out = append(out,
			Latency{What: c.what + ", decision to confirmation", Figures: figures, LimitMS: ms(c.limit), Passed: figures.MaxMS <= ms(c.limit)},
			Latency{What: c.what + ", release to undone", Figures: figuresOf(undone), LimitMS: ms(undoneWithin), Passed: figuresOf(undone).MaxMS <= ms(undoneWithin)})
		disposable.Kill(l.groups[0].dir)
	}
	return out, nil
}

func (l *lane) latency(ctx context.Context, sh string, tasks, rounds int) (confirmed, undone []time.Duration, err error) {
	c := l.groups[0]
	pid, err := c.run("sh", "-c", sh)
	if err != nil {
		return nil, nil, err
	}
	start, err := startTime(pid)
	if err != nil {
		return nil, nil, err
	}
	if err := until(ctx, 4*patience, func() string {
		procs, _ := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
		if n := strings.Count(string(procs), "\n"); n < tasks {
			return fmt.Sprintf("%d of %d processes", n, tasks)
		}
		return ""
	}); err != nil {
		return nil, nil, err
	}
	e, err := l.start("")
	if err != nil {
		return nil, nil, err
	}
	defer send(e, syscall.SIGKILL)
	if err := l.answers(ctx, e); err != nil {
		return nil, nil, err
	}
	beating, quit := context.WithCancel(ctx)
	defer quit()
	go l.beat(beating)
	for range rounds {
		d := l.decide(c, time.Minute)
		if c.kind == apart {
			d.Target.Root.PID, d.Target.Root.StartTime = int32(pid), start
		} else {
			d.Action.Scope = "cgroup"
		}
		d.At = time.Now()
		out, err := l.client.Propose(ctx, d)
		if err != nil || out.ConfirmedAt == nil {
			return nil, nil, fmt.Errorf("propose: %+v, %v", out, err)
		}
		confirmed = append(confirmed, out.ConfirmedAt.Sub(d.At))
		began := time.Now()
		if _, err := l.client.Release(ctx, d.ID); err != nil {
			return nil, nil, err
		}
		undone = append(undone, time.Since(began))
		if what := l.differs(); what != "" {
			return nil, nil, errors.New(what)
		}
	}
	return confirmed, undone, e.Stop(patience)
}
