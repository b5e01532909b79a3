package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/recording"
	"github.com/breakerd/breakerd/systemd"
)

// source is where samples come from.
type source interface {
	Next(context.Context) (*model.Sample, error)
}

// pipeline takes samples through the judge to the enforcer. All of it but the waiting
// for samples and for the enforcer happens in one goroutine, so that what is recorded
// replays in the same order.
type pipeline struct {
	source   source
	judge    *judge.Judge
	board    *board
	enforcer enforcer
	teller   *teller
	past     keeper
	log      *slog.Logger

	outcomes chan model.Outcome
	ends     chan model.LeaseEnd
	keep     func(snapshot []byte) // of the breakers, when they have changed; nil keeps nothing
	rulings  chan ruling
	tapes    chan *tape // of recordings that begin
	asks     chan func(*judge.Judge)
	// protects says why nobody may touch a decision's target; "" if somebody may.
	protects func(context.Context, *model.Decision) string
	answers  *decisions               // nil logs nothing
	logged   map[string]string        // hashes of what the policies saw last, by open incident
	passed   func(*model.PolicyTrial) // a set has come through its trial
	keepSeen func(hash string, seen *judge.TrialSeen)
	trial    atomic.Pointer[model.PolicyTrial]
	running  sync.WaitGroup

	playing []*tape
	wanted  map[string]model.Decision // whose outcomes have not come yet, by ID
	samples atomic.Uint64
	latest  atomic.Pointer[model.Sample]
	lost    lostSum
	lostAt  time.Duration // boot time of the last sample in which something was lost
}

// tape is a recording under way.
type tape struct {
	// records is closed when a record found no room, and at a reload: a
	// recording that would not replay to what was decided is not to be had.
	records chan recording.Record
	done    <-chan struct{} // closed when nobody listens any more
}

// lostSum adds up what samples could not see.
type lostSum struct {
	mu  sync.Mutex
	sum model.Lost
}

func (l *lostSum) add(o model.Lost) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.sum.Events += o.Events
	l.sum.Cells += o.Cells
	l.sum.Cgroups += o.Cgroups
	l.sum.IOHolds += o.IOHolds
	l.sum.SuspendedNS += o.SuspendedNS
	l.sum.LateNS += o.LateNS
	if o.ClockJumpNS != 0 {
		l.sum.ClockJumpNS = o.ClockJumpNS
	}
}

func (l *lostSum) get() model.Lost {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.sum
}

// run goes on until the context ends or the source fails.
func (p *pipeline) run(ctx context.Context) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	samples := make(chan *model.Sample)
	failed := make(chan error, 1)
	p.running.Go(func() {
		for {
			s, err := p.source.Next(ctx)
			if err != nil {
				failed <- err
				return
			}
			select {
			case samples <- s:
			case <-ctx.Done():
				failed <- ctx.Err()
				return
			}
		}
	})
	defer p.running.Wait()
	defer cancel()
	for {
		select {
		case s := <-samples:
			p.sample(ctx, s)
		case o := <-p.outcomes:
			p.record(recording.Record{Outcome: &o})
			p.keepOutcome(&o)
			p.events(ctx, p.judge.Outcome(o))
		case end := <-p.ends:
			p.ended(ctx, end)
		case r := <-p.rulings:
			p.rule(r)
		case t := <-p.tapes:
			p.play(t)
		case ask := <-p.asks:
			ask(p.judge)
		case err := <-failed:
			if errors.Is(err, context.Canceled) {
				return nil
			}
			return err
		}
	}
}

// rule decides by something else from the next sample on.
func (p *pipeline) rule(r ruling) {
	p.judge.SetPolicies(r.policies)
	p.judge.Try(r.trial)
	if p.answers != nil {
		p.judge.Log(p.answers.on())
	}
	p.trial.Store(p.judge.Trial())
	p.judge.SetThresholds(r.thresholds)
	p.judge.SetLearning(r.learning)
	p.endTapes() // their headers tell of others
}

func (p *pipeline) sample(ctx context.Context, s *model.Sample) {
	p.samples.Add(1)
	p.latest.Store(s)
	p.lost.add(s.Lost)
	p.tellLost(s)
	p.markLimited(s)
	p.record(recording.Record{Sample: s})
	p.board.sample(s)
	p.past.Sample(s)
	p.events(ctx, p.judge.Sample(ctx, s))
	p.trial.Store(p.judge.Trial())
	if hash, seen := p.judge.TrialNews(); seen != nil {
		p.keepSeen(hash, seen)
	}
	for _, in := range p.judge.Open() {
		p.board.incident(in)
		p.past.Incident(in)
	}
	for _, in := range p.judge.Asked() {
		if text, err := json.Marshal(in); err == nil { // what is no number was refused, and said
			p.past.Asked(in.Incident.ID, text)
		}
	}
}

// keepOutcome keeps what became of a decision.
func (p *pipeline) keepOutcome(o *model.Outcome) {
	if d, known := p.wanted[o.DecisionID]; known {
		delete(p.wanted, o.DecisionID)
		v := verdictOf(&d, o)
		v.InputHash = p.logged[d.IncidentID]
		p.past.Verdict(v)
	}
}

// markLimited says of which cgroups the CPU time or the memory is limited by breakerd
// itself: their waiting is nobody else's doing.
func (p *pipeline) markLimited(s *model.Sample) {
	for _, d := range p.enforcer.limited() {
		limited := d.Target.Cgroup
		for i := range s.Cgroups {
			c := &s.Cgroups[i]
			if c.Path == limited || strings.HasPrefix(c.Path, limited+"/") {
				c.Limited = c.Limited || d.Action.CPUPercent != 0
				c.MemoryLimited = c.MemoryLimited || d.Action.MemoryHigh != 0
			}
		}
	}
}

// quietAfter is how long nothing may be lost before it is said that all is seen again.
const quietAfter = time.Minute

// tellLost says once that something that matters is not seen, and once that it is seen
// again, when nothing was lost for a minute.
func (p *pipeline) tellLost(s *model.Sample) {
	now := time.Duration(s.BootNS)
	switch whole := s.Lost.Events+s.Lost.Cells+s.Lost.Cgroups == 0 && s.Lost.SuspendedNS <= int64(time.Second); {
	case whole && p.lostAt != 0 && now-p.lostAt >= quietAfter:
		p.lostAt = 0
		p.teller.write(systemd.ObservationWhole(quietAfter))
	case !whole:
		if p.lostAt == 0 || now-p.lostAt >= quietAfter {
			p.teller.degraded(s.Lost)
		}
		p.lostAt = now
	}
}

func (p *pipeline) events(ctx context.Context, events []judge.Event) {
	learned := false
	for _, e := range events {
		switch e.Type {
		case judge.Switched, judge.Measured:
			learned = true
			p.teller.event(e)
			continue
		case judge.Undone:
			learned = true
			p.running.Go(func() { p.undo(ctx, e.Release.LeaseID) })
			continue
		case judge.Tried:
			p.running.Go(func() { p.lookWhom(ctx, e.Decision) })
			continue
		case judge.Answered:
			if p.logged == nil {
				p.logged = make(map[string]string)
			}
			p.logged[e.Incident.ID] = p.answers.log(e.Incident.ID, e.Answer)
			continue
		case judge.Passed:
			p.passed(e.Trial)
			continue
		case judge.Withheld:
			p.teller.write(systemd.PoliciesWithheld(*e.Trial))
			continue
		}
		p.board.incident(e.Incident)
		p.past.Incident(e.Incident)
		switch e.Type {
		case judge.Closed:
			delete(p.logged, e.Incident.ID)
			p.teller.event(e)
		case judge.Wanted:
			d := *e.Decision
			if p.wanted == nil {
				p.wanted = make(map[string]model.Decision)
			}
			p.wanted[d.ID] = d
			p.running.Go(func() {
				o := p.enforcer.propose(ctx, d)
				select {
				case p.outcomes <- o:
				case <-ctx.Done():
					return
				}
				if o.LeaseID != "" && o.RefusedBy == "" && o.Error == "" { // it is held, or would be
					p.follow(ctx, o.LeaseID, d.Action.For())
				}
			})
		default:
			if e.Record != nil && e.Record.ID == "" { // it was never proposed
				p.past.Verdict(model.Verdict{IncidentID: e.Incident.ID, InputHash: p.logged[e.Incident.ID], DecisionRecord: *e.Record})
			}
			p.teller.event(e)
		}
	}
	if learned && p.keep != nil {
		if text, err := p.judge.Snapshot(); err == nil {
			p.keep(text)
		}
	}
}

// lookWhom finds out whether somebody is protected whom only the policies on trial would
// hold.
func (p *pipeline) lookWhom(ctx context.Context, d *model.Decision) {
	why := p.protects(ctx, d)
	_ = p.ask(ctx, func(j *judge.Judge) { j.TrialKnows(d, why) }) // where breakerd ends nobody has to know
}

// record gives a record to every recording under way. One that cannot take it in time
// is ended, because a recording with a gap would replay to something else.
func (p *pipeline) record(r recording.Record) {
	playing := p.playing[:0]
	for _, t := range p.playing {
		select {
		case <-t.done:
			continue
		default:
		}
		select {
		case t.records <- r:
			playing = append(playing, t)
		default:
			close(t.records)
		}
	}
	clear(p.playing[len(playing):])
	p.playing = playing
}

// ask has a question put to the judge, between two samples: it is the pipeline's own.
// It returns when that is done.
func (p *pipeline) ask(ctx context.Context, question func(*judge.Judge)) error {
	done := make(chan struct{})
	select {
	case p.asks <- func(j *judge.Judge) { defer close(done); question(j) }:
		<-done // it waits for nothing
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// endTapes ends every recording under way.
func (p *pipeline) endTapes() {
	for _, t := range p.playing {
		close(t.records)
	}
	p.playing = nil
}

// play begins a recording with everything that the judge knows of the processes.
func (p *pipeline) play(t *tape) {
	if p.latest.Load() != nil {
		key := p.judge.Keyframe()
		t.records <- recording.Record{Sample: &key} // it has room: nothing was recorded yet
	}
	p.playing = append(p.playing, t)
}
