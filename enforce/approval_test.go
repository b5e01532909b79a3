package enforce

import (
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/model"
)

// asking is a world in which a policy wants a person's yes, and asks each second.
type asking struct {
	*world
	d     model.Decision
	asked int
}

func newAsking(t *testing.T) *asking {
	w := newWorld(t)
	go w.open().Run(t.Context())
	a := &asking{world: w, d: w.decide(w.tree("/a", 100), 100, 10*time.Second)}
	a.d.Action.ApprovalMS = 60_000
	return a
}

// ask proposes it once more, as breakerd does for as long as the trouble goes on.
func (a *asking) ask() model.Outcome {
	a.asked++
	a.d.ID, a.d.At = fmt.Sprint("q-", a.asked), time.Now()
	return a.e.Propose(a.t.Context(), a.d)
}

func (a *asking) states() (states []string) {
	a.log.mu.Lock()
	defer a.log.mu.Unlock()
	for _, q := range a.log.asked {
		states = append(states, q.ID+" "+string(q.State))
	}
	return states
}

func (a *asking) wantStates(want ...string) {
	a.t.Helper()
	synctest.Wait()
	if got := a.states(); strings.Join(got, ", ") != strings.Join(want, ", ") {
		a.t.Errorf("it was told %v, want %v", got, want)
	}
}

func TestWhatAPolicyWantsApprovedWaitsForAYesWhichIsForOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		for range 5 {
			if out := a.ask(); out.RefusedBy != "approval" || !strings.Contains(out.Reason, "breakerctl approve q-1") {
				t.Fatalf("got %+v", out)
			}
			time.Sleep(time.Second)
		}
		a.wantHeld("/a", false)
		if q := a.e.Status().Approvals; len(q) != 1 || q[0].ID != "q-1" || q[0].State != model.ApprovalWaiting {
			t.Fatalf("what waits is %+v", q)
		}
		if _, err := a.e.Approve("q-1", "uid 0"); err != nil {
			t.Fatal(err)
		}
		if _, err := a.e.Approve("q-1", "uid 0"); err == nil {
			t.Error("a yes was said twice")
		}
		out := a.ask()
		if out.LeaseID != "q-6" || out.RefusedBy != "" || out.Error != "" {
			t.Fatalf("got %+v", out)
		}
		a.wantHeld("/a", true)
		a.wantStates("q-1 waiting", "q-1 given")
		time.Sleep(11 * time.Second)
		if out := a.ask(); out.RefusedBy != "approval" || !strings.Contains(out.Reason, "approve q-7") {
			t.Errorf("the second time: %+v", out)
		}
		a.close()
	})
}

func TestAYesCarriesNothingOutThatIsNotTrueAnyMore(t *testing.T) {
	for _, tt := range []struct {
		name   string
		change func(*asking)
		guard  string // that refuses then
		reason string
	}{
		{"the process is another one", func(a *asking) { a.process(100, 1, newStart+9, "make", "/usr/bin/make") }, "identity", "another one"},
		{"it has become something protected", func(a *asking) { a.process(102, 101, newStart+2, "sshd", "/usr/sbin/sshd") }, "protected", "sshd"},
		{"the enforcer was paused", func(a *asking) { a.e.Pause(0, "somebody") }, "mode", "paused"},
		{"it would be for longer", func(a *asking) { a.d.Action.ForMS *= 2 }, "approval", "waits"},
		{"it would be something else", func(a *asking) {
			a.fake.SetLimit("/a", "cpu.max", "max 100000")
			a.d.Action.Kind, a.d.Action.CPUPercent = model.Throttle, 50
		}, "approval", "waits"},
		{"it is another incident", func(a *asking) { a.d.IncidentID = "fs-2" }, "approval", "waits"},
		{"it is about another tree", func(a *asking) { a.d = a.other() }, "approval", "waits"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := newAsking(t)
				a.ask()
				if _, err := a.e.Approve("q-1", "uid 0"); err != nil {
					t.Fatal(err)
				}
				tt.change(a)
				if out := a.ask(); out.RefusedBy != tt.guard || !strings.Contains(out.Reason, tt.reason) {
					t.Errorf("got %+v, want a refusal by %s", out, tt.guard)
				}
				if n := len(a.fake.Writes()); n != 0 {
					t.Errorf("%d writes", n)
				}
				a.close()
			})
		})
	}
}

func (a *asking) other() model.Decision {
	d := a.decide(a.tree("/b", 200), 200, 10*time.Second)
	d.Action.ApprovalMS = a.d.Action.ApprovalMS
	return d
}

func TestAQuestionExpiresAndIsNotAskedAgainAboutTheSameIncident(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		for range 90 {
			a.ask()
			time.Sleep(time.Second)
		}
		if out := a.ask(); out.RefusedBy != "approval" || !strings.Contains(out.Reason, "nobody said yes") {
			t.Errorf("got %+v", out)
		}
		if _, err := a.e.Approve("q-1", "uid 0"); err == nil {
			t.Error("a yes was taken after its time")
		}
		a.wantStates("q-1 waiting", "q-1 expired")
		a.d.IncidentID = "fs-2"
		if out := a.ask(); !strings.Contains(out.Reason, "approve q-92") {
			t.Errorf("about another incident: %+v", out)
		}
		a.close()
	})
}

func TestAYesComesTooLateOnceTheTroubleHasPassed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		a.d.Action.ApprovalMS = 3600_000
		a.ask()
		time.Sleep(6 * time.Second)
		if _, err := a.e.Approve("q-1", "uid 0"); err == nil || !strings.Contains(err.Error(), "the trouble has passed") {
			t.Errorf("got %v", err)
		}
		time.Sleep(time.Minute)
		a.wantStates("q-1 waiting", "q-1 expired")
		if q := a.e.Status().Approvals; len(q) != 0 {
			t.Errorf("what waits is %+v", q)
		}
		a.close()
	})
}

// A yes says something about what a person saw; after a restart nobody knows whether it is
// true still.
func TestQuestionsAndAnswersDoNotOutliveARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		a.ask()
		if _, err := a.e.Approve("q-1", "uid 0"); err != nil {
			t.Fatal(err)
		}
		synctest.Wait()
		a.crash()
		a.open()
		if out := a.ask(); out.RefusedBy != "approval" || !strings.Contains(out.Reason, "approve q-2") {
			t.Errorf("got %+v", out)
		}
		a.close()
	})
}

func TestSoManyQuestionsWaitAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		for i := range maxApprovals + 3 {
			a.d.IncidentID = fmt.Sprint("in-", i)
			out := a.ask()
			if full := strings.Contains(out.Reason, "already"); full != (i >= maxApprovals) || out.RefusedBy != "approval" {
				t.Errorf("question %d: %+v", i, out)
			}
		}
		if n := len(a.e.Status().Approvals); n != maxApprovals {
			t.Errorf("%d wait", n)
		}
		a.close()
	})
}

// Questions that have expired are remembered for a minute, so that nobody is asked again; not as
// many as somebody likes to ask.
func TestSoManyQuestionsAreRemembered(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		a.d.Action.ApprovalMS = 1
		for i := range 4 * maxKept {
			a.d.IncidentID = fmt.Sprint("in-", i)
			a.ask()
			time.Sleep(2 * time.Millisecond)
		}
		a.e.mu.Lock()
		n := len(a.e.questions)
		a.e.mu.Unlock()
		if n != maxKept {
			t.Errorf("%d are remembered, want %d", n, maxKept)
		}
		time.Sleep(2 * forgotten)
		if out := a.ask(); out.RefusedBy != "approval" || strings.Contains(out.Reason, "already") {
			t.Errorf("once they are forgotten: %+v", out)
		}
		a.close()
	})
}

// Where others are left out of the tree it is moved away from them; where nobody is, all who are
// there are held. A yes to the one is none to the other.
func TestAYesToATreeAmongOthersIsNoneToAllOfThem(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := newAsking(t)
		a.d.Target.Outside = 5
		a.ask()
		if _, err := a.e.Approve("q-1", "uid 0"); err != nil {
			t.Fatal(err)
		}
		a.d.Target.Outside = 0
		if out := a.ask(); out.RefusedBy != "approval" {
			t.Errorf("got %+v", out)
		}
		a.wantHeld("/a", false)
		a.close()
	})
}

func TestInADryRunNobodyIsAsked(t *testing.T) {
	w := newWorld(t)
	w.open(func(o *Options) { o.Mode, o.StateDir = model.DryRun, "" })
	d := w.decide(w.tree("/a", 100), 100, time.Minute)
	d.Action.ApprovalMS = 60_000
	if out := w.e.Propose(t.Context(), d); out.RefusedBy != "approval" || !strings.Contains(out.Reason, "it would wait") {
		t.Errorf("got %+v", out)
	}
	if n := len(w.e.Status().Approvals); n != 0 {
		t.Errorf("%d questions wait", n)
	}
	w.close()
}

func TestOnlyRootAndWhomItNamesMayApprove(t *testing.T) {
	a := access{self: 4711, user: 990, users: true, group: 991, named: true, approvers: []uint32{1000, 990}}
	for _, tt := range []struct {
		name string
		p    peer
		want bool
	}{
		{"root", peer{uid: 0}, true},
		{"an approver", peer{uid: 1000}, true},
		{"somebody of the group", peer{uid: 1001, groups: []uint32{991}}, false},
		{"breakerd, though somebody names it", peer{uid: 990, groups: []uint32{991}}, false},
		{"anybody", peer{uid: 65534}, false},
	} {
		if got := a.mayApprove(tt.p); got != tt.want {
			t.Errorf("%s: %v", tt.name, got)
		}
	}
	c := DefaultConfig()
	c.Allow.Approvers = []string{"joe", "breakerd"}
	if err := c.check(); err == nil || !strings.Contains(err.Error(), "cannot say yes to itself") {
		t.Errorf("got %v", err)
	}
}
