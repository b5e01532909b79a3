package drill

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// poll is how often breakerd is asked.
const poll = 100 * time.Millisecond

// expectSilence watches for a while that nothing is opened because of the offender. What is
// informational hurts nobody, and says no more than that there is load.
func (d *driller) expectSilence(ctx context.Context, s scenario, sc *scene, r *Result) error {
	if err := sleep(ctx, s.watch); err != nil {
		return err
	}
	found, err := d.incidents(ctx, sc)
	if err != nil {
		return err
	}
	r.CulpritCorrect = true
	for _, in := range found {
		if in.Level == model.Info {
			d.Narrate("  noted, and informational: %s", in.Summary)
			continue
		}
		r.Detected, r.CulpritCorrect, r.IncidentID = true, false, in.ID
		r.fail("%s was opened, and there is no trouble: %s", in.Kind, in.Summary)
	}
	if !r.Detected {
		d.Narrate("  %.0f s of full CPUs, and no trouble: load is not trouble", s.watch.Seconds())
	}
	return nil
}

// expectIncident waits for the incident, and for what is done about it.
func (d *driller) expectIncident(ctx context.Context, s scenario, sc *scene, started time.Time, r *Result) error {
	in, err := d.await(ctx, s, sc)
	if err != nil {
		return err
	}
	if in == nil {
		r.fail("no %s was opened within %v", s.kind, s.within+actBound)
		return nil
	}
	r.Detected, r.IncidentID = true, in.ID
	r.DetectMS = between(started, in.OpenedAt)
	d.Narrate("  %7.0f ms  detected: %s (severity %.2f)", *r.DetectMS, in.Kind, in.Severity)
	d.Narrate("              %s", in.Summary)
	if in.OpenedAt.Sub(started) > s.within {
		r.fail("detected after %.0f ms, later than %v", *r.DetectMS, s.within)
	}
	if err := d.act(ctx, sc, in, started, r); err != nil {
		return err
	}
	return d.checkCulprit(ctx, sc, started, r)
}

// await waits until the expected incident is open.
func (d *driller) await(ctx context.Context, s scenario, sc *scene) (*model.Incident, error) {
	for deadline := time.Now().Add(s.within + actBound); time.Now().Before(deadline); {
		found, err := d.incidents(ctx, sc)
		if err != nil {
			return nil, err
		}
		if i := slices.IndexFunc(found, func(in model.Incident) bool { return in.Kind == s.kind }); i >= 0 {
			return &found[i], nil
		}
		if err := sleep(ctx, poll); err != nil {
			return nil, err
		}
	}
	return nil, nil
}

// act follows the freeze and the thaw, as the kernel tells them, where breakerd enforces.
func (d *driller) act(ctx context.Context, sc *scene, in *model.Incident, started time.Time, r *Result) error {
	if d.status.Mode != model.Enforce {
		return d.tellDecision(ctx, in, r)
	}
	frozenAt, frozen := sc.offender.awaitFrozen(true, actBound)
	if !frozen {
		if err := d.tellDecision(ctx, in, r); err != nil {
			return err
		}
		r.fail("the offender was not frozen within %v", actBound)
		return nil
	}
	lease, err := d.lease(ctx, in.ID)
	if err != nil {
		return err
	}
	if lease == nil {
		r.fail("the offender is frozen and there is no lease for it")
		return nil
	}
	decided := lease.Decision.At
	r.ActMS, r.ConfirmMS = between(decided, lease.CreatedAt), between(decided, frozenAt)
	d.Narrate("  %7.0f ms  decided by %s: %s for %v", ms(decided.Sub(started)), lease.Decision.Policy, lease.Decision.Action.Kind, lease.Decision.Action.For())
	d.Narrate("  %7.0f ms  frozen: %d processes stand still, confirmed by the kernel %.0f ms after the decision", ms(frozenAt.Sub(started)), sc.offender.processes(), *r.ConfirmMS)
	if most := time.Duration(d.status.TickMS)*time.Millisecond + confirmSlack; frozenAt.Sub(decided) > most {
		r.fail("frozen %.0f ms after the decision, later than %v", *r.ConfirmMS, most)
	}
	thawedAt, thawed := sc.offender.awaitFrozen(false, time.Until(lease.ExpiresAt)+actBound)
	if !thawed {
		r.fail("the offender is still frozen %v after its lease ended", actBound)
		return nil
	}
	r.UndoMS = between(lease.ExpiresAt, thawedAt)
	d.Narrate("  %7.0f ms  thawed, %.1f ms after the lease's end", ms(thawedAt.Sub(started)), *r.UndoMS)
	if off := thawedAt.Sub(lease.ExpiresAt); off < -time.Millisecond || off > undoSlack {
		r.fail("thawed %.1f ms after the lease's end, and want 0 to %v", *r.UndoMS, undoSlack)
	}
	if sc.victim != nil {
		d.Narrate("              the service's slowest requests: %.1f ms before, %.1f ms beside the hogs, %.1f ms while they were frozen",
			sc.latency.worst(started.Add(-calmLook), started), sc.latency.worst(started.Add(reportEvery), frozenAt), sc.latency.worst(frozenAt.Add(reportEvery), thawedAt))
	}
	return nil
}

// tellDecision says what was decided where nothing is frozen.
func (d *driller) tellDecision(ctx context.Context, in *model.Incident, r *Result) error {
	for deadline := time.Now().Add(poll * 10); time.Now().Before(deadline); {
		all, err := d.Client.Incidents(ctx)
		if err != nil {
			return err
		}
		i := slices.IndexFunc(all, func(x model.Incident) bool { return x.ID == in.ID })
		if i >= 0 && len(all[i].Decisions) > 0 {
			for _, dec := range all[i].Decisions {
				d.Narrate("              decided by %s: %s%s", dec.Policy, dec.Action, fate(dec))
			}
			return nil
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
	d.Narrate("              no policy asked for anything: breakerd watches")
	return nil
}

func fate(dec model.DecisionRecord) string {
	switch {
	case dec.Error != "":
		return ", which failed: " + dec.Error
	case dec.RefusedBy != "":
		return fmt.Sprintf(", refused by %s: %s", dec.RefusedBy, dec.Reason)
	case dec.DryRun:
		return ", a dry run: nothing was touched"
	}
	return ""
}

// lease finds what is held because of an incident.
func (d *driller) lease(ctx context.Context, incident string) (*model.Lease, error) {
	all, err := d.Client.Leases(ctx)
	if err != nil {
		return nil, err
	}
	if i := slices.IndexFunc(all, func(l model.Lease) bool { return l.Decision.IncidentID == incident }); i >= 0 {
		return &all[i], nil
	}
	return nil, nil
}

// checkCulprit holds what breakerd said against what the drill did.
func (d *driller) checkCulprit(ctx context.Context, sc *scene, started time.Time, r *Result) error {
	found, err := d.incidents(ctx, sc)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(found, func(in model.Incident) bool { return in.ID == r.IncidentID })
	if i < 0 {
		return fmt.Errorf("incident %s is not there any more", r.IncidentID)
	}
	in := found[i]
	want := int32(sc.commands[len(sc.commands)-1].Process.Pid)
	r.CulpritCorrect = in.Culprit.Root.PID == want
	if !r.CulpritCorrect {
		r.fail("the culprit is pid %d (%s), and should be %d", in.Culprit.Root.PID, in.Culprit.Root.Comm, want)
	}
	if sc.victim == nil {
		return nil
	}
	if !slices.ContainsFunc(in.Victims, func(v model.Victim) bool { return v.Cgroup == sc.victim.path }) {
		r.CulpritCorrect = false
		r.fail("the service is not among the victims: %v", in.Victims)
	}
	return d.checkBlame(ctx, sc, started, r)
}

// checkBlame says who made the victim wait: the offender, and nobody else.
func (d *driller) checkBlame(ctx context.Context, sc *scene, started time.Time, r *Result) error {
	b, err := d.Client.Blame(ctx, time.Since(started))
	if err != nil {
		return err
	}
	var whole, offenders float64
	for _, p := range b.Pairs {
		if p.Victim.Cgroup == sc.victim.path {
			whole += p.StallMS
			if p.Offender.Cgroup == sc.offender.path {
				offenders += p.StallMS
			}
		}
	}
	if whole == 0 {
		r.fail("nobody is said to have made the service wait")
		return nil
	}
	d.Narrate("              of %.0f ms that the service waited for others, %.1f %% are the hogs'", whole, 100*offenders/whole)
	if offenders < blamePart*whole {
		r.CulpritCorrect = false
		r.fail("only %.0f ms of the %.0f ms that the service waited for others are the hogs'", offenders, whole)
	}
	all, err := d.Client.Incidents(ctx)
	if err != nil {
		return err
	}
	for _, in := range all {
		if in.Culprit.Cgroup == sc.victim.path {
			r.CulpritCorrect = false
			r.fail("the service itself was accused of %s", in.Kind)
		}
	}
	return nil
}

func between(from, to time.Time) *float64 {
	v := ms(to.Sub(from))
	return &v
}

func ms(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
