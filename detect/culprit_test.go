package detect

import (
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Cases of process trees as in tetragon's contrib/tester-progs and LTP's controllers: how
// a workload may make its processes, and who answers for them.

// forking lets each of the processes fork so many children that stay, in every tick.
func (s *scene) forking(cgroup model.CgroupID, n int, parents ...model.ProcID) {
	for _, p := range parents {
		for range n {
			s.fork(p, cgroup, "child")
		}
	}
	s.cgroup(model.CgroupSample{ID: cgroup, Forks: uint64(n * len(parents))})
	s.end(0.4, 0)
}

func TestTheCulpritTree(t *testing.T) {
	const ticks = 14
	tests := []struct {
		name string
		// play makes a storm and says who answers for it.
		play    func(s *scene) (root model.ProcID, cgroup model.CgroupID)
		outside int
	}{
		{"that daemonised by a double fork is its own, beside its shell", func(s *scene) (model.ProcID, model.CgroupID) {
			shell := s.proc(model.ProcID{PID: 1}, session, "bash")
			s.end(0.1, 0)
			first := s.fork(shell, session, "daemon")
			daemon := s.fork(first, session, "daemon") // after setsid: a session is nothing here
			s.exit(first)
			s.end(0.1, 0)
			for range ticks {
				s.forking(session, 10, daemon)
			}
			return daemon, session
		}, 1},
		{"that became another program is the same process", func(s *scene) (model.ProcID, model.CgroupID) {
			p := s.proc(model.ProcID{PID: 1}, job, "sh")
			for i := range ticks {
				if i == 3 {
					s.sample.Procs.Execed = append(s.sample.Procs.Execed, model.Exec{ProcID: p, Comm: "bomb", Cmdline: "/tmp/bomb"})
				}
				s.forking(job, 10, p)
			}
			return p, job
		}, 0},
		{"whose middle ends keeps together, whoever adopts the orphans", func(s *scene) (model.ProcID, model.CgroupID) {
			s.proc(model.ProcID{PID: 1}, job, "subreaper")
			top := s.proc(model.ProcID{PID: 1}, job, "top")
			a := s.fork(top, job, "middle")
			b := s.fork(a, job, "worker")
			c := s.fork(a, job, "worker")
			s.exit(a)
			s.end(0.1, 0)
			for i := range ticks {
				if i%4 == 0 { // a walk over the table finds them again, adopted
					for _, id := range []model.ProcID{b, c} {
						s.sample.Procs.Usage = append(s.sample.Procs.Usage, model.Usage{ProcID: id, Cgroup: job, CPUNS: 1})
					}
				}
				s.forking(job, 5, b, c)
			}
			return top, job
		}, 1},
		{"whose leader exits before its threads goes on until the last of them ends", func(s *scene) (model.ProcID, model.CgroupID) {
			// An exit comes with the last thread; that the leader is gone is not told.
			p := s.proc(model.ProcID{PID: 1}, job, "leader")
			for range ticks {
				s.forking(job, 10, p)
			}
			return p, job
		}, 0},
		{"that is spread over cgroups answers in each for what it makes there", func(s *scene) (model.ProcID, model.CgroupID) {
			top := s.proc(model.ProcID{PID: 1}, session, "top")
			s.proc(model.ProcID{PID: 1}, session, "other")
			there := s.proc(top, job, "there")
			s.end(0.1, 0)
			for range ticks {
				s.forking(job, 10, there)
			}
			return there, job
		}, 0},
		{"that forks into somebody else's cgroup answers in its own", func(s *scene) (model.ProcID, model.CgroupID) {
			s.proc(model.ProcID{PID: 1}, service, "web")
			bad := s.proc(model.ProcID{PID: 1}, job, "bad")
			s.end(0.1, 0)
			for range ticks {
				for range 10 {
					s.fork(bad, service, "x")
					s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1].ParentCgroup = job
				}
				s.cgroup(model.CgroupSample{ID: job, Forks: 10})
				s.end(0.4, 0)
			}
			return bad, job
		}, 0},
		{"that sends a shell into somebody else's cgroup to fork there answers in its own", func(s *scene) (model.ProcID, model.CgroupID) {
			s.proc(model.ProcID{PID: 1}, service, "web")
			bad := s.proc(model.ProcID{PID: 1}, job, "bad")
			s.end(0.1, 0)
			for range 3 * ticks {
				shell := s.fork(bad, service, "sh")
				s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1].ParentCgroup = job
				for range 10 {
					s.exit(s.fork(shell, service, "x"))
				}
				s.exit(shell)
				s.cgroup(model.CgroupSample{ID: job, Forks: 1})
				s.cgroup(model.CgroupSample{ID: service, Forks: 10, Exits: 11})
				s.end(0.4, 0)
			}
			return bad, job
		}, 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			root, cgroup := tt.play(s)
			in := s.open(model.ForkStorm)
			if in == nil {
				t.Fatal("nothing opened")
			}
			if in.Culprit.Root.ProcID != root || in.Culprit.CgroupID != cgroup || in.Culprit.Scope != model.ScopeTree || in.Culprit.Outside != tt.outside {
				t.Errorf("culprit %+v, want the tree of %v in cgroup %d with %d outside", in.Culprit, root, cgroup, tt.outside)
			}
			for _, c := range s.changes {
				if c.Incident.Culprit.CgroupID != cgroup {
					t.Errorf("%s accuses cgroup %d, too", c.Incident.Kind, c.Incident.Culprit.CgroupID)
				}
			}
			checkTable(t, s.watch.window.table)
		})
	}
}

func TestAStormWhoseRootEndsIsThatOfWhoGoesOn(t *testing.T) {
	s := newScene()
	s.proc(model.ProcID{PID: 1}, job, "peer")
	top := s.proc(model.ProcID{PID: 1}, job, "top")
	heir := s.proc(top, job, "heir")
	for range 12 {
		s.forking(job, 10, top)
	}
	in := s.open(model.ForkStorm)
	if in == nil || in.Culprit.Root.ProcID != top {
		t.Fatalf("incident %+v, want one of %v", in, top)
	}
	s.exit(top)
	for range 12 {
		s.forking(job, 10, heir)
	}
	if len(s.changes) != 1 || s.open(model.ForkStorm) != in {
		t.Fatalf("changes %+v, want the same incident to go on", s.changes)
	}
	// What top left behind is none of the heir's.
	if c := in.Culprit; c.Root.ProcID != heir || c.Root.Comm != "heir" || c.Scope != model.ScopeTree || c.Processes != 121 || c.Outside != 121 {
		t.Errorf("culprit %+v, want the tree of %v, of 121 processes, with as many outside", c, heir)
	}
}

func TestWhoEntersTheCgroupLaterIsOutsideTheTreeWhicheverPartOfItGoesOn(t *testing.T) {
	s := newScene()
	top := s.proc(model.ProcID{PID: 1}, job, "top")
	part := s.proc(top, job, "part")
	for range 12 {
		s.forking(job, 5, top, part)
	}
	in := s.open(model.ForkStorm)
	if in == nil || in.Culprit.Root.ProcID != top || in.Culprit.Outside != 0 {
		t.Fatalf("incident %+v, want one of %v with nobody outside", in, top)
	}
	for range 12 { // until all that is looked at is the part
		s.forking(job, 10, part)
	}
	s.proc(model.ProcID{PID: 1}, job, "stranger")
	s.forking(job, 10, part)
	if c := in.Culprit; c.Root.ProcID != top || c.Outside != 1 || c.Processes != 252 {
		t.Errorf("culprit %+v, want the tree of %v, of 252 processes, with the stranger outside", c, top)
	}
}

func TestAClockThatJumpsDiscardsTheWindowAndTheEvidenceSaysSo(t *testing.T) {
	for _, jump := range []time.Duration{time.Hour, -time.Hour} {
		s := newScene()
		bomb := s.proc(model.ProcID{PID: 1}, job, "bomb")
		for range 7 {
			s.forking(job, 10, bomb)
		}
		s.sample.Lost.ClockJumpNS = int64(jump)
		for range 5 {
			if s.forking(job, 10, bomb); len(s.changes) > 0 {
				t.Fatal("what was held before the clock jumped counted after it")
			}
		}
		for range 6 {
			s.forking(job, 10, bomb)
		}
		in := s.open(model.ForkStorm)
		if in == nil || in.Evidence["window_discarded_s_ago"] == 0 {
			t.Errorf("incident %+v, want one that says that its window is young", in)
		}
	}
}

// Whatever starts the services has thousands of children, and is none of their trees.
func TestChildrenInOtherCgroupsAreOutsideATree(t *testing.T) {
	s := newScene()
	manager := s.proc(model.ProcID{PID: 1}, session, "manager")
	worker := s.proc(manager, session, "worker")
	for range 50 {
		service := s.proc(manager, job, "service")
		s.proc(service, session, "lost")
	}
	s.end(0, 0)
	a := s.watch.window.table.tally(session, map[*node]float64{s.watch.window.table.nodes[worker]: 1})
	if n := a.entries[s.watch.window.table.nodes[manager]]; n.size != 2 || len(a.tops) != 51 || a.members != 52 {
		t.Errorf("%d in the manager's tree, %d trees and %d members, want 2, 51 and 52", n.size, len(a.tops), a.members)
	}
	if got := a.suspects(0)[0]; got.root.ProcID != worker || got.outside != 51 {
		t.Errorf("the suspect is %v with %d outside, want %v and 51", got.root.ProcID, got.outside, worker)
	}
}

// by is a process of a user's.
func (s *scene) by(uid uint32, parent model.ProcID, cgroup model.CgroupID, comm string) model.ProcID {
	id := s.fork(parent, cgroup, comm)
	s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1].UID = uid
	return id
}

func TestWhoStartedAJobDoesNotAnswerForWhatItsUserLeavesBehind(t *testing.T) {
	for _, tt := range []struct {
		name   string
		leaves int // processes that each link of the chain leaves behind
	}{{"a chain", 0}, {"a chain with sleepers", 2}} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			cron := s.proc(model.ProcID{PID: 1}, job, "cron")
			other := s.by(1001, cron, job, "backup")
			last := s.by(1000, cron, job, "chain")
			for range 16 {
				forks := 0
				for range 5 {
					next := s.by(1000, last, job, "chain")
					for range tt.leaves {
						s.by(1000, last, job, "sleeper")
					}
					s.exit(last)
					s.sample.Procs.Exited[len(s.sample.Procs.Exited)-1].CPUNS = uint64(50 * time.Millisecond)
					last = next
					forks += 1 + tt.leaves
				}
				s.uses(cron, job, s.now/1000)
				s.uses(other, job, s.now/1000)
				s.cgroup(model.CgroupSample{ID: job, Forks: uint64(forks), Exits: 5, RunNS: uint64(tick)})
				s.cgroup(model.CgroupSample{ID: service, WaitNS: uint64(tick), RunNS: uint64(10 * time.Millisecond)})
				s.waits(job, service, tick)
				s.end(1, 1)
			}
			for _, kind := range []model.Kind{model.ForkStorm, model.CPUContention} {
				in := s.open(kind)
				if in == nil || in.Culprit.CgroupID != job || in.Culprit.Scope != model.ScopeCgroup {
					t.Fatalf("%s: %+v, want cgroup %d as a whole", kind, in, job)
				}
			}
			in := s.open(model.ForkStorm)
			if left := in.Evidence["net_growth_per_second"]; left != float64(20*tt.leaves) {
				t.Errorf("%v processes a second are left, want %d", left, 20*tt.leaves)
			}
		})
	}
}

// What the processes of a cgroup leave to somebody elsewhere is the cgroup's: to pid 1, to a user's
// manager or that of a container, or to whoever started the first of them, be he busy or not.
func TestWhatIsLeftToSomebodyElsewhereIsTheCgroups(t *testing.T) {
	const elsewhere model.CgroupID = 80
	for _, tt := range []struct {
		name   string
		heir   string // "" is pid 1
		cgroup model.CgroupID
		often  int // in every so many ticks the heir makes a process
	}{
		{"pid 1", "", job, 0},
		{"pid 1, in one cgroup with them", "", root, 0},
		{"systemd", "systemd", job, 0},
		{"who waits for all", "shim", job, 0},
		{"sshd, which makes one for each who comes", "sshd", job, 4},
		{"sshd, which makes one now and then", "sshd", job, 7},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			first, from := s.sample.Procs.Forked[0].ProcID, root // pid 1
			if tt.heir != "" {
				first, from = s.proc(first, elsewhere, tt.heir), elsewhere
			}
			quiet := s.proc(first, tt.cgroup, "quiet")
			last := s.fork(first, tt.cgroup, "chain")
			s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1].ParentCgroup = from
			for i := range 64 {
				for range 5 {
					next := s.fork(last, tt.cgroup, "chain")
					s.fork(last, tt.cgroup, "left")
					s.exit(last)
					s.sample.Procs.Exited[len(s.sample.Procs.Exited)-1].CPUNS = uint64(50 * time.Millisecond)
					last = next
				}
				if tt.often > 0 && i%tt.often == 0 {
					s.exit(s.fork(first, from, "visit"))
				}
				s.uses(quiet, tt.cgroup, time.Duration(i)*time.Millisecond)
				s.cgroup(model.CgroupSample{ID: tt.cgroup, Forks: 10, Exits: 5, ShortExits: 5, RunNS: uint64(tick)})
				s.cgroup(model.CgroupSample{ID: service, WaitNS: uint64(tick), RunNS: uint64(10 * time.Millisecond)})
				s.waits(tt.cgroup, service, tick)
				for _, c := range s.end(1, 1) {
					if in := c.Incident; in.Culprit.CgroupID != tt.cgroup || in.Culprit.Scope != model.ScopeCgroup {
						t.Fatalf("%s accuses %+v", in.Kind, in.Culprit)
					}
				}
			}
			for _, kind := range []model.Kind{model.ForkStorm, model.CPUContention, model.ShortLivedJobs} {
				if s.open(kind) == nil {
					t.Errorf("no %s", kind)
				}
			}
			if in := s.open(model.ForkStorm); in != nil && (in.Evidence["net_growth_per_second"] != 20 || in.Evidence["exits_per_second"] < 20) {
				t.Errorf("%v", in.Evidence)
			}
		})
	}
}
