package judge

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
)

// maxTouches is how many cgroups a trial tells apart. One that would hold more people anew
// needs a person anyway.
const maxTouches = 64

// Trial is a set of policies that is tried: each incident that is put to the policies in
// force is put to it as well, and what it says is compared and not done. It belongs to the
// judge that it was given to.
type Trial struct {
	set   *policy.Set
	known map[string]bool
	is    model.PolicyTrial

	held    map[string]model.Scope // whom the set in force would hold, by cgroup
	touches map[string]*touch
	beyond  bool // it would hold more than are told apart
	news    bool // something is against it that was not when it was told last
}

// touch is whom only the tried set would hold.
type touch struct {
	model.TrialTouch
	Waits bool `json:"waits"` // it is not known yet whether that is somebody protected
}

// TrialSeen is what a trial has seen so far, as it outlives a restart. Whom the set in force
// would hold is not in it: that is seen again where it holds them still. The counts are as of
// the last news.
type TrialSeen struct {
	Known     []string  `json:"known"`
	Touches   []touch   `json:"touches"`
	Beyond    bool      `json:"beyond"`
	Asked     uint64    `json:"asked"`
	Fewer     uint64    `json:"fewer"`
	Errors    uint64    `json:"errors"`
	LastError string    `json:"last_error"`
	Since     time.Time `json:"since"`
	Until     time.Time `json:"until"`
	Withheld  string    `json:"withheld"`
}

// NewTrial tries a set from since until until. Known are the cgroups of which there had been
// an incident before: about them a person could have asked what the set would do.
func NewTrial(set *policy.Set, since, until time.Time, known []string) *Trial {
	t := &Trial{
		set: set, known: make(map[string]bool, len(known)), held: map[string]model.Scope{}, touches: map[string]*touch{},
		is: model.PolicyTrial{Hash: set.Hash(), Since: since, Until: until},
	}
	for _, c := range known {
		t.known[c] = true
	}
	return t
}

// ResumeTrial goes on with a trial after a restart. Its time begins anew, since it is not known
// what would have been seen meanwhile; what was seen counts still, and a set that was withheld
// waits on.
func ResumeTrial(set *policy.Set, since, until time.Time, seen *TrialSeen) *Trial {
	if seen.Withheld != "" {
		since, until = seen.Since, seen.Until
	}
	t := NewTrial(set, since, until, seen.Known)
	t.is.Asked, t.is.Fewer, t.is.Errors, t.is.LastError, t.is.Withheld = seen.Asked, seen.Fewer, seen.Errors, seen.LastError, seen.Withheld
	t.beyond = seen.Beyond
	for _, n := range seen.Touches {
		t.touches[n.Cgroup] = &n
	}
	return t
}

// Is is how it fares.
func (t *Trial) Is() *model.PolicyTrial {
	is := t.is
	is.More = []model.TrialTouch{}
	for _, n := range t.sorted() {
		is.More = append(is.More, n.TrialTouch)
	}
	return &is
}

// Seen is what it has seen so far.
func (t *Trial) Seen() *TrialSeen {
	return &TrialSeen{
		Known: slices.Sorted(maps.Keys(t.known)), Touches: t.sorted(), Beyond: t.beyond,
		Asked: t.is.Asked, Fewer: t.is.Fewer, Errors: t.is.Errors, LastError: t.is.LastError,
		Since: t.is.Since, Until: t.is.Until, Withheld: t.is.Withheld,
	}
}

func (t *Trial) sorted() (all []touch) {
	for _, cgroup := range slices.Sorted(maps.Keys(t.touches)) {
		all = append(all, *t.touches[cgroup])
	}
	return all
}

// Try begins a trial in the place of the one before; nil ends it.
func (j *Judge) Try(t *Trial) { j.trial = t }

// Trial is how the one under way fares; nil where there is none.
func (j *Judge) Trial() *model.PolicyTrial {
	if j.trial == nil {
		return nil
	}
	return j.trial.Is()
}

// TrialNews is what the one under way has seen, if that is another than when it was asked for
// last and has to outlive a restart; else nil.
func (j *Judge) TrialNews() (hash string, seen *TrialSeen) {
	if j.trial == nil || !j.trial.news {
		return "", nil
	}
	j.trial.news = false
	return j.trial.is.Hash, j.trial.Seen()
}

// TrialKnows takes in whether somebody is protected whom a tried set would hold by this
// decision, and by what; "" if not.
func (j *Judge) TrialKnows(d *model.Decision, protection string) {
	if j.trial == nil || j.trial.is.Hash != d.PolicyHash {
		return
	}
	t := j.trial.touches[d.Target.Cgroup]
	if t == nil || t.Scope != d.Target.Scope {
		return
	}
	t.Waits, j.trial.news = false, true
	if protection != "" {
		t.Against = "it is protected: " + protection
	}
}

// try puts an incident to the tried set, too. What the one in force says of it is v.
func (j *Judge) try(ctx context.Context, in *model.Incident, input policy.Input, v *policy.Verdict, now time.Time) []Event {
	t := j.trial
	if t == nil {
		return nil
	}
	t.is.Asked++
	would := t.set.Decide(ctx, input)
	if would.Error != "" && v.Error == "" {
		t.news = t.news || t.is.Errors == 0
		t.is.Errors++
		t.is.LastError = would.Error
	}
	cgroup := in.Culprit.Cgroup
	holds, action := acts(v), widest(would.Action)
	if holds && t.held[cgroup] != model.ScopeCgroup && (len(t.held) < maxTouches || t.held[cgroup] != "") {
		t.held[cgroup] = widest(v.Action).Scope
	}
	switch {
	case !acts(&would):
		if holds {
			t.is.Fewer++
		}
		return nil
	case t.held[cgroup] == model.ScopeCgroup, t.held[cgroup] == action.Scope,
		action.Scope == model.ScopeTree && j.breakers.Of(cgroup).Opened > 0:
		return nil // the one in force holds it as well
	}
	n := t.touches[cgroup]
	switch {
	case n != nil && (n.Scope == action.Scope || n.Scope == model.ScopeCgroup):
		n.Times++
		return nil
	case n != nil: // a whole cgroup by now, which holds others than its tree did
		n.Times++
		n.Kind, n.Action, n.Scope, n.Policy, n.Waits = in.Kind, action.Kind, action.Scope, would.Policy, true
	case len(t.touches) == maxTouches:
		t.news = t.news || !t.beyond
		t.beyond = true
		return nil
	default:
		n = &touch{TrialTouch: model.TrialTouch{
			Cgroup: cgroup, Kind: in.Kind, Action: action.Kind, Scope: action.Scope, Policy: would.Policy, At: now, Times: 1,
		}, Waits: true}
		if !t.known[cgroup] {
			n.Against = "there was no incident of it before the trial, by which anybody could have seen what the new set does to it"
		}
		t.touches[cgroup] = n
	}
	t.news = true
	return []Event{{Type: Tried, Incident: in.Clone(), Decision: &model.Decision{
		ID: fmt.Sprintf("%s-trial", in.ID), IncidentID: in.ID, Kind: in.Kind, At: now, Action: action, Policy: would.Policy,
		PolicyHash: t.set.Hash(), DryRun: true,
		Target: model.Target{Cgroup: cgroup, CgroupID: in.Culprit.CgroupID, Root: in.Culprit.Root.ProcID, Scope: action.Scope, Outside: in.Culprit.Outside},
	}}}
}

// widest is the action of a ladder that holds most people: the first on a whole cgroup, or else
// the first of all. That it may never come so far is nothing that a trial can tell.
func widest(ladder model.Action) model.Action {
	for _, a := range ladder.Ladder() {
		if a.Scope == model.ScopeCgroup {
			return a
		}
	}
	return ladder
}

// acts reports whether a verdict has somebody held.
func acts(v *policy.Verdict) bool {
	return v.Error == "" && len(v.Denied) == 0 && v.Action.Kind != model.NoAction && !v.DryRun
}

// endTrial tells when the time of the trial has come, and what then. That it has passed is
// told with each sample until it is in force. jumped is by how much the clock was set within
// the sample: what was not seen is not time of the trial.
func (j *Judge) endTrial(now time.Time, jumped time.Duration) []Event {
	t := j.trial
	if t == nil {
		return nil
	}
	if jumped >= time.Second || jumped <= -time.Second {
		t.is.Since, t.is.Until = t.is.Since.Add(jumped), t.is.Until.Add(jumped)
	}
	if now.Before(t.is.Until) {
		return nil
	}
	was := t.is.Withheld
	t.is.Withheld = t.against()
	switch {
	case t.is.Withheld == "":
		return []Event{{Type: Passed, Trial: j.Trial()}}
	case t.is.Withheld != was:
		t.news = true
		return []Event{{Type: Withheld, Trial: j.Trial()}}
	}
	return nil
}

// against says why the set must not come into force by itself; "" where nothing does.
func (t *Trial) against() string {
	var all []string
	if t.is.Errors > 0 {
		all = append(all, fmt.Sprintf("it could not be evaluated: %s", t.is.LastError))
	}
	for _, cgroup := range slices.Sorted(maps.Keys(t.touches)) {
		n := t.touches[cgroup]
		switch {
		case t.held[cgroup] == model.ScopeCgroup, t.held[cgroup] == n.Scope:
			continue // the set in force does it now as well
		case n.Against != "":
			all = append(all, fmt.Sprintf("it would %s %s: %s", n.Action, cgroup, n.Against))
		case n.Waits:
			all = append(all, fmt.Sprintf("it would %s %s, and it is not known whether that is protected", n.Action, cgroup))
		}
	}
	if t.beyond {
		all = append([]string{fmt.Sprintf("it would hold more than %d cgroups that the set in force does not, and nobody has looked at all of them", maxTouches)}, all...)
	}
	const most = 3
	if len(all) > most {
		all = append(all[:most], fmt.Sprintf("and %d more", len(all)-most))
	}
	return strings.Join(all, "; ")
}
