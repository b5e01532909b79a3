package detect

import (
	"encoding/json"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestTwoStormsInOneCgroupAndTickAreTwoIncidentsWithIDsOfTheirOwn(t *testing.T) {
	s := newScene()
	a := s.proc(model.ProcID{PID: 1}, root, "a")
	b := s.proc(model.ProcID{PID: 1}, root, "b")
	ids := map[string]bool{}
	for range 12 {
		for range 5 {
			s.fork(a, root, "x")
			s.fork(b, root, "y")
		}
		s.cgroup(model.CgroupSample{ID: root, Forks: 10})
		for _, c := range s.end(0.5, 0) {
			ids[c.Incident.ID] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("two storms have the IDs %v", ids)
	}
}

func TestVictimsAreListedTheWorstFirstAndEqualsByID(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	for range 12 {
		s.fight(60*time.Millisecond, 5*time.Millisecond, 0)
		for id, wait := range map[model.CgroupID]time.Duration{99: 90 * time.Millisecond, 90: 30 * time.Millisecond, 95: 30 * time.Millisecond} {
			s.cgroup(model.CgroupSample{ID: id, RunNS: 1e6, WaitNS: uint64(wait)})
			s.waits(job, id, wait)
		}
		s.end(1, 1)
	}
	in := s.open(model.CPUContention)
	if in == nil {
		t.Fatal("nothing opened")
	}
	var got []model.CgroupID
	for _, v := range in.Victims {
		got = append(got, v.CgroupID)
	}
	if diff := cmp.Diff([]model.CgroupID{99, service, 90, 95}, got); diff != "" {
		t.Error(diff)
	}
}

func TestVictimsThatComeAndGoDoNotFillALongIncident(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	next := model.CgroupID(1000)
	for range 400 {
		s.fight(120*time.Millisecond, 5*time.Millisecond, 0)
		s.cgroup(model.CgroupSample{ID: next, RunNS: 1e6, WaitNS: 12e7})
		s.waits(job, next, 120*time.Millisecond)
		next++
		s.end(1, 1)
	}
	in := s.open(model.CPUContention)
	if in == nil {
		t.Fatal("nothing opened")
	}
	if len(in.Victims) != maxVictims || in.Victims[0].CgroupID != service {
		t.Errorf("%d victims, the first %v: want %d and the service, which waited all the time", len(in.Victims), in.Victims[0], maxVictims)
	}
}

func TestOneIncidentNamesAFewContributorsOnly(t *testing.T) {
	s := newScene()
	s.proc(model.ProcID{PID: 1}, service, "web")
	s.end(0.1, 0)
	for range 12 {
		for i := range model.CgroupID(40) {
			s.cgroup(model.CgroupSample{ID: 1000 + i, RunNS: 5e7})
			s.waits(1000+i, service, time.Duration(20+i)*time.Millisecond)
		}
		s.cgroup(model.CgroupSample{ID: service, RunNS: 1e6, WaitNS: 1e9})
		s.end(1, 1)
	}
	in := s.open(model.CPUContention)
	if in == nil {
		t.Fatal("nothing opened")
	}
	if len(in.Contributors) != maxContributors || in.Contributors[0].CgroupID != 1039 {
		t.Errorf("contributors %+v, want the %d worst, 1039 first", in.Contributors, maxContributors)
	}
}

// Maps are walked in another order each time; what comes out must not show it.
func TestTheSameSamplesGiveTheSameChangesByteForByte(t *testing.T) {
	play := func() []byte {
		s := newScene()
		_, hogs := hogsAndService(s)
		var out []byte
		for i := range 40 {
			for id := model.CgroupID(100); id < 130; id++ {
				s.cgroup(model.CgroupSample{ID: id, RunNS: 1e6, WaitNS: 6e7})
				s.waits(job, id, 40*time.Millisecond)
				s.waits(service, id, 20*time.Millisecond)
			}
			for _, h := range hogs {
				s.uses(h, job, time.Duration(i+1)*100*time.Millisecond)
				s.storm(h, job, 5, 1)
			}
			for _, c := range s.end(1, 1) {
				text, err := json.Marshal(c.Incident)
				if err != nil {
					t.Fatal(err)
				}
				out = append(append(out, c.Type...), text...)
			}
		}
		return out
	}
	first := play()
	if len(first) < 1000 {
		t.Fatal("nothing happens in this scene")
	}
	for range 20 {
		if !slices.Equal(first, play()) {
			t.Fatal("the same samples gave something else")
		}
	}
}

func TestACulpritIsNamedOnceItsPathIsKnown(t *testing.T) {
	s := newScene()
	s.watch.name = func(path string) model.Workload { return model.Workload{Unit: "unit-of" + path} }
	const hidden model.CgroupID = 90 // paths has none for it
	bomb := s.proc(model.ProcID{PID: 1}, hidden, "bomb")
	for range 12 {
		s.forking(hidden, 10, bomb)
	}
	in := s.open(model.ForkStorm)
	if in == nil || in.Culprit.Cgroup != "" || in.Culprit.CgroupID != hidden {
		t.Fatalf("incident %+v, want one whose cgroup has no path", in)
	}
	for range 12 {
		s.forking(hidden, 10, bomb)
	}
	s.cgroup(model.CgroupSample{ID: hidden, Path: "/late"})
	s.forking(hidden, 10, bomb)
	if c := in.Culprit; c.Cgroup != "/late" || c.Unit != "unit-of/late" || c.Workload.Unit != c.Unit || c.Root.ProcID != bomb {
		t.Errorf("culprit %+v, want the tree of %v in /late", c, bomb)
	}
}

func TestTheDefaultsAreAcceptedAndTheKindsAreThoseThatAreDetected(t *testing.T) {
	if c := DefaultConfig(); c.Check() != nil {
		t.Errorf("the defaults are refused: %v", c.Check())
	}
	if want := model.Kinds; !slices.Equal(want, Kinds()) {
		t.Errorf("kinds %v, want %v", Kinds(), want)
	}
}
