package daemon

import (
	"fmt"
	"runtime"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// BenchmarkSample takes one tick of a fork storm through everything but the waiting: the
// board, the detectors and a policy. In the crowd 2,000 cgroups of ten processes each
// wait for each other.
func BenchmarkSample(b *testing.B) {
	for _, cgroups := range []int{20, 2000} {
		b.Run(fmt.Sprintf("%d cgroups", cgroups), func(b *testing.B) {
			s := newStage(b, freezeTree)
			s.pipeline.outcomes = make(chan model.Outcome, 1) // of the one decision that is proposed
			var everybody []model.Usage
			first := s.sample(0)
			for i := range cgroups * 10 {
				id := model.ProcID{PID: int32(100_000 + i), StartTime: 1}
				cgroup := model.CgroupID(1000 + i/10)
				first.Procs.Forked = append(first.Procs.Forked, model.Proc{ProcID: id, Parent: pid1, Cgroup: cgroup, Comm: "worker", Found: true})
				everybody = append(everybody, model.Usage{ProcID: id, Cgroup: cgroup, CPUNS: 1})
			}
			s.pipeline.sample(b.Context(), first)
			ticks := 0
			next := func() *model.Sample {
				sample := s.sample(100)
				made := sample.Procs.Forked
				for _, p := range made[:len(made)*9/10] {
					sample.Procs.Exited = append(sample.Procs.Exited, model.Exit{ProcID: p.ProcID, LifeNS: uint64(tickLength)})
				}
				crowd := crowded(s.boot, 1000, cgroups)
				sample.Cgroups = append(sample.Cgroups, crowd.Cgroups...)
				sample.Waits = crowd.Waits
				if ticks++; ticks%4 == 0 {
					for i := range everybody {
						everybody[i].CPUNS += uint64(time.Millisecond)
					}
					sample.Procs.Usage = append(sample.Procs.Usage, everybody...)
				}
				return sample
			}
			for range 64 {
				s.pipeline.sample(b.Context(), next())
			}
			runtime.GC()
			var heap runtime.MemStats
			runtime.ReadMemStats(&heap)
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				sample := next()
				b.StartTimer()
				s.pipeline.sample(b.Context(), sample)
			}
			b.ReportMetric(float64(heap.HeapAlloc)/1e6, "heap-MB")
		})
	}
}
