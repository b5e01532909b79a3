package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

// proof is the whole run.
type proof struct {
	options
	place   *place
	ground  *ground
	watched *watched
	status  api.Status
	temp    string
	staged  []*staged
	began   time.Time
}

// staged is a scenario that was taken, to be judged again at the end: an incident may
// open late.
type staged struct {
	scenario scenario
	scene    scene
	result   Result
	replayed []model.Incident // of a recording
}

// Times of a run.
const (
	poll = 250 * time.Millisecond
	// againWithin is how far into a run, for each of --runs, a scenario is taken again.
	againWithin = 6 * time.Minute
	// tail is how long a scenario goes on after the right incident has opened: long
	// enough for a wrong one beside it.
	tail = 1500 * time.Millisecond
	// Between two scenarios the load of the last one must be gone.
	calmPercent = 25.0 // of all CPUs
	calmBound   = 8 * time.Second
	// restTime lets breakerd take the last samples before its figures are read.
	restTime = 700 * time.Millisecond
	// disturbedPercent of one CPU, used by others, may really be what made somebody wait.
	disturbedPercent = 15.0
)

func prove(ctx context.Context, o options, here *place, chosen []scenario) (r Report, err error) {
	p := &proof{options: o, place: here, began: time.Now()}
	// On the disk that is tried; breakerd's sockets lie there, too.
	if p.temp, err = os.MkdirTemp(o.dir, prefix); err != nil {
		return r, err
	}
	if p.ground, err = newGround(here); err != nil {
		return r, errors.Join(err, os.RemoveAll(p.temp))
	}
	stopJanitor, err := p.ground.janitor(p.temp)
	if err != nil {
		return r, errors.Join(err, p.ground.clear(), os.RemoveAll(p.temp))
	}
	defer func() { err = errors.Join(err, p.ground.clear(), stopJanitor()) }()

	if p.breakerd == "" {
		if p.breakerd, err = build(ctx, p.temp, "breakerd"); err != nil {
			return r, err
		}
	}
	// Not when it is first needed: a compiler beside a scenario is trouble of its own.
	if p.ctl == "" && here.missing[needCtl] == "" && slices.ContainsFunc(chosen, func(s scenario) bool { return slices.Contains(s.needs, needCtl) }) {
		if p.ctl, err = build(ctx, p.temp, "breakerctl"); err != nil {
			return r, err
		}
	}
	own := filepath.Join(p.ground.dir(), "breakerd")
	if err := os.Mkdir(own, 0o755); err != nil {
		return r, err
	}
	if p.watched, err = startWatched(ctx, p.breakerd, own, p.temp); err != nil {
		return r, err
	}
	defer func() { err = errors.Join(err, p.watched.stop()) }()
	if p.status, err = p.watched.client.Status(ctx); err != nil {
		return r, err
	}
	for run := range p.runs {
		for _, s := range chosen {
			err := p.take(ctx, s, run+1)
			switch {
			case ctx.Err() != nil: // what has been taken is told all the same
				r, err = p.report(context.WithoutCancel(ctx))
				r.Summary.Passed, r.Summary.Interrupted = false, true
				return r, err
			case err != nil:
				return r, fmt.Errorf("%s: %w", s.name, err)
			}
		}
	}
	return p.report(ctx)
}

func (p *proof) report(ctx context.Context) (Report, error) {
	r := Report{Version: p.status.Version, Kernel: p.status.Kernel, CPUs: runtime.NumCPU()}
	if err := sleep(ctx, settleTime); err != nil {
		return r, err
	}
	for _, st := range p.staged {
		if st.scene.path != "" {
			all, err := p.incidents(ctx, st)
			if err != nil {
				return r, err
			}
			st.result.take(judge(st.scenario, st.scene, all), st.scene)
		}
		r.Results = append(r.Results, st.result)
	}
	r.Summary = summarize(r.Results)
	return r, nil
}

// take takes a scenario, and once more where it did not go well while others used the
// CPUs, or where the load did not do what its label says.
func (p *proof) take(ctx context.Context, s scenario, run int) error {
	result := Result{Name: s.name, Run: run, Tell: s.tell, Expected: expectation(s), Wrong: []string{}, Others: []string{}}
	if why := p.place.why(s); why != "" {
		result.Outcome, result.Why = notPossible, why
		p.staged = append(p.staged, &staged{scenario: s, result: result})
		p.tell(&result)
		return nil
	}
	const attempts = 2
	for attempt := range attempts {
		result := result
		result.Attempts = attempt + 1
		st := &staged{scenario: s, result: result}
		if err := p.stage(ctx, st, run*10+attempt); err != nil {
			return err
		}
		// A wrong accusation is never tried away.
		final := st.result.Outcome == right || st.result.Outcome == silent || st.result.Outcome == wrong
		disturbed := st.scene.disturbed || st.result.Outcome == noPremise
		late := time.Since(p.began) > againWithin*time.Duration(p.runs)
		if final || !disturbed || late || attempt+1 == attempts {
			p.staged = append(p.staged, st)
			p.tell(&st.result)
			return nil
		}
	}
	return nil
}

func (p *proof) tell(r *Result) {
	fmt.Fprintf(os.Stderr, "%-26s %-12s %s %s%s\n", r.Name, r.Outcome, r.Got, r.Why, strings.Join(r.Wrong, "; "))
}

// stage takes the scenario once.
func (p *proof) stage(ctx context.Context, st *staged, number int) error {
	if err := p.calm(ctx); err != nil {
		return err
	}
	s := st.scenario
	stage, err := p.ground.set(s, number, p.temp)
	if err != nil {
		return err
	}
	defer stage.end()
	stage.began = time.Now()
	if err := stage.start(false); err != nil {
		return err
	}
	if err := sleep(ctx, max(s.warm, 500*time.Millisecond)); err != nil {
		return err
	}
	before, waited, strangers := p.busy(), stage.waits(), p.ground.strangers()
	stage.started = time.Now()
	if err := stage.start(true); err != nil {
		return err
	}
	st.scene = scene{path: stage.path, roots: stage.roots(), ids: stage.ids(), started: stage.started}
	if err := p.playRecorded(ctx, stage, st); err != nil {
		return err
	}
	stage.ended = time.Now()
	st.scene.ended = stage.ended
	took := stage.ended.Sub(stage.started)
	after := p.busy()
	st.result.OutsidePercent = outside(before, after, took)
	proof := 100 * (after.proof - before.proof).Seconds() / took.Seconds()
	st.scene.watched = st.result.OutsidePercent+proof > disturbedPercent
	st.scene.disturbed = st.result.OutsidePercent > disturbedPercent
	st.scene.strangers = hurt(strangers, p.ground.strangers(), took)
	premise := stage.premise(waited, stage.waits(), took)

	stage.pause()
	if err := sleep(ctx, restTime); err != nil {
		return err
	}
	if s.hurts != "" {
		kernel := stage.delay(s.hurts)
		said, err := blamed(ctx, p.watched.client, stage.path+"/"+s.hurts)
		if err != nil {
			return err
		}
		st.result.blame(kernel, said)
	}
	all, err := p.incidents(ctx, st)
	if err != nil {
		return err
	}
	st.result.Why = premise
	st.result.take(judge(s, st.scene, all), st.scene)
	return nil
}

// incidents are all that breakerd knows of, or found in a scenario's recording.
func (p *proof) incidents(ctx context.Context, st *staged) ([]model.Incident, error) {
	all, err := p.watched.client.Incidents(ctx)
	return withNames(append(all, st.replayed...), st.scene.ids), err
}

// playRecorded plays, and where it is for a replay replays what was recorded meanwhile
// with a sleep put in right after the offenders' start.
func (p *proof) playRecorded(ctx context.Context, stage *stage, st *staged) error {
	if !st.scenario.replay {
		return p.play(ctx, stage, st)
	}
	stop, err := p.record(ctx)
	if err != nil {
		return err
	}
	err = p.play(ctx, stage, st)
	header, records, failed := stop()
	if err = errors.Join(err, failed); err != nil {
		return err
	}
	suspend(records, stage.started.Add(300*time.Millisecond), stage.path+"/web")
	st.replayed, err = p.replayed(ctx, header, records)
	return err
}

func (p *proof) busy() busy { return p.ground.busy(p.watched.PID()) }

// play waits for what is expected, or as long as silence must last.
func (p *proof) play(ctx context.Context, stage *stage, st *staged) error {
	s := st.scenario
	limit := s.watch
	if !s.silent() {
		limit = s.within + tail
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit, errOver)
	defer cancel()
	if s.during != nil {
		done := make(chan struct{})
		go func() { defer close(done); s.during(ctx, stage) }()
		defer func() { cancel(); <-done }()
	}
	for {
		err := sleep(ctx, poll)
		switch {
		case errors.Is(err, errOver):
			return nil
		case err != nil:
			return err
		}
		if why := stage.died(); why != "" {
			return errors.New(why)
		}
		if s.silent() {
			continue
		}
		all, err := p.incidents(ctx, st)
		if err != nil && ctx.Err() == nil {
			return err
		}
		sc := st.scene
		sc.ended = time.Now()
		if v := judge(s, sc, all); v.outcome == right {
			err := sleep(ctx, tail)
			if errors.Is(err, errOver) {
				err = nil
			}
			return err
		}
	}
}

var errOver = errors.New("the scenario's time is over")

// take fills in a verdict.
func (r *Result) take(v verdict, sc scene) {
	r.Outcome, r.right, r.Rank = v.outcome, v.right, v.rank
	r.Wrong, r.Others = append([]string{}, v.wrongs...), append([]string{}, v.others...)
	r.Got, r.DetectMS = "", nil
	if v.found != nil {
		r.Got = fmt.Sprintf("%s (%s): %s", v.found.Kind, v.found.Level, strings.TrimPrefix(v.found.Culprit.Cgroup, sc.path+"/"))
		ms := float64(v.found.OpenedAt.Sub(sc.started).Microseconds()) / 1000
		r.DetectMS = &ms
	}
	if v.outcome == noPremise {
		r.Why = fmt.Sprintf("others were there: they used %.0f %% of a CPU, or waited for one by the kernel's own figures, or breakerd did", r.OutsidePercent)
	}
	// A label that was not true makes no hit and no miss, and no victim; a wrong accusation it
	// remains, but where nobody should have been hurt and somebody was.
	switch {
	case r.Why == "":
		r.Wrong = append(r.Wrong, v.unnamed...)
	case v.outcome != wrong || len(v.wrongs) == 0:
		r.Outcome = noPremise
	}
}

// leastBlame is how long a victim must have waited before an error in percent says
// anything.
const leastBlame = 200 * time.Millisecond

func (r *Result) blame(kernel, said time.Duration) {
	k, s := float64(kernel.Microseconds())/1000, float64(said.Microseconds())/1000
	r.KernelMS, r.BlamedMS = &k, &s
	if kernel >= leastBlame {
		e := 100 * (s - k) / k
		r.BlameError = &e
	}
}

// premise says why a label is not true; "" if it is.
func (st *stage) premise(before, after waits, took time.Duration) string {
	s := st.scenario
	rate := func(of func(waits) time.Duration) float64 { // ms a second
		return 1000 * (of(after) - of(before)).Seconds() / took.Seconds()
	}
	delay := func(cgroup string) float64 { return rate(func(w waits) time.Duration { return w.delays[cgroup] }) }
	if s.hurts != "" {
		if r := delay(s.hurts); r < hurtMSPerSecond {
			return fmt.Sprintf("%s waited for a CPU only %.0f ms in each second, by the kernel's own figures", s.hurts, r)
		}
	}
	if s.spares != "" {
		if r := delay(s.spares); r > sparedMSPerSecond {
			return fmt.Sprintf("%s did wait for a CPU, %.0f ms in each second, by the kernel's own figures", s.spares, r)
		}
	}
	if s.stalls == "" {
		return ""
	}
	least := map[model.Resource]float64{model.Memory: memoryFullPercent, model.IO: ioFullPercent}[s.stalls]
	if part := rate(func(w waits) time.Duration { return w.full }) / 10; part < least {
		return fmt.Sprintf("the host's %s pressure (full) was only %.0f %%", s.stalls, part)
	}
	for _, victim := range s.victims {
		if r := rate(func(w waits) time.Duration { return w.stalls[victim] }); r < hurtMSPerSecond {
			return fmt.Sprintf("%s stalled for %s only %.0f ms in each second, by its own pressure", victim, s.stalls, r)
		}
	}
	return ""
}

// waits are the kernel's own totals of what a premise is about.
type waits struct {
	delays map[string]time.Duration // for a CPU, by cgroup of the scenario
	full   time.Duration            // the host, for what the scenario is about
	stalls map[string]time.Duration // for that, some task of each victim
}

func (st *stage) waits() waits {
	s := st.scenario
	w := waits{delays: make(map[string]time.Duration), stalls: make(map[string]time.Duration)}
	for _, cgroup := range []string{s.hurts, s.spares} {
		if cgroup != "" {
			w.delays[cgroup] = st.delay(cgroup)
		}
	}
	if s.stalls == "" {
		return w
	}
	w.full = pressure("/proc/pressure/"+string(s.stalls), "full")
	for _, victim := range s.victims {
		w.stalls[victim] = pressure(filepath.Join(st.dir(victim), string(s.stalls)+".pressure"), "some")
	}
	return w
}

func (st *stage) roots() map[string]int32 {
	roots := make(map[string]int32)
	for name, cmd := range st.actors {
		roots[name] = int32(cmd.Process.Pid)
	}
	return roots
}

// calm waits until the load of the last scenario is gone.
func (p *proof) calm(ctx context.Context) error {
	const look = 400 * time.Millisecond
	for deadline := time.Now().Add(calmBound); ; {
		before := p.busy()
		if err := sleep(ctx, look); err != nil {
			return err
		}
		used := 100 * (p.busy().all - before.all).Seconds() / look.Seconds() / float64(runtime.NumCPU())
		if used < calmPercent || time.Now().After(deadline) {
			return nil
		}
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return context.Cause(ctx)
	case <-time.After(d):
		return nil
	}
}
