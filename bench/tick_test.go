package bench

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/metrics"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/internal/cputime"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/observe"
	"github.com/breakerd/breakerd/workload"
)

const (
	tickLength = 250 * time.Millisecond
	// Until the detectors' window is full.
	warmTicks = 34
	// Ten seconds: a calm machine's process table is read once, a busy one's ten times.
	ticksMeasured = 40
)

// BenchmarkTick is what a tick costs, on the machine as it is and with 20,000 processes in
// 2,000 cgroups: first the parts in this process, and then the program itself. CPU time,
// not the clock's, so that it says the same beside other work.
func BenchmarkTick(b *testing.B) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF, kerneltest.PSI)
	program := sync.OnceValue(func() string { return buildDaemon(b) })
	var emptyTick, emptyProgram float64 // ms
	for _, scene := range []struct {
		name          string
		crowded, busy bool
	}{
		{"nobody else", false, false},
		{"20,000 asleep", true, false},
		{"20,000, and each of 2,000 cgroups at work", true, true},
	} {
		setting := func(b *testing.B) (end func()) {
			if !scene.crowded {
				return func() {}
			}
			return newCrowd(b, kerneltest.ScratchCgroup(b), scene.busy).end
		}
		b.Run(scene.name+"/parts", func(b *testing.B) {
			defer setting(b)()
			t := newTicker(b)
			defer t.o.Close()
			for range warmTicks {
				t.tick()
			}
			t.seen, t.judged, t.worst, t.length, t.peakHeap = 0, 0, 0, 0, 0
			for b.Loop() {
				for range ticksMeasured {
					t.tick()
				}
			}
			n := float64(t.length) / float64(tickLength) // of a calm machine a sample is taken each second
			whole := ms(t.seen+t.judged) / n
			if !scene.crowded {
				emptyTick = whole
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(ms(t.seen)/n, "seen-ms/tick")
			b.ReportMetric(ms(t.judged)/n, "judged-ms/tick")
			b.ReportMetric(ms(t.worst), "worst-ms")
			b.ReportMetric(100*whole/ms(tickLength), "%-of-tick")
			b.ReportMetric(whole/emptyTick, "x-empty")
			b.ReportMetric(float64(t.peakHeap)/1e6, "peak-heap-MB")
			runtime.GC()
			b.ReportMetric(float64(heap())/1e6, "heap-MB")
			runtime.KeepAlive(t)
		})
		b.Run(scene.name+"/walks", func(b *testing.B) {
			defer setting(b)()
			walks(b)
		})
		b.Run(scene.name+"/breakerd", func(b *testing.B) {
			defer setting(b)()
			p := startDaemon(b, program())
			defer p.stop(b)
			p.await(b, warmTicks)
			began, from := p.cpu(b), time.Now()
			for b.Loop() {
				p.await(b, ticksMeasured)
			}
			perTick := ms(p.cpu(b)-began) / (float64(time.Since(from)) / float64(tickLength))
			if !scene.crowded {
				emptyProgram = perTick
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(perTick, "cpu-ms/tick")
			b.ReportMetric(100*perTick/ms(tickLength), "%-of-tick")
			b.ReportMetric(perTick/emptyProgram, "x-empty")
			b.ReportMetric(p.status(b, "RssAnon"), "anon-MB")
			b.ReportMetric(p.status(b, "VmRSS"), "rss-MB")
			b.ReportMetric(p.status(b, "VmHWM"), "peak-rss-MB")
		})
	}
}

// ticker takes ticks as the daemon does: it sees, and it judges without policies.
type ticker struct {
	b        *testing.B
	o        *observe.Observer
	j        *judge.Judge
	seen     time.Duration
	judged   time.Duration
	worst    time.Duration
	length   time.Duration
	peakHeap uint64
}

func newTicker(b *testing.B) *ticker {
	b.Helper()
	o, err := observe.Open(tickLength, bpf.DefaultSizes)
	if err != nil {
		b.Fatal(err)
	}
	return &ticker{b: b, o: o, j: judge.New(detect.DefaultConfig(), nil, workload.Name)}
}

func (t *ticker) tick() {
	began := processTime()
	s, err := t.o.Next(context.Background())
	if err != nil {
		t.b.Fatal(err)
	}
	seen := processTime()
	t.length += s.Length()
	t.j.Sample(context.Background(), s)
	t.j.Open()
	judged := processTime()
	t.seen += seen - began
	t.judged += judged - seen
	t.worst = max(t.worst, judged-began)
	t.peakHeap = max(t.peakHeap, heap())
}

// walks are the two walks over all tasks, whose cost the rest of the tick hides.
func walks(b *testing.B) {
	c, err := bpf.Open(bpf.DefaultSizes)
	if err != nil {
		b.Fatal(err)
	}
	defer c.Close()
	collect := func(scan bool) (time.Duration, *model.Sample) {
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &now)
		s := &model.Sample{BootNS: now.Nano()}
		began := processTime()
		if err := c.Collect(s, scan); err != nil {
			b.Fatal(err)
		}
		return processTime() - began, s
	}
	_, first := collect(true)
	var settle, plain, scan time.Duration
	rounds := 0
	for b.Loop() {
		for range 10 {
			rounds++
			cost, err := cputime.Of(c.SettleWaits)
			if err != nil {
				b.Fatal(err)
			}
			settle += cost
			cost, _ = collect(false)
			plain += cost
			cost, _ = collect(true)
			scan += cost
		}
	}
	n := float64(rounds)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(float64(len(first.Procs.Forked)), "processes")
	b.ReportMetric(ms(settle)/n, "settle-ms")
	b.ReportMetric(ms(scan-plain)/n, "table-ms")
}

// daemon is breakerd itself, in monitor mode and with the defaults.
type daemon struct {
	client *api.Client
	cmd    *exec.Cmd
	output bytes.Buffer
}

func buildDaemon(b *testing.B) string {
	path := filepath.Join(b.TempDir(), "breakerd")
	cmd := exec.Command("go", "build", "-o", path, "github.com/breakerd/breakerd/cmd/breakerd")
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("build breakerd: %v\n%s", err, out)
	}
	return path
}

func startDaemon(b *testing.B, path string) *daemon {
	b.Helper()
	dir := b.TempDir()
	config := filepath.Join(dir, "empty.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	run := filepath.Join(dir, "run")
	d := &daemon{client: api.NewClient(run)}
	d.cmd = exec.Command(path, "--config", config, "--mode", "monitor", "--runtime-dir", run, "--state-dir", filepath.Join(dir, "state"))
	d.cmd.Stdout, d.cmd.Stderr = &d.output, &d.output
	d.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := d.cmd.Start(); err != nil {
		b.Fatal(err)
	}
	for until := time.Now().Add(30 * time.Second); ; time.Sleep(50 * time.Millisecond) {
		err := d.client.Ready(b.Context())
		if err == nil {
			return d
		}
		if time.Now().After(until) {
			b.Fatalf("breakerd is not ready: %v\n%s", err, d.output.Bytes())
		}
	}
}

// await waits for as many ticks more, and that samples go on being taken.
func (d *daemon) await(b *testing.B, more uint64) {
	b.Helper()
	from := d.samples(b)
	time.Sleep(time.Duration(more) * tickLength)
	for until := time.Now().Add(30 * time.Second); d.samples(b) == from; time.Sleep(tickLength / 5) {
		if time.Now().After(until) {
			b.Fatalf("breakerd takes no samples\n%s", d.output.Bytes())
		}
	}
}

func (d *daemon) samples(b *testing.B) uint64 {
	b.Helper()
	s, err := d.client.Status(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	return s.Samples
}

// cpu is the CPU time that the program has used, by its clock (CPUCLOCK_SCHED of
// include/linux/posix-timers.h).
func (d *daemon) cpu(b *testing.B) time.Duration {
	b.Helper()
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^d.cmd.Process.Pid<<3|2), &ts); err != nil {
		b.Fatal(err)
	}
	return time.Duration(ts.Nano())
}

// status reads a size of /proc/PID/status in MB.
func (d *daemon) status(b *testing.B, key string) float64 {
	b.Helper()
	text, err := os.ReadFile("/proc/" + strconv.Itoa(d.cmd.Process.Pid) + "/status")
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if name, value, _ := strings.Cut(line, ":"); name == key {
			kb, err := strconv.ParseFloat(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 64)
			if err != nil {
				b.Fatal(err)
			}
			return kb * 1024 / 1e6
		}
	}
	b.Fatalf("no %s in the status of a process", key)
	return 0
}

func (d *daemon) stop(b *testing.B) {
	b.Helper()
	_ = d.cmd.Process.Signal(syscall.SIGTERM)
	if err := d.cmd.Wait(); err != nil {
		b.Errorf("breakerd: %v\n%s", err, d.output.Bytes())
	}
}

// processTime is the CPU time of this process.
func processTime() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &ts) // always there
	return time.Duration(ts.Nano())
}

// heap is what objects take, those that nobody needs any more included.
func heap() uint64 {
	sample := []metrics.Sample{{Name: "/memory/classes/heap/objects:bytes"}}
	metrics.Read(sample)
	return sample[0].Value.Uint64()
}

func ms(d time.Duration) float64 { return float64(d.Nanoseconds()) / 1e6 }
