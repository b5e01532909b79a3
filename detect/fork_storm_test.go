package detect

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// storm lets parent fork n processes a tick, of which ended end within it.
func (s *scene) storm(parent model.ProcID, cgroup model.CgroupID, n, ended int) {
	for i := range n {
		id := s.fork(parent, cgroup, "child")
		if i < ended {
			s.exit(id)
		}
	}
	s.cgroup(model.CgroupSample{ID: cgroup, Forks: uint64(n), Exits: uint64(ended)})
}

func TestAForkStormOpensAfterItsHoldAndNamesTheTreeNotTheSession(t *testing.T) {
	s := newScene()
	shell := s.proc(model.ProcID{PID: 1}, session, "bash")
	bomb := s.proc(shell, session, "bomb")
	editor := s.proc(shell, session, "vim")
	for range 8 {
		s.end(0.1, 0)
	}
	began := s.now
	for s.open(model.ForkStorm) == nil {
		s.storm(bomb, session, 10, 0)
		s.end(0.5, 0.1)
		if s.now-began > 3*time.Second {
			t.Fatal("nothing opened within 3 s")
		}
	}
	if took := s.now - began; took < 2*time.Second || took > 2500*time.Millisecond {
		t.Errorf("opened after %v, want 2 s to 2.5 s", took)
	}
	in := s.open(model.ForkStorm)
	if got := in.Culprit.Root.PID; got != bomb.PID {
		t.Errorf("culprit is pid %d, want %d", got, bomb.PID)
	}
	if in.Culprit.Scope != model.ScopeTree || in.Culprit.Outside != 2 {
		t.Errorf("culprit %+v: want a tree with the shell and the editor (pid %d) outside", in.Culprit, editor.PID)
	}
	if in.Level == model.Info {
		t.Errorf("severity %.2f is informational, though 40 processes a second stay", in.Severity)
	}
	if !strings.Contains(in.Summary, "bomb") {
		t.Errorf("summary does not name the culprit: %s", in.Summary)
	}
}

func TestABuildThatHurtsNobodyIsInformational(t *testing.T) {
	s := newScene()
	shell := s.proc(model.ProcID{PID: 1}, session, "bash")
	build := s.proc(shell, session, "make")
	for range 40 {
		s.storm(build, session, 80, 80)
		s.end(1, 0.5)
	}
	in := s.open(model.ForkStorm)
	if in == nil {
		t.Fatal("320 forks a second open nothing")
	}
	if in.Level != model.Info {
		t.Errorf("level %s, want info: %+v", in.Level, in.Evidence)
	}
}

// While a build runs, every task of a crowd beside it waits for it: that alone is no wrong.
func TestABuildBesideACrowdIsInformational(t *testing.T) {
	s := newScene()
	build := s.proc(s.proc(model.ProcID{PID: 1}, session, "bash"), session, "make")
	for range 40 {
		s.storm(build, session, 25, 25)
		s.sample.Cgroups[0].RunNS = uint64(tick)
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(tick)})
		s.waits(session, job, 4*tick)
		s.waits(job, session, tick)
		s.waits(job, job, 3*tick)
		s.end(1, 1)
	}
	in := s.open(model.ForkStorm)
	if in == nil || in.Level != model.Info || len(in.Victims) > 0 {
		t.Fatalf("want an informational one, without victims: %+v", in)
	}
}

func TestWhatADeadParentForkedIsChargedToItsNearestSurvivingAncestor(t *testing.T) {
	s := newScene()
	daemon := s.proc(model.ProcID{PID: 1}, job, "daemon")
	for range 20 {
		for range 4 {
			middle := s.fork(daemon, job, "middle")
			s.fork(middle, job, "orphan")
			s.exit(middle)
		}
		s.cgroup(model.CgroupSample{ID: job, Forks: 8, Exits: 4})
		s.end(0.5, 0)
	}
	in := s.open(model.ForkStorm)
	if in == nil || in.Culprit.Root.PID != daemon.PID || in.Culprit.Scope != model.ScopeTree {
		t.Fatalf("incident %+v, want the tree of pid %d", in, daemon.PID)
	}
	if in.Culprit.Outside != 0 {
		t.Errorf("%d processes outside the tree, want the orphans within it", in.Culprit.Outside)
	}
}

func TestTwoStormsUnderPid1AreTwoIncidentsAndNeitherIsPid1(t *testing.T) {
	s := newScene()
	a := s.proc(model.ProcID{PID: 1}, root, "a")
	b := s.proc(model.ProcID{PID: 1}, root, "b")
	for range 12 {
		for range 5 {
			s.fork(a, root, "x")
			s.fork(b, root, "y")
		}
		s.cgroup(model.CgroupSample{ID: root, Forks: 10})
		s.end(0.5, 0)
	}
	got := map[int32]bool{}
	for _, c := range s.changes {
		got[c.Incident.Culprit.Root.PID] = true
	}
	if len(got) != 2 || !got[a.PID] || !got[b.PID] {
		t.Errorf("culprits %v, want pids %d and %d", got, a.PID, b.PID)
	}
}

func TestAShortBurstOpensNothing(t *testing.T) {
	s := newScene()
	pool := s.proc(model.ProcID{PID: 1}, job, "pool")
	s.storm(pool, job, 64, 0)
	s.end(0.9, 0)
	for range 20 {
		if s.end(0.1, 0); len(s.changes) > 0 {
			t.Fatalf("a burst of 64 forks within one tick opened %+v", s.changes[0].Incident)
		}
	}
}

func TestAnIncidentClosesFiveSecondsAfterTheStormIsOver(t *testing.T) {
	s := newScene()
	bomb := s.proc(model.ProcID{PID: 1}, job, "bomb")
	for range 12 {
		s.storm(bomb, job, 10, 0)
		s.end(0.5, 0)
	}
	if s.open(model.ForkStorm) == nil {
		t.Fatal("nothing opened")
	}
	ended := s.now
	for {
		if s.end(0.1, 0); len(s.changes) > 0 && s.changes[0].Type == Closed {
			break
		}
		if s.now-ended > 10*time.Second {
			t.Fatal("still open 10 s after the storm")
		}
	}
	if took := s.now - ended; took < 5*time.Second || took > 6500*time.Millisecond {
		t.Errorf("closed %v after the storm, want 5 s and the trailing second", took)
	}
	if s.changes[0].Incident.ClosedAt == nil {
		t.Error("a closed incident has no closed_at")
	}
}

func TestASuspendDiscardsTheWindow(t *testing.T) {
	s := newScene()
	bomb := s.proc(model.ProcID{PID: 1}, job, "bomb")
	for range 7 {
		s.storm(bomb, job, 10, 0)
		s.end(0.5, 0)
	}
	s.sample.Lost.SuspendedNS = int64(time.Hour)
	s.storm(bomb, job, 10, 0)
	s.end(0.5, 0)
	for range 4 {
		s.storm(bomb, job, 10, 0)
		if s.end(0.5, 0); len(s.changes) > 0 {
			t.Fatal("what was held before the suspend counted after it")
		}
	}
}

func TestAProcessThatWasPutIntoItsCgroupAfterItWasMadeIsFoundAtOnce(t *testing.T) {
	s := newScene()
	bomb := s.proc(model.ProcID{PID: 1}, session, "bomb") // moved to job, which nobody has told
	s.end(0.1, 0)
	began := s.now
	for s.open(model.ForkStorm) == nil && s.now-began < 3*time.Second {
		s.storm(bomb, job, 10, 0)
		s.end(0.5, 0)
	}
	in := s.open(model.ForkStorm)
	if in == nil || s.now-began > 2500*time.Millisecond || in.Culprit.Root.PID != bomb.PID || in.Culprit.CgroupID != job {
		t.Fatalf("after %v: %+v, want the tree of pid %d in cgroup %d", s.now-began, in, bomb.PID, job)
	}
}

func TestAChainWhoseParentsEndIsItsCgroups(t *testing.T) {
	s := newScene()
	launcher := s.proc(model.ProcID{PID: 1}, session, "launcher")
	last := s.fork(launcher, job, "chain")
	s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1].ParentCgroup = session
	for range 16 {
		for range 5 {
			next := s.fork(last, job, "chain")
			s.exit(last)
			last = next
		}
		s.cgroup(model.CgroupSample{ID: job, Forks: 5, Exits: 5})
		s.end(0.2, 0)
	}
	in := s.open(model.ForkStorm)
	if in == nil || in.Culprit.CgroupID != job || in.Culprit.Scope != model.ScopeCgroup {
		t.Fatalf("%+v, want cgroup %d as a whole", in, job)
	}
}

func TestABurstyScriptThatLeavesNothingBehindIsInformational(t *testing.T) {
	s := newScene()
	script := s.proc(model.ProcID{PID: 1}, session, "script")
	var before []model.ProcID
	for i := range 60 {
		// Thirty begin in every third tick, and end in the next.
		for _, id := range before {
			s.exit(id)
		}
		ended := len(before)
		before = nil
		forks := 0
		if i%3 == 0 {
			forks = 30
		}
		for range forks {
			before = append(before, s.fork(script, session, "true"))
		}
		s.cgroup(model.CgroupSample{ID: session, Forks: uint64(forks), Exits: uint64(ended)})
		s.end(0.3, 0)
		if in := s.open(model.ForkStorm); in != nil && in.Level != model.Info {
			t.Fatalf("level %s: %+v", in.Level, in.Evidence)
		}
	}
}

func TestAForkStormRanksTheCgroupsByTheirForks(t *testing.T) {
	s := newScene()
	bomb := s.proc(model.ProcID{PID: 1}, job, "bomb")
	script := s.proc(model.ProcID{PID: 1}, session, "script")
	for range 12 {
		s.storm(script, session, 2, 2)
		s.storm(bomb, job, 6, 0)
		s.end(0.5, 0)
	}
	in := s.open(model.ForkStorm)
	if in == nil {
		t.Fatal("nothing opened")
	}
	want := []model.Contributor{{Cgroup: paths[job], CgroupID: job, Share: 0.75}, {Cgroup: paths[session], CgroupID: session, Share: 0.25}}
	if !slices.Equal(in.Contributors, want) {
		t.Errorf("contributors %+v, want %+v", in.Contributors, want)
	}
}

func TestOfThousandsOfStormsTheWorstAreTold(t *testing.T) {
	s := newScene()
	var parents []model.ProcID
	for i := range 2000 {
		parents = append(parents, s.proc(model.ProcID{PID: 1}, model.CgroupID(1000+i), "maker"))
	}
	worst := parents[len(parents)-1]
	opened := 0
	for range 24 {
		for i, p := range parents {
			ended := 3
			if p == worst {
				ended = 0 // no more than the others, but they stay
			}
			s.storm(p, model.CgroupID(1000+i), 3, ended)
		}
		now := 0
		for _, c := range s.end(1, 0.5) {
			if c.Type == Opened {
				now++
			}
		}
		if now > mostOpened {
			t.Fatalf("%d opened in one tick, want %d at most", now, mostOpened)
		}
		opened += now
	}
	if opened != maxFindings || len(s.watch.tracks[model.ForkStorm]) != maxFindings {
		t.Errorf("%d opened, and %d are followed, want %d", opened, len(s.watch.tracks[model.ForkStorm]), maxFindings)
	}
	if !slices.ContainsFunc(s.changes, func(c Change) bool { return c.Incident.Culprit.Root.PID == worst.PID }) {
		t.Error("the worst, which forks as much as the others, is not among them")
	}
}

func TestWhereManyAreOpenThoseThatAreQuietAreClosedAtOnce(t *testing.T) {
	s := newScene()
	var parents []model.ProcID
	for i := range 12 * maxFindings {
		parents = append(parents, s.proc(model.ProcID{PID: 1}, model.CgroupID(1000+i), "maker"))
	}
	cfg := DefaultConfig()
	cfg.Hysteresis.CloseAfter = config.Duration(time.Hour)
	s.watch.SetConfig(cfg)
	for turn := range 12 { // others storm in each
		for range 20 {
			for i, p := range parents[turn*maxFindings : (turn+1)*maxFindings] {
				s.storm(p, model.CgroupID(1000+turn*maxFindings+i), 10, 0)
			}
			s.end(1, 0.5)
			if open := len(s.watch.tracks[model.ForkStorm]); open > mostOpen+maxFindings {
				t.Fatalf("%d are followed, want %d at most", open, mostOpen+maxFindings)
			}
		}
		if s.open(model.ForkStorm) == nil {
			t.Fatal("nothing is open")
		}
	}
}
