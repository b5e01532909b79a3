// Package history keeps what happened: incidents, what was decided about them, leases,
// and what was seen around them, in an SQLite file that only breakerd writes.
//
// Whoever tells it something never waits: what is told is kept in memory, and written
// within a second by a goroutine of its own. A disk that is full or slow costs history,
// and nothing else.
package history

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Options are what a Store works with.
type Options struct {
	// Dir holds the file; it is made if missing.
	Dir string
	// Nothing is kept longer than MaxAge, nor more than MaxBytes on the disk.
	MaxAge   time.Duration
	MaxBytes int64
	// Tell is told of each change of the state, by the writer.
	Tell func(model.HistoryState)
	Log  *slog.Logger
}

const (
	// flushAfter is how long what was told waits to be written: the most that is lost when
	// breakerd is killed.
	flushAfter = time.Second
	// After a failure it is tried again, less and less often.
	firstRetry = 2 * time.Second
	lastRetry  = time.Minute
	// Bounds of what waits in memory while nothing can be written: incidents of 10 KB each
	// as a rule, and verdicts of half one.
	maxEntries  = 1024
	maxVerdicts = 16384
	maxHolds    = 4096
	// readBound is how long a question may wait until what was told before it is written.
	readBound = 2 * time.Second
)

// Store is a history.
type Store struct {
	o        Options
	maxAge   atomic.Int64
	maxBytes atomic.Int64
	wake     chan struct{}
	asks     chan chan struct{} // of those who read: closed when what was told is written
	ended    chan struct{}      // closed when Run has returned

	file *file // the writer's own; nil until it could be opened

	mu      sync.Mutex
	entries map[string]*entry // by the incident's ID
	changed map[string]*entry
	holds   map[string]*hold // by the lease's ID
	stale   map[string]*hold // those that changed
	waiting int              // verdicts that are not written yet
	before  []*model.Sample  // of the last seconds
	state   model.HistoryState
	readers *readers // nil while there is no file
	damage  error    // what a reader ran into
}

// New makes a history; Run opens and writes it.
func New(o Options) *Store {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Tell == nil {
		o.Tell = func(model.HistoryState) {}
	}
	s := &Store{
		o: o, wake: make(chan struct{}, 1), asks: make(chan chan struct{}), ended: make(chan struct{}),
		entries: make(map[string]*entry), changed: make(map[string]*entry),
		holds: make(map[string]*hold), stale: make(map[string]*hold),
	}
	s.SetBounds(o.MaxAge, o.MaxBytes)
	return s
}

// SetBounds changes how much is kept, from the next look on.
func (s *Store) SetBounds(maxAge time.Duration, maxBytes int64) {
	s.maxAge.Store(int64(maxAge))
	s.maxBytes.Store(maxBytes)
}

// State is how the history is doing.
func (s *Store) State() model.HistoryState {
	s.mu.Lock()
	defer s.mu.Unlock()
	is := s.state
	if s.damage != nil && is.Problem == "" { // whoever has just asked is to know why the answer is short
		is.Problem = "the file is damaged, is set aside, and a new one begins"
	}
	return is
}

// Sample takes in what was seen in a tick.
func (s *Store) Sample(sample *model.Sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.remember(sample)
	for _, e := range s.entries {
		if e.open() && e.watch(s.before) {
			s.touch(e)
		}
	}
}

// Incident takes in an incident as it is now. Nothing of it may be changed afterwards.
func (s *Store) Incident(in model.Incident) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(in.ID)
	if e == nil {
		return
	}
	if e.incident == nil && in.State == model.Open {
		e.lookBack(s.before, &in)
	}
	if len(s.before) > 0 {
		e.host = &s.before[len(s.before)-1].Host
	}
	e.update(&in)
	for _, h := range e.holds {
		h.measure(&in)
		s.stale[h.ID] = h
	}
	s.touch(e)
}

// Asked takes in the input with which the policies are asked about an incident, as JSON.
func (s *Store) Asked(id string, input []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.entry(id); e != nil {
		e.asked.add(input)
		e.change()
		s.touch(e)
	}
}

// Verdict takes in what became of a decision.
func (s *Store) Verdict(v model.Verdict) {
	s.mu.Lock()
	defer s.mu.Unlock()
	e := s.entry(v.IncidentID)
	switch {
	case e == nil:
		return
	case s.waiting >= maxVerdicts && !e.repeats(&v):
		s.state.Dropped++
		return
	}
	if e.add(v) {
		s.waiting++
	}
	s.touch(e)
}

// Lease takes in a lease as it is now.
func (s *Store) Lease(l model.Lease) {
	s.mu.Lock()
	defer s.mu.Unlock()
	h := s.holds[l.ID]
	if h == nil {
		if len(s.holds) >= maxHolds {
			s.state.Dropped++
			return
		}
		h = &hold{Hold: model.Hold{Lease: l}}
		s.holds[l.ID] = h
		if e := s.entry(l.Decision.IncidentID); e != nil {
			h.begin(e)
			s.touch(e) // the incident is to be in the file before the lease that names it
		}
	}
	h.change(l)
	s.stale[h.ID] = h
	s.ring()
}

// entry finds or makes what is kept in memory of an incident; nil where there is no room.
func (s *Store) entry(id string) *entry {
	e := s.entries[id]
	if e == nil {
		if len(s.entries) >= maxEntries {
			s.state.Dropped++
			return nil
		}
		e = &entry{id: id}
		s.entries[id] = e
	}
	return e
}

func (s *Store) touch(e *entry) {
	s.changed[e.id] = e
	s.ring()
}

// ring tells the writer that something waits.
func (s *Store) ring() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

// Run opens the file, and writes what is told until the context ends, and then the rest.
// There is no timer while nothing waits but the one for the next look at what is too old.
func (s *Store) Run(ctx context.Context) {
	defer close(s.ended)
	defer s.close()
	var retry time.Duration
	var notBefore time.Time
	due := time.NewTimer(0) // opens the file
	defer due.Stop()
	armed := true
	look := time.NewTimer(time.Hour)
	look.Stop()
	defer look.Stop()
	flush := func() {
		err := s.flush()
		if err == nil && s.file != nil {
			err = s.file.trim(time.Duration(s.maxAge.Load()), s.maxBytes.Load(), time.Now())
		}
		s.judge(err)
		switch {
		case err == nil:
			retry, notBefore = 0, time.Time{}
			look.Reset(lookEvery)
		case errors.Is(err, errForGood):
			retry, notBefore = 0, time.Now().Add(1<<62)
		default:
			retry = min(max(firstRetry, 2*retry), lastRetry)
			notBefore = time.Now().Add(retry)
			due.Reset(retry)
			armed = true
		}
	}
	for {
		select {
		case <-ctx.Done():
			if notBefore.IsZero() {
				s.judge(s.flush())
			}
			return
		case <-s.wake:
			if !armed && notBefore.IsZero() {
				due.Reset(flushAfter)
				armed = true
			}
		case done := <-s.asks:
			if notBefore.IsZero() {
				flush()
			}
			close(done)
		case <-due.C:
			armed = false
			flush()
		case <-look.C:
			flush()
		}
	}
}

// lookEvery is how often it is looked for what is too old, where nothing is written. What
// is too old is in no answer meanwhile.
const lookEvery = 6 * time.Hour

// flush writes everything that waits.
func (s *Store) flush() error {
	s.mu.Lock()
	damage := s.damage
	s.damage = nil
	s.mu.Unlock()
	if damage != nil && s.file != nil {
		if err := s.setAside(damage); err != nil {
			return err
		}
	}
	if s.file == nil {
		if err := s.open(); err != nil {
			return err
		}
	}
	b := s.take()
	if b.empty() {
		return nil
	}
	if err := s.file.write(b); err != nil {
		s.putBack(b)
		if damaged(err) {
			return errors.Join(err, s.setAside(err))
		}
		return err
	}
	s.settle(b)
	return nil
}

// open opens the file, or begins a new one where it is damaged.
func (s *Store) open() error {
	f, err := openFile(s.o.Dir)
	if damaged(err) {
		if err := s.setAside(err); err != nil {
			return err
		}
		f, err = openFile(s.o.Dir)
	}
	if err != nil {
		return err
	}
	r, err := openReaders(s.o.Dir)
	if err != nil {
		return errors.Join(err, f.close())
	}
	s.file = f
	s.mu.Lock()
	s.readers = r
	for _, e := range s.entries {
		e.forget() // they may have been in another file
		s.changed[e.id] = e
	}
	for id, h := range s.holds {
		h.row = 0
		s.stale[id] = h
	}
	s.mu.Unlock()
	return nil
}

// setAside puts a damaged file aside, so that the next open begins a new one.
func (s *Store) setAside(why error) error {
	s.closeFile()
	where, err := setAside(s.o.Dir)
	if err != nil {
		return fmt.Errorf("the history is damaged (%w), and could not be set aside: %w", why, err)
	}
	s.o.Log.Warn("the history was damaged and is set aside", "file", where, "error", why)
	s.mu.Lock()
	s.state.SetAside = where
	s.mu.Unlock()
	s.tell()
	return nil
}

// judge says how writing went, where it went otherwise than before.
func (s *Store) judge(err error) {
	problem := ""
	if err != nil {
		problem = explain(s.o.Dir, err)
	}
	var bytes int64
	if s.file != nil {
		bytes = s.file.bytes()
	}
	s.mu.Lock()
	changed := s.state.Problem != problem
	s.state.Problem, s.state.Bytes = problem, bytes
	s.mu.Unlock()
	if changed {
		s.tell()
	}
}

// tell tells of the state as the writer left it.
func (s *Store) tell() {
	s.mu.Lock()
	is := s.state
	s.mu.Unlock()
	s.o.Tell(is)
}

func (s *Store) close() {
	s.closeFile()
}

func (s *Store) closeFile() {
	s.mu.Lock()
	r := s.readers
	s.readers = nil
	s.mu.Unlock()
	if r != nil {
		r.close()
	}
	if s.file != nil {
		if err := s.file.close(); err != nil {
			s.o.Log.Warn("the history was not closed in good order", "error", err)
		}
		s.file = nil
	}
}
