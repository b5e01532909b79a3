package enforce

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// inTree reports whether a process is of the tree below a root, as the enforcer sees for
// itself: it descends from the root, or it is in a process group or a session that the
// root leads. The latter two outlive a parent that has ended, and nobody else than the
// root's own session can join them (setpgid(2), setsid(2)).
func inTree(root model.ProcID, p *process, f *facts, tree map[int32]bool) bool {
	if descends(p.PID, f, tree) {
		return true
	}
	led := p.group == root.PID || p.session == root.PID
	return led && p.StartTime >= root.StartTime
}

// plan decides how the decision would be carried out: by which writes, by whom, and on which
// of the processes. before is the plan that was made earlier, if one was: what the record
// says stays, so that whoever has come since keeps it from being carried out.
func (e *Engine) plan(d *model.Decision, f, before *facts) {
	if f.ownerErr != nil || f.err != nil {
		return
	}
	if before != nil {
		f.rates = before.rates // the later look is about the same limits
	}
	if d.Action.Kind == model.Throttle {
		if d.Action.CPUPercent != 0 {
			e.findRealTime(f)
		}
		if scopeOf(d) == model.ScopeTree {
			f.notApart = "a throttle limits a whole cgroup, and one below another that has processes can have no controllers"
		}
		if f.before != nil {
			return // what is there now is our own limit: it is planned once that is lifted
		}
		ctx, cancel := context.WithTimeout(context.Background(), ownerBound)
		defer cancel()
		f.writes, f.noWay, f.err = e.cgroups.Throttle(ctx, targetOf(d), f.owner, d.Action, f.rates)
		return
	}
	f.planFreeze(d, before)
	f.writes = []model.FileWrite{cgroupctl.FreezeWrite()}
	if f.way == cgroupctl.WayUnit {
		f.writes[0] = cgroupctl.FreezeUnitWrite(f.owner.Unit.Name)
	}
}

// measure looks at what the target reads and writes, where that is to be limited. It takes
// its time, and holds nobody up. What cannot be measured is said by feasibility.
func (e *Engine) measure(ctx context.Context, d *model.Decision) (rates []cgroupctl.IORate, err error) {
	if d.Action.IOPercent == 0 || d.Action.Kind != model.Throttle || cgroupctl.CheckPath(d.Target.Cgroup) != nil {
		return nil, nil
	}
	return e.cgroups.IORates(ctx, targetOf(d))
}

// findRealTime looks at all threads: a process is known by its first one until then.
func (e *Engine) findRealTime(f *facts) {
	for i := range f.procs {
		if p := &f.procs[i]; !p.realTime && p.threads > 1 {
			p.realTime = e.proc.hasRealTimeThread(p.PID)
		}
	}
}

// planFreeze decides how to freeze. Where others than the tree are in the cgroup, the tree
// alone is moved into a cgroup of its own, if that can be done; then only the tree is left
// for the guards to judge. What they have to know about the rest is in apart.
func (f *facts) planFreeze(d *model.Decision, before *facts) {
	f.way, f.noWay = cgroupctl.WayToFreeze(d.Target.Cgroup, f.owner, min(d.Action.For(), f.config.MaxLease.D()))
	if f.noWay != "" {
		return
	}
	apartBefore := before != nil && before.way == cgroupctl.WayInside
	if scopeOf(d) == model.ScopeTree && d.Target.Outside >= 0 && (before == nil || apartBefore) {
		var tree, apart []process
		known := map[int32]bool{d.Target.Root.PID: true}
		for i := range f.procs {
			p := &f.procs[i]
			if inTree(d.Target.Root, p, f, known) || d.Target.Outside == 0 && p.StartTime >= d.Target.Root.StartTime {
				tree = append(tree, *p)
			} else {
				apart = append(apart, *p)
			}
		}
		if f.notApart = f.whyNotInside(tree); (apartBefore || len(apart) > 0) && len(tree) > 0 && f.notApart == "" && f.mayStay(apart) {
			f.procs, f.apart, f.way = tree, apart, cgroupctl.WayInside
		}
	}
	if f.way == cgroupctl.WayInside {
		f.noWay = f.whyNotInside(f.procs)
	}
}

// mayStay reports whether the tree may be moved away from these. They are not touched, but
// a cgroup is made below theirs: so none may be of whom nothing is known, nor pid 1, a
// kernel thread, breakerd or the enforcer. A program that is protected, such as the sshd of
// a session, may.
func (f *facts) mayStay(apart []process) bool {
	for i := range apart {
		p := &apart[i]
		_, ours := f.ours[p.PID]
		unknown := p.exe == "" && !(p.denied && f.mode != model.Enforce)
		if p.PID <= 1 || p.kernel || ours || unknown {
			return false
		}
	}
	return true
}

// whyNotInside says why processes cannot be moved into a cgroup below the target.
func (f *facts) whyNotInside(procs []process) string {
	if f.state.Gives != "" {
		return fmt.Sprintf("it gives controllers to the cgroups below it (%s), so that its processes cannot be moved apart", f.state.Gives)
	}
	own := map[int32]bool{}
	for _, pid := range f.state.Own {
		own[pid] = true
	}
	for i := range procs {
		if p := &procs[i]; !own[p.PID] {
			return fmt.Sprintf("process %s is in a cgroup below it, so that the tree cannot be moved apart and back", p)
		}
	}
	return ""
}

// ownerBound bounds the question to systemd whose a cgroup is. It answers within a
// millisecond unless it reloads its units. Together with the record it has to stay below
// maxCarry.
const ownerBound = 2 * time.Second

// askOwner finds out who looks after the target.
func (e *Engine) askOwner(d *model.Decision, f *facts) {
	ctx, cancel := context.WithTimeout(context.Background(), ownerBound)
	defer cancel()
	began := e.now()
	f.owner, f.ownerErr = e.cgroups.Owner(ctx, targetOf(d))
	f.waited = e.now().Sub(began)
}

func targetOf(d *model.Decision) cgroupctl.Ref {
	return cgroupctl.Ref{Path: d.Target.Cgroup, ID: d.Target.CgroupID}
}

// sameWay reports whether a later look would have it done as the record says.
func sameWay(l *lease, f *facts) bool {
	return f.noWay == "" && (l.Inside != "") == (f.way == cgroupctl.WayInside) && slices.Equal(f.writes, l.Writes)
}

// write makes the writes of a lease, or moves the tree into a cgroup that is frozen. The
// error says untouched where nothing was done.
func (e *Engine) write(ctx context.Context, l *lease) (untouched bool, err error) {
	if l.Inside == "" {
		for i, w := range l.Writes {
			if err := e.cgroups.Apply(l.ref(), w); err != nil {
				return i == 0 && cgroupctl.Untouched(err), err
			}
			if i == 0 {
				e.at("after first write")
			}
		}
		return false, nil
	}
	child, err := e.cgroups.Isolate(targetOf(&l.Decision), l.Inside)
	if err != nil {
		return cgroupctl.Untouched(err), err
	}
	e.mu.Lock()
	l.inside = child.ID
	e.mu.Unlock()
	e.at("after isolate")
	bounded, cancel := context.WithTimeout(ctx, e.config.Load().ConfirmTimeout.D())
	defer cancel()
	l.moved, err = e.moveTree(bounded, &l.Decision, child)
	return false, err
}

// moveTree moves the tree into a cgroup until a pass finds nobody of it outside. Who was
// moved stands still and forks no more. A child is in the cgroup of its parent when it is
// first seen (the kernel moves nobody while he forks), so that whoever was forked by one
// who has not been moved yet is found by the next pass, however fast it forks: there
// are fewer who can with each. Only who leaves the process group and the session of the
// root, and whose parent has ended, cannot be told.
func (e *Engine) moveTree(ctx context.Context, d *model.Decision, to cgroupctl.Ref) (map[model.ProcID]bool, error) {
	known := map[model.ProcID]bool{}
	moved := 0
	for {
		s, err := e.cgroups.Inspect(targetOf(d))
		if err != nil {
			return nil, err
		}
		out := e.stillOutside(d, s.Own, known)
		if len(out) == 0 {
			if moved == 0 {
				return nil, fmt.Errorf("move the tree of %d into %s: nobody is left of it", d.Target.Root.PID, to)
			}
			return known, nil
		}
		for _, id := range out {
			if ctx.Err() != nil {
				return nil, fmt.Errorf("move the tree of %d into %s: %d were moved and %d are outside still: %w", d.Target.Root.PID, to, moved, len(out), context.Cause(ctx))
			}
			// A pass over a thousand takes long enough for pids to be given out again, where
			// there are few of them and a storm uses them up. Whoever has one by now may be of
			// any cgroup, and would be moved "back" into this one.
			if s, err := e.proc.stat(id.PID); err != nil || s.start != id.StartTime {
				continue
			}
			switch err := e.cgroups.Attach(to, id.PID); {
			case errors.Is(err, cgroupctl.ErrEnded):
			case err != nil:
				return nil, err
			default:
				if moved++; moved == 1 {
					e.at("after first move")
				}
			}
		}
	}
}

// stillOutside are those of the processes that are to be moved. Who was known to be of the
// tree once stays so, also when his parent has ended.
func (e *Engine) stillOutside(d *model.Decision, pids []int32, known map[model.ProcID]bool) []model.ProcID {
	f := &facts{parents: map[int32]int32{}}
	procs := make([]process, 0, len(pids))
	for _, pid := range pids {
		s, err := e.proc.stat(pid)
		if err != nil || s.ended() {
			continue
		}
		procs = append(procs, process{
			ProcID: model.ProcID{PID: pid, StartTime: s.start}, parent: s.parent, group: s.group, session: s.session,
		})
		f.parents[pid] = s.parent
	}
	var out []model.ProcID
	root := d.Target.Root
	tree := map[int32]bool{root.PID: true}
	for id := range known {
		tree[id.PID] = true
	}
	for i := range procs {
		p := &procs[i]
		e.proc.above(p.PID, f.parents)
		if scopeOf(d) != model.ScopeCgroup && !known[p.ProcID] && !inTree(root, p, f, tree) &&
			(d.Target.Outside != 0 || p.StartTime < root.StartTime) {
			continue
		}
		if p.PID == root.PID && p.StartTime != root.StartTime {
			continue // another one has the pid of the root by now; identity will say so
		}
		known[p.ProcID] = true
		out = append(out, p.ProcID)
	}
	return out
}

// insidePath is the path of the cgroup that a lease made below its target.
func insidePath(l *model.Lease) string { return path.Join(l.Decision.Target.Cgroup, l.Inside) }

// guardOwner keeps a unit that systemd is about to stop, or that it cannot be asked about,
// from being begun with; and lets go of one at once that is being stopped, restarted or
// reloaded. While it is held, no answer is no reason: pid 1 gives none for some seconds
// while it reloads its units.
func guardOwner(_ *model.Decision, f *facts) string {
	if u := f.owner.Unit; f.ownerErr == nil && u.Name != "" && u.Ends() {
		return fmt.Sprintf("unit %s is %s, with the job %q queued: nothing may hold it", u.Name, u.ActiveState, u.Job)
	}
	return ""
}

// whyNoWay is why an action cannot be done, or could not be undone cleanly, because of who
// looks after the cgroup or of what it has.
func whyNoWay(f *facts) string {
	switch {
	case errors.Is(f.err, cgroupctl.ErrGone):
		return "" // identity says it better
	case f.ownerErr != nil:
		return fmt.Sprintf("whose it is cannot be told, and in doubt it is left alone: %v", f.ownerErr)
	}
	return f.noWay
}
