package enforce

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// Propose asks the guards and, if all agree, carries the decision out. It returns
// when the kernel has confirmed it, or when nothing is held any more. A decision is
// carried out at most once: the second time it is told what became of it.
//
// When ctx ends before the confirmation, what was begun is undone.
func (e *Engine) Propose(ctx context.Context, d model.Decision) model.Outcome {
	if err := checkID(d.ID); err != nil {
		return e.refuse(d, "feasibility", err.Error())
	}
	rates, unmeasured := e.measure(ctx, &d)
	select {
	case e.turn <- struct{}{}:
		defer func() { <-e.turn }()
	case <-ctx.Done():
		return e.failed(d, fmt.Errorf("wait for the proposal before: %w", context.Cause(ctx)))
	}
	e.mu.Lock()
	stops := e.stopping
	e.mu.Unlock()
	if stops {
		return e.refuse(d, "mode", stopping)
	}
	if missing := e.unread(); missing != nil {
		return e.refuse(d, "mode", fmt.Sprintf("the leases of before are not recovered yet, and nothing new is begun until they are: %v", missing))
	}
	if out, ok := e.recall(d.ID); ok {
		return out
	}
	if e.mode == model.Enforce {
		if by, why := judge(atOnce, &d, e.known(&d)); by != "" {
			return e.refuse(d, by, why)
		}
		if err := e.looks.WaitN(ctx, 0); err != nil { // until those before are paid for
			return e.failed(d, fmt.Errorf("wait for the looks at proposals before: %w", err))
		}
	}
	f, by, why := e.consider(&d, rates, unmeasured)
	if by == "" {
		// What makes way stays until nobody has anything against it.
		if err := e.lift(ctx, f.lifted); err != nil {
			return e.failed(d, err)
		}
	}
	if by == "" && d.After != "" {
		f, by, why = e.consider(&d, rates, unmeasured, f.before)
	}
	if by != "" {
		if by == "approval" {
			e.await(&d, f)
		}
		return e.refuse(d, by, why)
	}
	l, out, why := e.take(ctx, &d, f)
	if l == nil {
		return e.refuse(d, "mode", why)
	}
	defer l.cancel(nil)
	out = e.carry(l.flight, l, f, out)
	e.mu.Lock()
	e.done.put(out)
	e.mu.Unlock()
	return out
}

// consider looks, and asks the guards. before is the lease whose place the decision has taken
// already.
func (e *Engine) consider(d *model.Decision, rates []cgroupctl.IORate, unmeasured error, before ...*model.Lease) (f *facts, by, why string) {
	began := time.Now()
	defer func() {
		now := time.Now()
		e.looks.ReserveN(now, int(min(now.Sub(began), looksTime).Microseconds()))
	}()
	f = e.look(d, rates, unmeasured)
	if len(before) > 0 {
		f.before = before[0]
	}
	if by, why = judge(guards[:counted], d, f); by != "" {
		return f, by, why
	}
	e.count(f)
	by, why = judge(guards[counted:], d, f)
	return f, by, why
}

// take makes the lease and counts it, in memory. Nothing is written yet. There is no
// lease, and a reason why, if the engine stops or was paused meanwhile.
func (e *Engine) take(ctx context.Context, d *model.Decision, f *facts) (*lease, model.Outcome, string) {
	out := e.outcome(d)
	out.LeaseID = d.ID
	hold := d.Action.For()
	if most := e.config.Load().MaxLease.D(); hold > most {
		out.Reason = fmt.Sprintf("the lease is shortened from %s to the maximum of %s", hold, most)
		hold = most
	}
	var since *time.Time
	if f.before != nil {
		start := began(f.before)
		since = &start
		if left := e.config.Load().MaxLease.D() - f.now.Sub(start); hold > left {
			out.Reason = fmt.Sprintf("the lease is shortened from %s to %s: with those before it, that is the maximum", hold, left)
			hold = left
		}
	}
	l := &lease{flying: true, done: make(chan struct{}), established: f.established(), bytes: f.establishedBytes()}
	l.flight, l.cancel = context.WithCancelCause(ctx)
	l.Lease = model.Lease{
		Version: model.LeaseVersion, ID: d.ID, State: model.LeaseIntended, DryRun: out.DryRun,
		Decision: *d, Writes: f.writes,
		CreatedAt: f.now, BeganAt: since, ExpiresAt: f.now.Add(hold),
		EasesAt: easesAt(&d.Action, f.writes, f.now, hold),
	}
	out.EasesAt = l.EasesAt
	if f.way == cgroupctl.WayInside {
		l.Inside = cgroupctl.InsideName(l.ID)
	}
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.stopping {
		return nil, out, stopping
	}
	if why := e.pauseLocked(f.now); why != "" {
		return nil, out, why
	}
	e.limits.take(d.Target.Cgroup, f.now)
	e.useLocked(d)
	e.active[l.ID] = l
	return l, out, ""
}

// carry writes the record, then the cgroup, and waits for the kernel. On every way
// out the lease is either held or ended.
func (e *Engine) carry(ctx context.Context, l *lease, f *facts, out model.Outcome) model.Outcome {
	d := &l.Decision
	e.at("before record")
	if err := e.records.write(e.copyOf(l), durable); err != nil {
		// No record, no write: there is nothing to undo.
		e.records.forget(l.ID)
		e.mu.Lock()
		delete(e.active, l.ID)
		e.mu.Unlock()
		close(l.done)
		out.LeaseID = ""
		out.Error = fmt.Sprintf("nothing was done: %v", err)
		return out
	}
	e.at("after record")
	e.recorder.Lease(e.copyOf(l))

	// Writing the record may have taken long, so look again right before the write.
	f = e.lookAgain(d, f)
	if by, why := judge(secondLook, d, f); by != "" {
		return e.revoke(l, out, by, why)
	}
	if err := e.mayStillWrite(ctx, l); err != nil {
		return e.abandon(l, out, model.EndFailed, err, true)
	}
	if !sameWay(l, f) {
		return e.abandon(l, out, model.EndFailed, errors.New("who is in the cgroup, or looks after it, has changed since it was judged"), true)
	}
	if untouched, err := e.write(ctx, l); err != nil {
		return e.abandon(l, out, model.EndFailed, err, untouched)
	}
	written := e.now()
	out.WrittenAt = &written
	e.at("after write")

	if err := e.confirm(ctx, l); err != nil {
		return e.abandon(l, out, model.EndUnconfirmed, err, false)
	}
	confirmed := e.now()
	out.ConfirmedAt = &confirmed
	e.at("after confirm")

	// After a freeze everything stands still now, so this look cannot be outrun: whoever
	// slipped in since the last one is seen, and set free again at once.
	f = e.lookAtHeld(l, f)
	if by, why := judge(secondLook, d, f); by != "" {
		return e.revoke(l, out, by, why)
	}
	e.mu.Lock()
	l.flying = false
	ended := l.claimed
	if !ended {
		l.State, l.HeldAt = model.LeaseHeld, &confirmed
		l.established, l.bytes = f.established(), f.establishedBytes()
		l.lookAt = confirmed.Add(lookEvery)
	}
	e.mu.Unlock()
	if ended {
		return e.abandon(l, out, model.EndFailed, context.Cause(ctx), false)
	}
	e.ring()
	e.tell(l, model.LeaseHeld)
	e.at("after held")
	return out
}

// confirm waits until the kernel says that everything stands still. A limit was confirmed
// when it was read back.
func (e *Engine) confirm(ctx context.Context, l *lease) error {
	if l.Decision.Action.Kind != model.Freeze {
		return nil
	}
	bounded, cancel := context.WithTimeout(ctx, e.config.Load().ConfirmTimeout.D())
	defer cancel()
	err := e.cgroups.Confirm(bounded, l.ref(), true)
	if errors.Is(err, cgroupctl.ErrUnconfirmed) {
		err = fmt.Errorf("%w; %s", err, e.blockers(l.ref()))
	}
	return err
}

// tell brings the record of a lease up to date and tells the recorder, unless the
// lease has gone on to another state meanwhile: that is told by whoever did it.
func (e *Engine) tell(l *lease, state model.LeaseState) {
	l.telling.Lock()
	defer l.telling.Unlock()
	now := e.copyOf(l)
	if now.State != state {
		return
	}
	if err := e.records.write(now, quick); err != nil {
		// The record says an earlier state: it is undone all the same.
		e.log.Warn("lease record not brought up to date", keyLease, l.ID, keyError, err)
	}
	e.recorder.Lease(now)
}

// mayStillWrite says why the write must not be made any more.
func (e *Engine) mayStillWrite(ctx context.Context, l *lease) error {
	if ctx.Err() != nil {
		return context.Cause(ctx)
	}
	now := e.now()
	switch {
	case !now.Before(l.ExpiresAt):
		return errors.New("its time was up before it could be written")
	case now.Sub(l.Decision.At) > maxDecisionAge:
		return fmt.Errorf("the decision is of %s ago by now: too old to be true still (at most %s)", now.Sub(l.Decision.At), maxDecisionAge)
	case now.Sub(l.CreatedAt) > maxCarry:
		return fmt.Errorf("the record took until %s after the decision was judged: too long to be true still (at most %s)", now.Sub(l.CreatedAt), maxCarry)
	}
	return nil
}

// maxCarry bounds the time between the judgement and the write. A record takes some
// milliseconds; a disk that takes seconds keeps the write from being about the machine
// that the policies saw, and breakerd waits 5 s for an answer.
const maxCarry = 3 * time.Second

// lookAgain looks, and keeps how many processes the machine had a moment ago.
func (e *Engine) lookAgain(d *model.Decision, before *facts) *facts {
	before.procs, before.apart, before.parents = nil, nil, nil // once is enough of thousands
	f := e.lookAt(d, targetOf(d))
	e.plan(d, f, before)
	f.machine = before.machine
	return f
}

// lookAtHeld looks at those who are held.
func (e *Engine) lookAtHeld(l *lease, before *facts) *facts {
	f := e.lookAt(&l.Decision, l.ref())
	f.moved = l.moved // nobody changes it once it is there
	if before != nil {
		f.machine = before.machine
	}
	return f
}

// revoke ends a lease under way because a guard refuses on a later look.
func (e *Engine) revoke(l *lease, out model.Outcome, by, why string) model.Outcome {
	wrote := out.WrittenAt != nil
	e.finishFlight(l, model.EndRefused, by+": "+why, !wrote)
	out.RefusedBy, out.Reason = by, why
	e.recorder.Refused(l.Decision, out)
	return out
}

// abandon ends a lease under way because something failed, or because it was ended
// by somebody else meanwhile.
func (e *Engine) abandon(l *lease, out model.Outcome, reason model.EndReason, err error, unwritten bool) model.Outcome {
	out.Error = err.Error()
	e.finishFlight(l, reason, err.Error(), unwritten)
	if l.unwritten {
		out.WrittenAt = nil
	}
	return out
}

// finishFlight undoes a lease from within Propose.
func (e *Engine) finishFlight(l *lease, reason model.EndReason, note string, unwritten bool) {
	e.mu.Lock()
	l.flying = false
	l.unwritten = unwritten
	if !l.claimed {
		l.claimed = true
		l.EndReason = reason
	}
	l.addNote(note)
	e.mu.Unlock()
	e.undo(l)
}

// maxNote bounds a note, in bytes: an undo that fails for hours fails for few reasons.
const maxNote = 2 << 10

func (l *lease) addNote(note string) {
	switch {
	case note == "" || strings.Contains(l.Note, note) || len(l.Note)+len(note) > maxNote:
	case l.Note == "":
		l.Note = note
	default:
		l.Note += "; " + note
	}
}

func (e *Engine) copyOf(l *lease) model.Lease {
	e.mu.Lock()
	defer e.mu.Unlock()
	return l.Lease
}

func (e *Engine) leasesLocked() []model.Lease {
	out := make([]model.Lease, 0, len(e.active))
	for _, l := range e.active {
		out = append(out, l.Lease)
	}
	sortByCreation(out)
	return out
}

func sortByCreation(leases []model.Lease) {
	slices.SortFunc(leases, func(a, b model.Lease) int {
		return cmp.Or(a.CreatedAt.Compare(b.CreatedAt), strings.Compare(a.ID, b.ID))
	})
}

// maxID bounds an ID, which becomes a file name.
const maxID = 128

// checkID refuses an ID that could be anything else than a plain file name.
func checkID(id string) error {
	if id == "" || len(id) > maxID {
		return fmt.Errorf("decision id of %d bytes: it must have 1 to %d", len(id), maxID)
	}
	for i, c := range []byte(id) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && (i == 0 || !strings.ContainsRune("-_.:@", rune(c))) {
			return fmt.Errorf("decision id %q: it may have letters, digits and -_.:@ and must begin with a letter or digit", id)
		}
	}
	return nil
}
