package systemd

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Started tells that a program is at work.
func Started(program, version string, mode model.Mode) Entry {
	return entry(MsgStarted, Info, fmt.Sprintf("%s %s started in mode %s", program, version, mode), map[Field]string{
		FieldProgram: program, FieldVersion: version, FieldMode: string(mode),
	})
}

// Stopped tells that a program ended in good order, and why.
func Stopped(program, reason string) Entry {
	return entry(MsgStopped, Info, program+" stopped: "+reason, map[Field]string{FieldProgram: program, FieldReason: reason})
}

// IncidentOpened tells of a new incident.
func IncidentOpened(i model.Incident) Entry {
	return entry(MsgIncidentOpened, PriorityOf(i.Level), i.Summary, incidentFields(i))
}

// IncidentClosed tells that an incident is over.
func IncidentClosed(i model.Incident) Entry {
	lasted := ""
	if i.ClosedAt != nil {
		lasted = fmt.Sprintf(" after %s", i.ClosedAt.Sub(i.OpenedAt).Round(100*time.Millisecond))
	}
	where := " in " + or(i.Culprit.Cgroup)
	if !i.Culprit.Known() {
		where = ", of which nobody stands out as the cause,"
	}
	return entry(MsgIncidentClosed, Info, fmt.Sprintf("%s%s is over%s", i.Kind, where, lasted), incidentFields(i))
}

func incidentFields(i model.Incident) map[Field]string {
	return map[Field]string{
		FieldIncident:  i.ID,
		FieldKind:      string(i.Kind),
		FieldLevel:     string(i.Level),
		FieldSeverity:  strconv.FormatFloat(i.Severity, 'f', 2, 64),
		FieldCgroup:    or(i.Culprit.Cgroup),
		FieldUnit:      or(i.Culprit.Unit),
		FieldPID:       strconv.Itoa(int(i.Culprit.Root.PID)),
		FieldComm:      or(i.Culprit.Root.Comm),
		FieldProcesses: strconv.Itoa(i.Culprit.Processes),
	}
}

// Decided tells what became of a decision: carried out (or in a dry run: would
// have been), refused, or failed.
func Decided(i model.Incident, d model.DecisionRecord) Entry {
	fields := incidentFields(i)
	fields[FieldDecision] = d.ID
	fields[FieldAction] = string(d.Action)
	fields[FieldScope] = string(d.Scope)
	fields[FieldForMS] = strconv.FormatInt(d.ForMS, 10)
	fields[FieldGuard] = d.RefusedBy
	fields[FieldPolicy] = or(d.Policy)
	fields[FieldLease] = d.LeaseID
	fields[FieldReason] = or(d.Reason)
	fields[FieldError] = d.Error
	fields[FieldDryRun] = strconv.FormatBool(d.DryRun)

	where := or(i.Culprit.Cgroup)
	switch {
	case d.Error != "":
		return entry(MsgDecisionFailed, Err, fmt.Sprintf("%s of %s failed, nothing is held: %s", d.Action, where, d.Error), fields)
	case d.RefusedBy != "":
		return entry(MsgDecisionRefused, Info, fmt.Sprintf("%s of %s refused by %s: %s", d.Action, where, d.RefusedBy, d.Reason), fields)
	case d.Action == model.NoAction || d.Action == "":
		fields[FieldGuard] = "policy"
		return entry(MsgDecisionRefused, Info, fmt.Sprintf("nothing is done about %s in %s: %s", i.Kind, where, d.Reason), fields)
	}
	would := ""
	if d.DryRun {
		would = "would "
	}
	length := time.Duration(d.ForMS) * time.Millisecond
	return entry(MsgDecisionMade, Notice, fmt.Sprintf("%s%s %s for %s: %s", would, d.Action, where, length, d.Reason), fields)
}

// LeaseHeld tells that a culprit is held from now on.
func LeaseHeld(l model.Lease) Entry {
	return entry(MsgLeaseHeld, leasePriority(l, Warning), fmt.Sprintf("%s of %s is held%s until %s",
		l.Decision.Action.Kind, or(l.Decision.Target.Cgroup), dry(l), l.ExpiresAt.UTC().Format(time.RFC3339)), leaseFields(l))
}

// LeaseEased tells that a culprit is held more loosely from now on, and until when.
func LeaseEased(l model.Lease) Entry {
	return entry(MsgLeaseEased, leasePriority(l, Notice), fmt.Sprintf("%s of %s is loosened half way%s until %s%s",
		l.Decision.Action.Kind, or(l.Decision.Target.Cgroup), dry(l), l.ExpiresAt.UTC().Format(time.RFC3339), note(l)), leaseFields(l))
}

// LeaseEnded tells that a culprit is let go, and why.
func LeaseEnded(l model.Lease) Entry {
	priority := Notice
	if l.EndReason == model.EndHeartbeat || l.EndReason == model.EndUnconfirmed {
		priority = Warning
	}
	return entry(MsgLeaseEnded, leasePriority(l, priority), fmt.Sprintf("%s of %s has ended%s: %s%s",
		l.Decision.Action.Kind, or(l.Decision.Target.Cgroup), dry(l), or(string(l.EndReason)), note(l)), leaseFields(l))
}

// LeaseRecovered tells that a lease was found at the enforcer's start, and undone.
func LeaseRecovered(l model.Lease) Entry {
	return entry(MsgLeaseRecovered, leasePriority(l, Warning), fmt.Sprintf("%s of %s was left behind and has been undone%s%s",
		l.Decision.Action.Kind, or(l.Decision.Target.Cgroup), dry(l), note(l)), leaseFields(l))
}

// LeaseStuck tells that a lease could not be undone. It needs a person.
func LeaseStuck(l model.Lease, err error) Entry {
	fields := leaseFields(l)
	fields[FieldError] = err.Error()
	return entry(MsgLeaseStuck, Err, fmt.Sprintf("%s of %s could not be undone: %v",
		l.Decision.Action.Kind, or(l.Decision.Target.Cgroup), err), fields)
}

func leaseFields(l model.Lease) map[Field]string {
	return map[Field]string{
		FieldLease:      l.ID,
		FieldDecision:   l.Decision.ID,
		FieldIncident:   l.Decision.IncidentID,
		FieldKind:       string(l.Decision.Kind),
		FieldAction:     string(l.Decision.Action.Kind),
		FieldScope:      string(l.Decision.Target.Scope),
		FieldCgroup:     or(l.Decision.Target.Cgroup),
		FieldPID:        strconv.Itoa(int(l.Decision.Target.Root.PID)),
		FieldPolicy:     or(l.Decision.Policy),
		FieldPolicyHash: l.Decision.PolicyHash,
		FieldReason:     or(l.Decision.Action.Reason),
		FieldExpires:    l.ExpiresAt.UTC().Format(time.RFC3339),
		FieldEndReason:  string(l.EndReason),
		FieldNote:       l.Note,
		FieldDryRun:     strconv.FormatBool(l.DryRun),
	}
}

// leasePriority is lower for a lease that holds nothing.
func leasePriority(l model.Lease, priority Priority) Priority {
	if l.DryRun {
		return Info
	}
	return priority
}

func dry(l model.Lease) string {
	if l.DryRun {
		return " (dry run, nothing is written)"
	}
	return ""
}

func note(l model.Lease) string {
	if l.Note != "" {
		return "; " + l.Note
	}
	return ""
}

// ApprovalAsked tells that a person is asked.
func ApprovalAsked(a model.Approval) Entry {
	return entry(MsgApprovalAsked, Warning, fmt.Sprintf("%s of %s waits for a person's yes until %s: breakerctl approve %s",
		a.Decision.Action.Kind, or(a.Decision.Target.Cgroup), a.ExpiresAt.UTC().Format(time.RFC3339), a.ID), approvalFields(a))
}

// ApprovalGiven tells that somebody has said yes.
func ApprovalGiven(a model.Approval) Entry {
	return entry(MsgApprovalGiven, Notice, fmt.Sprintf("%s of %s is approved by %s",
		a.Decision.Action.Kind, or(a.Decision.Target.Cgroup), or(a.By)), approvalFields(a))
}

// ApprovalExpired tells that nobody has said yes while it would have helped.
func ApprovalExpired(a model.Approval) Entry {
	return entry(MsgApprovalExpired, Notice, fmt.Sprintf("nobody is asked about %s of %s any more: its time is up, or the trouble has passed",
		a.Decision.Action.Kind, or(a.Decision.Target.Cgroup)), approvalFields(a))
}

func approvalFields(a model.Approval) map[Field]string {
	d := &a.Decision
	return map[Field]string{
		FieldApproval: a.ID, FieldDecision: d.ID, FieldIncident: or(d.IncidentID), FieldKind: string(d.Kind),
		FieldAction: or(string(d.Action.Kind)), FieldScope: string(d.Target.Scope), FieldCgroup: or(d.Target.Cgroup),
		FieldForMS: strconv.FormatInt(d.Action.ForMS, 10), FieldPolicy: or(d.Policy), FieldReason: or(d.Action.Reason),
		FieldExpires: a.ExpiresAt.UTC().Format(time.RFC3339), FieldBy: or(a.By),
	}
}

// BreakerSwitched tells that the breaker of a culprit has another state.
func BreakerSwitched(b model.Breaker) Entry {
	message := fmt.Sprintf("the breaker of %s is closed again: its victims did not suffer from it", or(b.Cgroup))
	switch b.State {
	case model.BreakerOpen:
		message = fmt.Sprintf("the breaker of %s is open; it opened %s of late", or(b.Cgroup), times(b.Opened))
	case model.BreakerHalfOpen:
		message = fmt.Sprintf("the breaker of %s is half-open: it was let go (%s), and its victims are watched", or(b.Cgroup), or(string(b.LastEnd)))
		if b.Eased {
			message = fmt.Sprintf("the breaker of %s is half-open: it was loosened, and its victims are watched", or(b.Cgroup))
		}
	}
	return entry(MsgBreakerSwitched, Info, message, breakerFields(b))
}

func times(n int) string {
	if n == 1 {
		return "once"
	}
	return strconv.Itoa(n) + " times"
}

// BreakerMeasured tells whether it helps the victims that a culprit is held.
func BreakerMeasured(b model.Breaker) Entry {
	priority, what := Info, "it is not known whether that helps anybody: nothing could be measured"
	switch b.LastEffect {
	case model.EffectRelieved:
		what = "its victims are relieved"
	case model.EffectPartial:
		what = "its victims are relieved in part, and it makes them wait still"
	case model.EffectNone:
		priority, what = Warning, "that does not help its victims"
	}
	return entry(MsgBreakerMeasured, priority, fmt.Sprintf("%s is held, and %s: %.0f ms/s of waiting before, %.0f now", or(b.Cgroup), what, b.Before.OthersMS, b.After.OthersMS), breakerFields(b))
}

func breakerFields(b model.Breaker) map[Field]string {
	return map[Field]string{
		FieldCgroup: or(b.Cgroup), FieldState: string(b.State), FieldGeneration: strconv.FormatUint(b.Generation, 10),
		FieldOpened: strconv.Itoa(b.Opened), FieldEffect: or(string(b.LastEffect)), FieldEndReason: or(string(b.LastEnd)),
		FieldKind: or(string(b.Kind)), FieldIncident: or(b.IncidentID), FieldLease: or(b.LeaseID), FieldDryRun: strconv.FormatBool(b.DryRun),
	}
}

// PoliciesLoaded tells that a set of policies is in force.
func PoliciesLoaded(hash string, modules int) Entry {
	return entry(MsgPoliciesLoaded, Info, fmt.Sprintf("policies loaded: %d modules, %s", modules, hash), map[Field]string{FieldPolicyHash: hash})
}

// PoliciesPromoted tells that a set that was tried is in force, and who said so.
func PoliciesPromoted(hash string, modules int, by string) Entry {
	return entry(MsgPoliciesLoaded, Notice, fmt.Sprintf("policies in force after their trial, by %s: %d modules, %s", by, modules, hash), map[Field]string{FieldPolicyHash: hash, FieldBy: by})
}

// PoliciesAnswered tells what policies answered about an incident; the entry is JSON.
func PoliciesAnswered(id, incident, inputHash, policyHash, what string, entryJSON []byte) Entry {
	return entry(MsgPoliciesAnswered, Info, fmt.Sprintf("policies answered about incident %s: %s", or(incident), what), map[Field]string{
		FieldDecision: id, FieldIncident: or(incident), FieldInputHash: or(inputHash), FieldPolicyHash: or(policyHash), FieldLog: string(entryJSON),
	})
}

// PoliciesTried tells that a set is tried beside the one in force.
func PoliciesTried(hash string, until time.Time) Entry {
	at := until.UTC().Format(time.RFC3339)
	return entry(MsgPoliciesTried, Notice, fmt.Sprintf("policies on trial until %s: %s", at, hash), map[Field]string{FieldPolicyHash: hash, FieldExpires: at})
}

// PoliciesWithheld tells why a set that was tried does not come into force by itself.
func PoliciesWithheld(t model.PolicyTrial) Entry {
	return entry(MsgPoliciesWithheld, Warning, fmt.Sprintf("policies stay on trial, the set before stays in force: %s (breakerctl policy promote puts them in force)", t.Withheld), map[Field]string{
		FieldPolicyHash: t.Hash, FieldReason: t.Withheld,
	})
}

// PoliciesRefused tells that a set was refused, and which one stays in force;
// without one nothing is acted on.
func PoliciesRefused(err error, kept string) Entry {
	outcome := "the old set stays in force"
	if kept == "" {
		outcome, kept = "there is none, so nothing will be acted on", "none"
	}
	return entry(MsgPoliciesRefused, Err, fmt.Sprintf("policies refused, %s: %v", outcome, err), map[Field]string{
		FieldError: err.Error(), FieldPolicyHash: kept,
	})
}

// ObservationDegraded tells that something that matters cannot be seen.
func ObservationDegraded(reason string) Entry {
	return entry(MsgObservationDegraded, Warning, "observation degraded: "+reason, map[Field]string{FieldReason: reason})
}

// ObservationWhole tells that nothing was lost any more for so long.
func ObservationWhole(quiet time.Duration) Entry {
	return entry(MsgObservationWhole, Info, fmt.Sprintf("observation is whole again: nothing was lost for %s", quiet), nil)
}

// MachineLacks tells what this machine does not have, so that less is seen.
func MachineLacks(what, consequence string) Entry {
	return entry(MsgMachineLacks, Warning, "not on this machine: "+what+": "+consequence, map[Field]string{
		FieldMissing: what, FieldReason: consequence,
	})
}

// ConfigLoaded tells that the configuration was read again: which keys have another value
// now, and which will have it after a restart.
func ConfigLoaded(program string, changed, pending []string) Entry {
	keys, waiting := strings.Join(changed, " "), strings.Join(pending, " ")
	message, priority := program+" read its configuration again: "+instead(keys, "nothing has changed"), Info
	if waiting != "" {
		message, priority = message+"; after a restart only: "+waiting, Warning
	}
	return entry(MsgConfigLoaded, priority, message, map[Field]string{
		FieldProgram: program, FieldChanged: instead(keys, "nothing"), FieldPending: instead(waiting, "nothing"),
	})
}

// ConfigRefused tells that the configuration was refused, so that the old one stays.
func ConfigRefused(program string, err error) Entry {
	return entry(MsgConfigRefused, Err, fmt.Sprintf("%s keeps its configuration, the new one is refused: %v", program, err), map[Field]string{
		FieldProgram: program, FieldError: err.Error(),
	})
}

// HistoryStopped tells that what happens cannot be kept, and why.
func HistoryStopped(problem string) Entry {
	return entry(MsgHistoryStopped, Warning, "what happens is not kept: "+problem, map[Field]string{FieldReason: problem})
}

// HistoryBack tells that it is kept again, and how much found no room meanwhile.
func HistoryBack(dropped uint64) Entry {
	lost := "nothing is missing"
	if dropped > 0 {
		lost = fmt.Sprintf("%d records found no room meanwhile", dropped)
	}
	return entry(MsgHistoryBack, Notice, "what happens is kept again: "+lost, map[Field]string{FieldLeftOut: strconv.FormatUint(dropped, 10)})
}

// HistorySetAside tells that the file was damaged, and where it is now.
func HistorySetAside(where string) Entry {
	return entry(MsgHistorySetAside, Warning, "the history was damaged: it is set aside as "+where+", and a new one begins", map[Field]string{FieldFile: where})
}

// leftOut tells that there were too many entries of one kind.
func leftOut(of MessageID, count uint64) Entry {
	return entry(MsgEntriesLeftOut, Warning, fmt.Sprintf("%d entries of kind %s were left out: there were too many", count, of), map[Field]string{
		FieldLeftOut: strconv.FormatUint(count, 10), FieldLeftOutID: string(of),
	})
}

// EnforcerLost tells that the enforcer does not answer.
func EnforcerLost(err error) Entry {
	return entry(MsgEnforcerLost, Err, fmt.Sprintf("the enforcer does not answer, nothing will be acted on: %v", err), map[Field]string{FieldError: err.Error()})
}

// EnforcerBack tells that it answers again.
func EnforcerBack() Entry {
	return entry(MsgEnforcerBack, Notice, "the enforcer answers again", nil)
}

// entry leaves out the fields that say nothing.
func entry(id MessageID, priority Priority, message string, fields map[Field]string) Entry {
	for field, value := range fields {
		if value == "" {
			delete(fields, field)
		}
	}
	return Entry{MessageID: id, Priority: priority, Message: message, Fields: fields}
}

func or(value string) string {
	if value == "" {
		return Unknown
	}
	return value
}

func instead(value, other string) string {
	if value == "" {
		return other
	}
	return value
}
