package daemon

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"os"
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
	// undo ends a lease because it did not help.
	undo(ctx context.Context, id string) error
	// lease is a lease, also one that has ended of late.
	lease(ctx context.Context, id string) (model.Lease, error)
	state() api.Enforcer
	// limited are the decisions by which it limits a cgroup's CPU time or memory for real.
	limited() []model.Decision
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
	dry := cgroupctl.NewDry(cgroups)
	if os.Getenv("INVOCATION_ID") != "" { // systemd started us, as the unit has it (systemd.exec(5))
		dry.Sandboxed()
	}
	engine, err := enforce.Open(enforce.Options{Mode: mode, Config: cfg, Cgroups: dry, Recorder: recorder})
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

func (l *local) undo(ctx context.Context, id string) error { return l.engine.Undo(ctx, id) }

func (l *local) lease(_ context.Context, id string) (model.Lease, error) { return l.engine.Lease(id) }

func (l *local) state() api.Enforcer {
	if l.engine.Mode() == model.DryRun {
		return api.Enforcer{State: "dry-run"}
	}
	return api.Enforcer{State: "off"}
}

func (l *local) limited() []model.Decision { return nil }

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

	past keeper

	mu     sync.Mutex
	err    error  // of the last heartbeat
	paused string // why nothing is begun
	asked  []model.Approval
	held   map[string]model.Lease // as far as is known, by ID
}

// errNotYet is the state before the first heartbeat.
var errNotYet = errors.New("not asked yet")

func newRemote(runtimeDir string, tell func(error), past keeper) *remote {
	return &remote{client: enforce.NewClient(runtimeDir), tell: tell, past: past, err: errNotYet, held: make(map[string]model.Lease)}
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
	if o.ConfirmedAt != nil && o.Error == "" && o.RefusedBy == "" {
		// As the enforcer has it within a second: learnLeases asks.
		r.learn(model.Lease{
			Version: model.LeaseVersion, ID: o.LeaseID, State: model.LeaseHeld, DryRun: o.DryRun, Decision: d,
			CreatedAt: d.At, HeldAt: o.ConfirmedAt, ExpiresAt: o.ConfirmedAt.Add(d.Action.For()),
		})
	}
	return o
}

func (r *remote) limited() (all []model.Decision) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, l := range r.held {
		if a := l.Decision.Action; (a.CPUPercent != 0 || a.MemoryHigh != 0) && !l.DryRun {
			all = append(all, l.Decision)
		}
	}
	return all
}

// learn takes in a lease that is held, or has ended.
func (r *remote) learn(l model.Lease) {
	r.mu.Lock()
	before, known := r.held[l.ID]
	if l.State == model.LeaseEnded {
		delete(r.held, l.ID)
	} else {
		r.held[l.ID] = l
	}
	r.mu.Unlock()
	if l.State == model.LeaseEnded && !known {
		return // it was told already
	}
	if !known || before.State != l.State || !before.ExpiresAt.Equal(l.ExpiresAt) {
		r.past.Lease(l)
	}
}

// learnLeases finds out whether what was held is so still.
func (r *remote) learnLeases(ctx context.Context) {
	r.mu.Lock()
	before := maps.Clone(r.held)
	r.mu.Unlock()
	if len(before) == 0 {
		return
	}
	leases, err := r.client.Leases(ctx)
	if err != nil {
		return
	}
	for _, l := range leases {
		r.learn(l)
		delete(before, l.ID)
	}
	now := time.Now().UTC()
	for _, l := range before { // it has ended since, nobody said why
		l.State, l.EndedAt = model.LeaseEnded, &now
		if !now.Before(l.ExpiresAt) {
			l.EndReason = model.EndExpired
		}
		r.learn(l)
	}
}

func (r *remote) leases(ctx context.Context) ([]model.Lease, error) { return r.client.Leases(ctx) }

func (r *remote) release(ctx context.Context, id string) error {
	if id == "" {
		all, err := r.client.ReleaseAll(ctx)
		for _, l := range all {
			r.learn(l)
		}
		return err
	}
	l, err := r.client.Release(ctx, id)
	if err == nil {
		r.learn(l)
	}
	return err
}

func (r *remote) undo(ctx context.Context, id string) error { return r.client.Undo(ctx, id) }

func (r *remote) lease(ctx context.Context, id string) (model.Lease, error) {
	return r.client.Lease(ctx, id)
}

func (r *remote) state() api.Enforcer {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.err != nil {
		return api.Enforcer{State: "unreachable", Error: r.err.Error()}
	}
	return api.Enforcer{State: "connected", Paused: r.paused, Approvals: r.asked}
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
	paused, asked := "", []model.Approval(nil)
	if err == nil {
		r.learnLeases(ctx)
		// One that does not say has nothing to say.
		if st, serr := r.client.Status(ctx); serr == nil {
			paused, asked = st.Paused, st.Approvals
		}
	} else {
		err = fmt.Errorf("%w: is breaker-enforcer running, with the same --runtime-dir?", err)
	}
	r.mu.Lock()
	before := r.err
	r.err, r.paused, r.asked = err, paused, asked
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

// undo is of what was held for real: nothing is learned from the rest.
func (d *divided) undo(ctx context.Context, id string) error { return d.acts.undo(ctx, id) }

func (d *divided) lease(ctx context.Context, id string) (model.Lease, error) {
	if l, err := d.tries.lease(ctx, id); err == nil {
		return l, nil
	}
	return d.acts.lease(ctx, id)
}

func (d *divided) state() api.Enforcer { return d.acts.state() }

func (d *divided) limited() []model.Decision { return d.acts.limited() }

func (d *divided) run(ctx context.Context) {
	var both sync.WaitGroup
	both.Go(func() { d.acts.run(ctx) })
	both.Go(func() { d.tries.run(ctx) })
	both.Wait()
}

func (d *divided) close() error { return errors.Join(d.acts.close(), d.tries.close()) }
