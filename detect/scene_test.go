package detect

import (
	"cmp"
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

const tick = 250 * time.Millisecond

// scene makes samples of a machine with two CPUs, a tick at a time.
type scene struct {
	watch   *Watch
	host    model.Host
	now     time.Duration // since boot
	nextPID int32
	sample  *model.Sample
	changes []Change
}

func newScene() *scene {
	s := &scene{
		watch:   NewWatch(DefaultConfig(), func(string) model.Workload { return model.Workload{} }),
		host:    model.Host{BootID: "5f0c", CPUs: 2},
		now:     time.Hour,
		nextPID: 100,
	}
	s.begin()
	init := s.proc(model.ProcID{}, root, "init")
	s.sample.Procs.Forked[0].PID = 1
	init.PID = 1
	return s
}

const (
	root    model.CgroupID = 1
	session model.CgroupID = 50
	job     model.CgroupID = 60
	service model.CgroupID = 70
)

var paths = map[model.CgroupID]string{root: "/", session: "/session", job: "/job", service: "/service", 80: "/other"}

func (s *scene) begin() { s.sample = &model.Sample{LengthNS: int64(tick)} }

// end feeds the tick, with all CPUs busy and somebody waiting for those parts of it.
func (s *scene) end(use, some float64) []Change {
	s.now += tick
	busy := uint64(use * float64(tick) * float64(s.host.CPUs))
	s.host.CPUBusyNS += busy
	s.host.CPUIdleNS += uint64(tick)*uint64(s.host.CPUs) - busy
	s.host.Pressure.CPU.SomeUS += uint64(some * float64(tick.Microseconds()))
	s.sample.Host = s.host
	s.sample.BootNS = int64(s.now)
	s.sample.Time = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(s.now)
	s.changes = s.watch.Feed(s.sample)
	for _, c := range s.changes {
		for key := range c.Incident.Evidence {
			if !slices.ContainsFunc(model.Evidence, func(k model.EvidenceKey) bool { return k.Name == key && k.Of(c.Incident.Kind) }) {
				panic(fmt.Sprintf("model.Evidence does not have %s of a %s", key, c.Incident.Kind)) // policies would be refused for it
			}
		}
	}
	s.begin()
	return s.changes
}

// proc is a process that ran before.
func (s *scene) proc(parent model.ProcID, cgroup model.CgroupID, comm string) model.ProcID {
	id := s.fork(parent, cgroup, comm)
	s.sample.Procs.Forked[len(s.sample.Procs.Forked)-1].Found = true
	return id
}

func (s *scene) fork(parent model.ProcID, cgroup model.CgroupID, comm string) model.ProcID {
	s.nextPID++
	id := model.ProcID{PID: s.nextPID, StartTime: uint64(s.now / (10 * time.Millisecond))}
	s.sample.Procs.Forked = append(s.sample.Procs.Forked, model.Proc{ProcID: id, Parent: parent, Cgroup: cgroup, Comm: comm})
	return id
}

func (s *scene) exit(id model.ProcID) {
	s.sample.Procs.Exited = append(s.sample.Procs.Exited, model.Exit{ProcID: id, LifeNS: uint64(tick)})
}

func (s *scene) cgroup(c model.CgroupSample) {
	c.Path = cmp.Or(c.Path, paths[c.ID])
	s.sample.Cgroups = append(s.sample.Cgroups, c)
}

func (s *scene) waits(offender, victim model.CgroupID, d time.Duration) {
	s.sample.Waits = append(s.sample.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: offender, Victim: victim, NS: uint64(d)})
}

func (s *scene) uses(id model.ProcID, cgroup model.CgroupID, total time.Duration) {
	s.sample.Procs.Usage = append(s.sample.Procs.Usage, model.Usage{ProcID: id, Cgroup: cgroup, CPUNS: uint64(total)})
}

// incidents gives those that the changes so far left open, of a kind.
func (s *scene) open(kind model.Kind) *model.Incident {
	for _, c := range s.changes {
		if c.Incident.Kind == kind && c.Incident.State == model.Open {
			return c.Incident
		}
	}
	return nil
}
