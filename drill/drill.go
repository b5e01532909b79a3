// Package drill proves the whole chain on the machine that it runs on: it makes
// offenders and victims in disposable cgroups and scores what breakerd saw of them, whom
// it blamed, how long it took to act and to undo. Whether a cgroup stands still it asks
// the kernel, not breakerd.
package drill

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/internal/disposable"
	"github.com/breakerd/breakerd/model"
)

// Result is the score of a scenario. Times are in ms; nil is what did not happen.
type Result struct {
	Name           string     `json:"name"`
	Kind           model.Kind `json:"kind"`
	Expected       string     `json:"expected"` // "incident" or "silence"
	Detected       bool       `json:"detected"`
	CulpritCorrect bool       `json:"culprit_correct"`
	DetectMS       *float64   `json:"detect_ms"`  // offender started → incident open
	ActMS          *float64   `json:"act_ms"`     // decided → lease written down
	ConfirmMS      *float64   `json:"confirm_ms"` // decided → the kernel says frozen
	UndoMS         *float64   `json:"undo_ms"`    // lease at its end → the kernel says thawed
	IncidentID     string     `json:"incident_id"`
	// HostBusyPercent is how busy all CPUs were with other things before it began. On a
	// busy machine others really are made to wait.
	HostBusyPercent float64  `json:"host_busy_percent"`
	Passed          bool     `json:"passed"`
	Failures        []string `json:"failures"`
}

// Report is the score of a drill.
type Report struct {
	Scenarios []Result `json:"scenarios"`
	Passed    int      `json:"passed"`
	Failed    int      `json:"failed"`
}

// Options say where and how to drill.
type Options struct {
	Client *api.Client
	// Self is this program, which plays the victim and the janitor: see Serve and Janitor.
	Self string
	// Dir is removed if the drill is killed; "" if there is none.
	Dir string
	// Only are the names of the scenarios to go through; all where it is empty.
	Only []string
	// Narrate is told what happens, a line at a time; nil is silence.
	Narrate func(format string, args ...any)
}

// Bounds that a drill holds breakerd to.
const (
	// A freeze is confirmed within one tick and this.
	confirmSlack = 20 * time.Millisecond
	// Leases end when they say. A timer, a thread that has to be woken, and the kernel's
	// own time to thaw are in this.
	undoSlack = 100 * time.Millisecond
	// A victim's stall is the offender's to this part at least.
	blamePart = 0.9
	// How long breakerd may take to freeze after the incident opened, before the drill
	// concludes that nothing will be done.
	actBound = 3 * time.Second
	// Before each scenario the machine is given time to calm down, so that the victims of
	// the drill are the only ones: until all CPUs together are less busy than this.
	calmPercent = 20.0
	calmBound   = 20 * time.Second
	calmLook    = time.Second
)

// driller is a drill under way.
type driller struct {
	Options
	status api.Status
	ground *ground
}

// Run drills. The error says that the drill could not take place; what did not pass is
// in the report.
func Run(ctx context.Context, o Options) (report Report, err error) {
	if o.Narrate == nil {
		o.Narrate = func(string, ...any) {}
	}
	d := &driller{Options: o}
	if d.status, err = o.Client.Status(ctx); err != nil {
		return report, err
	}
	if d.ground, err = newGround(d.status.CgroupMount); err != nil {
		return report, err
	}
	stopJanitor, err := d.janitor()
	if err != nil {
		return report, errors.Join(err, Clear(d.ground.dir()))
	}
	defer func() { err = errors.Join(err, Clear(d.ground.dir()), stopJanitor()) }()

	d.introduce()
	for _, s := range scenarios() {
		if len(o.Only) > 0 && !slices.Contains(o.Only, s.name) {
			continue
		}
		r, err := d.run(ctx, s)
		if err != nil {
			return report, fmt.Errorf("%s: %w", s.name, err)
		}
		report.Scenarios = append(report.Scenarios, r)
		if r.Passed {
			report.Passed++
		} else {
			report.Failed++
		}
	}
	return report, nil
}

// introduce says what is drilled.
func (d *driller) introduce() {
	s := d.status
	d.Narrate("breakerd %s on Linux %s, %d CPUs, %d processes", s.Version, s.Kernel, s.Host.CPUs, s.Host.Processes)
	d.Narrate("  sees     %s, a sample each %d ms", strings.Join(s.Programs, " "), s.TickMS)
	decides := strings.Join(s.Policies.Packages, " ")
	if decides == "" {
		decides = "nothing: no policy is loaded"
	}
	d.Narrate("  decides  %s", decides)
	acts := "nobody: in " + string(s.Mode) + " nothing is written"
	if s.Mode == model.Enforce {
		acts = "breaker-enforcer, below " + s.CgroupMount + d.ground.path + " only"
	}
	d.Narrate("  acts     %s", acts)
}

// janitor starts the process that clears up if this one is killed.
func (d *driller) janitor() (stop func() error, err error) {
	cmd := exec.Command(d.Self, "drill-janitor", d.ground.dir(), d.Dir)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's Ctrl-C is not for it
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the drill's janitor: %w", err)
	}
	return func() error { return errors.Join(stdin.Close(), cmd.Wait()) }, nil
}

func (d *driller) run(ctx context.Context, s scenario) (Result, error) {
	r := Result{Name: s.name, Kind: s.kind, Expected: "incident", Failures: []string{}}
	if s.kind == "" {
		r.Expected = "silence"
	}
	d.Narrate("")
	d.Narrate("%s: %s", s.name, s.tell)
	scene, err := d.set(s)
	if err != nil {
		return r, err
	}
	defer scene.clear()
	if r.HostBusyPercent, err = d.calm(ctx); err != nil {
		return r, err
	}
	started := time.Now()
	if err := scene.offend(s); err != nil {
		return r, err
	}
	if s.kind == "" {
		err = d.expectSilence(ctx, s, scene, &r)
	} else {
		err = d.expectIncident(ctx, s, scene, started, &r)
	}
	if err != nil {
		return r, err
	}
	r.Passed = len(r.Failures) == 0
	if r.Passed {
		d.Narrate("  passed")
	}
	for _, f := range r.Failures {
		d.Narrate("  FAILED: %s", f)
	}
	if !r.Passed && r.HostBusyPercent >= calmPercent {
		d.Narrate("  The CPUs were %.0f %% busy with other things, which a drill cannot tell from its own: try again on a calmer machine.", r.HostBusyPercent)
	}
	return r, nil
}

// calm waits until nothing else keeps the CPUs busy, or for so long, and returns how busy
// they are.
func (d *driller) calm(ctx context.Context) (percent float64, err error) {
	for deadline := time.Now().Add(calmBound); ; {
		before, err := d.Client.Status(ctx)
		if err != nil {
			return 0, err
		}
		if err := sleep(ctx, calmLook); err != nil {
			return 0, err
		}
		after, err := d.Client.Status(ctx)
		if err != nil {
			return 0, err
		}
		busy := float64(after.Host.CPUBusyNS - before.Host.CPUBusyNS)
		all := busy + float64(after.Host.CPUIdleNS-before.Host.CPUIdleNS)
		if all > 0 {
			percent = 100 * busy / all
		}
		if percent < calmPercent || !time.Now().Before(deadline) {
			return percent, nil
		}
	}
}

func (r *Result) fail(format string, args ...any) {
	r.Failures = append(r.Failures, fmt.Sprintf(format, args...))
}

// scene is a scenario's cgroups and what runs in them.
type scene struct {
	ground, offender, victim *ground
	commands                 []*exec.Cmd
	latency                  latencies
}

// latencies are what the victim felt so far.
type latencies struct {
	mu  sync.Mutex
	all []Latency
}

// worst is the highest p99 of the reports between two moments.
func (l *latencies) worst(from, to time.Time) float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	worst := 0.0
	for _, r := range l.all {
		if r.At.After(from) && r.At.Before(to) {
			worst = max(worst, r.P99MS)
		}
	}
	return worst
}

func (d *driller) set(s scenario) (*scene, error) {
	sc := &scene{}
	var err error
	if sc.ground, err = d.ground.child(s.name); err != nil {
		return nil, err
	}
	if sc.offender, err = sc.ground.child("offender"); err != nil {
		return nil, err
	}
	if !s.victim {
		return sc, nil
	}
	if sc.victim, err = sc.ground.child("victim"); err != nil {
		return nil, err
	}
	cmd := exec.Command(d.Self, "drill-victim")
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := sc.victim.start(cmd); err != nil {
		return nil, err
	}
	sc.commands = append(sc.commands, cmd)
	go sc.listen(out)
	return sc, nil
}

func (sc *scene) listen(out io.Reader) {
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var l Latency
		if json.Unmarshal(lines.Bytes(), &l) == nil {
			sc.latency.mu.Lock()
			sc.latency.all = append(sc.latency.all, l)
			sc.latency.mu.Unlock()
		}
	}
}

func (sc *scene) offend(s scenario) error {
	cmd := s.offender()
	if err := sc.offender.start(cmd); err != nil {
		return err
	}
	sc.commands = append(sc.commands, cmd)
	return nil
}

// clear ends everything that the scenario started.
func (sc *scene) clear() {
	for _, g := range []*ground{sc.offender, sc.victim} {
		if g != nil {
			disposable.Kill(g.dir())
		}
	}
	for _, cmd := range sc.commands {
		_ = cmd.Wait() // it was killed
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

// incidents are those about the offender of a scene, the oldest first.
func (d *driller) incidents(ctx context.Context, sc *scene) ([]model.Incident, error) {
	all, err := d.Client.Incidents(ctx)
	if err != nil {
		return nil, err
	}
	slices.Reverse(all)
	return slices.DeleteFunc(all, func(in model.Incident) bool { return in.Culprit.Cgroup != sc.offender.path }), nil
}
