// Package enforce stands between a decision and a cgroup. It asks the guards,
// writes down a lease before the write that the lease covers, and undoes every
// lease: when its time is up, when somebody asks, when breakerd is not heard of,
// when the enforcer stops, and at its next start if it was killed.
//
// One Engine serves every mode. breaker-enforcer runs it over the real cgroups;
// breakerd runs it in its own process over a writer that writes nowhere, so that a
// dry run gives the answers that the real one would.
//
// Nothing here ever kills a process, and doubt means no action.
package enforce

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// Cgroups is a writer of cgroups: *cgroupctl.Controller, Dry or Fake.
type Cgroups interface {
	Inspect(cgroupctl.Ref) (cgroupctl.State, error)
	Apply(cgroupctl.Ref, model.FileWrite) error
	Confirm(ctx context.Context, r cgroupctl.Ref, frozen bool) error
	Restore(context.Context, cgroupctl.Ref, ...model.FileWrite) (note string, err error)
	// Ease loosens a limit that is held to its step.
	Ease(cgroupctl.Ref, model.FileWrite) error
	// Throttle decides which writes would limit a cgroup, or why that cannot be done. The rates
	// are those of IORates, where I/O is to be limited.
	Throttle(context.Context, cgroupctl.Ref, cgroupctl.Owner, model.Action, []cgroupctl.IORate) (writes []model.FileWrite, refused string, err error)
	// IORates looks for a moment at what a cgroup reads and writes.
	IORates(context.Context, cgroupctl.Ref) ([]cgroupctl.IORate, error)
	// Holds is what the file of a write holds now.
	Holds(cgroupctl.Ref, model.FileWrite) (string, error)
	// Owner tells who looks after a cgroup.
	Owner(context.Context, cgroupctl.Ref) (cgroupctl.Owner, error)
	// Isolate makes a frozen cgroup below one, Attach moves a process into it, and Rejoin
	// moves everybody back and removes it.
	Isolate(from cgroupctl.Ref, name string) (cgroupctl.Ref, error)
	Attach(to cgroupctl.Ref, pid int32) error
	Rejoin(ctx context.Context, from cgroupctl.Ref, name string) (note string, err error)
}

// Recorder is told of every change. It must not block for long.
type Recorder interface {
	// Lease tells that a lease has come to a new state.
	Lease(model.Lease)
	// Refused tells that a guard refused a decision.
	Refused(model.Decision, model.Outcome)
	// Approval tells that a person is asked, that somebody has said yes, or that nobody has.
	Approval(model.Approval)
}

// Options are what an Engine works with.
type Options struct {
	Mode    model.Mode
	Config  Config // from DefaultConfig or LoadConfig
	Cgroups Cgroups
	// StateDir keeps the records of the leases. "" keeps them in memory only, which
	// is enough where nothing is really written.
	StateDir string
	// LockWait is how long Open waits for another engine to let go of StateDir.
	LockWait time.Duration
	Recorder Recorder
	Log      *slog.Logger
	// Now is the clock; nil is time.Now. A replay gives the time of its samples and
	// calls Advance.
	Now func() time.Time
	// Proc is where proc is mounted; "" is /proc.
	Proc string

	// at is called at each labelled moment between two steps; tests kill there.
	at func(point string)
}

// Engine holds the guards and the leases.
type Engine struct {
	mode     model.Mode
	config   atomic.Pointer[Config]
	cgroups  Cgroups
	recorder Recorder
	log      *slog.Logger
	now      func() time.Time
	proc     procReader
	records  *records
	at       func(string)
	ended    func(id string) (model.Lease, bool, error) // records.ended; tests hold it up
	reading  sync.Mutex                                 // one of these at a time; never under mu

	looks   *rate.Limiter // what they may cost; see newLooks
	turn    chan struct{} // holds a token: one proposal at a time
	wake    chan struct{} // tells Run that Next may have changed
	undoing sync.WaitGroup

	mu        sync.Mutex
	active    map[string]*lease
	done      outcomes
	limits    limits
	started   time.Time
	paused    *Pause // nil if it is not
	forbidden string // why everything is let go and nothing begun; "" if nothing forbids it
	ends      ends
	questions map[string]*question // to a person, by their IDs
	lately    []model.Lease        // that have ended, the last of them last
	lastBeat  time.Time
	peers     map[int32]int // pids that may propose, and how many connections each has
	unfiled   []model.Lease // ended, but their records could not be moved yet
	refile    time.Time
	stopping  bool
	recovered int
	// missing says which records of before could not be read yet; nil if all were.
	missing    error
	recoverAt  time.Time
	recovering bool
	tries      int        // to recover
	counted    bool       // what had ended before is counted in limits
	recovery   sync.Mutex // one recovery at a time; before mu
}

// lease is a lease that has not ended.
type lease struct {
	model.Lease // guarded by Engine.mu

	established int    // processes that count for the reach guard
	bytes       uint64 // and their memory
	// flying says that Propose is still at it and will undo it itself.
	flying bool
	flight context.Context // of its Propose; cancel ends it
	cancel context.CancelCauseFunc
	// claimed says that somebody undoes it: only one ever does.
	claimed bool
	// inside is the id of the cgroup that was made below the target, where one was.
	inside model.CgroupID
	moved  map[model.ProcID]bool // into it, when each was seen to be of the tree
	// unwritten says that there is nothing to put back.
	unwritten bool
	lookAt    time.Time // when the guards are asked again; zero until it is held
	writing   bool      // a write is made while it is held; an undo waits for it
	asserted  int       // how often a write was made again because somebody had undone it
	looking   bool
	retryAt   time.Time // not zero: an undo failed and is tried again
	// thawed says that the undo has failed, but that nobody stands still because of it.
	thawed bool
	tries  int
	done   chan struct{} // closed when it has ended

	// telling orders what is written and told of the lease. It is taken for disks and
	// journals, so nothing that is to thaw may wait for it. It comes before Engine.mu.
	telling sync.Mutex
}

// ref is the cgroup that is written.
func (l *lease) ref() cgroupctl.Ref {
	if l.Inside != "" {
		return cgroupctl.Ref{Path: insidePath(&l.Lease), ID: l.inside}
	}
	return cgroupctl.Ref{Path: l.Decision.Target.Cgroup, ID: l.Decision.Target.CgroupID}
}

// Open makes an engine. With a state directory it takes that directory's lock, so
// that two engines can never hold leases for one another; the leases found there
// are undone by Recover, which has to come before the first Propose.
func Open(o Options) (*Engine, error) {
	if _, err := model.ParseMode(string(o.Mode)); err != nil {
		return nil, err
	}
	if err := o.Config.check(); err != nil {
		return nil, err
	}
	if o.Mode == model.Enforce && o.StateDir == "" {
		return nil, fmt.Errorf("open enforcer: enforcing needs a state directory for the records of its leases")
	}
	e := &Engine{
		mode: o.Mode, cgroups: o.Cgroups, recorder: o.Recorder,
		log: o.Log, now: o.Now, at: o.at,
		proc:   procReader{dir: o.Proc, self: int32(os.Getpid())},
		looks:  newLooks(),
		turn:   make(chan struct{}, 1),
		wake:   make(chan struct{}, 1),
		active: map[string]*lease{},
		peers:  map[int32]int{},
		limits: newLimits(o.Config.Rate),
		ends:   ends{}, questions: map[string]*question{},
	}
	e.config.Store(&o.Config)
	if e.now == nil {
		e.now = time.Now
	}
	e.started = e.now()
	if e.proc.dir == "" {
		e.proc.dir = "/proc"
	}
	if e.log == nil {
		e.log = slog.New(slog.DiscardHandler)
	}
	if e.recorder == nil {
		e.recorder = silent{}
	}
	if e.at == nil {
		e.at = func(string) {}
	}
	if o.StateDir != "" {
		var err error
		if e.records, err = openRecords(o.StateDir, o.LockWait); err != nil {
			return nil, err
		}
	}
	e.ended, e.paused = e.records.ended, e.records.readPause()
	return e, nil
}

// Close refuses what is proposed from now on, undoes every lease and lets go of the
// state directory. If a lease could not be undone its record stays, and the error
// says so.
func (e *Engine) Close(ctx context.Context) error {
	e.Stop()
	err := e.ReleaseAll(ctx, model.EndShutdown)
	if err == nil {
		e.undoing.Wait()
	}
	if cerr := e.records.close(); err == nil {
		err = cerr
	}
	return err
}

// Stop refuses what is proposed from now on and begins to undo every lease. It does not
// wait: see Close.
func (e *Engine) Stop() {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.stopping = true
	for _, l := range e.active {
		e.endLocked(l, model.EndShutdown)
	}
}

// Mode is the mode that the engine runs in.
func (e *Engine) Mode() model.Mode { return e.mode }

// Leases are the leases that have not ended, the oldest first.
func (e *Engine) Leases() []model.Lease {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.leasesLocked()
}

// Protected says why nobody may touch a decision's target; "" if somebody may.
func (e *Engine) Protected(ctx context.Context, d *model.Decision) (string, error) {
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return "", context.Cause(ctx)
	}
	return guardProtected(d, e.lookAt(d, targetOf(d))), nil
}

// Heartbeat tells that breakerd lives.
func (e *Engine) Heartbeat() {
	e.mu.Lock()
	e.lastBeat = e.now()
	e.mu.Unlock()
}

// Protect adds a process, and all above it, to what is never touched, until the
// returned function is called. The server protects whoever may propose.
func (e *Engine) Protect(pid int32) (release func()) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.peers[pid]++
	return func() {
		e.mu.Lock()
		defer e.mu.Unlock()
		if e.peers[pid]--; e.peers[pid] == 0 {
			delete(e.peers, pid)
		}
	}
}

// ring tells Run that its schedule may have moved.
func (e *Engine) ring() {
	select {
	case e.wake <- struct{}{}:
	default:
	}
}
