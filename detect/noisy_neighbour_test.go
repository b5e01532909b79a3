package detect

import (
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// other is a cgroup that has CPUs of its own and fights with nobody.
const other model.CgroupID = 80

// pinned lets a crowd and a service share one CPU of two for a tick, while the other CPU
// is used by somebody else for such a part.
func (s *scene) pinned(elsewhere float64) {
	s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(200 * time.Millisecond)})
	s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(50 * time.Millisecond)})
	s.cgroup(model.CgroupSample{ID: other, RunNS: uint64(elsewhere * float64(tick))})
	s.waits(job, service, 200*time.Millisecond)
	s.waits(service, job, 200*time.Millisecond)
	s.waits(job, job, 600*time.Millisecond)
}

func TestANeighbourOnAPinnedCPUIsSeenThoughTheHostIsHalfIdle(t *testing.T) {
	s := newScene()
	parent, hogs := hogsAndService(s)
	s.end(0.1, 0)
	began := s.now
	for i := 0; s.open(model.NoisyNeighbour) == nil; i++ {
		for _, h := range hogs {
			s.uses(h, job, time.Duration(i+1)*50*time.Millisecond)
		}
		s.pinned(0)
		if s.end(0.5, 1); s.now-began > 5*time.Second {
			t.Fatal("nothing opened within 5 s")
		}
	}
	if took := s.now - began; took < 3*time.Second || took > 3500*time.Millisecond {
		t.Errorf("opened after %v, want 3 s to 3.5 s", took)
	}
	in := s.open(model.NoisyNeighbour)
	if in.Culprit.CgroupID != job || in.Culprit.Root.ProcID != parent || in.Culprit.Scope != model.ScopeTree {
		t.Errorf("culprit %+v, want the tree of %v", in.Culprit, parent)
	}
	if len(in.Victims) != 1 || in.Victims[0].CgroupID != service || in.Victims[0].Resource != model.CPU || in.Victims[0].StallMS < 1000 {
		t.Errorf("victims %+v, want the service", in.Victims)
	}
	if in.Estimated || in.Confidence != 1 || in.Margin != 1 || in.Level == model.Info {
		t.Errorf("estimated %v, confidence %v, margin %v, level %s: want it measured, and sure", in.Estimated, in.Confidence, in.Margin, in.Level)
	}
}

// Where fourteen CPUs are used by somebody else, shares of the whole machine say that
// neither of the two got more than it was entitled to.
func TestANeighbourOnAPinnedCPUIsSeenThoughOthersUseTheRestOfALargeHost(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	for range 20 {
		s.pinned(14)
		s.end(0.5, 1)
	}
	if in := s.open(model.NoisyNeighbour); in == nil || in.Culprit.CgroupID != job {
		t.Errorf("incident %+v, want one because of cgroup %d", in, job)
	}
}

// Nobody is accused, and nothing done, because breakerd has to wait; but where it shares
// its cgroup with others, those are victims as everybody is.
func TestWhoWatchesIsNoVictim(t *testing.T) {
	for _, shares := range []bool{false, true} {
		s := newScene()
		hogsAndService(s)
		self := &s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1]
		self.Self = true
		if shares {
			s.proc(model.ProcID{PID: 1}, service, "shell")
		}
		opened := map[model.Kind]bool{}
		for range 30 {
			s.pinned(0)
			s.end(1, 1)
			for _, c := range s.changes {
				if len(c.Incident.Victims) > 0 {
					opened[c.Incident.Kind] = true
				}
			}
		}
		if got := opened[model.NoisyNeighbour] || opened[model.CPUContention]; got != shares {
			t.Errorf("breakerd shares its cgroup: %v; opened with a victim: %v", shares, opened)
		}
	}
}

func TestNoisyNeighbourStaysSilent(t *testing.T) {
	tests := []struct {
		name string
		tick func(*scene)
	}{
		{"when equals fight for one CPU", func(s *scene) {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(tick / 2)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(tick / 2)})
			s.waits(job, service, tick/2)
			s.waits(service, job, tick/2)
		}},
		{"when the offender asked for less than its victim", func(s *scene) {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(40 * time.Millisecond)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(200 * time.Millisecond)})
			s.waits(job, service, 160*time.Millisecond) // four tasks of it, 40 ms each
			s.waits(service, job, 10*time.Millisecond)
		}},
		{"when the victim waits for itself, and little for another", func(s *scene) {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(400 * time.Millisecond)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(400 * time.Millisecond)})
			s.waits(job, service, 30*time.Millisecond)
			s.waits(service, service, time.Second)
		}},
		{"when a crowd on one CPU meets little of somebody larger", func(s *scene) {
			s.host.CPUs = 8
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(242 * time.Millisecond)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(750 * time.Millisecond)})
			s.waits(job, job, 2180*time.Millisecond)   // ten tasks of it
			s.waits(service, job, 75*time.Millisecond) // for 7.5 ms, all ten
		}},
		{"when nobody waits long", func(s *scene) {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(240 * time.Millisecond)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(10 * time.Millisecond)})
			s.waits(job, service, 20*time.Millisecond)
		}},
		{"when the victim's own quota holds it", func(s *scene) {
			held := uint64(s.now-time.Hour) / 2
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(tick)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(tick / 10), Detail: &model.CgroupDetail{ThrottledNS: held}})
			s.waits(job, service, 200*time.Millisecond)
		}},
		{"when it is over in two seconds", func(s *scene) {
			if s.now < time.Hour+time.Second {
				s.pinned(0)
			}
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			hogsAndService(s)
			s.end(0.1, 0)
			for range 40 {
				tt.tick(s)
				s.end(0.5, 1)
				if in := s.open(model.NoisyNeighbour); in != nil {
					t.Fatalf("opened: %s %+v", in.Summary, in.Evidence)
				}
			}
		})
	}
}

// A thread that asked to wait says nothing of what another of its cgroup was deprived of.
func TestWhoHasNicedThreadsTooIsAVictimAllTheSame(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(410 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(90 * time.Millisecond)})
		s.waits(job, service, 185*time.Millisecond)
		s.sample.Waits = append(s.sample.Waits, model.Wait{Resource: model.CPU, By: model.ByAsked, Victim: service, NS: uint64(1975 * time.Millisecond)})
		s.end(0.5, 1)
	}
	in := s.open(model.NoisyNeighbour)
	if in == nil || in.Culprit.CgroupID != job || in.Evidence["offender_share_percent"] != 100 {
		t.Errorf("%+v", in)
	}
}

// Who wrongs the accused a little does not answer for all that the accused does.
func TestALightWrongExcusesNoHeavyOne(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.host.CPUs = 4
	s.end(0.1, 0)
	accused := false
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(750 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: 80, RunNS: uint64(100 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(25 * time.Millisecond)})
		s.waits(job, service, 105*time.Millisecond)
		s.waits(80, service, 100*time.Millisecond)
		s.waits(job, 80, 12500*time.Microsecond)
		s.end(0.9, 1)
		for _, c := range s.changes {
			accused = accused || c.Incident.Kind == model.NoisyNeighbour && c.Incident.Culprit.CgroupID == 80
		}
	}
	if !accused {
		t.Error("who makes the service wait 400 ms/s is excused by 50 ms/s")
	}
}

// A service that gets its turn beside a crowd makes others wait, too, who wait for the crowd above all.
func TestWhoIsWrongedAnswersForNothingBesideTheOneWhoWrongsHim(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(430 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(60 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: 80, RunNS: uint64(5 * time.Millisecond)})
		s.waits(job, service, 180*time.Millisecond)
		s.waits(job, 80, 180*time.Millisecond)
		s.waits(service, 80, 70*time.Millisecond)
		s.end(1, 1)
		for _, c := range s.changes {
			if c.Incident.Kind == model.NoisyNeighbour && c.Incident.Culprit.CgroupID == service {
				t.Fatalf("the service is accused: %s", c.Incident.Summary)
			}
		}
	}
}

// Ten tasks that share a CPU with somebody who lets none of them run have lost that CPU, and not ten.
func TestACrowdThatIsStarvedHasLostItsCPU(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(10 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(240 * time.Millisecond)})
		s.waits(job, job, 90*time.Millisecond)
		s.waits(service, job, 2400*time.Millisecond)
		s.end(0.5, 1)
	}
	in := s.open(model.NoisyNeighbour)
	if in == nil || in.Culprit.CgroupID != service || in.Evidence["victim_deprived_percent"] != 92 {
		t.Errorf("%+v", in)
	}
}

func TestWhereTheWholeHostIsContendedOneIncidentTellsIt(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	for range 40 {
		s.fight(240*time.Millisecond, 10*time.Millisecond, 400*time.Millisecond)
		s.end(1, 1)
		if in := s.open(model.NoisyNeighbour); in != nil {
			t.Fatalf("cpu_contention is open, and so is %s: %s", in.Kind, in.Summary)
		}
	}
	if s.open(model.CPUContention) == nil {
		t.Error("nothing opened")
	}
}

func TestAFightThatComesToTakeTheWholeHostIsToldByTheHostwideKind(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	for range 20 {
		s.fight(240*time.Millisecond, 10*time.Millisecond, 0)
		s.end(0.6, 1)
	}
	if s.open(model.NoisyNeighbour) == nil {
		t.Fatal("nothing opened on the idle host")
	}
	for range 4 * 9 {
		s.fight(240*time.Millisecond, 10*time.Millisecond, 400*time.Millisecond)
		s.end(1, 1)
	}
	if s.open(model.NoisyNeighbour) != nil || s.open(model.CPUContention) == nil {
		t.Errorf("changes %+v, want cpu_contention alone", s.changes)
	}
}

func TestWhatNobodyIsKnownToHaveMadeMakesTheVerdictLessSure(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	for range 20 {
		s.pinned(0)
		s.sample.Waits = append(s.sample.Waits, model.Wait{Resource: model.CPU, By: model.ByUnknown, Victim: service, NS: uint64(100 * time.Millisecond)})
		s.waits(other, service, 100*time.Millisecond)
		s.sample.Lost.Cells = 5 // of ten
		s.end(0.5, 1)
	}
	in := s.open(model.NoisyNeighbour)
	if in == nil {
		t.Fatal("nothing opened")
	}
	// 100 of the victim's 400 ms are unknown, and half of the cells were lost.
	if in.Confidence != 0.375 || in.Margin != 0.25 {
		t.Errorf("confidence %v, margin %v: want 0.375 and 0.25", in.Confidence, in.Margin)
	}
	if in.Evidence["lost_cells"] == 0 {
		t.Errorf("evidence %v does not say that cells were lost", in.Evidence)
	}
}

func TestConfidenceIsThatOfNowAndNotOfTheWorstMoment(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	confidence := func(lostCells uint64) float64 {
		for range 20 { // all the same, so that each is the worst moment
			s.pinned(0)
			s.sample.Lost.Cells = lostCells
			s.end(0.5, 1)
		}
		in := s.open(model.NoisyNeighbour)
		if in == nil {
			t.Fatal("nothing is open")
		}
		return in.Confidence
	}
	if got := []float64{confidence(3), confidence(0), confidence(9)}; got[0] != 0.5 || got[1] != 1 || got[2] != 0.25 {
		t.Errorf("confidence %v, want 0.5 where half of the cells are lost, then 1, then 0.25", got)
	}
}

func TestWhatIsLostIsHeldAgainstWhatWasSeenMeanwhile(t *testing.T) {
	s := newScene()
	s.cgroup(model.CgroupSample{ID: job, Forks: 5000, Exits: 5000})
	for victim := range model.CgroupID(99) {
		s.waits(job, 1000+victim, time.Millisecond)
	}
	s.sample.Lost.Events, s.sample.Lost.Cells = 100, 1
	s.end(1, 1)
	for age := tick; age <= 7*time.Second; age += tick { // while nothing happens
		s.end(0, 0)
		if got := s.watch.Observed(); got != 0.98 {
			t.Fatalf("%v seen, %v after one part in a hundred of the records and of the cells was lost", got, age)
		}
	}
}

func TestMeasuresSayHowFarACgroupIsFromAnIncident(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(100 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(10 * time.Millisecond)})
		s.waits(job, service, 10*time.Millisecond)
		s.end(0.5, 0.2)
	}
	figures := map[string]model.Measure{}
	for _, m := range s.watch.Measures(job) {
		for _, f := range m.Measures {
			figures[string(m.Kind)+" "+f.Name] = f
		}
	}
	for key, want := range map[string]model.Measure{
		"noisy_neighbour stall_ms_per_second":     {Value: 40, Threshold: 100, Known: true},
		"cpu_contention host_cpu_some_percent":    {Value: 20, Threshold: 40, Known: true},
		"cpu_contention cpu_use_percent":          {Value: 50, Threshold: 90, Known: true},
		"fork_storm forks_per_second":             {Value: 0, Threshold: 10, Known: true},
		"noisy_neighbour victim_deprived_percent": {Value: 50, Threshold: 10, Known: true, Met: true},
	} {
		got := figures[key]
		got.Name = ""
		if got != want {
			t.Errorf("%s: %+v, want %+v", key, got, want)
		}
	}
}

func TestAPairIsJudgedAsEntitledJudgesMany(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	weight := func() []uint32 { return [][]uint32{nil, {0}, {1}, {100}, {10_000}}[rng.IntN(5)] }
	for range 5000 {
		vs, os := weight(), weight()
		v, o := side{rng.Uint64N(1e9), rng.Uint64N(1e9)}, side{rng.Uint64N(1e9), rng.Uint64N(1e9)}
		claims := blame.NewClaims([]blame.Claim{
			{ID: 0, Path: "/a", Ran: v.ran, Wanted: v.wanted(), Weights: vs},
			{ID: 1, Path: "/b", Ran: o.ran, Wanted: o.wanted(), Weights: os},
		})
		e := claims.Entitled()
		want := 0.0
		if e[0].Within > v.ran && o.ran > e[1].Share {
			want = 100 * (1 - float64(v.ran)/float64(e[0].Within))
		}
		if got := deprivedBy(v, o, blame.Right("/a", "/b", vs, os)); math.Abs(got-want) > 1 {
			t.Fatalf("%+v beside %+v, weights %d and %d: deprived by %v %%, want %v", v, o, vs, os, got, want)
		}
	}
}
