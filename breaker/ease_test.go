package breaker

import (
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// loosen has a throttle of 30 s carried out that helps, and is loosened after 20.
func (s *story) loosen(cgroup string) *model.Decision {
	s.t.Helper()
	d := s.holdUntil(cgroup, half, s.at.Add(20*time.Second))
	s.pass(4 * time.Second)
	s.feel(cgroup, spare)
	s.pass(16 * time.Second)
	s.is(cgroup, model.BreakerOpen)
	s.pass(endSlack)
	if b := s.is(cgroup, model.BreakerHalfOpen); !b.Eased || b.LeaseID != d.ID {
		s.t.Fatalf("it is %+v, want one that is loosened", b)
	}
	return d
}

// holdUntil has an action carried out that will be loosened then.
func (s *story) holdUntil(cgroup string, a model.Action, eases time.Time) *model.Decision {
	s.t.Helper()
	d, answer := s.want(cgroup, a)
	if d == nil {
		s.t.Fatalf("refused: %s", answer.Refused)
	}
	s.Outcome(model.Outcome{DecisionID: d.ID, LeaseID: d.ID, EasesAt: &eases})
	s.is(cgroup, model.BreakerOpen)
	return d
}

func TestWhoIsLoosenedIsWatchedAndWatchedAnewOnceLetGo(t *testing.T) {
	s := newStory(t, much)
	d := s.loosen("/a")
	s.pass(2 * time.Second)
	s.feel("/a", spare)
	if _, answer := s.want("/a", half); answer.Refused == "" || !answer.Quiet {
		t.Errorf("its victims do well, and it is asked for again: %+v", answer)
	}
	generation := s.Of("/a").Generation
	s.pass(7 * time.Second) // longer than whoever was let go is watched
	s.end(d.ID, model.EndExpired)
	if b := s.is("/a", model.BreakerHalfOpen); b.Eased || b.Generation != generation+1 || b.LastEnd != model.EndExpired {
		t.Errorf("let go, it is %+v", b)
	}
	s.pass(9 * time.Second)
	s.feel("/a", spare)
	s.is("/a", model.BreakerHalfOpen)
	s.pass(time.Second)
	s.is("/a", model.BreakerClosed)
}

func TestWhoMakesItsVictimsSufferOnceLoosenedIsTightenedAgainForTwiceTheTime(t *testing.T) {
	s := newStory(t, much)
	first := s.loosen("/a")
	if _, answer := s.want("/a", half); answer.Refused == "" {
		t.Fatal("tightened before anything was seen of its victims")
	}
	s.pass(2 * time.Second)
	s.feel("/a", much)
	q := s.question("/a", half)
	q.IncidentID = "another, for the one before is over"
	answer := s.Ask(q)
	if answer.Refused != "" || answer.After != first.ID || answer.Action.For() != 2*half.For() || answer.Action.CPUPercent != half.CPUPercent {
		t.Fatalf("answer %+v", answer)
	}
	again, _ := s.want("/a", half)
	s.end(first.ID, model.EndReplaced) // is heard of before the outcome
	if b := s.is("/a", model.BreakerHalfOpen); !b.Eased {
		t.Fatalf("it is %+v while it is being tightened", b)
	}
	eases := s.at.Add(50 * time.Second)
	s.Outcome(model.Outcome{DecisionID: again.ID, LeaseID: again.ID, EasesAt: &eases})
	if b := s.is("/a", model.BreakerOpen); b.Opened != 2 || b.Rung != 0 || b.Eased || b.LeaseID != again.ID || !b.EasesAt.Equal(eases) || b.Before != much {
		t.Errorf("open again, it is %+v", b)
	}
	s.pass(51 * time.Second)
	if b := s.is("/a", model.BreakerHalfOpen); !b.Eased {
		t.Errorf("it is %+v, want one that is loosened", b)
	}
}

func TestWhereTighteningIsRefusedWhatIsLoosenedGoesOnToItsEnd(t *testing.T) {
	s := newStory(t, much)
	first := s.loosen("/a")
	s.pass(2 * time.Second)
	s.feel("/a", much)
	d, _ := s.want("/a", half)
	if b, r := s.Outcome(model.Outcome{DecisionID: d.ID, RefusedBy: "rate"}); b != nil || r != nil {
		t.Errorf("changed %+v, released %+v", b, r)
	}
	if b := s.is("/a", model.BreakerHalfOpen); !b.Eased || b.LeaseID != first.ID || b.Opened != 1 {
		t.Errorf("it is %+v", b)
	}
	s.pass(8 * time.Second) // nobody says that it has ended
	if b := s.is("/a", model.BreakerHalfOpen); b.Eased || b.LastEnd != model.EndExpired {
		t.Errorf("it is %+v", b)
	}
}

func TestWhoIsLoosenedIsHeldStill(t *testing.T) {
	s := newStory(t, much)
	s.loosen("/a")
	s.pass(2 * time.Second)
	s.feel("/a", much)
	q := s.question("/a", half)
	q.Kind, q.IncidentID = model.ForkStorm, "other"
	if answer := s.Ask(q); !strings.Contains(answer.Refused, "held still") || answer.Quiet {
		t.Errorf("answer %+v", answer)
	}
	// A new start knows nobody who is loosened.
	text, err := s.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	later, err := Load(DefaultConfig(), text)
	if err != nil {
		t.Fatal(err)
	}
	if b := later.Of("/a"); !b.Eased || !b.EasesAt.Equal(start.Add(20*time.Second)) {
		t.Errorf("kept as %+v", b)
	}
	later.Restart(s.at)
	if b := later.Of("/a"); b.Eased || b.State != model.BreakerHalfOpen {
		t.Errorf("after a restart it is %+v", b)
	}
}

func TestTheNextRungIsNotWaitedForOnceLoosened(t *testing.T) {
	ladder := half
	ladder.Then = []model.Action{freeze}
	ladder.Then[0].ApprovalMS = 600_000
	s := newStory(t, much)
	s.holdUntil("/a", ladder, s.at.Add(20*time.Second))
	s.pass(4 * time.Second)
	s.feel("/a", some)
	d, _ := s.want("/a", ladder)
	s.Outcome(model.Outcome{DecisionID: d.ID, RefusedBy: "approval"})
	s.pass(17 * time.Second)
	s.is("/a", model.BreakerHalfOpen)
	s.pass(2 * time.Second)
	s.feel("/a", much)
	if d, _ := s.want("/a", ladder); d == nil || d.Action.Kind != model.Throttle || d.After == "" {
		t.Errorf("wanted %+v, want the throttle again", d)
	}
}

func TestWhatMadeWayForNothingIsLetGo(t *testing.T) {
	for _, o := range []model.Outcome{{RefusedBy: "identity", Reason: "it has changed"}, {Error: "write cpu.max"}} {
		s := newStory(t, much)
		first := s.loosen("/a")
		s.pass(2 * time.Second)
		s.feel("/a", much)
		d, _ := s.want("/a", half)
		s.end(first.ID, model.EndReplaced)
		o.DecisionID = d.ID
		b, r := s.Outcome(o)
		if b == nil || b.State != model.BreakerHalfOpen || b.Eased || b.LastEnd != model.EndReplaced || r != nil {
			t.Fatalf("changed %+v, released %+v", b, r)
		}
		s.pass(2 * time.Second)
		s.feel("/a", much)
		if next, answer := s.want("/a", half); next == nil || next.After != "" {
			t.Errorf("its victims suffer again: %+v", answer)
		}
	}
}
