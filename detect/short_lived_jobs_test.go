package detect

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// jobs lets parent run n processes in a tick that lived so long, each with its own command
// or all with the same.
func (s *scene) jobs(parent model.ProcID, cgroup model.CgroupID, n int, life time.Duration, command func(int) string) {
	for i := range n {
		id := s.fork(parent, cgroup, "job")
		s.sample.Procs.Execed = append(s.sample.Procs.Execed, model.Exec{ProcID: id, Comm: "job", Cmdline: command(i)})
		s.sample.Procs.Exited = append(s.sample.Procs.Exited, model.Exit{ProcID: id, LifeNS: uint64(life)})
	}
	c := model.CgroupSample{ID: cgroup, Forks: uint64(n), Exits: uint64(n)}
	if life < time.Second {
		c.ShortExits = uint64(n)
	}
	s.cgroup(c)
}

func same(int) string { return "/usr/bin/server --config /etc/broken" }

func different(i int) string { return "cc -c " + string(rune('a'+i)) + ".c" }

func TestACrashLoopOpensAfterTenSecondsAndNamesItsSupervisor(t *testing.T) {
	s := newScene()
	super := s.proc(model.ProcID{PID: 1}, job, "supervise")
	s.proc(model.ProcID{PID: 1}, job, "logger")
	for range 8 {
		s.end(0.1, 0)
	}
	began := s.now
	for s.open(model.ShortLivedJobs) == nil {
		s.jobs(super, job, 7, 30*time.Millisecond, same)
		if s.end(0.4, 0.1); s.now-began > 13*time.Second {
			t.Fatal("nothing opened within 13 s")
		}
	}
	if took := s.now - began; took < 10*time.Second || took > 12500*time.Millisecond {
		t.Errorf("opened after %v, want 10 s and up to 2 s to reach the rate", took)
	}
	in := s.open(model.ShortLivedJobs)
	if in.Culprit.Root.ProcID != super || in.Culprit.Outside != 1 || in.Culprit.Scope != model.ScopeTree {
		t.Errorf("culprit %+v, want the tree of %v with the logger outside", in.Culprit, super)
	}
	if in.Level != model.Info {
		t.Errorf("level %s, and nobody is hurt", in.Level)
	}
	if !strings.Contains(in.Summary, "same command") || in.Evidence["same_command_percent"] != 100 {
		t.Errorf("it does not say that it is the same again and again: %s %v", in.Summary, in.Evidence)
	}
}

func TestAParallelBuildIsInformationalAndNoCrashLoop(t *testing.T) {
	s := newScene()
	shell := s.proc(model.ProcID{PID: 1}, session, "bash")
	build := s.proc(shell, session, "make")
	s.proc(model.ProcID{PID: 1}, service, "web")
	for range 60 {
		s.jobs(build, session, 20, 100*time.Millisecond, different)
		// The service waits for the crowd, and gets what it is entitled to.
		s.cgroup(model.CgroupSample{ID: session, RunNS: uint64(380 * time.Millisecond)})
		s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(120 * time.Millisecond)})
		s.waits(session, service, 13*time.Millisecond)
		s.waits(service, session, 400*time.Millisecond)
		s.end(1, 0.7)
	}
	in := s.open(model.ShortLivedJobs)
	if in == nil || in.Level != model.Info || strings.Contains(in.Summary, "same command") {
		t.Errorf("incident %+v, want an informational one", in)
	}
}

func TestShortJobsThatHurtSomebodyAreTrouble(t *testing.T) {
	s := newScene()
	loop := s.proc(model.ProcID{PID: 1}, job, "sh")
	s.proc(model.ProcID{PID: 1}, service, "web")
	for range 60 {
		s.jobs(loop, job, 40, time.Millisecond, same)
		s.pinned(0)
		s.end(0.5, 0.7)
	}
	in := s.open(model.ShortLivedJobs)
	if in == nil || in.Level == model.Info || len(in.Victims) != 1 || in.Victims[0].CgroupID != service {
		t.Errorf("incident %+v, want one above informational with the service as its victim", in)
	}
}

func TestShortLivedJobsStaysSilent(t *testing.T) {
	tests := []struct {
		name string
		n    int
		life time.Duration
		last int // ticks
	}{
		{"at 16 a second", 4, 10 * time.Millisecond, 80},
		{"where they live for two seconds", 20, 2 * time.Second, 80},
		{"for a burst of eight seconds", 20, 10 * time.Millisecond, 32},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			p := s.proc(model.ProcID{PID: 1}, job, "p")
			for i := range 100 {
				if i < tt.last {
					s.jobs(p, job, tt.n, tt.life, different)
				}
				s.end(0.3, 0)
				if in := s.open(model.ShortLivedJobs); in != nil {
					t.Fatalf("opened: %s", in.Summary)
				}
			}
		})
	}
}

func TestShortJobsWhoseStartersEndAreTheirNearestSurvivingAncestors(t *testing.T) {
	s := newScene()
	daemon := s.proc(model.ProcID{PID: 1}, job, "daemon")
	for range 60 {
		for range 8 {
			middle := s.fork(daemon, job, "middle")
			id := s.fork(middle, job, "job")
			s.exit(middle)
			s.exit(id)
		}
		s.cgroup(model.CgroupSample{ID: job, Forks: 16, Exits: 16, ShortExits: 16})
		s.end(0.3, 0)
	}
	in := s.open(model.ShortLivedJobs)
	if in == nil || in.Culprit.Root.ProcID != daemon || in.Evidence["short_exits_per_second"] != 64 {
		t.Errorf("incident %+v, want the tree of %v with 64 a second", in, daemon)
	}
}

func TestOfManyTreesThatStartShortJobsTheWorstAreTold(t *testing.T) {
	s := newScene()
	var loops []model.ProcID
	for i := range model.CgroupID(maxFindings + 1) {
		loops = append(loops, s.proc(model.ProcID{PID: 1}, 1000+i, "loop"))
	}
	for range 60 {
		for i, loop := range loops {
			s.jobs(loop, model.CgroupID(1000+i), 10+i, time.Millisecond, same)
		}
		s.end(0.3, 0)
	}
	var told []model.ProcID
	for _, c := range s.changes {
		if c.Incident.Kind == model.ShortLivedJobs {
			told = append(told, c.Incident.Culprit.Root.ProcID)
		}
	}
	if len(told) != maxFindings || !slices.Contains(told, loops[maxFindings]) || slices.Contains(told, loops[0]) {
		t.Errorf("told of %v, want all but the least, %v", told, loops[0])
	}
}

// CLONE_INTO_CGROUP: who is made to hold the children is not who makes them.
func TestWhoStartsShortJobsInSomebodyElsesCgroupAnswersForThem(t *testing.T) {
	s := newScene()
	bad := s.proc(model.ProcID{PID: 1}, job, "bad")
	s.proc(model.ProcID{PID: 1}, service, "web")
	for range 60 {
		for range 10 {
			id := s.fork(bad, service, "x")
			s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1].ParentCgroup = job
			s.exit(id)
		}
		s.cgroup(model.CgroupSample{ID: job, Forks: 10})
		s.cgroup(model.CgroupSample{ID: service, Exits: 10, ShortExits: 10})
		for _, c := range s.end(0.3, 0) {
			if c.Incident.Culprit.CgroupID != job {
				t.Fatalf("%s accuses cgroup %d", c.Incident.Kind, c.Incident.Culprit.CgroupID)
			}
		}
	}
	if in := s.open(model.ShortLivedJobs); in == nil || in.Culprit.Root.ProcID != bad {
		t.Errorf("incident %+v, want the tree of %v", in, bad)
	}
}

// A loop that polls, or a build, is not to blame for what a hog beside it in its cgroup does.
func TestATreeAnswersForItsPartOfWhatItsCgroupDoesToOthers(t *testing.T) {
	for _, tt := range []struct {
		name      string
		loop, hog time.Duration // of CPU, in each tick
		hurts     bool
	}{
		{"a hog beside it", 5 * time.Millisecond, 400 * time.Millisecond, false},
		{"nobody beside it", 400 * time.Millisecond, 5 * time.Millisecond, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			loop := s.proc(model.ProcID{PID: 1}, session, "sh")
			hog := s.proc(model.ProcID{PID: 1}, session, "hog")
			s.proc(model.ProcID{PID: 1}, service, "web")
			s.uses(loop, session, 0)
			s.uses(hog, session, 0)
			s.end(0.1, 0)
			for i := range time.Duration(80) {
				s.jobs(loop, session, 10, tick/2, func(int) string { return "true" })
				s.sample.Cgroups = nil
				s.cgroup(model.CgroupSample{ID: session, Forks: 10, Exits: 10, ShortExits: 10, RunNS: uint64(405 * time.Millisecond)})
				s.cgroup(model.CgroupSample{ID: service, RunNS: uint64(20 * time.Millisecond)})
				s.waits(session, service, 220*time.Millisecond)
				s.uses(loop, session, (i+1)*tt.loop)
				s.uses(hog, session, (i+1)*tt.hog)
				s.end(1, 1)
			}
			for _, kind := range []model.Kind{model.ShortLivedJobs, model.ForkStorm} {
				in := s.open(kind)
				if in == nil || in.Culprit.Root.ProcID != loop {
					t.Fatalf("%s: %+v, want the tree of %v", kind, in, loop)
				}
				if hurts := len(in.Victims) > 0; hurts != tt.hurts || hurts != (in.Level != model.Info) {
					t.Errorf("%s: level %s, victims %+v", kind, in.Level, in.Victims)
				}
			}
		})
	}
}
