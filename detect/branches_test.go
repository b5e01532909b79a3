package detect

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

const (
	web        model.CgroupID = 200
	firstScope model.CgroupID = 300
	scopes                    = 16
)

// split lets a service and one user who has spread over many scopes fight for both CPUs for a
// tick: what the service got, and what each of the scopes did.
func (s *scene) split(path func(model.CgroupID) string, webRan, scopeRan, webMadeWait, scopeMadeWait time.Duration) []Change {
	s.cgroup(model.CgroupSample{ID: web, Path: path(web), RunNS: uint64(webRan)})
	for id := firstScope; id < firstScope+scopes; id++ {
		s.cgroup(model.CgroupSample{ID: id, Path: path(id), RunNS: uint64(scopeRan)})
		s.waits(web, id, webMadeWait)
		s.waits(id, web, scopeMadeWait)
		s.waits(firstScope+(id-firstScope+1)%scopes, id, webMadeWait)
	}
	return s.end(1, 1)
}

func inSlices(id model.CgroupID) string {
	if id == web {
		return "/system.slice/web.service"
	}
	return fmt.Sprintf("/user.slice/user-1000.slice/run-%d.scope", id)
}

func hidden(id model.CgroupID) string {
	if id == web {
		return inSlices(id)
	}
	return ""
}

func sideBySide(id model.CgroupID) string { return fmt.Sprintf("/service-%d", id) }

// The scheduler gives both slices half of the CPUs: none of the scopes has more of one than a
// thirty-second, and that is not the service's doing.
func TestWhoSpreadsOverManyCgroupsIsNotWrongedByAServiceThatGetsWhatIsItsOwn(t *testing.T) {
	for _, tt := range []struct {
		name    string
		path    func(model.CgroupID) string
		accused bool
	}{
		{"in two slices", inSlices, false},
		{"hidden", hidden, false},
		{"services side by side are equals", sideBySide, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			s.proc(model.ProcID{}, web, "web")
			for id := firstScope; id < firstScope+scopes; id++ {
				s.proc(model.ProcID{}, id, "spin")
			}
			s.end(0.1, 0)
			accused := false
			for range 40 {
				for _, c := range s.split(tt.path, 250*time.Millisecond, 15*time.Millisecond, 300*time.Millisecond, 10*time.Millisecond) {
					accused = accused || c.Incident.Culprit.CgroupID == web && c.Incident.Level != model.Info
				}
			}
			if accused != tt.accused {
				t.Errorf("the service is accused: %v, want %v", accused, tt.accused)
			}
		})
	}
}

// Where the scheduler knows of no branches, many take from one what is its own.
func TestManyCgroupsOfOneBranchThatStarveAServiceAreNotItsEquals(t *testing.T) {
	s := newScene()
	s.proc(model.ProcID{}, web, "web")
	for id := firstScope; id < firstScope+scopes; id++ {
		s.proc(model.ProcID{}, id, "spin")
	}
	s.end(0.1, 0)
	for range 40 {
		s.split(inSlices, 30*time.Millisecond, 29*time.Millisecond, 10*time.Millisecond, 40*time.Millisecond)
		if in := s.open(model.CPUContention); in != nil {
			if in.Culprit.CgroupID < firstScope || len(in.Victims) != 1 || in.Victims[0].CgroupID != web {
				t.Errorf("culprit %+v, victims %+v", in.Culprit, in.Victims)
			}
			return
		}
	}
	t.Error("nothing opened")
}

// running is what a cgroup got in a tick of two CPUs, in ms, and for whom it waited.
type running struct {
	path   string
	ran    int
	waited map[model.CgroupID]int // by whom
}

func TestWhoIsInOneBranchWithACrowdIsItsVictimAndNotItsAccomplice(t *testing.T) {
	const left, right model.CgroupID = 80, 90
	type told map[model.CgroupID][]model.CgroupID // victims, by culprit
	wait := func(by model.CgroupID, ms int) map[model.CgroupID]int { return map[model.CgroupID]int{by: ms} }
	// The branch of both got more than its third because of the crowd; the service got more than its
	// part of that third, and less than its part of what the branch got.
	beside := func(others map[model.CgroupID]int) map[model.CgroupID]running {
		return map[model.CgroupID]running{
			job:     {"/batch.slice/job", 275, map[model.CgroupID]int{service: 200, job: 900}},
			service: {"/batch.slice/service", 110, wait(job, 140)},
			left:    {"/other-80", 57, others},
			right:   {"/other-90", 57, others},
		}
	}
	for _, tt := range []struct {
		name string
		tick map[model.CgroupID]running
		want told
	}{
		{"the others wait for the crowd", beside(wait(job, 120)), told{job: {service, left, right}}},
		{"the others wait for both", beside(map[model.CgroupID]int{job: 60, service: 150}), told{job: {service, left, right}}},
		{"the others wait for the service alone", beside(wait(service, 120)), told{service: {left, right}, job: {service}}},
		// Who is elsewhere has not taken what the crowd took from the service.
		{"the service waits for an innocent in another branch too", map[model.CgroupID]running{
			job:     {"/batch.slice/job", 205, map[model.CgroupID]int{job: 900}},
			service: {"/batch.slice/service", 120, wait(left, 200)},
			left:    {"/c/x", 162, wait(right, 212)},
			right:   {"/c/y", 12, wait(job, 190)},
		}, told{job: {right}}},
		// A crowd elsewhere that got more than he did excuses nobody.
		{"with a bigger one beside it that the victim never met", map[model.CgroupID]running{
			job:     {"/u/a", 150, map[model.CgroupID]int{job: 600}},
			left:    {"/u/decoy", 250, map[model.CgroupID]int{left: 500}},
			service: {"/service", 100, wait(job, 150)},
		}, told{job: {service}}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			hogsAndService(s)
			s.proc(model.ProcID{PID: 1}, left, "left")
			s.proc(model.ProcID{PID: 1}, right, "right")
			s.end(0.1, 0)
			got := told{}
			for range 20 {
				for id, is := range tt.tick {
					s.cgroup(model.CgroupSample{ID: id, Path: is.path, RunNS: uint64(is.ran) * uint64(time.Millisecond)})
					for by, ms := range is.waited {
						s.waits(by, id, time.Duration(ms)*time.Millisecond)
					}
				}
				for _, c := range s.end(1, 1) {
					if c.Incident.Kind != model.CPUContention {
						continue
					}
					var victims []model.CgroupID
					for _, v := range c.Incident.Victims {
						victims = append(victims, v.CgroupID)
					}
					slices.Sort(victims)
					got[c.Incident.Culprit.CgroupID] = victims
				}
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}
