package daemon

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/observe"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

const tickLength = 250 * time.Millisecond

// script is a source of samples that a test hands in one by one.
type script struct{ samples chan *model.Sample }

var errScript = errors.New("the kernel is gone")

func (s *script) Next(ctx context.Context) (*model.Sample, error) {
	select {
	case sample, ok := <-s.samples:
		if !ok {
			return nil, errScript
		}
		return sample, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// doer is an enforcer that answers what a test tells it to.
type doer struct {
	mu       sync.Mutex
	proposed []model.Decision
	answer   func(context.Context, model.Decision) model.Outcome
	limits   []model.Decision
	undone   []string
	ended    map[string]model.EndReason
}

func (e *doer) limited() []model.Decision { return e.limits }

func (e *doer) propose(ctx context.Context, d model.Decision) model.Outcome {
	e.mu.Lock()
	e.proposed = append(e.proposed, d)
	e.mu.Unlock()
	return e.answer(ctx, d)
}

func (e *doer) asked() []model.Decision {
	e.mu.Lock()
	defer e.mu.Unlock()
	return slices.Clone(e.proposed)
}

func (e *doer) leases(context.Context) ([]model.Lease, error) { return nil, nil }
func (e *doer) undo(_ context.Context, id string) error {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.undone = append(e.undone, id)
	return nil
}

func (e *doer) lease(_ context.Context, id string) (model.Lease, error) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if reason, ended := e.ended[id]; ended {
		return model.Lease{ID: id, State: model.LeaseEnded, EndReason: reason}, nil
	}
	return model.Lease{ID: id, State: model.LeaseHeld}, nil
}
func (e *doer) release(context.Context, string) error { return nil }
func (e *doer) state() api.Enforcer                   { return api.Enforcer{State: "connected"} }
func (e *doer) run(ctx context.Context)               { <-ctx.Done() }
func (e *doer) close() error                          { return nil }

// diary keeps what would go to the journal.
type diary struct {
	mu      sync.Mutex
	entries []systemd.Entry
}

func (d *diary) Write(e systemd.Entry) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.entries = append(d.entries, e)
	return nil
}

func (d *diary) ids() (all []systemd.MessageID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, e := range d.entries {
		all = append(all, e.MessageID)
	}
	return all
}

// fakeEyes sees what the script says, on a machine that lacks what a test wants.
type fakeEyes struct {
	*script
	lacks []observe.Missing
	mu    sync.Mutex
	tick  time.Duration // as it was set; 0 if it was not
}

func (e *fakeEyes) Reader() host.Reader        { return host.Reader{} }
func (e *fakeEyes) Programs() []string         { return []string{} }
func (e *fakeEyes) Missing() []observe.Missing { return e.lacks }
func (e *fakeEyes) Privileges() string         { return "given up" }
func (e *fakeEyes) Close() error               { return nil }
func (e *fakeEyes) SetTick(d time.Duration) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.tick = d
}

// stage is a daemon whose samples and enforcer are scripted; everything between is real.
type stage struct {
	*Daemon
	script *script
	doer   *doer
	diary  *diary
	eyes   *fakeEyes
	past   pages
	boot   time.Duration
	// protected are cgroups, and by what.
	protected map[string]string
	nextPID   int32
	ended     chan error // what the pipeline returned
	stop      context.CancelFunc
}

func newStage(t testing.TB, policies string) *stage {
	t.Helper()
	var set *policy.Set
	if policies != "" {
		var err error
		if set, err = policy.LoadSources(map[string]string{"test.rego": policies}); err != nil {
			t.Fatal(err)
		}
	}
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	s := &stage{
		script: &script{samples: make(chan *model.Sample)},
		doer:   &doer{answer: func(_ context.Context, d model.Decision) model.Outcome { return model.Outcome{DecisionID: d.ID} }},
		diary:  &diary{}, boot: time.Hour, nextPID: 1000, ended: make(chan error, 1),
	}
	unit := func(string) model.Workload { return model.Workload{} }
	tell := &teller{journal: s.diary, log: log}
	b := newBoard(unit)
	s.eyes = &fakeEyes{script: s.script}
	s.Daemon = &Daemon{log: log, teller: tell, enforcer: s.doer, board: b, observer: s.eyes, past: &s.past}
	s.conf.now = settings.Default()
	s.conf.now.Policies.Settle = 0 // a test says itself when the files have changed
	s.answers.tell, s.answers.revision, s.answers.labels = tell.write, s.shelf.revisionOf, map[string]string{"id": "host"}
	s.bundled.keep, s.bundled.tell = s.memory.write, s.bundleFailed
	s.watched.changed, s.promotions = make(chan struct{}), make(chan promotion, 1)
	s.bundled.changed = s.watched.changed
	s.conf.load = func() (settings.Settings, error) { return s.conf.now, nil }
	if set != nil {
		s.shelf.set = set
	}
	s.pipeline = &pipeline{
		answers: &s.answers,
		source:  s.script, judge: judge.New(detect.DefaultConfig(), set, unit), board: b, enforcer: s.doer, teller: tell, past: &s.past, log: log,
		protects: func(_ context.Context, d *model.Decision) string { return s.protected[d.Target.Cgroup] }, passed: s.passed, keepSeen: s.keepSeen,
		outcomes: make(chan model.Outcome), ends: make(chan model.LeaseEnd), rulings: make(chan ruling), tapes: make(chan *tape), asks: make(chan func(*judge.Judge)),
	}
	return s
}

// run starts the pipeline. Within synctest: every feed waits until all is done.
func (s *stage) run(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	s.stop = cancel
	go func() { s.ended <- s.pipeline.run(ctx) }()
	t.Cleanup(cancel)
}

func (s *stage) feed(samples ...*model.Sample) {
	for _, sample := range samples {
		s.script.samples <- sample
		synctest.Wait()
	}
}

const (
	job     model.CgroupID = 60
	service model.CgroupID = 70
)

var (
	pid1 = model.ProcID{PID: 1, StartTime: 1}
	bomb = model.ProcID{PID: 100, StartTime: 100}
)

// sample is a tick in which the bomb makes so many processes.
func (s *stage) sample(forks int) *model.Sample {
	first := s.boot == time.Hour
	s.boot += tickLength
	sample := &model.Sample{
		Time: time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).Add(s.boot), BootNS: int64(s.boot), LengthNS: int64(tickLength),
		Host: model.Host{BootID: "5f0c", CPUs: 2, PressureAbsent: true}, Keyframe: first,
	}
	if first {
		sample.Procs.Forked = []model.Proc{
			{ProcID: pid1, Cgroup: 1, Comm: "init", Found: true},
			{ProcID: bomb, Parent: pid1, Cgroup: job, Comm: "bomb", Found: true},
		}
	}
	for range forks {
		s.nextPID++
		sample.Procs.Forked = append(sample.Procs.Forked, model.Proc{ProcID: model.ProcID{PID: s.nextPID, StartTime: 200}, Parent: bomb, Cgroup: job, Comm: "child"})
	}
	sample.Cgroups = []model.CgroupSample{{ID: job, Path: "/job", Forks: uint64(forks)}}
	return sample
}

// storm feeds so many ticks of a fork storm.
func (s *stage) storm(ticks int) {
	for range ticks {
		s.feed(s.sample(20))
	}
}

const freezeTree = `package breaker.test

import rego.v1

action contains {"kind": "freeze", "scope": "tree", "for": "10s", "reason": "a storm"} if {
	input.incident.kind == "fork_storm"
}
`

// pages keep what is told, and answer with what a test puts there.
type pages struct {
	noHistory
	mu        sync.Mutex
	incidents map[string]model.Incident
	verdicts  []model.Verdict
	leases    []model.Lease
	samples   int
	is        model.HistoryState
	kept      []model.Incident
	story     *model.Story
	stories   []model.Story
	began     time.Time
	asked     map[string][]string
}

func (p *pages) Sample(*model.Sample) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.samples++
}

func (p *pages) Incident(in model.Incident) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.incidents == nil {
		p.incidents = make(map[string]model.Incident)
	}
	p.incidents[in.ID] = in
}

func (p *pages) Asked(incident string, input []byte) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.asked == nil {
		p.asked = make(map[string][]string)
	}
	p.asked[incident] = append(p.asked[incident], string(input))
}

func (p *pages) Verdict(v model.Verdict) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.verdicts = append(p.verdicts, v)
}

func (p *pages) Lease(l model.Lease) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.leases = append(p.leases, l)
}

func (p *pages) State() model.HistoryState { return p.is }

func (p *pages) Incidents(context.Context, model.IncidentFilter) ([]model.Incident, error) {
	return p.kept, nil
}

func (p *pages) Story(_ context.Context, id string) (model.Story, error) {
	if p.story == nil {
		return model.Story{}, model.ErrNotKept
	}
	return *p.story, nil
}

func (p *pages) Stories(_ context.Context, since, until time.Time, take func(*model.Story)) (began time.Time, err error) {
	for i := range p.stories {
		if s := &p.stories[i]; !s.ClosedAt.Before(since) && !s.OpenedAt.After(until) {
			take(s)
		}
	}
	return p.began, nil
}
