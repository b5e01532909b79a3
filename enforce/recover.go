package enforce

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// recoverBound is how long Recover waits for the undo. What is not done by then goes
// on in the background; the promise is everything within 2 s.
const recoverBound = 1500 * time.Millisecond

// Recover undoes every lease that was found in the state directory, all at once. It
// comes before the first Propose. It returns the leases that it undid; the error
// names what could not be undone or read, after everything else has been undone.
// What could not be undone is tried again by Run.
func (e *Engine) Recover(ctx context.Context) ([]model.Lease, error) {
	if e.records == nil {
		return nil, nil
	}
	entries, err := e.records.readDir(activeDir)
	if err != nil {
		return nil, err
	}
	var (
		work    sync.WaitGroup
		mu      sync.Mutex
		found   []*lease
		trouble []error
	)
	for _, entry := range entries {
		name := entry.Name()
		id, isRecord := strings.CutSuffix(name, suffix)
		if strings.HasPrefix(name, ".") {
			// A record that was not finished: what it would have covered was not written.
			e.records.root.Remove(activeDir + "/" + name)
			continue
		}
		if !isRecord || checkID(id) != nil {
			trouble = append(trouble, fmt.Errorf("read lease records: %q is no name of a record; set aside", name))
			e.records.root.Rename(activeDir+"/"+name, unreadableDir+"/"+name)
			continue
		}
		l, err := e.records.read(activeDir, id)
		if err != nil {
			work.Go(func() {
				err := e.setAside(ctx, id, err)
				mu.Lock()
				trouble = append(trouble, err)
				mu.Unlock()
			})
			continue
		}
		found = append(found, e.adopt(l))
	}
	e.rememberRate()
	for _, l := range found {
		e.undoing.Go(func() { e.undo(l) })
	}
	work.Wait()

	bounded, cancel := context.WithTimeout(ctx, recoverBound)
	defer cancel()
	var done []model.Lease
	for _, l := range found {
		select {
		case <-l.done:
			done = append(done, e.copyOf(l))
		case <-bounded.Done():
			trouble = append(trouble, fmt.Errorf("recover lease %s: %s is not thawed yet", l.ID, l.Decision.Target.Cgroup))
		}
	}
	e.mu.Lock()
	e.recovered = len(done)
	e.mu.Unlock()
	return done, errors.Join(trouble...)
}

// adopt takes over a lease of an engine that is no more, to undo it.
func (e *Engine) adopt(l model.Lease) *lease {
	a := &lease{Lease: l, claimed: true, done: make(chan struct{})}
	if l.State == model.LeaseEnded {
		a.unwritten = true // undone, but its record was not put away
	} else {
		a.EndReason = model.EndRecovered
	}
	e.mu.Lock()
	e.active[l.ID] = a
	e.mu.Unlock()
	return a
}

// setAside deals with a record that cannot be read: it thaws what the record seems
// to be about, and keeps the file for people to look at. It always returns an error
// that says what was found.
func (e *Engine) setAside(ctx context.Context, id string, why error) error {
	what := "which cgroup it was about cannot be told: look for cgroups that are still frozen (grep -l 1 */cgroup.freeze)"
	b, _ := e.records.bytes(activeDir, id)
	thawed := true
	if ref, ok := salvage(b); ok {
		bounded, cancel := context.WithTimeout(ctx, e.config.ConfirmTimeout.D())
		note, err := e.cgroups.Restore(bounded, ref, cgroupctl.FreezeWrite())
		cancel()
		switch {
		case err != nil:
			thawed = false
			what = fmt.Sprintf("%s, which it was about, could not be thawed: %v", ref, err)
		case note != "":
			what = fmt.Sprintf("nothing had to be done to %s, which it was about: %s", ref, note)
		default:
			what = fmt.Sprintf("%s, which it was about, was thawed", ref)
		}
	}
	if thawed {
		// Otherwise it stays where the next start finds it.
		if err := e.records.root.Rename(activeDir+"/"+id+suffix, unreadableDir+"/"+id+suffix); err != nil {
			what += fmt.Sprintf("; it could not be set aside: %v", err)
		}
	}
	e.log.Error("lease record unreadable", keyLease, id, keyError, why, keyNote, what)
	return fmt.Errorf("%w; %s", why, what)
}

// rememberRate counts the actions of before the restart, so that restarting is no
// way around the rate.
func (e *Engine) rememberRate() {
	now := e.now()
	rate := e.config.Rate
	window := max(rate.Overall.Every.D()*time.Duration(rate.Overall.Burst), rate.PerTarget.Every.D()*time.Duration(rate.PerTarget.Burst))
	var recent []model.Lease
	for _, k := range e.records.kept {
		if now.Sub(k.at) > window+HardMaxLease {
			continue
		}
		if l, err := e.records.read(endedDir, k.id); err == nil {
			recent = append(recent, l)
		}
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range e.active {
		recent = append(recent, l.Lease)
	}
	sortByCreation(recent)
	for _, l := range recent {
		if age := now.Sub(l.CreatedAt); age >= 0 && age <= window {
			e.limits.take(l.Decision.Target.Cgroup, l.CreatedAt)
		}
	}
}
