package detect

import (
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// fight lets the hog's cgroup make the service wait, and the service the hog, for so
// much of each tick.
func (s *scene) fight(hogToService, serviceToHog, hogSelf time.Duration) {
	s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(400 * time.Millisecond), WaitNS: uint64(serviceToHog + hogSelf)})
	s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(100 * time.Millisecond), WaitNS: uint64(hogToService)})
	s.waits(job, service, hogToService)
	s.waits(service, job, serviceToHog)
	s.waits(job, job, hogSelf)
}

func hogsAndService(s *scene) (parent model.ProcID, hogs []model.ProcID) {
	parent = s.proc(model.ProcID{PID: 1}, job, "batch")
	for range 4 {
		hogs = append(hogs, s.proc(parent, job, "hog"))
	}
	s.proc(model.ProcID{PID: 1}, service, "web")
	return parent, hogs
}

func TestHogsThatKeepAServiceFromRunningAreAccusedAndTheServiceIsNot(t *testing.T) {
	s := newScene()
	parent, hogs := hogsAndService(s)
	s.end(0.1, 0)
	for i := range 20 {
		for _, h := range hogs {
			s.uses(h, job, time.Duration(i+1)*100*time.Millisecond)
		}
		// In nanoseconds the service makes the crowd wait just as long.
		s.fight(120*time.Millisecond, 130*time.Millisecond, 400*time.Millisecond)
		s.end(1, 1)
	}
	in := s.open(model.CPUContention)
	if in == nil {
		t.Fatal("nothing opened")
	}
	if in.Culprit.CgroupID != job || in.Culprit.Root.ProcID != parent {
		t.Errorf("culprit %+v, want the tree of %v in cgroup %d", in.Culprit, parent, job)
	}
	if len(in.Victims) != 1 || in.Victims[0].CgroupID != service || in.Victims[0].StallMS < 900 {
		t.Errorf("victims %+v, want the service with about a second and more", in.Victims)
	}
	if got := in.Evidence["offender_share_percent"]; got != 100 {
		t.Errorf("offender_share_percent %v, want 100", got)
	}
}

// Who runs three fifths of the time beside somebody of a ninth of its weight is still deprived.
func TestWhoHasTheWeightMayHaveTheCPU(t *testing.T) {
	for _, tt := range []struct {
		weight uint32
		use    float64
		want   model.Kind
	}{{100, 1, ""}, {900, 1, model.CPUContention}, {100, 0.5, ""}, {900, 0.5, model.NoisyNeighbour}} {
		s := newScene()
		hogsAndService(s)
		s.end(0.1, 0)
		for range 20 {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(200 * time.Millisecond)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(300 * time.Millisecond), CPUWeights: []uint32{tt.weight}})
			s.waits(job, service, 200*time.Millisecond)
			s.end(tt.use, 1)
		}
		for _, kind := range []model.Kind{model.CPUContention, model.NoisyNeighbour} {
			if in := s.open(kind); (in != nil) != (kind == tt.want) {
				t.Errorf("%+v, %s: %+v", tt, kind, in)
			}
		}
	}
}

// Two that do the same, each ahead of the other for less than the hold.
func TestTwoThatTakeTurnsAsTheWorstAreBothAccused(t *testing.T) {
	s := newScene()
	for _, id := range []model.CgroupID{job, session, service} {
		s.proc(model.ProcID{PID: 1}, id, "x")
	}
	s.end(0.1, 0)
	for i := range 40 {
		ahead := time.Duration(i/5%2) * 5 * time.Millisecond
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(200 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: session, RunNS: uint64(200 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(20 * time.Millisecond)})
		s.waits(job, service, 20*time.Millisecond+ahead)
		s.waits(session, service, 25*time.Millisecond-ahead)
		s.end(1, 1)
	}
	accused := map[model.CgroupID]*model.Incident{}
	for _, c := range s.changes {
		if c.Incident.Kind == model.CPUContention && c.Incident.State == model.Open {
			accused[c.Incident.Culprit.CgroupID] = c.Incident
		}
	}
	if len(accused) != 2 || accused[job] == nil || accused[session] == nil {
		t.Fatalf("accused: %v", accused)
	}
	for id, in := range accused {
		// Neither stands out.
		if in.Margin > 0.2 || len(in.Contributors) != 2 {
			t.Errorf("%d: margin %v, contributors %+v", id, in.Margin, in.Contributors)
		}
	}
}

// Two fights on different CPUs: each is told as what it is, whatever goes on in the other.
func TestWhoDoesAllToItsVictimsStandsOutBesideAnother(t *testing.T) {
	s := newScene()
	s.host.CPUs = 4
	for _, id := range []model.CgroupID{job, session, service, 80} {
		s.proc(model.ProcID{PID: 1}, id, "x")
	}
	s.end(0.1, 0)
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(350 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: session, RunNS: uint64(350 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(150 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: 80, RunNS: uint64(150 * time.Millisecond)})
		s.waits(job, service, 100*time.Millisecond)
		s.waits(session, 80, 97*time.Millisecond)
		s.end(1, 1)
	}
	told := map[model.CgroupID]bool{}
	for _, c := range s.changes {
		if in := c.Incident; in.Kind == model.CPUContention {
			told[in.Culprit.CgroupID] = true
			if in.Margin != 1 || in.Evidence["offender_share_percent"] != 100 || len(in.Victims) != 1 {
				t.Errorf("margin %v, %v, victims %+v", in.Margin, in.Evidence, in.Victims)
			}
		}
	}
	if len(told) != 2 || !told[job] || !told[session] {
		t.Errorf("told of %v", told)
	}
}

// Beside the worst nobody is accused who got hardly more than he was entitled to.
func TestWhoGotAboutHisShareIsNotAccusedBesideTheWorst(t *testing.T) {
	s := newScene()
	for _, id := range []model.CgroupID{job, session, service} {
		s.proc(model.ProcID{PID: 1}, id, "x")
	}
	s.end(0.1, 0)
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(190 * time.Millisecond), WaitNS: uint64(tick)})
		s.cgroup(model.CgroupSample{ID: session, RunNS: uint64(168 * time.Millisecond), WaitNS: uint64(tick)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(142 * time.Millisecond), WaitNS: uint64(tick)})
		s.waits(job, service, 56*time.Millisecond)
		s.waits(session, service, 50*time.Millisecond)
		s.waits(service, job, 60*time.Millisecond)
		s.waits(service, session, 60*time.Millisecond)
		s.end(1, 1)
	}
	in := s.open(model.CPUContention)
	if in == nil || in.Culprit.CgroupID != job {
		t.Fatalf("%+v", in)
	}
	for _, c := range s.changes {
		if c.Incident.Kind == model.CPUContention && c.Incident.Culprit.CgroupID == session {
			t.Errorf("%+v", c.Incident)
		}
	}
}

func TestCPUContentionStaysSilent(t *testing.T) {
	tests := []struct {
		name string
		tick func(*scene)
	}{
		{"when a busy job makes only itself wait", func(s *scene) {
			s.fight(0, 0, 900*time.Millisecond)
			s.end(1, 1)
		}},
		{"when equals fight", func(s *scene) {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(tick), WaitNS: uint64(tick)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(tick), WaitNS: uint64(tick)})
			s.waits(job, service, tick)
			s.waits(service, job, tick)
			s.end(1, 1)
		}},
		{"when a service gets what it is entitled to, though it waits for a crowd", func(s *scene) {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(380 * time.Millisecond)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(120 * time.Millisecond)})
			s.waits(job, service, 13*time.Millisecond)
			s.waits(service, job, 400*time.Millisecond)
			s.end(1, 1)
		}},
		{"when the victim waits as long as its weight says", func(s *scene) {
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(400 * time.Millisecond)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(100 * time.Millisecond), CPUWeights: []uint32{25}})
			s.waits(job, service, 120*time.Millisecond)
			s.end(1, 1)
		}},
		{"when the CPUs are not busy", func(s *scene) {
			s.fight(120*time.Millisecond, 10*time.Millisecond, 0)
			s.end(0.6, 1)
		}},
		{"when nobody waits long", func(s *scene) {
			s.fight(5*time.Millisecond, 5*time.Millisecond, 400*time.Millisecond)
			s.end(1, 1)
		}},
		{"without pressure stall information", func(s *scene) {
			s.host.PressureAbsent = true
			s.fight(120*time.Millisecond, 10*time.Millisecond, 0)
			s.end(1, 1)
		}},
		{"when the victim's own quota holds it", func(s *scene) {
			held := uint64(s.now-time.Hour) / 2
			s.cgroup(model.CgroupSample{ID: job, RunNS: uint64(2 * tick)})
			s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(tick / 10), Detail: &model.CgroupDetail{ThrottledNS: held}})
			s.waits(job, service, 200*time.Millisecond)
			s.end(1, 1)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			hogsAndService(s)
			s.end(0.1, 0)
			for range 40 {
				tt.tick(s)
				if in := s.open(model.CPUContention); in != nil {
					t.Fatalf("opened: %s %+v", in.Summary, in.Evidence)
				}
			}
		})
	}
}
