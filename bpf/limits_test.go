package bpf

import (
	"encoding/json"
	"errors"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

func TestFullTablesAreCountedAsLost(t *testing.T) {
	s := open(t, Sizes{Cgroups: 1, Cells: 1, EventsBytes: 4096})
	scratch := kerneltest.ScratchCgroup(t)
	s.collect(true)
	for _, name := range []string{"a", "b", "c"} {
		h := start(t, scratch.Child(name), "spin", "4", "150ms")
		h.ready()
		h.tell()
	}
	time.Sleep(250 * time.Millisecond)
	s.collect(true)
	if s.lost.Cgroups == 0 {
		t.Error("no lost cgroups, and there is place for one")
	}
	if s.lost.Cells == 0 {
		t.Error("no lost cells, and there is place for one")
	}
	if n := len(s.cgroups); n > 1 {
		t.Errorf("%d cgroups were counted, and there is place for one", n)
	}
	// What was lost is told once.
	before := s.lost
	s.collect(false)
	if grew := s.lost.Cells - before.Cells; grew > before.Cells {
		t.Errorf("%d more lost cells a moment later", grew)
	}
}

func TestMoreRecordsThanATickHoldsAreCountedAsLost(t *testing.T) {
	s := open(t, DefaultSizes)
	h := start(t, nil, "forks", "20")
	h.ready()
	s.collect(false)
	s.c.mu.Lock()
	s.c.records = maxChanges - 5
	s.c.mu.Unlock()
	h.tell()
	h.ready()
	s.collect(false)
	if s.lost.Events < 2*20-5 {
		t.Errorf("%d lost events, want at least %d", s.lost.Events, 2*20-5)
	}
	if n := len(s.forked) + len(s.exited); n == 0 || n > 5+2 {
		t.Logf("%d records arrived", n)
	}
	s.lost = model.Lost{}
	s.collect(false)
	if s.lost.Events != 0 {
		t.Errorf("%d events lost in a quiet tick", s.lost.Events)
	}
}

// smallTable is a table like those of the kernel programs.
func smallTable(t *testing.T) *ebpf.Map {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root)
	m, err := ebpf.NewMap(&ebpf.MapSpec{Name: "test", Type: ebpf.Hash, KeySize: 8, ValueSize: 8, MaxEntries: 4})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { m.Close() })
	return m
}

func minusNumber(a, b uint64) uint64 { return a - b }

func TestAnIdleEntryGivesUpItsPlaceAndComesBack(t *testing.T) {
	table := smallTable(t)
	sums := newTotals[uint64](table, 3, minusNumber)
	set := func(key, val uint64) {
		t.Helper()
		if err := table.Put(key, val); err != nil {
			t.Fatal(err)
		}
	}
	var total uint64
	tick := func() map[uint64]uint64 {
		t.Helper()
		got := map[uint64]uint64{}
		if err := sums.growth(func(k, v uint64) { got[k] += v; total += v }); err != nil {
			t.Fatal(err)
		}
		return got
	}
	holds := func(key uint64) bool {
		var v uint64
		err := table.Lookup(key, &v)
		if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) {
			t.Fatal(err)
		}
		return err == nil
	}

	set(7, 100)
	if got := tick(); got[7] != 100 {
		t.Fatalf("grew by %v, want 100", got)
	}
	set(7, 130)
	if got := tick(); got[7] != 30 {
		t.Fatalf("grew by %v, want 30", got)
	}
	for range 2 {
		if got := tick(); len(got) != 0 {
			t.Fatalf("idle, and grew by %v", got)
		}
	}
	if !holds(7) {
		t.Fatal("out of the table too early")
	}
	tick()
	if holds(7) || len(sums.seen) != 0 {
		t.Fatal("idle for three ticks, and still in the table")
	}
	set(7, 5)
	if got := tick(); got[7] != 5 {
		t.Fatalf("back, and grew by %v, want 5", got)
	}
	if total != 135 {
		t.Errorf("%d in all, want 135", total)
	}
}

func TestWhatAnEntryGainsAsItIsDroppedIsCounted(t *testing.T) {
	table := smallTable(t)
	sums := newTotals[uint64](table, 1, minusNumber)
	var total uint64
	each := func(_, v uint64) { total += v }
	if err := table.Put(uint64(7), uint64(100)); err != nil {
		t.Fatal(err)
	}
	if err := sums.growth(each); err != nil {
		t.Fatal(err)
	}
	if err := table.Put(uint64(7), uint64(142)); err != nil {
		t.Fatal(err)
	}
	sums.drop(7, each)
	if total != 142 {
		t.Errorf("%d in all, want 142", total)
	}
}

func TestAFullTableIsReadToItsEnd(t *testing.T) {
	table := smallTable(t)
	sums := newTotals[uint64](table, 3, minusNumber)
	for k := range uint64(4) {
		if err := table.Put(k+1, k+1); err != nil {
			t.Fatal(err)
		}
	}
	var keys []uint64
	if err := sums.growth(func(k, _ uint64) { keys = append(keys, k) }); err != nil {
		t.Fatal(err)
	}
	slices.Sort(keys)
	if want := []uint64{1, 2, 3, 4}; !slices.Equal(keys, want) {
		t.Errorf("read %v, want %v", keys, want)
	}
}

// Who fills the table and then does nothing has his places for a second.
func TestANearlyFullTableMakesRoomSoon(t *testing.T) {
	table := smallTable(t)
	sums := newTotals[uint64](table, idleTicks, minusNumber)
	total := map[uint64]uint64{}
	tick := func(active ...uint64) {
		t.Helper()
		for _, k := range active {
			if err := table.Put(k, total[k]+10); err != nil {
				t.Fatal(err)
			}
		}
		if err := sums.growth(func(k, v uint64) { total[k] += v }); err != nil {
			t.Fatal(err)
		}
	}
	places := func() (n int) {
		var k, v uint64
		for it := table.Iterate(); it.Next(&k, &v); {
			n++
		}
		return n
	}
	tick(1, 2, 3)
	for range 2 * crowdedTicks {
		tick(1)
	}
	if n := places(); n != 3 {
		t.Fatalf("%d places are taken with one free, want 3", n)
	}
	tick(1, 4)
	tick(1, 4)
	if n := places(); n != 2 || total[1] != 10*(2*crowdedTicks+3) || total[2] != 10 || total[3] != 10 || total[4] != 20 {
		t.Errorf("%d places are taken, and counted is %v", n, total)
	}
}

func TestATableThatIsEmptiedGivesEverythingOnce(t *testing.T) {
	table := smallTable(t)
	all := newDrain[uint64, uint64](table)
	all.keys, all.vals = all.keys[:1], all.vals[:1] // in several calls, and more room for some
	taken := map[uint64]uint64{}
	take := func(k, v uint64) { taken[k] += v }
	want := map[uint64]uint64{}
	for round := range uint64(3) {
		for k := range 4 - round {
			if err := table.Put(k+1, 10*round+k); err != nil {
				t.Fatal(err)
			}
			want[k+1] += 10*round + k
		}
		for range 2 { // the second time there is nothing
			if err := all.each(take); err != nil {
				t.Fatal(err)
			}
		}
		if diff := cmp.Diff(want, taken); diff != "" {
			t.Fatalf("round %d: %s", round, diff)
		}
	}
}

// as runs the open helper as the user nobody with these capabilities and no others.
// /proc/self/exe is the test binary, wherever it is and whoever may go there.
func as(t *testing.T, caps ...uintptr) opened {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = []string{helperVar + "=open"}
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: caps,
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var o opened
	if err := json.Unmarshal(out, &o); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if o.UID != 65534 {
		t.Fatalf("ran as uid %d", o.UID)
	}
	return o
}

func TestTheCollectorNeedsCapBPFAndCapPerfmonOnly(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.BTF)
	o := as(t, unix.CAP_BPF, unix.CAP_PERFMON)
	if o.CapEff != "000000c000000000" {
		t.Fatalf("ran with capabilities %s", o.CapEff)
	}
	if o.Error != "" {
		if beforeMemcgCharge() && strings.Contains(o.Error, "CAP_SYS_RESOURCE") {
			t.Skipf("Linux before 5.11 charges maps to the memlock limit: %s", o.Error)
		}
		t.Fatal(o.Error)
	}
	if o.Processes < 2 || o.Forks < 10 || o.Events < 10 || o.RunNS == 0 {
		t.Errorf("saw too little: %+v", o)
	}
	if o.Lost != (model.Lost{}) {
		t.Errorf("lost %+v", o.Lost)
	}
}

// beforeMemcgCharge reports whether this is Linux before 5.11.
func beforeMemcgCharge() bool {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return false
	}
	return strings.HasPrefix(unix.ByteSliceToString(u.Release[:]), "5.10.")
}

func TestWithoutPrivilegesTheErrorSaysWhatIsMissing(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.BTF)
	for name, caps := range map[string][]uintptr{
		"neither":          nil,
		"CAP_BPF only":     {unix.CAP_BPF},
		"CAP_PERFMON only": {unix.CAP_PERFMON},
	} {
		t.Run(name, func(t *testing.T) {
			o := as(t, caps...)
			for _, want := range []string{"run as root", "CAP_BPF", "CAP_PERFMON"} {
				if !strings.Contains(o.Error, want) {
					t.Errorf("the error does not say %q: %s", want, o.Error)
				}
			}
			if strings.Contains(o.Error, "\n") || len(o.Error) > 400 {
				t.Errorf("the error is long: %s", o.Error)
			}
		})
	}
}

func TestOpenRefusesSizesThatNoMapCanHave(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.BTF)
	for name, sizes := range map[string]Sizes{
		"no cgroups":                  {Cgroups: 0, Cells: 8, EventsBytes: 4096},
		"no cells":                    {Cgroups: 8, Cells: 0, EventsBytes: 4096},
		"no buffer":                   {Cgroups: 8, Cells: 8, EventsBytes: 0},
		"a buffer not a power of two": {Cgroups: 8, Cells: 8, EventsBytes: 3 * 4096},
		"a buffer under a page":       {Cgroups: 8, Cells: 8, EventsBytes: 1024},
	} {
		t.Run(name, func(t *testing.T) {
			c, err := Open(sizes)
			if err == nil {
				c.Close()
				t.Fatal("opened")
			}
			t.Log(err)
		})
	}
}

func TestCloseEndsTheReaderAndDetachesEverything(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.BTF)
	before, files := runtime.NumGoroutine(), openFiles(t)
	for range 5 {
		c, err := Open(Sizes{Cgroups: 64, Cells: 64, EventsBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		if err := c.Collect(&model.Sample{BootNS: bootNS()}, true); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if err := c.Close(); err != nil {
			t.Errorf("closed again: %v", err)
		}
		if err := c.Collect(&model.Sample{}, true); err == nil {
			t.Error("collected from a closed collector")
		}
		if n := c.Unread(); n != 0 {
			t.Errorf("%d bytes are left in a closed collector", n)
		}
	}
	for give := time.Now().Add(5 * time.Second); runtime.NumGoroutine() > before; time.Sleep(time.Millisecond) {
		if time.Now().After(give) {
			t.Fatalf("%d goroutines, %d before", runtime.NumGoroutine(), before)
		}
	}
	if after := openFiles(t); after > files {
		t.Errorf("%d open files, %d before", after, files)
	}
}

// A busy buffer must not keep Close waiting, nor Close break in on a reader's decoding.
func TestCloseInTheMiddleOfAStorm(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF)
	h := start(t, nil, "storm", "400ms")
	h.ready()
	h.tell()
	for range 3 {
		c, err := Open(Sizes{Cgroups: 64, Cells: 64, EventsBytes: 4096})
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(20 * time.Millisecond)
		began := time.Now()
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if took := time.Since(began); took > 2*time.Second {
			t.Errorf("Close took %v", took)
		}
	}
}
