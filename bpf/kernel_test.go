package bpf

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// seen is the machine since the collector was opened, added up over many ticks.
type seen struct {
	t       testing.TB
	c       *Collector
	cgroups map[model.CgroupID]*model.CgroupSample
	forked  []model.Proc
	execed  []model.Exec
	exited  []model.Exit
	usage   map[model.ProcID]model.Usage
	holds   []model.IOHold
	lost    model.Lost
}

func open(t testing.TB, sizes Sizes) *seen {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF)
	c, err := Open(sizes)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := c.Close(); err != nil {
			t.Error(err)
		}
	})
	return &seen{t: t, c: c, cgroups: make(map[model.CgroupID]*model.CgroupSample), usage: make(map[model.ProcID]model.Usage)}
}

func bootNS() int64 {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		panic(err)
	}
	return ts.Nano()
}

// collect takes one sample and adds it to what was seen.
func (s *seen) collect(scan bool) *model.Sample {
	s.t.Helper()
	sample := &model.Sample{BootNS: bootNS()}
	if err := s.c.Collect(sample, scan); err != nil {
		s.t.Fatal(err)
	}
	s.add(sample)
	return sample
}

func (s *seen) add(sample *model.Sample) {
	for _, g := range sample.Cgroups {
		sum := s.of(g.ID)
		sum.RunNS += g.RunNS
		sum.WaitNS += g.WaitNS
		sum.Forks += g.Forks
		sum.Execs += g.Execs
		sum.Exits += g.Exits
		sum.ShortExits += g.ShortExits
		sum.IOHeldNS += g.IOHeldNS
		sum.IORequests += g.IORequests
		sum.IOBytes += g.IOBytes
	}
	s.holds = append(s.holds, sample.IOHolds...)
	s.forked = append(s.forked, sample.Procs.Forked...)
	s.execed = append(s.execed, sample.Procs.Execed...)
	s.exited = append(s.exited, sample.Procs.Exited...)
	for _, u := range sample.Procs.Usage {
		s.usage[u.ProcID] = u
	}
	s.lost.Events += sample.Lost.Events
	s.lost.Cells += sample.Lost.Cells
	s.lost.Cgroups += sample.Lost.Cgroups
	s.lost.IOHolds += sample.Lost.IOHolds
}

// of is what was counted for a cgroup.
func (s *seen) of(id model.CgroupID) *model.CgroupSample {
	g := s.cgroups[id]
	if g == nil {
		g = &model.CgroupSample{ID: id}
		s.cgroups[id] = g
	}
	return g
}

// until collects until the condition holds.
func (s *seen) until(what string, holds func() bool) {
	s.t.Helper()
	for give := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		s.collect(false)
		if holds() {
			return
		}
		if time.Now().After(give) {
			s.t.Fatalf("never seen: %s", what)
		}
	}
}

func (s *seen) forksOf(pid int32) []model.Proc {
	return filter(s.forked, func(p model.Proc) bool { return p.PID == pid })
}

func (s *seen) execsOf(pid int32) []model.Exec {
	return filter(s.execed, func(e model.Exec) bool { return e.PID == pid })
}

func (s *seen) exitsOf(pid int32) []model.Exit {
	return filter(s.exited, func(e model.Exit) bool { return e.PID == pid })
}

func filter[T any](all []T, keep func(T) bool) []T {
	return slices.DeleteFunc(slices.Clone(all), func(v T) bool { return !keep(v) })
}

// only is the one element that there must be.
func only[T any](t testing.TB, what string, all []T) T {
	t.Helper()
	if len(all) != 1 {
		t.Fatalf("%d %s, want 1: %+v", len(all), what, all)
	}
	return all[0]
}

// counts compares what was counted for a cgroup. Of the exits, all but the helper's own
// are of processes that lived less than a second for certain.
func (s *seen) counts(id model.CgroupID, forks, execs, exits uint64) {
	s.t.Helper()
	g := s.of(id)
	got := [...]uint64{g.Forks, g.Execs, g.Exits}
	if want := [...]uint64{forks, execs, exits}; got != want {
		s.t.Errorf("forks, execs, exits: %v, want %v", got, want)
	}
	if g.ShortExits < forks || g.ShortExits > exits {
		s.t.Errorf("%d short exits, want %d to %d", g.ShortExits, forks, exits)
	}
}

func TestThreadsAreNoForksAndNoExits(t *testing.T) {
	s := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	h := start(t, scratch, "threads", "40")
	h.end()
	s.until("its exit", func() bool { return len(s.exitsOf(h.pid)) > 0 })

	s.counts(scratch.ID(), 0, 1, 1)
	fork := only(t, "forks", s.forksOf(h.pid))
	exit := only(t, "exits", s.exitsOf(h.pid))
	if fork.ProcID != exit.ProcID {
		t.Errorf("forked as %v, ended as %v", fork.ProcID, exit.ProcID)
	}
	if fork.Cgroup != scratch.ID() {
		t.Errorf("forked into cgroup %d, want %d", fork.Cgroup, scratch.ID())
	}
	inScratch := filter(s.forked, func(p model.Proc) bool { return p.Cgroup == scratch.ID() })
	only(t, "processes in the cgroup", inScratch)
}

// The last threads of a process that is ended from outside can all find, at once, that
// nobody else is left.
func TestAProcessWhoseThreadsEndAtOnceEndsOnce(t *testing.T) {
	const n = 30
	s := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	for range n {
		h := start(t, scratch, "spin", "4", "1m")
		h.ready()
		h.tell()
		time.Sleep(5 * time.Millisecond)
		if err := h.cmd.Process.Kill(); err != nil {
			t.Fatal(err)
		}
		_ = h.cmd.Wait()
	}
	s.until("all their exits", func() bool { return s.of(scratch.ID()).Exits >= n })
	s.collect(false)
	s.counts(scratch.ID(), 0, n, n)
}

// After tetragon's contrib/tester-progs: the leader exits before its threads.
func TestAProcessEndsWhenItsLastThreadDoesNotItsFirst(t *testing.T) {
	s := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	h := start(t, scratch, "leader-first")
	h.ready()
	time.Sleep(50 * time.Millisecond) // the leader ends right after it said so
	s.collect(true)
	if state := procState(t, h.pid); state != "Z" {
		t.Fatalf("the leader's state is %s, want Z", state)
	}
	if e := s.exitsOf(h.pid); len(e) != 0 {
		t.Fatalf("ended with its first thread: %+v", e)
	}
	found := s.forksOf(h.pid)
	only(t, "forks", found)

	h.tell()
	h.end()
	s.until("its exit", func() bool { return len(s.exitsOf(h.pid)) > 0 })
	s.collect(true)
	s.collect(true)
	exit := only(t, "exits", s.exitsOf(h.pid))
	s.counts(scratch.ID(), 0, 1, 1)
	if exit.CPUNS < 100_000_000 {
		t.Errorf("used %v in its life, and its first thread alone used 150ms", time.Duration(exit.CPUNS))
	}
}

func TestExecByAThreadThatIsNotTheLeaderIsOneExecAndNoExit(t *testing.T) {
	s := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	h := start(t, scratch, "exec-thread", "/proc/self/exe", "renamed")
	h.ready()
	s.until("its first exec", func() bool { return len(s.execsOf(h.pid)) == 1 })
	h.tell()
	h.ready()
	s.until("its second exec", func() bool { return len(s.execsOf(h.pid)) == 2 })
	s.collect(true)
	s.collect(true)
	if e := s.exitsOf(h.pid); len(e) != 0 {
		t.Errorf("ended at its exec: %+v", e)
	}
	h.end()
	s.until("its exit", func() bool { return len(s.exitsOf(h.pid)) > 0 })

	id := only(t, "forks", s.forksOf(h.pid)).ProcID
	for _, e := range s.execsOf(h.pid) {
		if e.ProcID != id {
			t.Errorf("forked as %v, became another program as %v", id, e.ProcID)
		}
	}
	if exit := only(t, "exits", s.exitsOf(h.pid)); exit.ProcID != id {
		t.Errorf("forked as %v, ended as %v", id, exit.ProcID)
	}
	s.counts(scratch.ID(), 0, 2, 1)
}

func TestCountsOfACgroupAreExact(t *testing.T) {
	const n = 500
	s := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	h := start(t, scratch, "forks", fmt.Sprint(n))
	h.ready()
	s.collect(false)
	h.tell()
	h.ready()
	time.Sleep(1100 * time.Millisecond) // so that the helper's own life is not short
	h.end()
	s.until("its exit", func() bool { return len(s.exitsOf(h.pid)) > 0 })

	s.counts(scratch.ID(), n, 1, n+1)
	if short := s.of(scratch.ID()).ShortExits; short != n {
		t.Errorf("%d short exits, want %d", short, n)
	}
	children := filter(s.forked, func(p model.Proc) bool { return p.Parent.PID == h.pid })
	if len(children) != n {
		t.Fatalf("%d fork events of its children, want %d", len(children), n)
	}
	for _, child := range children {
		if child.Cgroup != scratch.ID() || child.Parent != s.forksOf(h.pid)[0].ProcID || child.Found {
			t.Fatalf("a child was seen as %+v", child)
		}
	}
	if s.lost != (model.Lost{}) {
		t.Errorf("lost %+v", s.lost)
	}
}

// While the reader stands still, records are lost and counted, and counts are not.
func TestCountsStayExactWhileTheReaderStandsStillInAForkStorm(t *testing.T) {
	d := 5 * time.Second
	if testing.Short() {
		d = time.Second
	}
	s := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	var storm []*helperProc
	for range 2 {
		h := start(t, scratch, "storm", d.String())
		h.ready()
		storm = append(storm, h)
	}
	s.collect(false)

	s.c.mu.Lock() // the reader waits for this before it takes its next record
	for _, h := range storm {
		h.tell()
	}
	var forks uint64
	for _, h := range storm {
		forks += number(t, h.ready()[0])
	}
	s.c.mu.Unlock()
	for _, h := range storm {
		h.end()
	}
	s.until("the end of both", func() bool { return s.of(scratch.ID()).Exits >= forks+2 })
	s.counts(scratch.ID(), forks, 2, forks+2)

	// Every record that is missing was counted as lost: since the programs were
	// attached, what was counted on the whole machine is what arrived and what did not.
	// Somebody may fork between the emptying of the buffer and the reading of the
	// counts, so it is enough that they agree at one of many moments.
	var counted, arrived uint64
	s.until("as many records, arrived and lost, as were counted", func() bool {
		counted = 0
		for _, g := range s.cgroups {
			counted += g.Forks + g.Execs + g.Exits
		}
		arrived = uint64(len(s.forked) + len(s.execed) + len(s.exited))
		return counted == arrived+s.lost.Events
	})
	t.Logf("%d forks in %v, %.0f/s: %d records counted, %d arrived, %d lost", forks, d, float64(forks)/d.Seconds(), counted, arrived, s.lost.Events)
	if s.lost.Cells != 0 || s.lost.Cgroups != 0 {
		t.Errorf("lost counts: %+v", s.lost)
	}
	if !testing.Short() && s.lost.Events == 0 {
		t.Log("the storm was too weak to fill the buffer")
	}
}

func TestTheParentIsWhoCalledFork(t *testing.T) {
	s := open(t, DefaultSizes)

	t.Run("though the child is given to the grandparent (CLONE_PARENT)", func(t *testing.T) {
		h := start(t, nil, "clone-parent")
		said := h.ready()
		child := int32(number(t, said[1]))
		// It is this process's child now.
		if _, err := unix.Wait4(int(child), nil, 0, nil); err != nil {
			t.Fatal(err)
		}
		s.until("the fork", func() bool { return len(s.forksOf(child)) > 0 })
		if p := only(t, "forks", s.forksOf(child)); p.Parent.PID != h.pid {
			t.Errorf("the parent is %d, want %d", p.Parent.PID, h.pid)
		}
	})
	t.Run("though the parent is gone at once (double fork)", func(t *testing.T) {
		h := start(t, nil, "double-fork")
		said := h.ready()
		child, grandchild := int32(number(t, said[0])), int32(number(t, said[1]))
		s.until("both forks", func() bool { return len(s.forksOf(child)) > 0 && len(s.forksOf(grandchild)) > 0 })
		if p := only(t, "forks", s.forksOf(child)); p.Parent.PID != h.pid {
			t.Errorf("the child's parent is %d, want %d", p.Parent.PID, h.pid)
		}
		p := only(t, "forks", s.forksOf(grandchild))
		if p.Parent != s.forksOf(child)[0].ProcID {
			t.Errorf("the grandchild's parent is %v, want %v", p.Parent, s.forksOf(child)[0].ProcID)
		}
		s.until("the grandchild's end", func() bool { return len(s.exitsOf(grandchild)) > 0 })
	})
}

func TestAnExecTellsTheCommandAndItsArguments(t *testing.T) {
	s := open(t, DefaultSizes)
	dir := t.TempDir()
	long := make([]string, 30)
	for i := range long {
		long[i] = fmt.Sprintf("argument-%02d", i)
	}
	tests := map[string]struct {
		file    string
		args    []string
		comm    string
		cmdline string
	}{
		"a plain one":                     {"plain", []string{"plain", "-x", "two words"}, "plain", "plain -x two words"},
		"no arguments at all":             {"bare", []string{""}, "bare", ""},
		"a name longer than 15 bytes":     {"a-name-that-is-long", []string{"a-name-that-is-long"}, "a-name-that-is-", "a-name-that-is-long"},
		"a command line over 192 bytes":   {"long", append([]string{"long"}, long...), "long", joined("long", long)[:192]},
		"escape sequences, invalid UTF-8": {"\x1b[31m\xff\xfe\x07x", []string{"\x1b[2J\xc3", "\xe2\x82"}, "\x1b[31m\uFFFD\x07x", "\x1b[2J\uFFFD \uFFFD"},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			file := dir + "/" + test.file
			if err := unix.Symlink(executable(t), file); err != nil {
				t.Fatal(err)
			}
			h := start(t, nil, "exec", append([]string{file}, test.args...)...)
			h.ready()
			s.until("its first exec", func() bool { return len(s.execsOf(h.pid)) == 1 })
			h.tell()
			h.ready()
			s.until("its second exec", func() bool { return len(s.execsOf(h.pid)) == 2 })
			e := s.execsOf(h.pid)[1]
			if e.Comm != test.comm {
				t.Errorf("comm %q, want %q", e.Comm, test.comm)
			}
			if e.Cmdline != test.cmdline {
				t.Errorf("command line %q, want %q", e.Cmdline, test.cmdline)
			}
		})
	}
}

func TestTwoCollectorsWorkSideBySide(t *testing.T) {
	const n = 50
	a := open(t, DefaultSizes)
	b := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	h := start(t, scratch, "forks", fmt.Sprint(n))
	h.ready()
	h.tell()
	h.ready()
	h.end()
	for _, s := range []*seen{a, b} {
		s.until("its exit", func() bool { return len(s.exitsOf(h.pid)) > 0 })
		s.counts(scratch.ID(), n, 1, n+1)
	}
}
