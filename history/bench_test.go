package history

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/report"
)

// A month of a busy machine: ten decisions about each incident, and a lease of each.
const (
	benchIncidents = 100_000
	benchDecisions = 10
	benchDays      = 30
)

// BenchmarkHistory is what a question costs where 1,000,000 decisions about 100,000
// incidents are kept, how much they take on the disk, and how much memory the questions.
func BenchmarkHistory(b *testing.B) {
	dir := b.TempDir()
	began := time.Now()
	middle := fillMonth(b, dir)
	filled := time.Since(began)
	r := run(b, dir)
	r.written() // and has forgotten what is kept of the newest only
	info, err := os.Stat(dir + "/" + fileName)
	if err != nil {
		b.Fatal(err)
	}
	ctx := context.Background()
	day := time.Now().Add(-24 * time.Hour)
	debug.FreeOSMemory()
	before := memory(b, "VmRSS")
	for _, q := range []struct {
		name string
		ask  func() (int, error)
	}{
		{"incidents of a day", func() (int, error) {
			all, err := r.Incidents(ctx, model.IncidentFilter{Since: day, Most: 1000})
			return len(all), err
		}},
		{"incidents of a month, of a kind and below a cgroup", func() (int, error) {
			all, err := r.Incidents(ctx, model.IncidentFilter{Kind: model.ForkStorm, Cgroup: "/user.slice/user-1003.slice", Most: 1000})
			return len(all), err
		}},
		{"why", func() (int, error) {
			s, err := r.Story(ctx, middle)
			return len(s.Verdicts), err
		}},
		{"report of a day", func() (int, error) {
			now := time.Now()
			report := report.New(day, now)
			began, err := r.Stories(ctx, report.From(), now, report.Add)
			return report.Report(began).Totals.Incidents, err
		}},
	} {
		b.Run(q.name, func(b *testing.B) {
			peak(b)
			for b.Loop() {
				if n, err := q.ask(); err != nil || n == 0 {
					b.Fatalf("%d rows, error %v", n, err)
				}
			}
			b.ReportMetric(float64(memory(b, "VmHWM")-before)/1024, "MB-more")
		})
	}
	b.Run("disk", func(b *testing.B) {
		for b.Loop() { // it is what it is
		}
		b.ReportMetric(float64(info.Size())/1e6, "MB")
		b.ReportMetric(float64(filled.Nanoseconds())/benchIncidents/benchDecisions, "ns/decision")
	})
}

// fillMonth writes the month, as breakerd would, and returns the ID of an incident in its
// middle.
func fillMonth(b *testing.B, dir string) (middle string) {
	b.Helper()
	r := run(b, dir)
	first := time.Now().AddDate(0, 0, -benchDays)
	for n := range benchIncidents {
		in := incident(n)
		in.OpenedAt = first.Add(time.Duration(n) * (benchDays * 24 * time.Hour / benchIncidents))
		r.Incident(in)
		r.Asked(in.ID, question(b, in, 0))
		r.Asked(in.ID, question(b, in, 20*time.Second))
		for i := range benchDecisions {
			r.Verdict(verdict(&in, i))
		}
		r.Lease(lease(&in, 3, model.LeaseHeld))
		r.Lease(lease(&in, 3, model.LeaseEnded))
		in = closed(in, 20*time.Second)
		in.Decisions = []model.DecisionRecord{verdict(&in, 9).DecisionRecord}
		r.Incident(in)
		if n == benchIncidents/2 {
			middle = in.ID
		}
		if n%500 == 499 {
			r.written()
		}
	}
	r.stop()
	if s := r.State(); s.Dropped != 0 || s.Problem != "" {
		b.Fatalf("state %+v", s)
	}
	return middle
}

// question is about what the policies see of an incident: a little more, as it has its
// contributors.
func question(b *testing.B, in model.Incident, age time.Duration) []byte {
	b.Helper()
	in.Triage = nil
	text, err := json.Marshal(map[string]any{
		"incident": in, "age_ms": age.Milliseconds(), "host": map[string]int{"cpus": 2, "processes": 655, "mem_total_bytes": 8 << 30, "mem_available_bytes": 5 << 30},
		"breaker": map[string]any{"state": "closed", "generation": 0, "since_ms": 0, "opened": 0, "rung": 0, "refuted": false, "last_effect": "unknown", "last_end": ""},
		"time":    in.OpenedAt.Add(age), "time_ns": in.OpenedAt.Add(age).UnixNano(),
	})
	if err != nil {
		b.Fatal(err)
	}
	return text
}

// peak lets VmHWM begin again.
func peak(b *testing.B) {
	b.Helper()
	if err := os.WriteFile("/proc/self/clear_refs", []byte("5"), 0); err != nil {
		b.Fatal(err)
	}
}

// memory is a figure of /proc/self/status, in KiB.
func memory(b *testing.B, name string) (kib int) {
	b.Helper()
	text, err := os.ReadFile("/proc/self/status")
	if err != nil {
		b.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), name+":")
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		b.Fatal(err)
	}
	return kib
}

// BenchmarkTold is what a tick takes of whoever tells: of the pipeline.
func BenchmarkTold(b *testing.B) {
	for _, open := range []int{0, 20} {
		b.Run(fmt.Sprintf("with %d incidents open", open), func(b *testing.B) {
			s := New(Options{Dir: b.TempDir()}) // written by nobody
			in := sample(0, 1000)
			for id := range 2000 {
				in.Cgroups = append(in.Cgroups, model.CgroupSample{ID: model.CgroupID(id), Path: "/c"})
			}
			var all []model.Incident
			for n := range open {
				all = append(all, incident(n))
			}
			for b.Loop() {
				in.BootNS += int64(250 * time.Millisecond)
				s.Sample(in)
				for _, one := range all {
					s.Incident(one)
				}
			}
		})
	}
}
