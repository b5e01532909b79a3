package detect

import (
	"fmt"
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
