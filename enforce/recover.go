package enforce

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
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
// What could not be undone, or not be read this time, is tried again by Run, and until
// all was read nothing can be proposed.
func (e *Engine) Recover(ctx context.Context) ([]model.Lease, error) {
	done, told, missing := e.recover(ctx)
	return done, errors.Join(told, missing)
}

// recoverAgain reads what could not be read before.
func (e *Engine) recoverAgain() {
	done, told, missing := e.recover(context.Background())
	switch err := errors.Join(told, missing); {
	case err != nil:
		e.log.Error("recovery is not complete", keyError, err, keyCount, len(done))
	default:
		e.log.Warn("recovery is complete now", keyCount, len(done))
	}
}

// recover undoes what it finds and has not found before. The error told is said once,
// of what is dealt with; missing is what has to be tried again.
func (e *Engine) recover(ctx context.Context) (done []model.Lease, told, missing error) {
	if e.records == nil {
		return nil, nil, nil
	}
	e.recovery.Lock()
	defer e.recovery.Unlock()
	defer func() {
		e.mu.Lock()
		e.missing, e.recovering = missing, false
		if missing != nil {
			e.recoverAt = e.now().Add(min(firstRetry<<min(e.tries, 10), lastRetry))
			e.tries++
		}
		e.recovered += len(done)
		e.mu.Unlock()
		e.ring()
	}()
	entries, err := e.records.readDir(activeDir)
	if err != nil {
		return nil, nil, err
	}
	var (
		work    sync.WaitGroup
		mu      sync.Mutex
		found   []*lease
		trouble []error
		again   []error
		tidy    []func()
		aside   []func()
	)
	for _, entry := range entries {
		name := entry.Name()
		id, isRecord := strings.CutSuffix(name, suffix)
		if strings.HasPrefix(name, ".") {
			// A record that was not finished: what it would have covered was not written.
			tidy = append(tidy, func() { e.records.root.Remove(activeDir + "/" + name) })
			continue
		}
		if !isRecord || checkID(id) != nil {
			trouble = append(trouble, fmt.Errorf("read lease records: %q is no name of a record; set aside", name))
			tidy = append(tidy, func() { e.records.root.Rename(activeDir+"/"+name, unreadableDir+"/"+name) })
			continue
		}
		if e.knows(id) {
			continue // found before, and being undone
		}
		b, err := e.records.bytes(activeDir, id)
		if err != nil {
			// It says nothing about what is in it: only what was read in full can be spoilt.
			again = append(again, err)
			continue
		}
		l, err := parseRecord(id, b)
		if err != nil {
			aside = append(aside, func() {
				thawed, err := e.setAside(ctx, id, b, err)
				mu.Lock()
				defer mu.Unlock()
				if thawed {
					trouble = append(trouble, err)
				} else {
					again = append(again, err)
				}
			})
			continue
		}
		adopted := e.adopt(l)
		found = append(found, adopted)
		e.undoing.Go(func() { e.undo(adopted) })
	}
	// The undo comes before all that writes to a disk, which may not answer, and before the count of
	// what was done earlier.
	for _, do := range aside {
		work.Go(do)
	}
	for _, do := range tidy {
		do()
	}
	e.records.sayVersion()
	if err := e.rememberRate(found); err != nil {
		mu.Lock()
		again = append(again, err)
		mu.Unlock()
	}
	work.Wait()

	bounded, cancel := context.WithTimeout(ctx, recoverBound)
	defer cancel()
	for _, l := range found {
		select {
		case <-l.done:
			done = append(done, e.copyOf(l))
		case <-bounded.Done():
			trouble = append(trouble, fmt.Errorf("recover %s: %s", l.Decision.Target.Cgroup, e.whatIsLeft([]*lease{l})))
		}
	}
	return done, errors.Join(trouble...), errors.Join(again...)
}

// recoverUntil recovers until all was read, or the bound is over.
func (e *Engine) recoverUntil(ctx context.Context, bound time.Duration) (done []model.Lease, told, missing error) {
	for until := time.Now().Add(bound); ; time.Sleep(firstRetry) {
		var more []model.Lease
		var also error
		more, also, missing = e.recover(ctx)
		done, told = append(done, more...), errors.Join(told, also)
		if missing == nil || !time.Now().Before(until) || ctx.Err() != nil {
			return done, told, missing
		}
	}
}

// unread is why not all records of before could be read yet; nil if all were.
func (e *Engine) unread() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	return e.missing
}

// knows reports whether a lease is this engine's, ended or not.
func (e *Engine) knows(id string) bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	_, ended := e.done.get(id)
	return ended || e.active[id] != nil
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

// setAside deals with a record that is spoilt: it thaws what the record seems to be
// about, and keeps the file for people to look at. It always returns an error that says
// what was found. What could not be thawed is left where it is found again.
func (e *Engine) setAside(ctx context.Context, id string, b []byte, why error) (thawed bool, err error) {
	what := "which cgroup it was about cannot be told: look for cgroups that are still frozen (grep -l 1 */cgroup.freeze)"
	thawed = true
	if ref, ok := salvage(b); ok {
		bounded, cancel := context.WithTimeout(ctx, e.config.Load().ConfirmTimeout.D())
		limits, all := salvageLimits(b)
		note, err := e.undoBlind(bounded, ref, id, limits)
		cancel()
		done := "was thawed"
		if len(limits) > 0 {
			done = "has its limits back of " + filesOf(limits)
		}
		switch {
		case err != nil:
			thawed = false
			what = fmt.Sprintf("%s, which it was about, could not be let go: %v", ref, err)
		case note != "":
			what = fmt.Sprintf("nothing had to be done to %s, which it was about: %s", ref, note)
		default:
			what = fmt.Sprintf("%s, which it was about, %s", ref, done)
		}
		if !all {
			what += "; it may have had more limits, whose part of the record is lost: look at its cpu.max, memory.high, pids.max and io.max"
		}
	}
	if thawed {
		if err := e.records.root.Rename(activeDir+"/"+id+suffix, unreadableDir+"/"+id+suffix); err != nil {
			what += fmt.Sprintf("; it could not be set aside: %v", err)
		}
	}
	e.log.Error("lease record unreadable", keyLease, id, keyError, why, keyNote, what)
	return thawed, fmt.Errorf("%w; %s", why, what)
}

// filesOf names the files of writes.
func filesOf(writes []model.FileWrite) string {
	var files []string
	for _, w := range writes {
		files = append(files, w.File)
	}
	return strings.Join(slices.Compact(files), ", ")
}

// undoBlind undoes whatever a lease can have done to a cgroup: what was made below it has
// the lease's name, and systemd knows whether it froze the unit.
func (e *Engine) undoBlind(ctx context.Context, r cgroupctl.Ref, id string, limits []model.FileWrite) (note string, err error) {
	if len(limits) > 0 {
		return e.cgroups.Restore(ctx, r, limits...)
	}
	if _, err := e.cgroups.Rejoin(ctx, r, cgroupctl.InsideName(id)); err != nil {
		return "", err
	}
	w := cgroupctl.FreezeWrite()
	o, unknown := e.cgroups.Owner(ctx, r)
	if unknown == nil && o.Own && o.Unit.FreezerState == "frozen" {
		w = cgroupctl.FreezeUnitWrite(o.Unit.Name)
	}
	note, err = e.cgroups.Restore(ctx, r, w)
	if err == nil && unknown != nil {
		// It is thawed, and systemd may take the unit for frozen still, if there is one still.
		if _, gone := e.cgroups.Inspect(r); !errors.Is(gone, cgroupctl.ErrGone) {
			err = unknown
		}
	}
	return note, err
}

// rememberRate counts the actions of before the restart, so that restarting is no
// way around the rate: those that had ended once, those found now each time.
func (e *Engine) rememberRate(found []*lease) error {
	if e.records.unlisted != nil {
		if e.records.unlisted = e.records.list(); e.records.unlisted != nil {
			return e.records.unlisted
		}
	}
	now := e.now()
	rate := e.config.Load().Rate
	window := max(rate.Overall.Every.D()*time.Duration(rate.Overall.Burst), rate.PerTarget.Every.D()*time.Duration(rate.PerTarget.Burst))
	recent := map[string]model.Lease{} // those found may have been put away by now
	if !e.counted {
		for _, k := range e.records.endedSince(now.Add(-window - HardMaxLease)) {
			if l, err := e.records.read(endedDir, k.id); err == nil {
				recent[l.ID] = l
			}
		}
		e.counted = true
	}
	for _, l := range found {
		recent[l.ID] = e.copyOf(l)
	}
	all := slices.Collect(maps.Values(recent))
	sortByCreation(all)
	e.mu.Lock()
	defer e.mu.Unlock()
	for _, l := range all {
		if age := now.Sub(l.CreatedAt); age >= 0 && age <= window {
			e.limits.take(l.Decision.Target.Cgroup, l.CreatedAt)
		}
	}
	return nil
}
