package policy

import (
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"testing"
	"testing/fstest"
	"time"

	"github.com/breakerd/breakerd/model"
)

// The limit is 100 µs at the 99th percentile with the shipped rules. breakerd asks once a
// second, so that one evaluation in hundreds meets the collector of garbage: here it runs
// between them. In a burst they come one right after the other, and it runs beside them.
func BenchmarkDecide(b *testing.B) {
	s, err := LoadFS(Shipped())
	if err != nil {
		b.Fatal(err)
	}
	benchmarkDecide(b, s)
}

// thousandRules all look at the incident and do not fire.
func thousandRules() fstest.MapFS {
	fsys := files()
	for i := range 10 {
		text := fmt.Sprintf("package breaker.p%d\n", i)
		for j := range 100 {
			text += fmt.Sprintf("\naction contains %s if {\n\tinput.incident.kind == \"fork_storm\"\n\tinput.incident.culprit.uid == %d\n\tinput.incident.severity > 0.5\n}\n", freezeTree, 5000+100*i+j)
		}
		fsys[fmt.Sprintf("p%d.rego", i)] = files("f", text)["f"]
	}
	return fsys
}

// The limit is 1 ms at the 99th percentile.
func BenchmarkDecideThousandRules(b *testing.B) {
	s, err := LoadFS(thousandRules())
	if err != nil {
		b.Fatal(err)
	}
	benchmarkDecide(b, s)
}

// 1,000 rules are loaded while incidents go on being decided, one right after the other.
// The limit is a second.
func BenchmarkReloadWhileDeciding(b *testing.B) {
	s, err := LoadFS(Shipped())
	if err != nil {
		b.Fatal(err)
	}
	fsys, inc := thousandRules(), stormIncident()
	var took []time.Duration
	ctx, stop := context.WithCancel(b.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			took = append(took, decide(b, s, inc))
		}
	}()
	var longest time.Duration
	for b.Loop() {
		start := time.Now()
		if _, err := LoadFS(fsys); err != nil {
			b.Error(err)
			break
		}
		longest = max(longest, time.Since(start))
	}
	stop()
	<-done
	b.ReportMetric(float64(longest.Milliseconds()), "longest-load-ms")
	reportDecisions(b, took)
}

func benchmarkDecide(b *testing.B, s *Set) {
	inc := stormIncident()
	b.Run("apart", func(b *testing.B) {
		defer debug.SetGCPercent(debug.SetGCPercent(-1))
		var took []time.Duration
		for b.Loop() {
			if len(took)%100 == 0 {
				b.StopTimer()
				runtime.GC()
				b.StartTimer()
			}
			took = append(took, decide(b, s, inc))
		}
		reportDecisions(b, took)
	})
	b.Run("burst", func(b *testing.B) {
		b.ReportAllocs()
		var took []time.Duration
		for b.Loop() {
			took = append(took, decide(b, s, inc))
		}
		reportDecisions(b, took)
	})
}

// decide is how long a set takes over an incident.
func decide(b *testing.B, s *Set, inc *model.Incident) time.Duration {
	start := time.Now()
	v := s.Decide(context.Background(), InputOf(inc, model.Breaker{}, stormHost(), inc.OpenedAt.Add(time.Second)))
	took := time.Since(start)
	if v.Error != "" {
		b.Error(v.Error)
	}
	return took
}

func reportDecisions(b *testing.B, took []time.Duration) {
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Nanoseconds()), "p99-ns")
	b.ReportMetric(float64(took[len(took)/2].Nanoseconds()), "p50-ns")
}

func BenchmarkInputValue(b *testing.B) {
	in := stormInput()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := in.value(everything); err != nil {
			b.Fatal(err)
		}
	}
}
