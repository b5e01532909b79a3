package detect

import (
	"fmt"
	"slices"
	"testing"
	"time"

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

// A service is in one branch with a crowd that takes more than the whole branch is entitled to,
// beside others who want much. It got more than its part of the branch's share, and less than its
// part of what the branch got: the crowd answers for that, and the service not for the crowd.
func TestWhoIsInOneBranchWithACrowdIsItsVictimAndNotItsAccomplice(t *testing.T) {
	const left, right model.CgroupID = 80, 90
	for _, tt := range []struct {
		name    string
		waitFor model.CgroupID // whom the others wait for
		victims []model.CgroupID
	}{
		{"where the others wait for the crowd too", job, []model.CgroupID{service, left, right}},
		{"where the others wait for the service", service, []model.CgroupID{service}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			hogsAndService(s)
			s.proc(model.ProcID{PID: 1}, left, "left")
			s.proc(model.ProcID{PID: 1}, right, "right")
			s.end(0.1, 0)
			var in *model.Incident
			for range 20 {
				s.cgroup(model.CgroupSample{ID: job, Path: "/batch.slice/job", RunNS: uint64(275 * time.Millisecond)})
				s.cgroup(model.CgroupSample{ID: service, Path: "/batch.slice/service", RunNS: uint64(110 * time.Millisecond)})
				s.waits(job, service, 140*time.Millisecond)
				s.waits(service, job, 200*time.Millisecond)
				s.waits(job, job, 900*time.Millisecond)
				for _, id := range []model.CgroupID{left, right} {
					s.cgroup(model.CgroupSample{ID: id, Path: fmt.Sprintf("/other-%d", id), RunNS: uint64(57 * time.Millisecond)})
					s.waits(tt.waitFor, id, 120*time.Millisecond)
				}
				for _, c := range s.end(1, 1) {
					if c.Incident.Kind == model.CPUContention {
						in = c.Incident
						if in.Culprit.CgroupID != job {
							t.Fatalf("culprit %+v", in.Culprit)
						}
					}
				}
			}
			if in == nil {
				t.Fatal("nothing opened")
			}
			var victims []model.CgroupID
			for _, v := range in.Victims {
				victims = append(victims, v.CgroupID)
			}
			slices.Sort(victims)
			if !slices.Equal(victims, tt.victims) {
				t.Errorf("victims %v, want %v", victims, tt.victims)
			}
		})
	}
}
