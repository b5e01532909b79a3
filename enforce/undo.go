package enforce

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// ErrNoLease says that there is no such lease, or that it has ended.
var ErrNoLease = errors.New("no such lease")

// Release ends a lease because somebody asked, and waits until it has ended.
func (e *Engine) Release(ctx context.Context, id, who string) (model.Lease, error) {
	return e.release(ctx, id, model.EndReleased, who)
}

// Undo ends a lease because it did not help, and waits until it has ended.
func (e *Engine) Undo(ctx context.Context, id string) error {
	_, err := e.release(ctx, id, model.EndNoRelief, "")
	return err
}

func (e *Engine) release(ctx context.Context, id string, reason model.EndReason, who string) (model.Lease, error) {
	e.mu.Lock()
	l := e.active[id]
	if l == nil {
		e.mu.Unlock()
		return model.Lease{}, fmt.Errorf("release %q: %w", id, ErrNoLease)
	}
	if !l.claimed && who != "" {
		l.addNote("released by " + who)
	}
	e.endLocked(l, reason)
	e.mu.Unlock()
	err := e.awaitAll(ctx, []*lease{l})
	return e.copyOf(l), err
}

// ReleaseAll ends every lease, and waits until all have ended.
func (e *Engine) ReleaseAll(ctx context.Context, reason model.EndReason) error {
	e.mu.Lock()
	var all []*lease
	for _, l := range e.active {
		e.endLocked(l, reason)
		all = append(all, l)
	}
	e.mu.Unlock()
	return e.awaitAll(ctx, all)
}

// awaitAll waits until all leases have ended.
func (e *Engine) awaitAll(ctx context.Context, leases []*lease) error {
	for _, l := range leases {
		select {
		case <-l.done:
		case <-ctx.Done():
			return fmt.Errorf("%s: %w", e.whatIsLeft(leases), context.Cause(ctx))
		}
	}
	return nil
}

// whatIsLeft says of the first lease that is not undone that it is not, and else of one that is
// undone what it waits for: nobody shall believe that he is held who is not.
func (e *Engine) whatIsLeft(leases []*lease) string {
	e.mu.Lock()
	defer e.mu.Unlock()
	left := "all is undone"
	for _, l := range leases {
		switch {
		case l.State != model.LeaseEnded:
			return fmt.Sprintf("lease %s is not undone yet, and tried again until it is", l.ID)
		case e.active[l.ID] == l:
			left = fmt.Sprintf("lease %s is undone, and only its record waits for the disk", l.ID)
		}
	}
	return left
}

// endLocked begins to undo a lease, unless somebody does already. A lease in flight
// is undone by its Propose, which is told to give up.
func (e *Engine) endLocked(l *lease, reason model.EndReason) {
	if l.claimed {
		return
	}
	l.claimed = true
	l.EndReason = reason
	if l.flying {
		l.cancel(fmt.Errorf("the lease was ended at once: %s", reason))
		return
	}
	if l.writing {
		return // it is undone right after that
	}
	e.undoing.Go(func() { e.undo(l) })
}

// undo puts everything back, then brings the record up to date: a thaw never waits
// for a disk. It is safe to be killed in between, because putting back compares
// first and can be done twice.
func (e *Engine) undo(l *lease) {
	e.mu.Lock()
	l.State = model.LeaseEnding
	l.retryAt = time.Time{}
	e.mu.Unlock()
	e.at("before restore")
	if !l.unwritten {
		if err := e.restore(l); err != nil {
			e.retry(l, err)
			return
		}
	}
	e.at("after restore")
	e.finish(l)
}

func (e *Engine) restore(l *lease) error {
	ctx, cancel := context.WithTimeout(context.Background(), e.config.Load().ConfirmTimeout.D())
	defer cancel()
	if l.Inside != "" {
		note, err := e.cgroups.Rejoin(ctx, targetOf(&l.Decision), l.Inside)
		e.mu.Lock()
		l.addNote(note)
		e.mu.Unlock()
		return err
	}
	e.mu.Lock()
	writes := slices.Clone(l.Writes)
	e.mu.Unlock()
	note, err := e.cgroups.Restore(ctx, l.ref(), writes...)
	e.mu.Lock()
	l.addNote(note)
	e.mu.Unlock()
	return err
}

// Bounds of the pause between two tries of an undo.
const (
	firstRetry = 50 * time.Millisecond
	lastRetry  = 5 * time.Second
	// Where nobody stands still any more, and it has not ended for some seconds.
	thawedRetry = time.Minute
	thawedTries = 10
)

// retry plans the next try of an undo that failed. It never gives up.
func (e *Engine) retry(l *lease, err error) {
	e.mu.Lock()
	pause := min(firstRetry<<min(l.tries, 10), lastRetry)
	l.tries++
	l.thawed = errors.Is(err, cgroupctl.ErrThawed)
	if l.thawed && l.tries > thawedTries {
		pause = thawedRetry
	}
	l.retryAt = e.now().Add(pause)
	l.addNote("an undo failed: " + err.Error())
	e.mu.Unlock()
	e.ring() // before it is told: whoever reads the log may be slow
	e.log.Error("undo failed, will be tried again", keyLease, l.ID, keyCgroup, l.Decision.Target.Cgroup, keyError, err, keyRetryIn, pause)
	e.tell(l, model.LeaseEnding)
}

// finish marks a lease as ended. Everything is thawed already.
func (e *Engine) finish(l *lease) {
	now := e.now()
	e.mu.Lock()
	l.State = model.LeaseEnded
	l.EndedAt = &now
	e.mu.Unlock()
	l.telling.Lock()
	defer l.telling.Unlock()
	ended := e.copyOf(l)
	if err := e.file(ended); err != nil {
		e.log.Warn("record of an ended lease not put away, will be tried again", keyLease, l.ID, keyError, err)
		e.mu.Lock()
		e.unfiled = append(e.unfiled, ended)
		e.refile = now.Add(refileEvery)
		e.mu.Unlock()
	}
	e.mu.Lock()
	delete(e.active, l.ID)
	e.ends.end(l.Decision.Target.Cgroup, now, e.config.Load().Cooldown.D())
	if _, ok := e.done.get(l.ID); !ok {
		e.done.put(outcomeOf(ended))
	}
	e.mu.Unlock()
	e.recorder.Lease(ended)
	e.mu.Lock()
	e.lately = append(e.lately[max(0, len(e.lately)-keptLately+1):], ended)
	e.mu.Unlock()
	close(l.done)
	e.ring()
}

// keptLately bounds the leases that are remembered for whoever asks how they ended.
const keptLately = 64

// Lease is a lease, also one that has ended of late.
func (e *Engine) Lease(id string) (model.Lease, error) {
	if l, ok := e.inMemory(id); ok {
		return l, nil
	}
	if checkID(id) == nil { // it becomes the name of a file
		if l, found, err := e.readEnded(id); found && err == nil {
			return l, nil
		}
	}
	return model.Lease{}, fmt.Errorf("lease %q: %w", id, ErrNoLease)
}

// inMemory is a lease that is in memory still.
func (e *Engine) inMemory(id string) (model.Lease, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if l := e.active[id]; l != nil {
		return l.Lease, true
	}
	for _, l := range slices.Backward(e.lately) {
		if l.ID == id {
			return l, true
		}
	}
	return model.Lease{}, false
}

// refileEvery is how often a record that could not be put away is tried again.
const refileEvery = 5 * time.Second

func (e *Engine) file(l model.Lease) error {
	// A full disk leaves the record as it was; where it lies says that it has ended.
	werr := e.records.write(l, quick)
	e.at("after end record")
	if err := e.records.putAway(l.ID, e.now()); err != nil {
		return errors.Join(werr, err)
	}
	e.at("after put away")
	if werr != nil {
		e.log.Warn("lease record not brought up to date", keyLease, l.ID, keyError, werr)
	}
	return nil
}

// blockers names what keeps a cgroup from standing still.
func (e *Engine) blockers(r cgroupctl.Ref) string {
	s, err := e.cgroups.Inspect(r)
	if err != nil {
		return "what blocked it is not known: " + err.Error()
	}
	var names []string
	for _, pid := range s.PIDs {
		if e.proc.blocks(pid) {
			p, _ := e.proc.read(pid)
			names = append(names, p.String())
		}
	}
	if len(names) == 0 {
		return "no process was seen in the way"
	}
	return "in the way: " + list(names)
}
