package policy

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// The limit is 100 µs at the 99th percentile with the shipped rules.
func BenchmarkDecide(b *testing.B) {
	s, err := LoadFS(Shipped())
	if err != nil {
		b.Fatal(err)
	}
	benchmarkDecide(b, s)
}

// 1,000 rules that all look at the incident and do not fire.
func BenchmarkDecideThousandRules(b *testing.B) {
	fsys := files()
	for i := range 10 {
		text := fmt.Sprintf("package breaker.p%d\n", i)
		for j := range 100 {
			text += fmt.Sprintf("\naction contains %s if {\n\tinput.incident.kind == \"fork_storm\"\n\tinput.incident.culprit.uid == %d\n\tinput.incident.severity > 0.5\n}\n", freezeTree, 5000+100*i+j)
		}
		fsys[fmt.Sprintf("p%d.rego", i)] = files("f", text)["f"]
	}
	start := time.Now()
	s, err := LoadFS(fsys)
	if err != nil {
		b.Fatal(err)
	}
	loaded := time.Since(start)
	benchmarkDecide(b, s)
	b.ReportMetric(float64(loaded.Milliseconds()), "load-ms")
}

func benchmarkDecide(b *testing.B, s *Set) {
	inc, host := stormIncident(), stormHost()
	at := inc.OpenedAt.Add(time.Second)
	var took []time.Duration
	b.ReportAllocs()
	for b.Loop() {
		start := time.Now()
		v := s.Decide(b.Context(), InputOf(inc, model.Breaker{}, host, at))
		took = append(took, time.Since(start))
		if v.Error != "" {
			b.Fatal(v.Error)
		}
	}
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
