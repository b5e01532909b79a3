package daemon

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/cgroupctl/unit"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
)

// enforcer carries decisions out: here, where nothing is written, or in
// breaker-enforcer.
type enforcer interface {
	propose(context.Context, model.Decision) model.Outcome
	leases(context.Context) ([]model.Lease, error)
	release(ctx context.Context, id string) error // every lease where the ID is ""
	state() api.Enforcer
	// limited are the paths of the cgroups whose CPU time it limits for real.
	limited() []string
	// run does what has to be done in time, until the context ends.
	run(context.Context)
	close() error
}

// local is the engine in breakerd's own process, in monitor and dry-run: the same
// guards and leases, over cgroups whose writes go nowhere.
type local struct {
	engine  *enforce.Engine
	cgroups *cgroupctl.Controller
	units   *unit.Manager // nil where pid 1 is not systemd
}

func newLocal(mode model.Mode, cfg enforce.Config, cgroupMount string, recorder enforce.Recorder) (*local, error) {
	cgroups, err := cgroupctl.Open(cgroupMount)
	if err != nil {
		return nil, err
	}
	units := unit.Open()
	if units != nil {
		cgroups.UseUnits(units)
	}
	cfg.HeartbeatTimeout = 0 // it lives and dies with breakerd
	engine, err := enforce.Open(enforce.Options{Mode: mode, Config: cfg, Cgroups: cgroupctl.NewDry(cgroups), Recorder: recorder})
	if err != nil {
		return nil, errors.Join(err, cgroups.Close())
	}
	return &local{engine, cgroups, units}, nil
}

func (l *local) propose(ctx context.Context, d model.Decision) model.Outcome {
	return l.engine.Propose(ctx, d)
}

func (l *local) leases(context.Context) ([]model.Lease, error) { return l.engine.Leases(), nil }

func (l *local) release(ctx context.Context, id string) error {
	if id == "" {
		return l.engine.ReleaseAll(ctx, model.EndReleased)
	}
	_, err := l.engine.Release(ctx, id, "breakerctl")
	if errors.Is(err, enforce.ErrNoLease) {
		return fmt.Errorf("%w: %w", err, api.ErrNotFound)
	}
	return err
}

func (l *local) state() api.Enforcer {
	if l.engine.Mode() == model.DryRun {
		return api.Enforcer{State: "dry-run"}
	}
	return api.Enforcer{State: "off"}
}

func (l *local) limited() []string { return nil }

func (l *local) run(ctx context.Context) { l.engine.Run(ctx) }

func (l *local) close() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	err := l.engine.Close(ctx)
	if l.units != nil {
		err = errors.Join(err, l.units.Close())
	}
	return errors.Join(err, l.cgroups.Close())
}

// beat is how often breakerd is heard of: often enough that a few may be lost within
// the 10 s after which the enforcer lets everything go.
const beat = time.Second

// proposeBound is how long an answer may take: the confirmation of a freeze, and the
// undoing of one that was not confirmed.
const proposeBound = 5 * time.Second

// remote is breaker-enforcer.
type remote struct {
	client *enforce.Client
	tell   func(err error) // called when it stops or begins to answer; nil where it answers

	mu     sync.Mutex
	err    error    // of the last heartbeat
	paused string   // why nothing is begun
	limits []string // paths of the cgroups whose CPU time is limited, as far as is known
}

// errNotYet is the state before the first heartbeat.
var errNotYet = errors.New("not asked yet")

func newRemote(runtimeDir string, tell func(error)) *remote {
	return &remote{client: enforce.NewClient(runtimeDir), tell: tell, err: errNotYet}
}

// propose asks the enforcer. Its silence is an outcome too: nothing is known to be held,
// and if it is, the lease is the enforcer's to end.
func (r *remote) propose(ctx context.Context, d model.Decision) model.Outcome {
	ctx, cancel := context.WithTimeout(ctx, proposeBound)
	defer cancel()
	o, err := r.client.Propose(ctx, d)
	if err != nil {
		return model.Outcome{DecisionID: d.ID, Error: err.Error()}
	}
	if o.ConfirmedAt != nil && !o.DryRun && d.Action.CPUPercent != 0 {
		r.mu.Lock()
		r.limits = append(slices.Clone(r.limits), d.Target.Cgroup)
		r.mu.Unlock()
	}
	return o
}

func (r *remote) limited() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.limits
}

// learnLimits finds out whether what was limited is so still.
func (r *remote) learnLimits(ctx context.Context) {
	if len(r.limited()) == 0 {
		return
	}
	leases, err := r.client.Leases(ctx)
	if err != nil {
		return
	}
	var limits []string
	for _, l := range leases {
		if l.Decision.Action.CPUPercent != 0 && !l.DryRun {
			limits = append(limits, l.Decision.Target.Cgroup)
		}
	}
	r.mu.Lock()
	r.limits = limits
	r.mu.Unlock()
}

func (r *remote) leases(ctx context.Context) ([]model.Lease, error) { return r.client.Leases(ctx) }

func (r *remote) release(ctx context.Context, id string) error {
	if id == "" {
		_, err := r.client.ReleaseAll(ctx)
		return err
	}
	_, err := r.client.Release(ctx, id)
	return err
}

func (r *remote) state() api.Enforcer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return api.Enforcer{State: "unreachable", Error: r.err.Error()}
	}
	return api.Enforcer{State: "connected", Paused: r.paused}
}

func (r *remote) run(ctx context.Context) {
	ticker := time.NewTicker(beat)
	defer ticker.Stop()
	for {
		r.heartbeat(ctx)
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
	}
}

func (r *remote) heartbeat(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, 2*beat)
	defer cancel()
	err := r.client.Heartbeat(ctx)
	paused := ""
	if err == nil {
		r.learnLimits(ctx)
		// One that does not say has nothing to say.
		if st, serr := r.client.Status(ctx); serr == nil {
			paused = st.Paused
		}
	} else {
		err = fmt.Errorf("%w: is breaker-enforcer running, with the same --runtime-dir?", err)
	}
	r.mu.Lock()
	before := r.err
	r.err, r.paused = err, paused
	r.mu.Unlock()
	if (before == nil) != (err == nil) || errors.Is(before, errNotYet) {
		r.tell(err)
	}
}

func (r *remote) close() error { return r.client.Close() }

// divided carries out what is wanted, and only goes through what the author of a rule holds
// to a dry run.
type divided struct{ acts, tries enforcer }

func (d *divided) propose(ctx context.Context, decision model.Decision) model.Outcome {
	if decision.DryRun {
		return d.tries.propose(ctx, decision)
	}
	return d.acts.propose(ctx, decision)
}

// leases are those of both. Where one does not answer there is no answer: half of them
// would look like all.
func (d *divided) leases(ctx context.Context) ([]model.Lease, error) {
	held, err := d.acts.leases(ctx)
	if err != nil {
		return nil, err
	}
	tried, err := d.tries.leases(ctx)
	return append(held, tried...), err
}

func (d *divided) release(ctx context.Context, id string) error {
	if id == "" {
		return errors.Join(d.acts.release(ctx, ""), d.tries.release(ctx, ""))
	}
	err := d.tries.release(ctx, id)
	if errors.Is(err, api.ErrNotFound) {
		return d.acts.release(ctx, id)
	}
	return err
}

func (d *divided) state() api.Enforcer { return d.acts.state() }

func (d *divided) limited() []string { return d.acts.limited() }

func (d *divided) run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { d.acts.run(ctx) })
	both.Go(func() { d.tries.run(ctx) })
	both.Wait()
}

func (d *divided) close() error { return errors.Join(d.acts.close(), d.tries.close()) }
