package bpf

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

func number(t testing.TB, text string) uint64 {
	t.Helper()
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func joined(first string, rest []string) string { return first + " " + strings.Join(rest, " ") }

func executable(t testing.TB) string {
	t.Helper()
	path, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// procStat is the fields of /proc/PID/stat from the third on.
func procStat(t testing.TB, pid int32) []string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
}

func procState(t testing.TB, pid int32) string { return procStat(t, pid)[0] }

// procStart is when it started, in clock ticks: field 22.
func procStart(t testing.TB, pid int32) uint64 { return number(t, procStat(t, pid)[22-3]) }

// procCPU is user and system time, fields 14 and 15, in nanoseconds.
func procCPU(t testing.TB, pid int32) uint64 {
	f := procStat(t, pid)
	return (number(t, f[14-3]) + number(t, f[15-3])) * nsPerTick
}

func procRSS(t testing.TB, pid int32) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", pid))
	if err != nil {
		t.Fatal(err)
	}
	return number(t, strings.Fields(string(text))[1]) * uint64(os.Getpagesize())
}

func procRSSFile(t testing.TB, pid int32) uint64 {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	_, after, _ := strings.Cut(string(text), "RssFile:")
	return number(t, strings.Fields(after)[0]) << 10
}

func (s *seen) usageOf(pid int32) model.Usage {
	for id, u := range s.usage {
		if id.PID == pid {
			return u
		}
	}
	return model.Usage{}
}

func TestTheFirstScanFindsWhatRanBefore(t *testing.T) {
	scratch := kerneltest.ScratchCgroup(t)
	h := start(t, scratch, "wait", "uid", "4321")
	h.ready()
	dead := start(t, scratch, "end")
	dead.in.Close()
	for procState(t, dead.pid) != "Z" {
		time.Sleep(time.Millisecond)
	}
	time.Sleep(2 * time.Second / 100) // the collector leaves out what is as young as its look

	s := open(t, DefaultSizes)
	s.collect(true)
	got := only(t, "processes of this pid", s.forksOf(h.pid))
	want := model.Proc{
		ProcID: model.ProcID{PID: h.pid, StartTime: procStart(t, h.pid)},
		Parent: model.ProcID{PID: int32(os.Getpid()), StartTime: procStart(t, int32(os.Getpid()))},
		Cgroup: scratch.ID(),
		UID:    4321,
		Comm:   comm(t, h.pid),
		Found:  true,
	}
	if got != want {
		t.Errorf("found\n%+v, want\n%+v", got, want)
	}
	if only(t, "processes of this test's pid", s.forksOf(int32(os.Getpid()))).Kernel {
		t.Error("this test was taken for a kernel thread")
	}
	if k := only(t, "processes of pid 2", s.forksOf(2)); !k.Kernel {
		t.Error("kthreadd was not known for a kernel thread")
	}
	if len(s.forksOf(dead.pid)) != 0 {
		t.Error("a process that has ended and waits for its parent was found")
	}
	s.collect(true)
	only(t, "processes of this pid after a second scan", s.forksOf(h.pid))
}

func comm(t testing.TB, pid int32) string {
	t.Helper()
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/comm", pid))
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSuffix(string(text), "\n")
}

func TestCPUOfAProcessIsThatOfAllItsThreads(t *testing.T) {
	s := open(t, DefaultSizes)
	h := start(t, nil, "spin", "3", "700ms")
	h.ready()
	s.collect(true)
	agrees := func(when string) {
		t.Helper()
		// Somebody else may run between the two looks; the nearest of a few counts.
		best := math.Inf(1)
		var ours, kernels uint64
		for range 5 {
			before := procCPU(t, h.pid)
			s.collect(true)
			ours, kernels = s.usageOf(h.pid).CPUNS, procCPU(t, h.pid)
			// The kernel's figure is cut to whole ticks, and user and system time each.
			var off float64
			switch {
			case ours < before:
				off = float64(before - ours)
			case ours > kernels+2*nsPerTick:
				off = float64(ours - kernels - 2*nsPerTick)
			}
			best = min(best, off)
		}
		t.Logf("%s: %v by the table, %v by /proc/%d/stat", when, time.Duration(ours), time.Duration(kernels), h.pid)
		if limit := max(nsPerTick, 0.02*float64(kernels)); best > limit {
			t.Errorf("%s: off by %v", when, time.Duration(best))
		}
	}
	h.tell()
	time.Sleep(300 * time.Millisecond)
	agrees("while its threads are busy")
	h.ready()
	agrees("after they have ended")
	if s.usageOf(h.pid).CPUNS < 500_000_000 {
		t.Errorf("used only %v", time.Duration(s.usageOf(h.pid).CPUNS))
	}
}

// What a process has used when it ends is at least what it was seen to have used before,
// also where all its threads end at once and the last has nobody to add up.
func TestCPUOfAnEndedProcessIsNotLessThanBefore(t *testing.T) {
	s := open(t, DefaultSizes)
	h := start(t, nil, "spin", "3", "600ms", "end")
	h.ready()
	s.collect(true)
	h.tell()
	time.Sleep(250 * time.Millisecond)
	s.collect(true)
	before := s.usageOf(h.pid).CPUNS
	h.end()
	s.until("its exit", func() bool { return len(s.exitsOf(h.pid)) > 0 })
	exit := only(t, "exits", s.exitsOf(h.pid))
	rusage := h.cmd.ProcessState.UserTime() + h.cmd.ProcessState.SystemTime()
	t.Logf("%v before, %v at its end, %v by wait4", time.Duration(before), time.Duration(exit.CPUNS), rusage)
	if exit.CPUNS < before {
		t.Errorf("used %v before it ended and %v in all", time.Duration(before), time.Duration(exit.CPUNS))
	}
}

func TestRSSAgreesWithStatm(t *testing.T) {
	s := open(t, DefaultSizes)
	h := start(t, nil, "fill", fmt.Sprint(64<<20))
	h.ready()
	s.collect(true)
	s.collect(true)
	ours, kernels := s.usageOf(h.pid).RSSBytes, procRSS(t, h.pid)
	t.Logf("%d bytes by the table, %d by statm", ours, kernels)
	// Since 6.2 each CPU keeps up to max(32, 2 * CPUs) pages of each of three kinds to
	// itself before it adds them to the sum that the table reads.
	margin := 3 * 32 * 2 * float64(os.Getpagesize())
	if math.Abs(float64(ours)-float64(kernels)) > max(margin, 0.02*float64(kernels)) {
		t.Errorf("%d bytes, want about %d", ours, kernels)
	}
	if ours < 64<<20 {
		t.Errorf("%d bytes, and 64 MiB were filled", ours)
	}
	files, kernels := s.usageOf(h.pid).FileBytes, procRSSFile(t, h.pid)
	t.Logf("of files %d bytes by the table, %d by status", files, kernels)
	if files == 0 || math.Abs(float64(files)-float64(kernels)) > margin/3 {
		t.Errorf("%d bytes are of files, want about %d", files, kernels)
	}
}

func TestAProcessMadeBetweenTheEventsAndTheScanIsToldOnce(t *testing.T) {
	s := open(t, DefaultSizes)
	s.collect(true)

	// Collect, taken apart.
	sample := &model.Sample{BootNS: bootNS()}
	if err := s.c.collectEvents(sample); err != nil {
		t.Fatal(err)
	}
	h := start(t, nil, "wait")
	h.ready()
	if err := s.c.scan(sample); err != nil {
		t.Fatal(err)
	}
	s.add(sample)
	if p := s.forksOf(h.pid); len(p) != 0 {
		t.Fatalf("told by the scan, before its fork: %+v", p)
	}
	s.until("its fork", func() bool { return len(s.forksOf(h.pid)) > 0 })
	s.collect(true)
	s.collect(true)
	if p := only(t, "forks", s.forksOf(h.pid)); p.Found {
		t.Errorf("told as found: %+v", p)
	}
}

// A forker that stands still between making the process known and telling of it.
func TestAForkToldAfterTheScanFoundTheProcessIsToldOnce(t *testing.T) {
	s := open(t, DefaultSizes)
	h := start(t, nil, "wait")
	h.ready()
	time.Sleep(2 * time.Second / 100)
	s.collect(false)
	fork := only(t, "forks", s.forksOf(h.pid))
	delete(s.c.known, fork.ProcID)
	s.forked = nil
	s.collect(true)
	if !only(t, "forks", s.forksOf(h.pid)).Found {
		t.Fatal("the scan did not find it")
	}
	s.c.mu.Lock()
	s.c.changes.Forked = append(s.c.changes.Forked, fork)
	s.c.mu.Unlock()
	s.collect(false)
	only(t, "forks", s.forksOf(h.pid))
}

func TestTheSecondScanCorrectsALostExit(t *testing.T) {
	s := open(t, Sizes{Cgroups: 64, Cells: 64, EventsBytes: 4096})
	h := start(t, nil, "wait")
	h.ready()
	time.Sleep(2 * time.Second / 100)
	s.collect(true)
	only(t, "processes of this pid", s.forksOf(h.pid))

	filler := start(t, nil, "forks", "200")
	filler.ready()
	s.c.mu.Lock() // the reader stands still while the buffer fills
	filler.tell()
	filler.ready()
	h.end()
	s.c.mu.Unlock()
	s.collect(false)
	if s.lost.Events == 0 {
		t.Fatal("no event was lost")
	}
	if e := s.exitsOf(h.pid); len(e) != 0 {
		t.Fatalf("its exit was not lost: %+v", e)
	}
	s.collect(true)
	if e := s.exitsOf(h.pid); len(e) != 0 {
		t.Fatalf("corrected by the first scan, when its exit might still come: %+v", e)
	}
	s.collect(true)
	only(t, "exits", s.exitsOf(h.pid))
	s.collect(true)
	only(t, "exits", s.exitsOf(h.pid))
}

func openFiles(t testing.TB) int {
	t.Helper()
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// What kthreadd makes after the start is no fork of anybody's, and answers for nothing.
func TestAKernelThreadThatIsMadeLaterIsKnownForOne(t *testing.T) {
	dir := t.TempDir()
	image := dir + "/image"
	run := func(name string, args ...string) error {
		if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
			return fmt.Errorf("%s: %w: %s", name, err, out)
		}
		return nil
	}
	if err := run("mke2fs", "-q", "-t", "ext4", image, "8M"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat("/dev/loop-control"); err != nil {
		t.Skipf("missing: loop devices: %v", err)
	}
	s := open(t, DefaultSizes)
	s.collect(true)
	if err := os.Mkdir(dir+"/mounted", 0o700); err != nil {
		t.Fatal(err)
	}
	if err := run("mount", "-o", "loop", image, dir+"/mounted"); err != nil {
		t.Fatal(err)
	}
	mounted := true
	unmount := func() {
		if mounted {
			mounted = false
			if err := run("umount", dir+"/mounted"); err != nil {
				t.Error(err)
			}
		}
	}
	t.Cleanup(unmount)
	journals := func() []model.Proc { // of ext4 file systems
		return filter(s.forked, func(p model.Proc) bool { return strings.HasPrefix(p.Comm, "jbd2/loop") && p.Parent.PID == 2 })
	}
	before := len(journals())
	s.until("the thread of the journal", func() bool {
		s.collect(true)
		return len(journals()) > before
	})
	for _, p := range journals() {
		if !p.Kernel || !p.Found {
			t.Errorf("%+v, want a kernel thread, found by the scan", p)
		}
	}
	thread := journals()[before]
	unmount()
	s.until("its end", func() bool {
		s.collect(true)
		return len(s.exitsOf(thread.PID)) == 1
	})
	if n := len(s.forksOf(thread.PID)); n != 1 {
		t.Errorf("it was forked %d times", n)
	}
}

// A process whose exit record was lost is no short-lived one for that.
func TestAnEndThatIsOnlyMissedIsThatOfALifeAsLongAsItWasSeen(t *testing.T) {
	const second = 1_000_000_000
	id := model.ProcID{PID: 7, StartTime: 100} // a second after boot
	c := &Collector{known: make(map[model.ProcID]*knownProcess)}
	at := func(boot int64, table map[model.ProcID]*process) []model.Exit {
		s := &model.Sample{BootNS: boot}
		c.addUsage(s, table, boot)
		return s.Procs.Exited
	}
	at(5*second, map[model.ProcID]*process{id: {Proc: model.Proc{ProcID: id}, cpuNS: 3}})
	if got := at(6*second, nil); got != nil {
		t.Errorf("it ended when it was missed once: %+v", got)
	}
	want := model.Exit{ProcID: id, LifeNS: 6 * second, CPUNS: 3}
	if got := only(t, "ends", at(7*second, nil)); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}
