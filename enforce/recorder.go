package enforce

import (
	"errors"
	"log/slog"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/systemd"
)

// JournalRecorder tells the journal of leases that are held and that have ended. A
// refusal is told by breakerd, with the incident that it belongs to: here it is only
// logged, for whoever looks for it.
type JournalRecorder struct {
	journal *systemd.Journal
	log     *slog.Logger
}

// NewJournalRecorder makes a recorder; what the journal does not take goes to the log.
func NewJournalRecorder(journal *systemd.Journal, log *slog.Logger) *JournalRecorder {
	return &JournalRecorder{journal, log}
}

// Lease tells that a lease has come to a new state.
func (r *JournalRecorder) Lease(l model.Lease) {
	switch {
	case l.State == model.LeaseHeld && l.EasedAt != nil:
		r.write(systemd.LeaseEased(l))
	case l.State == model.LeaseHeld:
		r.write(systemd.LeaseHeld(l))
	case l.State == model.LeaseEnding: // told only where an undo failed
		r.write(systemd.LeaseStuck(l, errors.New(l.Note)))
	case l.State == model.LeaseEnded && l.EndReason == model.EndRecovered:
		r.write(systemd.LeaseRecovered(l))
	case l.State == model.LeaseEnded:
		r.write(systemd.LeaseEnded(l))
	}
}

// Refused tells that a guard refused a decision.
func (r *JournalRecorder) Refused(d model.Decision, o model.Outcome) {
	r.log.Debug("decision refused", keyDecision, d.ID, keyGuard, o.RefusedBy, keyReason, o.Reason,
		keyCgroup, d.Target.Cgroup, keyIncident, d.IncidentID, keyPolicy, d.Policy, keyDryRun, o.DryRun)
}

// Approval tells of a question to a person.
func (r *JournalRecorder) Approval(a model.Approval) {
	switch a.State {
	case model.ApprovalWaiting:
		r.write(systemd.ApprovalAsked(a))
	case model.ApprovalGiven:
		r.write(systemd.ApprovalGiven(a))
	case model.ApprovalExpired:
		r.write(systemd.ApprovalExpired(a))
	}
}

func (r *JournalRecorder) write(e systemd.Entry) {
	if err := r.journal.Write(e); err != nil {
		r.log.Warn("journal entry lost", keyError, err)
	}
}

// silent is the recorder of an engine that has none.
type silent struct{}

func (silent) Lease(model.Lease)                     {}
func (silent) Refused(model.Decision, model.Outcome) {}
func (silent) Approval(model.Approval)               {}
