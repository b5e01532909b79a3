package bench

import (
	"fmt"
	"io"
	"os"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// BenchmarkBlame says how much of what the kernel knows of a victim's waiting was blamed on
// somebody, or said to be unknown: 1 is all of it.
func BenchmarkBlame(b *testing.B) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF, kerneltest.PSI)
	for _, scene := range []struct {
		name    string
		threads int
		pinned  bool
		kernels func(*testing.B, *kerneltest.Cgroup) time.Duration
		unit    string
	}{
		{"one task on one CPU", 1, true, cpuPressure, "blamed/cpu.pressure"},
		// A cgroup's pressure is averaged over the CPUs, and says too little of a task that moves.
		{"one task on all CPUs", 1, false, runDelay, "blamed/run-delay"},
		{"twelve threads", 12, false, runDelay, "blamed/run-delay"},
	} {
		b.Run(scene.name, func(b *testing.B) {
			scratch := kerneltest.ScratchCgroup(b)
			hogs, victim := scratch.Child("hogs"), scratch.Child("victim")
			for range 2 * runtime.NumCPU() {
				spinner(b, hogs, scene.pinned)
			}
			if scene.threads == 1 {
				spinner(b, victim, scene.pinned)
			} else {
				defer startWorker(b, victim, "spin", strconv.Itoa(scene.threads)).end(b)
			}
			t := newTicker(b)
			defer t.o.Close()
			sample := func() *model.Sample {
				s, err := t.o.Next(b.Context())
				if err != nil {
					b.Fatal(err)
				}
				return s
			}
			sample()
			// The kernel adds a wait when it ends, and we as it goes on: so both ends lie
			// where the hogs are frozen and nobody waits.
			still := func() time.Duration {
				hogs.Write("cgroup.freeze", "1")
				time.Sleep(200 * time.Millisecond)
				return scene.kernels(b, victim)
			}
			defer hogs.Write("cgroup.freeze", "0")
			var blamed, unknown, kernels uint64
			for b.Loop() {
				before := still()
				sample()
				hogs.Write("cgroup.freeze", "0")
				for i := range 21 {
					if i == 20 {
						kernels += uint64(still() - before)
					}
					for _, w := range sample().Waits {
						if w.Victim != victim.ID() {
							continue
						}
						blamed += w.NS
						if w.By == model.ByUnknown {
							unknown += w.NS
						}
					}
				}
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(blamed)/float64(kernels), scene.unit)
			b.ReportMetric(float64(unknown)/float64(blamed), "unknown/blamed")
		})
	}
}

// cpuPressure is how long somebody in a cgroup has waited for a CPU, as it says itself.
func cpuPressure(b *testing.B, in *kerneltest.Cgroup) time.Duration {
	b.Helper()
	for line := range strings.Lines(in.Read("cpu.pressure")) {
		if rest, ok := strings.CutPrefix(line, "some "); ok {
			_, total, _ := strings.Cut(rest, "total=")
			us, err := strconv.ParseInt(strings.TrimSpace(total), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			return time.Duration(us) * time.Microsecond
		}
	}
	b.Fatal("no cpu.pressure")
	return 0
}

// runDelay is how long all threads in a cgroup have waited for a CPU: the second number of
// their schedstat.
func runDelay(b *testing.B, in *kerneltest.Cgroup) (sum time.Duration) {
	b.Helper()
	for _, pid := range in.PIDs() {
		dir := fmt.Sprintf("/proc/%d/task/", pid)
		threads, err := os.ReadDir(dir)
		if err != nil {
			b.Fatal(err)
		}
		for _, thread := range threads {
			text, err := os.ReadFile(dir + thread.Name() + "/schedstat")
			if err != nil {
				b.Fatal(err)
			}
			ns, err := strconv.ParseInt(strings.Fields(string(text))[1], 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum
}

// spinner starts a process of one task that never rests, on one CPU or on all. It ends with
// its cgroup.
func spinner(b *testing.B, in *kerneltest.Cgroup, pinned bool) {
	b.Helper()
	pid := in.Start("sh", "-c", "while :; do :; done").Process.Pid
	if !pinned {
		return
	}
	var first unix.CPUSet
	first.Set(0)
	if err := unix.SchedSetaffinity(pid, &first); err != nil {
		b.Fatal(err)
	}
}

// beSpinner runs as many threads that never rest, until its standard input ends.
func beSpinner(args []string) error {
	threads, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	runtime.GOMAXPROCS(threads + 1) // one waits for the end of the input
	for range threads {
		go func() {
			runtime.LockOSThread()
			for turn := uint64(0); ; turn++ {
				runtime.KeepAlive(turn)
			}
		}()
	}
	fmt.Println("ready")
	_, _ = io.Copy(io.Discard, os.Stdin)
	os.Exit(0)
	return nil
}
