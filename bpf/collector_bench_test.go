package bpf

import (
	"bytes"
	"fmt"
	"io"
	"testing"

	"github.com/breakerd/breakerd/internal/cputime"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// BenchmarkCollect is one tick's work on the kernel's tables, where this many cgroups
// were active in it and each waited for four others.
func BenchmarkCollect(b *testing.B) {
	for _, n := range []int{0, 50, 2000} {
		b.Run(fmt.Sprintf("%d_cgroups", n), func(b *testing.B) {
			s := open(b, DefaultSizes)
			ids := make([]uint64, n)
			counts := make([]collectorCgroupCounts, n)
			var cells []collectorWaitCell
			for i := range ids {
				ids[i] = uint64(1<<40 + i*19)
				for j := 1; j <= 4; j++ {
					cells = append(cells, collectorWaitCell{Victim: ids[i], Offender: uint64(1<<40 + (i+j)%n*19)})
				}
			}
			waits := make([]uint64, len(cells))
			grow := func() {
				for i := range counts {
					counts[i].Run += 1e6
					counts[i].Wait += 1e6
					counts[i].Forks++
				}
				for i := range waits {
					waits[i] = 250e3
				}
				if n == 0 {
					return
				}
				if _, err := s.c.programs.Cgroups.BatchUpdate(ids, counts, nil); err != nil {
					b.Fatal(err)
				}
				if _, err := s.c.programs.Waits.BatchUpdate(cells, waits, nil); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportAllocs()
			for b.Loop() {
				b.StopTimer()
				grow()
				sample := &model.Sample{BootNS: bootNS()}
				b.StartTimer()
				if err := s.c.Collect(sample, false); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// BenchmarkScan is a walk over the process table.
func BenchmarkScan(b *testing.B) {
	s := open(b, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(b)
	for _, n := range []int{0, 1000} {
		if n > 0 {
			h := start(b, scratch, "sleepers", fmt.Sprint(n))
			h.ready()
		}
		s.collect(true)
		b.Run(fmt.Sprintf("with_%d_more_processes", n), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				sample := &model.Sample{BootNS: bootNS()}
				if err := s.c.scan(sample); err != nil {
					b.Fatal(err)
				}
			}
			b.ReportMetric(float64(len(s.c.known)), "processes")
		})
	}
}

// BenchmarkReadTasks is the part of a scan that is ours, at 20,000 processes.
func BenchmarkReadTasks(b *testing.B) {
	var raw bytes.Buffer
	for i := range 20_000 {
		rec := collectorTaskRecord{Cgroup: 1, Cpu: 1e9, RssPages: 1000, Leader: 1}
		rec.Proc.Pid, rec.Proc.StartBoottime = uint32(i+1), uint64(i)*1e7
		copy(rec.Comm[:], "a-process")
		raw.Write(bytesOf(rec))
	}
	buf := make([]byte, 64<<10)
	b.ReportAllocs()
	for b.Loop() {
		table, err := readTasks(io.Reader(bytes.NewReader(raw.Bytes())), buf)
		if err != nil || len(table) != 20_000 {
			b.Fatal(len(table), err)
		}
	}
}

// BenchmarkSettleWaits is a walk over all tasks for waits that go on, where nobody waits.
func BenchmarkSettleWaits(b *testing.B) {
	s := open(b, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(b)
	for _, n := range []int{0, 1000} {
		if n > 0 {
			h := start(b, scratch, "sleepers", fmt.Sprint(n))
			h.ready()
		}
		s.collect(true)
		b.Run(fmt.Sprintf("with_%d_more_processes", n), func(b *testing.B) {
			var cost int64
			for b.Loop() {
				spent, err := cputime.Of(s.c.SettleWaits)
				if err != nil {
					b.Fatal(err)
				}
				cost += spent.Nanoseconds()
			}
			b.ReportMetric(float64(cost)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(len(s.c.known)), "processes")
		})
	}
}
