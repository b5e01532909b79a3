package enforce

import (
	"fmt"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// recall finds what became of a decision that was carried out before.
func (e *Engine) recall(id string) (model.Outcome, bool) {
	if out, ok := e.remembered(id); ok {
		return out, true
	}
	l, ok, err := e.readEnded(id)
	switch {
	case !ok:
		return model.Outcome{}, false
	case err != nil:
		return model.Outcome{
			DecisionID: id, DryRun: e.mode != model.Enforce, LeaseID: id,
			Error: fmt.Sprintf("the decision was carried out before: %v", err),
		}, true
	}
	return outcomeOf(l), true
}

// remembered is what recall finds without a disk.
func (e *Engine) remembered(id string) (model.Outcome, bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if out, ok := e.done.get(id); ok {
		return out, true
	}
	if l, ok := e.active[id]; ok {
		return outcomeOf(l.Lease), true
	}
	return model.Outcome{}, false
}

// readEnded reads the record of a lease that has ended. It must not be called under mu, which
// everything that ends a lease takes: a disk may not answer. Whoever asks meanwhile waits for
// the first, so that such a disk costs one thread.
func (e *Engine) readEnded(id string) (model.Lease, bool, error) {
	e.reading.Lock()
	defer e.reading.Unlock()
	return e.ended(id)
}

// outcomeOf tells from a lease what became of its decision.
func outcomeOf(l model.Lease) model.Outcome {
	out := model.Outcome{DecisionID: l.ID, DryRun: l.DryRun, LeaseID: l.ID, ConfirmedAt: l.HeldAt, EasesAt: l.EasesAt}
	switch l.EndReason {
	case model.EndUnconfirmed, model.EndFailed:
		out.Error = l.Note
	case model.EndRefused:
		out.RefusedBy, out.Reason, _ = strings.Cut(l.Note, ": ")
	case model.EndRecovered:
		if l.HeldAt == nil {
			out.Error = fmt.Sprintf("the enforcer was stopped before the %s was confirmed; it is undone", l.Decision.Action.Kind)
		}
	}
	return out
}

func (e *Engine) outcome(d *model.Decision) model.Outcome {
	return model.Outcome{DecisionID: d.ID, DryRun: e.mode != model.Enforce}
}

func (e *Engine) refuse(d model.Decision, by, why string) model.Outcome {
	out := e.outcome(&d)
	out.RefusedBy, out.Reason = by, why
	e.recorder.Refused(d, out)
	return out
}

func (e *Engine) failed(d model.Decision, err error) model.Outcome {
	out := e.outcome(&d)
	out.Error = err.Error()
	return out
}

// outcomes remembers the last decisions that were carried out.
type outcomes struct {
	byID  map[string]model.Outcome
	order []string
}

// maxOutcomes bounds that memory; older ones are found in the records.
const maxOutcomes = 4096

func (o *outcomes) get(id string) (model.Outcome, bool) {
	out, ok := o.byID[id]
	return out, ok
}

func (o *outcomes) put(out model.Outcome) {
	if o.byID == nil {
		o.byID = map[string]model.Outcome{}
	}
	if _, ok := o.byID[out.DecisionID]; !ok {
		o.order = append(o.order, out.DecisionID)
	}
	o.byID[out.DecisionID] = out
	if len(o.order) > maxOutcomes {
		delete(o.byID, o.order[0])
		o.order = o.order[1:]
	}
}
