package daemon

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/report"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

// History keeps what happens, and is asked about it: *history.Store. None of what tells
// it something may wait.
type History interface {
	keeper
	archive
	SetBounds(maxAge time.Duration, maxBytes int64)
	// Run writes until the context ends.
	Run(context.Context)
}

// OpenHistory makes one that tells of each change of its state.
type OpenHistory func(s settings.History, tell func(model.HistoryState), log *slog.Logger) History

// keeper is told what happens.
type keeper interface {
	Sample(*model.Sample)
	Incident(model.Incident)
	// Asked is told what the policies see of an incident when they are asked, as JSON.
	Asked(incident string, input []byte)
	Verdict(model.Verdict)
	Lease(model.Lease)
}

// archive is asked what happened.
type archive interface {
	State() model.HistoryState
	Incidents(context.Context, model.IncidentFilter) ([]model.Incident, error)
	Story(ctx context.Context, id string) (model.Story, error)
	Stories(ctx context.Context, since, until time.Time, take func(*model.Story)) (began time.Time, err error)
}

// noHistory is where the settings say that nothing is to be kept.
type noHistory struct{}

var errNotEnabled = fmt.Errorf("%w: history.enabled is false in the configuration", model.ErrNoHistory)

func (noHistory) Sample(*model.Sample)           {}
func (noHistory) Incident(model.Incident)        {}
func (noHistory) Asked(string, []byte)           {}
func (noHistory) Verdict(model.Verdict)          {}
func (noHistory) Lease(model.Lease)              {}
func (noHistory) State() model.HistoryState      { return model.HistoryState{} }
func (noHistory) SetBounds(time.Duration, int64) {}
func (noHistory) Run(ctx context.Context)        { <-ctx.Done() }
func (noHistory) Incidents(context.Context, model.IncidentFilter) ([]model.Incident, error) {
	return nil, errNotEnabled
}
func (noHistory) Story(context.Context, string) (model.Story, error) {
	return model.Story{}, errNotEnabled
}
func (noHistory) Stories(context.Context, time.Time, time.Time, func(*model.Story)) (time.Time, error) {
	return time.Time{}, errNotEnabled
}

// startHistory begins to keep what happens. It goes on until the returned function is
// called, which is after everything else has ended: what ends then is kept, too.
func (d *Daemon) startHistory(open OpenHistory) (stop func()) {
	d.past = noHistory{}
	if cfg := d.conf.get().History; cfg.Enabled {
		d.past = open(cfg, d.historyChanged, d.log)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		d.past.Run(ctx)
	}()
	return func() {
		cancel()
		<-done
	}
}

// historyChanged tells of a history that stops or goes on. Whoever calls it has one state
// after the other.
func (d *Daemon) historyChanged(s model.HistoryState) {
	was := d.pastState
	d.pastState = s
	if s.SetAside != was.SetAside {
		d.teller.write(systemd.HistorySetAside(s.SetAside))
	}
	switch {
	case s.Problem == was.Problem:
	case s.Problem != "":
		d.teller.write(systemd.HistoryStopped(s.Problem))
	default:
		d.teller.write(systemd.HistoryBack(s.Dropped))
	}
}

// recorders are told of every lease.
type recorders []enforce.Recorder

func (all recorders) Lease(l model.Lease) {
	for _, r := range all {
		r.Lease(l)
	}
}

func (all recorders) Refused(d model.Decision, o model.Outcome) {
	for _, r := range all {
		r.Refused(d, o)
	}
}

func (all recorders) Approval(q model.Approval) {
	for _, r := range all {
		r.Approval(q)
	}
}

// leasesOnly is a keeper as a recorder: refusals and questions come with their incident.
type leasesOnly struct{ keeper }

func (leasesOnly) Approval(model.Approval) {}

func (leasesOnly) Refused(model.Decision, model.Outcome) {}

// verdictOf is what became of a decision, for those who keep it.
func verdictOf(d *model.Decision, o *model.Outcome) model.Verdict {
	return model.Verdict{
		IncidentID: d.IncidentID, Target: &d.Target, PolicyHash: d.PolicyHash, EvalUS: d.EvalUS, Confidence: d.Confidence,
		DecisionRecord: judge.RecordOf(d, o),
	}
}

// Past implements api.Source: what is kept, and above it what is remembered, which is
// younger.
func (v *view) Past(ctx context.Context, f model.IncidentFilter) ([]model.Incident, error) {
	kept, err := v.past.Incidents(ctx, f)
	all := slices.DeleteFunc(v.board.all(), func(in model.Incident) bool { return !matches(&in, &f) })
	if err != nil && !noneKept(err) {
		return nil, err
	}
	known := make(map[string]bool)
	for i := range all {
		known[all[i].ID] = true
	}
	for _, in := range kept {
		if !known[in.ID] {
			all = append(all, in)
		}
	}
	slices.SortStableFunc(all, func(x, y model.Incident) int { return y.OpenedAt.Compare(x.OpenedAt) })
	if f.Most > 0 && len(all) > f.Most {
		all = all[:f.Most]
	}
	return all, nil
}

// matches reports whether an incident is what a filter asks for.
func matches(in *model.Incident, f *model.IncidentFilter) bool {
	switch {
	case in.ClosedAt != nil && in.ClosedAt.Before(f.Since),
		!f.Until.IsZero() && in.OpenedAt.After(f.Until),
		f.Kind != "" && in.Kind != f.Kind,
		f.Unit != "" && in.Culprit.Unit != f.Unit,
		f.Cgroup != "" && in.Culprit.Cgroup != f.Cgroup && !strings.HasPrefix(in.Culprit.Cgroup, strings.TrimSuffix(f.Cgroup, "/")+"/"):
		return false
	}
	return true
}

// Story implements api.Source.
func (v *view) Story(ctx context.Context, id string) (model.Story, error) {
	story, err := v.past.Story(ctx, id)
	live, found := v.board.find(id)
	switch {
	case err == nil && found:
		if live.Triage == nil {
			live.Triage = story.Triage
		}
		story.Incident = live
	case found:
		story.Incident = live
	case noneKept(err):
		return story, fmt.Errorf("incident %q: %w", id, api.ErrNotFound)
	}
	if found {
		err = nil
	}
	return story, err
}

// noneKept says that a question can be answered from memory alone: there is no history,
// which status says, or not this in it.
func noneKept(err error) bool {
	return errors.Is(err, model.ErrNoHistory) || errors.Is(err, model.ErrNotKept)
}

// Report implements api.Source.
func (v *view) Report(ctx context.Context, since, until time.Time) (*report.Report, error) {
	b := report.New(since, until)
	began, err := v.past.Stories(ctx, b.From(), until, b.Add)
	if err != nil {
		return nil, err
	}
	return b.Report(began), nil
}
