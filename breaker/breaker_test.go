package breaker

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

var (
	start  = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	freeze = model.Action{Kind: model.Freeze, Scope: model.ScopeCgroup, ForMS: 20_000, Reason: "a test"}
	half   = model.Action{Kind: model.Throttle, Scope: model.ScopeCgroup, ForMS: 30_000, Reason: "a test", CPUPercent: 50}
	tenth  = model.Action{Kind: model.Throttle, Scope: model.ScopeCgroup, ForMS: 30_000, Reason: "a test", CPUPercent: 10}
)

const victim model.CgroupID = 9

// Costs of a culprit.
var (
	much  = model.Toll{CulpritMS: 800, OthersMS: 1000, SpanMS: 2000}
	spare = model.Toll{CulpritMS: 0, OthersMS: 150, SpanMS: 1000}
	some  = model.Toll{CulpritMS: 500, OthersMS: 600, SpanMS: 2000}
	grows = model.Toll{Growth: 90, SpanMS: 2000}
	stops = model.Toll{Growth: 0, SpanMS: 1000}
)

// story moves a set through time.
type story struct {
	*Set
	t      *testing.T
	at     time.Time
	n      int
	before model.Toll
	kind   model.Kind
	policy string
}

func newStory(t *testing.T, before model.Toll) *story {
	s := &story{Set: New(DefaultConfig()), t: t, at: start, before: before, kind: model.CPUContention}
	s.pass(0)
	return s
}

func (s *story) pass(d time.Duration) ([]model.Breaker, []Release) {
	s.at = s.at.Add(d)
	return s.Advance(s.at, 0)
}

func (s *story) question(cgroup string, a model.Action) Question {
	return Question{Cgroup: cgroup, Kind: s.kind, Policy: s.policy, IncidentID: "in" + cgroup, Action: a, Resource: model.CPU, Victims: []model.CgroupID{victim}}
}

// want asks for an action, and has it proposed where that is allowed.
func (s *story) want(cgroup string, a model.Action) (*model.Decision, Answer) {
	s.t.Helper()
	q := s.question(cgroup, a)
	answer := s.Ask(q)
	if answer.Refused != "" {
		return nil, answer
	}
	s.n++
	d := &model.Decision{
		ID: fmt.Sprint("d-", s.n), IncidentID: q.IncidentID, Kind: q.Kind, Policy: q.Policy, At: s.at, Action: answer.Action, After: answer.After,
		Target: model.Target{Cgroup: cgroup, CgroupID: 7},
	}
	s.Wanted(d, model.CPU, q.Victims, s.before)
	return d, answer
}

// open has an action carried out.
func (s *story) open(cgroup string, a model.Action) *model.Decision {
	s.t.Helper()
	d, answer := s.want(cgroup, a)
	if d == nil {
		s.t.Fatalf("refused: %s", answer.Refused)
	}
	s.Outcome(model.Outcome{DecisionID: d.ID, LeaseID: d.ID})
	s.is(cgroup, model.BreakerOpen)
	return d
}

func (s *story) is(cgroup string, want model.BreakerState) model.Breaker {
	s.t.Helper()
	b := s.Of(cgroup)
	if b.State != want {
		s.t.Fatalf("the breaker is %s, want %s", b.State, want)
	}
	return b
}

// feel tells what the culprit costs now, if anybody looks.
func (s *story) feel(cgroup string, now model.Toll) *Release {
	for _, w := range s.Watched() {
		if w.Cgroup == cgroup {
			_, r := s.Felt(w, now)
			return r
		}
	}
	return nil
}

func (s *story) end(lease string, reason model.EndReason) {
	s.Ended(model.LeaseEnd{LeaseID: lease, Reason: reason})
}

func TestABreakerOpensIsWatchedAndCloses(t *testing.T) {
	s := newStory(t, much)
	d := s.open("/a", freeze)
	s.pass(4 * time.Second)
	if r := s.feel("/a", spare); r != nil {
		t.Fatalf("it helped, and is undone: %+v", r)
	}
	if b := s.Of("/a"); b.LastEffect != model.EffectRelieved {
		t.Errorf("effect %s, want relieved", b.LastEffect)
	}
	s.pass(16 * time.Second)
	s.end(d.ID, model.EndExpired)
	s.is("/a", model.BreakerHalfOpen)
	s.pass(2 * time.Second)
	s.feel("/a", spare)
	if _, answer := s.want("/a", freeze); answer.Refused == "" || !answer.Quiet {
		t.Errorf("its victims do well, and it is asked for again: %+v", answer)
	}
	s.pass(8 * time.Second)
	s.is("/a", model.BreakerClosed)
}

func TestItOpensAgainForTwiceTheTimeUpToTheMaximum(t *testing.T) {
	s := newStory(t, much)
	want := 20 * time.Second
	for range 8 {
		d := s.open("/a", freeze)
		if got := d.Action.For(); got != want {
			t.Fatalf("held for %v, want %v", got, want)
		}
		want = min(2*want, longest)
		s.pass(4 * time.Second)
		s.feel("/a", spare)
		s.pass(d.Action.For() - 4*time.Second)
		s.end(d.ID, model.EndExpired)
		if _, answer := s.want("/a", freeze); answer.Refused == "" {
			t.Fatal("opened again before the victims were looked at")
		}
		s.pass(2 * time.Second)
		s.feel("/a", much)
	}
}

func TestWhatBehavesIsForgivenAndForgotten(t *testing.T) {
	s := newStory(t, much)
	for range 3 {
		d := s.open("/a", freeze)
		s.end(d.ID, model.EndExpired)
		s.pass(2 * time.Second)
		s.feel("/a", much)
	}
	s.pass(10 * time.Second)
	for left := 3; left > 0; left-- {
		if b := s.Of("/a"); b.Opened != left {
			t.Fatalf("opened %d times of late, want %d", b.Opened, left)
		}
		s.pass(2 * time.Minute)
	}
	if n := len(s.All()); n != 0 {
		t.Errorf("%d breakers are left, want none", n)
	}
}

func TestNoReliefIsUndoneEarlyAndRefuted(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before model.Toll
		after  model.Toll
		want   model.Effect
	}{
		{"the victims wait as before, for somebody else", much, model.Toll{OthersMS: 990, SpanMS: 2000}, model.EffectNone},
		{"they wait more", much, model.Toll{OthersMS: 2000, SpanMS: 2000}, model.EffectNone},
		{"they are spared a quarter of it", much, model.Toll{OthersMS: 799, SpanMS: 2000}, model.EffectRelieved},
		{"they are spared all", much, model.Toll{SpanMS: 2000}, model.EffectRelieved},
		{"it makes them wait still", much, some, model.EffectPartial},
		{"a storm that goes on, with nobody hurt", grows, model.Toll{Growth: 80, SpanMS: 2000}, model.EffectNone},
		{"a storm that has stopped", grows, stops, model.EffectRelieved},
		{"a storm that shrinks", grows, model.Toll{Growth: -50, SpanMS: 2000}, model.EffectRelieved},
		{"nothing to go by", model.Toll{SpanMS: 2000}, model.Toll{SpanMS: 2000}, model.EffectUnknown},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t, tt.before)
			d := s.open("/a", freeze)
			s.pass(2 * time.Second)
			if r := s.feel("/a", tt.after); r != nil || s.Of("/a").LastEffect != model.EffectUnknown {
				t.Fatal("judged too early")
			}
			s.pass(2 * time.Second)
			r := s.feel("/a", tt.after)
			if got := s.Of("/a").LastEffect; got != tt.want {
				t.Errorf("effect %s, want %s", got, tt.want)
			}
			refuted := s.Of("/a")
			if none := tt.want == model.EffectNone; (r != nil) != none || refuted.Refuted(model.CPUContention, s.at) != none {
				t.Fatalf("undone %+v, refuted %v", r, refuted.Resting)
			}
			if r == nil {
				return
			}
			if diff := cmp.Diff(&Release{d.ID, model.EndNoRelief}, r); diff != "" {
				t.Error(diff)
			}
			s.end(d.ID, model.EndNoRelief)
			s.pass(3 * time.Minute)
			s.feel("/a", tt.before)
			if _, answer := s.want("/a", freeze); !strings.Contains(answer.Refused, "did not help") {
				t.Errorf("asked for again while it is refuted: %+v", answer)
			}
			s.pass(3 * time.Minute)
			if _, answer := s.want("/a", freeze); answer.Refused != "" {
				t.Errorf("refuted for good: %s", answer.Refused)
			}
		})
	}
}

func TestNobodyElseIsHeldForTheSameVictimsAfterARefutation(t *testing.T) {
	s := newStory(t, much)
	d := s.open("/a", freeze)
	s.pass(4 * time.Second)
	s.feel("/a", much)
	s.end(d.ID, model.EndNoRelief)
	s.pass(time.Second)
	if _, answer := s.want("/b", freeze); !strings.Contains(answer.Refused, "the same victims") {
		t.Errorf("the next candidate was gone for: %+v", answer)
	}
	others := s.question("/b", freeze)
	others.Victims = []model.CgroupID{victim + 1}
	if answer := s.Ask(others); answer.Refused != "" {
		t.Errorf("it is other trouble, and refused: %s", answer.Refused)
	}
	s.pass(5 * time.Minute)
	if _, answer := s.want("/b", freeze); answer.Refused != "" {
		t.Errorf("refused for good: %s", answer.Refused)
	}
}

// The idea is gobreaker's TestGeneration: what was asked or seen before a state began neither
// opens nor closes what came after.
func TestWhatIsOfAnOlderGenerationChangesNothing(t *testing.T) {
	s := newStory(t, much)
	first := s.open("/a", freeze)
	s.pass(4 * time.Second)
	stale := s.Watched()[0]
	s.end(first.ID, model.EndExpired)
	s.pass(2 * time.Second)
	s.feel("/a", much)
	second := s.open("/a", freeze)
	before, _ := json.Marshal(s.Of("/a"))
	s.end(first.ID, model.EndExpired)
	s.end("unknown", model.EndReleased)
	s.Outcome(model.Outcome{DecisionID: first.ID, LeaseID: first.ID})
	s.Outcome(model.Outcome{DecisionID: first.ID, RefusedBy: "rate"})
	s.pass(4 * time.Second)
	if _, r := s.Felt(stale, much); r != nil {
		t.Errorf("a stale look undoes %+v", r)
	}
	// One that reaches back to before the lease.
	now := s.Watched()[0]
	if _, r := s.Felt(now, model.Toll{CulpritMS: 800, OthersMS: 1000, SpanMS: 5000}); r != nil {
		t.Errorf("a look across the beginning undoes %+v", r)
	}
	if after, _ := json.Marshal(s.Of("/a")); string(after) != string(before) {
		t.Errorf("the breaker changed\nfrom %s\nto   %s", before, after)
	}
	s.end(second.ID, model.EndExpired)
	s.is("/a", model.BreakerHalfOpen)
}

// An enforcer that is killed has let go, and cannot say so before it runs again.
func TestWhatWasMeasuredOfACulpritThatWasFreeIsTakenBack(t *testing.T) {
	for name, tt := range map[string]struct {
		ended   time.Duration // before the measuring, or after
		refuted bool
	}{
		"let go of before": {-time.Second, false},
		"and after":        {time.Second, true},
	} {
		t.Run(name, func(t *testing.T) {
			s := newStory(t, much)
			d := s.open("/a", freeze)
			s.pass(4 * time.Second)
			if s.feel("/a", much) == nil {
				t.Fatal("it did not help, and is not undone")
			}
			at := s.at.Add(tt.ended)
			s.pass(2 * time.Second)
			s.Ended(model.LeaseEnd{LeaseID: d.ID, Reason: model.EndRecovered, At: at})
			b := s.is("/a", model.BreakerHalfOpen)
			if b.Refuted(model.CPUContention, s.at) != tt.refuted || (b.LastEffect == model.EffectNone) != tt.refuted {
				t.Errorf("effect %s, refuted %v, want %v", b.LastEffect, b.Refuted(model.CPUContention, s.at), tt.refuted)
			}
			if _, answer := s.want("/b", freeze); (answer.Refused != "") != tt.refuted {
				t.Errorf("the next one for the same victims: %+v", answer)
			}
		})
	}
}

func TestTheNextRungIsTakenOnlyWhereTheOneBeforeGaveNoRelief(t *testing.T) {
	ladder := half
	ladder.Then = []model.Action{tenth, freeze}
	s := newStory(t, much)
	first := s.open("/a", ladder)
	if _, answer := s.want("/a", ladder); answer.Refused == "" {
		t.Fatal("the next rung was taken before anything was measured")
	}
	s.pass(4 * time.Second)
	if r := s.feel("/a", some); r != nil { // a bit
		t.Fatalf("undone instead of gone on: %+v", r)
	}
	second := s.open("/a", ladder)
	if second.After != first.ID || second.Action.CPUPercent != 10 || len(second.Action.Then) != 1 {
		t.Fatalf("the second rung is %+v after %q", second.Action, second.After)
	}
	s.end(first.ID, model.EndReplaced) // comes late
	s.is("/a", model.BreakerOpen)
	s.pass(4 * time.Second)
	s.feel("/a", much)
	third, answer := s.want("/a", ladder)
	if third == nil || third.Action.Kind != model.Freeze || third.Action.For() != freeze.For() || third.After != second.ID {
		t.Fatalf("the third rung is %+v: %s", third, answer.Refused)
	}
	// The enforcer lifts the throttle before it answers.
	s.end(second.ID, model.EndReplaced)
	s.is("/a", model.BreakerOpen)
	s.Outcome(model.Outcome{DecisionID: third.ID, LeaseID: third.ID})
	s.pass(4 * time.Second)
	if r := s.feel("/a", spare); r != nil {
		t.Fatalf("it helps, and is undone: %+v", r)
	}
	s.end(third.ID, model.EndExpired)
	s.pass(2 * time.Second)
	s.feel("/a", much)
	if again := s.open("/a", ladder); again.Action.Kind != model.Freeze || again.Action.For() != 2*freeze.For() {
		t.Errorf("it begins again with %+v, want the rung that helped for twice the time", again.Action)
	}
}

func TestTheRungOfALadderIsNotTakenInAnother(t *testing.T) {
	ladder := half
	ladder.Then = []model.Action{tenth, freeze}
	tests := []struct {
		name   string
		kind   model.Kind
		policy string
		want   int
	}{
		{"the same", model.CPUContention, "a", 1},
		{"for another kind of trouble", model.NoisyNeighbour, "a", 0},
		{"of another policy", model.CPUContention, "b", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStory(t, much)
			s.policy = "a"
			s.open("/a", ladder)
			s.pass(3 * time.Second)
			s.feel("/a", much)
			s.policy = "b"
			if d, answer := s.want("/a", ladder); d != nil {
				t.Fatalf("answer %+v, want another policy's next action refused", answer)
			}
			s.policy = "a"
			next := s.open("/a", ladder)
			s.end(next.ID, model.EndExpired)
			s.pass(2 * time.Second)
			s.feel("/a", much) // again
			s.kind, s.policy = tt.kind, tt.policy
			d := s.open("/a", ladder)
			if all := ladder.Ladder(); d.Action.Kind != all[tt.want].Kind || d.Action.CPUPercent != all[tt.want].CPUPercent || len(d.Action.Then) != 2-tt.want {
				t.Errorf("action %+v, want number %d of the ladder", d.Action, tt.want)
			}
			if b := s.Of("/a"); b.Rung != tt.want || b.Opened != 2 {
				t.Errorf("the breaker is %+v, want it at %d, opened twice", b, tt.want)
			}
		})
	}
}

func TestARungThatHelpsIsTheLast(t *testing.T) {
	ladder := half
	ladder.Then = []model.Action{freeze}
	s := newStory(t, much)
	s.open("/a", ladder)
	s.pass(4 * time.Second)
	s.feel("/a", spare)
	for range 20 {
		if d, _ := s.want("/a", ladder); d != nil {
			t.Fatalf("went on to %+v", d.Action)
		}
		s.pass(time.Second)
	}
}

func TestWhereTheNextRungIsRefusedOneThatGaveNothingIsUndoneAndOneThatGaveSomeGoesOn(t *testing.T) {
	ladder := half
	ladder.Then = []model.Action{freeze}
	for _, tt := range []struct {
		name  string
		after model.Toll
		undo  bool
	}{{"nothing", much, true}, {"some", some, false}} {
		for _, how := range []string{"refused", "never wanted"} {
			t.Run(tt.name+", "+how, func(t *testing.T) {
				s := newStory(t, much)
				first := s.open("/a", ladder)
				s.pass(4 * time.Second)
				s.feel("/a", tt.after)
				var releases []Release
				if how == "refused" {
					d, _ := s.want("/a", ladder)
					if _, r := s.Outcome(model.Outcome{DecisionID: d.ID, RefusedBy: "rate"}); r != nil {
						releases = append(releases, *r)
					}
				} else {
					_, releases = s.pass(climbBound)
				}
				if (len(releases) == 1) != tt.undo || tt.undo && releases[0] != (Release{first.ID, model.EndNoRelief}) {
					t.Errorf("released %+v", releases)
				}
				if d, _ := s.want("/a", ladder); d != nil {
					t.Error("the next rung was asked for again")
				}
				if b := s.Of("/a"); b.Refuted(model.CPUContention, s.at) {
					t.Error("refuted, though not all was tried")
				}
			})
		}
	}
}

func TestARungThatNeedsAYesIsWaitedForWhileTheOneBeforeRuns(t *testing.T) {
	ladder, approved := half, freeze
	ladder.ForMS, approved.ApprovalMS = 600_000, 60_000
	ladder.Then = []model.Action{approved}
	s := newStory(t, much)
	first := s.open("/a", ladder)
	s.pass(4 * time.Second)
	s.feel("/a", much)
	for range 40 {
		d, answer := s.want("/a", ladder)
		if d == nil {
			t.Fatalf("not asked for any more: %s", answer.Refused)
		}
		if _, r := s.Outcome(model.Outcome{DecisionID: d.ID, RefusedBy: "approval"}); r != nil {
			t.Fatal("undone while a person is asked")
		}
		s.pass(time.Second)
	}
	s.is("/a", model.BreakerOpen)
	_, releases := s.pass(40 * time.Second)
	if len(releases) != 1 || releases[0] != (Release{first.ID, model.EndNoRelief}) {
		t.Errorf("released %+v once nobody has said yes", releases)
	}
}

func TestInADryRunNothingIsMeasuredAndItOpensAgainAllTheSame(t *testing.T) {
	s := newStory(t, much)
	d, _ := s.want("/a", freeze)
	s.Outcome(model.Outcome{DecisionID: d.ID, LeaseID: d.ID, DryRun: true})
	s.pass(10 * time.Second)
	if n := len(s.Watched()); n != 0 {
		t.Errorf("%d are looked at, and nobody is held", n)
	}
	s.pass(11 * time.Second) // nobody says that it has ended
	s.is("/a", model.BreakerHalfOpen)
	s.pass(2 * time.Second)
	s.feel("/a", much)
	if again := s.open("/a", freeze); again.Action.For() != 2*freeze.For() {
		t.Errorf("held for %v", again.Action.For())
	}
}

func TestWhomAnOperatorLetGoIsLeftAlone(t *testing.T) {
	s := newStory(t, much)
	d := s.open("/a", freeze)
	s.end(d.ID, model.EndReleased)
	s.pass(2 * time.Second)
	s.feel("/a", much)
	if _, answer := s.want("/a", freeze); !strings.Contains(answer.Refused, "operator") {
		t.Errorf("asked for again: %+v", answer)
	}
	if _, answer := s.want("/b", freeze); answer.Refused != "" {
		t.Errorf("somebody else is not held because of it: %s", answer.Refused)
	}
}

func TestAnotherIncidentOfOneThatIsHeldIsToldSo(t *testing.T) {
	s := newStory(t, much)
	s.open("/a", freeze)
	q := s.question("/a", freeze)
	q.Kind, q.IncidentID = model.ForkStorm, "other"
	if answer := s.Ask(q); answer.Refused == "" || answer.Quiet {
		t.Errorf("answer %+v, want a refusal that is told", answer)
	}
}

func TestAClockThatIsSetMovesAllThatIsPlanned(t *testing.T) {
	for _, jump := range []time.Duration{-48 * time.Hour, 48 * time.Hour} {
		s := newStory(t, much)
		s.open("/a", freeze)
		s.at = s.at.Add(jump + 5*time.Second)
		s.Advance(s.at, jump)
		s.is("/a", model.BreakerOpen)
		s.pass(17 * time.Second)
		s.is("/a", model.BreakerHalfOpen)
		s.pass(10 * time.Second)
		s.is("/a", model.BreakerClosed)
	}
}

func TestBreakersAreBoundedAndThoseThatAreHeldStay(t *testing.T) {
	s := newStory(t, model.Toll{SpanMS: 2000})
	s.open("/held", freeze)
	for i := range most + 50 {
		d := s.open(fmt.Sprint("/closed/", i), freeze)
		s.end(d.ID, model.EndExpired)
		s.byPath[d.Target.Cgroup].turn(model.BreakerClosed, s.at)
		s.at = s.at.Add(time.Millisecond)
		s.now = s.at
	}
	if n := len(s.All()); n != most {
		t.Errorf("%d breakers, want %d", n, most)
	}
	s.is("/held", model.BreakerOpen)
	s.is("/closed/0", model.BreakerClosed)
	if s.byPath["/closed/0"] != nil {
		t.Error("the oldest is remembered")
	}
}

func TestAFreshStartIsQuietAndKeepsWhatWasLearned(t *testing.T) {
	s := newStory(t, much)
	for range 2 {
		d := s.open("/a", freeze)
		s.end(d.ID, model.EndExpired)
		s.pass(2 * time.Second)
		s.feel("/a", much)
	}
	s.open("/held", freeze)
	text, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	again, err := Load(DefaultConfig(), text)
	if err != nil {
		t.Fatal(err)
	}
	if second, _ := again.Snapshot(); string(second) != string(text) {
		t.Errorf("it is not the same after it was read\n%s\n%s", text, second)
	}
	s.Set = again
	s.at = s.at.Add(time.Minute)
	s.Restart(s.at)
	if _, answer := s.want("/a", freeze); !strings.Contains(answer.Refused, "just started") {
		t.Errorf("answer %+v, want a cool-down", answer)
	}
	s.is("/held", model.BreakerHalfOpen)
	s.pass(6 * time.Second)
	s.feel("/a", much)
	if d := s.open("/a", freeze); d.Action.For() != 4*freeze.For() {
		t.Errorf("held for %v, want four times as long", d.Action.For())
	}
}

func TestASnapshotOfSomebodyElseIsRefused(t *testing.T) {
	for _, text := range []string{
		"", "null", "[]", `{"version":2,"new":1}`, `{"version":1,"other":1}`, `{"version":0,"breakers":[]}`,
		`{"version":1,"breakers":[null]}`, `{"version":1,"breakers":[{"cgroup":"/a","state":"ajar"}]}`,
		`{"version":1,"breakers":[{"cgroup":"/a","state":"open","last_effect":"none","opened":-1}]}`,
		`{"version":1,"breakers":[{"cgroup":"/a","state":"open","last_effect":"none"},{"cgroup":"/a","state":"open","last_effect":"none"}]}`,
	} {
		if s, err := Load(DefaultConfig(), []byte(text)); err == nil {
			t.Errorf("%q is read as %+v", text, s.All())
		}
	}
}

func FuzzLoad(f *testing.F) {
	f.Add(`{"version":1,"quiet_until":"0001-01-01T00:00:00Z","breakers":[{"cgroup":"/a","state":"open","last_effect":"none","resting":[{"incident_kind":"fork_storm","until":"2026-01-01T00:00:00Z","refuted":true}]}]}`)
	f.Fuzz(func(t *testing.T, text string) {
		s, err := Load(DefaultConfig(), []byte(text))
		if err != nil {
			return
		}
		s.Restart(start)
		s.Advance(start.Add(time.Hour), 0)
		s.Ask(Question{Cgroup: "/a", Kind: model.ForkStorm, Action: freeze})
		for _, b := range s.All() {
			if b.State == model.BreakerOpen {
				t.Errorf("open an hour after a restart: %+v", b)
			}
		}
	})
}

// Whatever comes, in whatever order: a culprit is asked for once at a time, never while it is
// refuted, never for longer than the maximum, and the next rung only of what is held.
func TestWhateverComes(t *testing.T) {
	for seed := range uint64(20) {
		first, again := randomStory(t, seed), randomStory(t, seed)
		if first != again {
			t.Fatalf("seed %d: %s", seed, cmp.Diff(first, again))
		}
	}
}

func randomStory(t *testing.T, seed uint64) string {
	rng := rand.New(rand.NewPCG(seed, 7))
	s := newStory(t, much)
	ladder := half
	ladder.Then = []model.Action{tenth, freeze}
	actions := []model.Action{freeze, half, ladder}
	tolls := []model.Toll{much, spare, some, grows, stops, {}}
	pending, held := map[string]*model.Decision{}, map[string]string{}
	var old []string
	for range 600 {
		cgroup := []string{"/a", "/b", "/c"}[rng.IntN(3)]
		switch rng.IntN(8) {
		case 0, 1:
			s.before = tolls[rng.IntN(4)]
			before := s.Of(cgroup)
			d, _ := s.want(cgroup, actions[rng.IntN(3)])
			if d == nil {
				break
			}
			switch {
			case pending[cgroup] != nil:
				t.Fatalf("seed %d: asked for while %s is under way", seed, pending[cgroup].ID)
			case before.Refuted(d.Kind, s.at):
				t.Fatalf("seed %d: asked for while it is refuted", seed)
			case d.Action.For() > longest:
				t.Fatalf("seed %d: asked for %v", seed, d.Action.For())
			case (d.After != "") != (before.State == model.BreakerOpen), d.After != "" && d.After != before.LeaseID:
				t.Fatalf("seed %d: %+v wanted after %q", seed, before, d.After)
			}
			pending[cgroup] = d
		case 2:
			if d := pending[cgroup]; d != nil {
				delete(pending, cgroup)
				o := model.Outcome{DecisionID: d.ID, DryRun: rng.IntN(4) == 0}
				switch rng.IntN(3) {
				case 0:
					o.RefusedBy = "rate"
				default:
					o.LeaseID = d.ID
					held[cgroup] = d.ID
				}
				s.Outcome(o)
			}
		case 3:
			if id := held[cgroup]; id != "" {
				old = append(old, id)
				s.end(id, model.EndReasons[rng.IntN(len(model.EndReasons))])
				delete(held, cgroup)
			}
		case 4:
			if len(old) > 0 {
				s.end(old[rng.IntN(len(old))], model.EndExpired)
			}
		case 5, 6:
			s.feel(cgroup, tolls[rng.IntN(len(tolls))])
		case 7:
			s.pass(time.Duration(rng.Int64N(int64(40 * time.Second))))
		}
		for _, b := range s.All() {
			if b.State == model.BreakerOpen && b.Until == nil {
				t.Fatalf("seed %d: open without an end: %+v", seed, b)
			}
		}
	}
	s.pass(time.Hour)
	s.pass(time.Minute)
	for _, b := range s.All() {
		if b.State == model.BreakerOpen {
			t.Fatalf("seed %d: open for ever: %+v", seed, b)
		}
	}
	text, _ := s.Snapshot()
	return string(text)
}
