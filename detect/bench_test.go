package detect

import (
	"fmt"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// crowd makes samples of a busy machine: 2,000 cgroups of ten processes each.
type crowd struct {
	now     time.Duration
	nextPID int32
	young   []model.ProcID // made since, the oldest first
	parents []model.ProcID // of each cgroup
	all     []model.ProcID
	host    model.Host
	ticks   int
	paths   []string   // of each cgroup
	weights [][]uint32 // where they have some of their own
}

const (
	crowdCgroups   = 2000
	crowdProcesses = 20_000
)

func (c *crowd) proc(s *model.Sample, parent model.ProcID, cgroup model.CgroupID, found bool) model.ProcID {
	c.nextPID++
	id := model.ProcID{PID: c.nextPID, StartTime: uint64(c.now / (10 * time.Millisecond))}
	s.Procs.Forked = append(s.Procs.Forked, model.Proc{ProcID: id, Parent: parent, Cgroup: cgroup, Comm: "worker", Found: found})
	return id
}

// begin is the keyframe.
func (c *crowd) begin() *model.Sample {
	c.now, c.host = time.Hour, model.Host{BootID: "5f0c", CPUs: 2}
	s := &model.Sample{Keyframe: true}
	first := c.proc(s, model.ProcID{}, 1, true)
	for i := range crowdCgroups {
		c.paths = append(c.paths, fmt.Sprintf("/kubepods.slice/kubepods-burstable.slice/kubepods-pod%d.slice/cri-%d.scope", i/4, i))
		parent := c.proc(s, first, model.CgroupID(i+10), true)
		c.parents = append(c.parents, parent)
		c.all = append(c.all, parent)
		for range crowdProcesses/crowdCgroups - 1 {
			c.all = append(c.all, c.proc(s, parent, model.CgroupID(i+10), true))
		}
	}
	return c.end(s)
}

func (c *crowd) end(s *model.Sample) *model.Sample {
	c.now += tick
	c.ticks++
	c.host.CPUBusyNS += 2 * uint64(tick)
	c.host.Pressure.CPU.SomeUS += uint64(tick.Microseconds())
	s.Host, s.BootNS, s.LengthNS = c.host, int64(c.now), int64(tick)
	s.Time = time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(c.now)
	return s
}

// next lets each of the storming cgroups make so many processes, and as many end. All
// cgroups run, and each waits for the first and for some others.
func (c *crowd) next(storming, forks int) *model.Sample {
	s := &model.Sample{}
	for i := range crowdCgroups {
		id := model.CgroupID(i + 10)
		cg := model.CgroupSample{ID: id, Path: c.paths[i], RunNS: 2e5, WaitNS: 3e6}
		if c.weights != nil {
			cg.CPUWeights = c.weights[i]
		}
		if i < storming {
			cg.Forks, cg.Exits = uint64(forks), uint64(forks)
			for range forks {
				c.young = append(c.young, c.proc(s, c.parents[i], id, false))
			}
		}
		if i%100 == 0 {
			cg.Detail = &model.CgroupDetail{ThrottledNS: 1}
		}
		s.Cgroups = append(s.Cgroups, cg)
		for n, offender := range []int{0, i + 1, i + 7} {
			if offender != i {
				s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: model.CgroupID(offender%crowdCgroups + 10), Victim: id, NS: uint64(30e6 >> (5 * n))})
			}
		}
	}
	if excess := len(c.young) - 2*storming*forks; excess > 0 {
		for _, id := range c.young[:excess] {
			s.Procs.Exited = append(s.Procs.Exited, model.Exit{ProcID: id, LifeNS: uint64(tick)})
		}
		c.young = slices.Delete(c.young, 0, excess)
	}
	if c.ticks%4 == 0 { // the process table is read each second
		for i, id := range c.all {
			s.Procs.Usage = append(s.Procs.Usage, model.Usage{ProcID: id, Cgroup: model.CgroupID(i/10 + 10), CPUNS: uint64(c.ticks) * 1e6, RSSBytes: 1 << 20})
		}
	}
	return c.end(s)
}

// BenchmarkFeed is one tick on a machine of 20,000 processes in 2,000 cgroups that all
// wait for each other. The limit is 40 ms.
func BenchmarkFeed(b *testing.B) {
	for _, bb := range []struct {
		name            string
		storming, forks int
		weighted        bool
	}{
		{"nobody forks", 0, 0, false},
		{"nobody forks, each with a weight", 0, 0, true},
		{"a fork storm", 1, 500, false},
		{"every cgroup forks", crowdCgroups, 2, false},
		{"every cgroup storms", crowdCgroups, 3, false},
	} {
		b.Run(bb.name, func(b *testing.B) {
			c := &crowd{}
			if bb.weighted {
				for i := range crowdCgroups {
					c.weights = append(c.weights, []uint32{1000, 500, uint32(1 + i%4*50), 100})
				}
			}
			w := NewWatch(DefaultConfig(), func(string) model.Workload { return model.Workload{} })
			w.Feed(c.begin())
			for range 64 { // until the window is full
				w.Feed(c.next(bb.storming, bb.forks))
			}
			runtime.GC()
			var heap runtime.MemStats
			runtime.ReadMemStats(&heap)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				s := c.next(bb.storming, bb.forks)
				b.StartTimer()
				w.Feed(s)
			}
			b.ReportMetric(float64(heap.HeapAlloc)/1e6, "heap-MB")
		})
	}
}
