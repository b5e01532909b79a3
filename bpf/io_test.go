package bpf

import (
	"fmt"
	"math"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/btf"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// ioHelper reads or writes as many pieces of as many bytes as given, when told, past the
// page cache ("read", "write") or through it with an fsync at the end ("sync"), or with the disk
// only told to begin ("background").
func ioHelper(args []string) error {
	kind, path := args[0], args[1]
	pieces, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	size, err := strconv.Atoi(args[3])
	if err != nil {
		return err
	}
	flags := unix.O_RDWR | unix.O_CLOEXEC
	if kind == "read" || kind == "write" {
		flags |= unix.O_DIRECT
	}
	// Aligned to a page, as O_DIRECT wants it.
	buf, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err != nil {
		return err
	}
	for i := range buf {
		buf[i] = byte(i)
	}
	fd, err := unix.Open(path, flags, 0)
	if err != nil {
		return fmt.Errorf("open %s: %w", path, err)
	}
	ready()
	untilTold()
	for i := range pieces {
		at := int64(i) * int64(size)
		if kind == "read" {
			_, err = unix.Pread(fd, buf, at)
		} else {
			_, err = unix.Pwrite(fd, buf, at)
		}
		if err != nil {
			return err
		}
	}
	switch kind {
	case "sync":
		err = unix.Fsync(fd)
	case "background":
		err = unix.SyncFileRange(fd, 0, 0, unix.SYNC_FILE_RANGE_WRITE)
	}
	if err != nil {
		return err
	}
	ready()
	untilTold()
	return nil
}

// onDisk is a file of that size, all of it written, on a file system that has a disk.
func onDisk(t testing.TB, size int) string {
	t.Helper()
	dir := kerneltest.DiskDir(t)
	path := filepath.Join(dir, "file")
	if err := os.WriteFile(path, make([]byte, size), 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestBlockRequestsAreTheirSubmitters(t *testing.T) {
	tests := []struct {
		name         string
		kind         string
		pieces, size int
		requests     uint64 // at least
	}{
		{"small direct reads", "read", 500, 4 << 10, 500},
		{"direct reads that are split", "read", 4, 8 << 20, 4},
		{"direct writes", "write", 100, 64 << 10, 100},
		{"writes through the page cache and an fsync", "sync", 512, 64 << 10, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := onDisk(t, tt.pieces*tt.size)
			s := open(t, DefaultSizes)
			if problems := s.c.Problems(); len(problems) != 0 {
				t.Fatal(problems)
			}
			mine, idle := kerneltest.ScratchCgroup(t), kerneltest.ScratchCgroup(t)
			h := start(t, mine, "io", tt.kind, path, fmt.Sprint(tt.pieces), fmt.Sprint(tt.size))
			other := start(t, idle, "wait")
			other.ready()
			h.ready()
			s.collect(false)
			before, idled := *s.of(mine.ID()), *s.of(idle.ID())
			began := time.Now()
			h.tell()
			h.ready()
			took := time.Since(began)
			s.collect(false)
			got := *s.of(mine.ID())
			bytes, requests, held := got.IOBytes-before.IOBytes, got.IORequests-before.IORequests, time.Duration(got.IOHeldNS-before.IOHeldNS)
			t.Logf("%d bytes in %d requests held the device %v of %v", bytes, requests, held, took)
			want := float64(tt.pieces * tt.size)
			if off := math.Abs(float64(bytes)-want) / want; off > 0.03 {
				t.Errorf("%d bytes, want %.0f: off by %.1f %%", bytes, want, 100*off)
			}
			if requests < tt.requests {
				t.Errorf("%d requests, want at least %d; runs that the kernel left out, for the program ran already: %v", requests, tt.requests, s.leftOut())
			}
			// One after the other and each waited for, so never two at a time.
			if held <= 0 || tt.kind != "sync" && tt.requests == uint64(tt.pieces) && tt.size <= 64<<10 && held > took {
				t.Errorf("held the device %v of %v", held, took)
			}
			// Its program may have been read from the disk before.
			if n := s.of(idle.ID()); n.IOBytes != idled.IOBytes || n.IOHeldNS != idled.IOHeldNS {
				t.Errorf("a cgroup that did no io had %+v and has %+v", idled, n)
			}
		})
	}
}

// Two disks, each with a reader of its own and one that reads from both.
func TestEachDeviceIsCountedForItself(t *testing.T) {
	const pieces, size = 200, 64 << 10
	number := make(map[string]string) // of a device, by its path
	var disks []string
	for range 2 {
		path, dev := loopDevice(t, pieces*size)
		number[path] = dev
		disks = append(disks, path)
	}
	s := open(t, DefaultSizes)
	readers := map[model.CgroupID]string{}
	var all []*helperProc
	for _, path := range disks {
		g := kerneltest.ScratchCgroup(t)
		readers[g.ID()] = number[path]
		all = append(all, start(t, g, "io", "read", path, fmt.Sprint(pieces), fmt.Sprint(size)))
	}
	both := kerneltest.ScratchCgroup(t)
	for _, path := range disks {
		all = append(all, start(t, both, "io", "read", path, fmt.Sprint(pieces), fmt.Sprint(size)))
	}
	for _, h := range all {
		h.ready()
	}
	s.collect(false)
	started := make(map[model.CgroupID]uint64)
	for id, g := range s.cgroups {
		started[id] = g.IOHeldNS
	}
	for _, h := range all {
		h.tell()
	}
	for _, h := range all {
		h.ready()
	}
	held := make(map[model.CgroupID]map[string]uint64)
	for range 2 { // what ended between the two looks of a tick is told in the next
		for _, h := range s.collect(false).IOHolds {
			if h.By != model.ByCgroup {
				continue
			}
			if held[h.Cgroup] == nil {
				held[h.Cgroup] = make(map[string]uint64)
			}
			held[h.Cgroup][h.Device] += h.NS
		}
	}
	for id, device := range readers {
		for _, other := range number {
			if held[id][other] > 0 != (other == device) {
				t.Errorf("the reader of %s held %v", device, held[id])
			}
		}
	}
	if got := held[both.ID()]; got[number[disks[0]]] == 0 || got[number[disks[1]]] == 0 {
		t.Errorf("the reader of both held %v", got)
	}
	for id := range started {
		if readers[id] == "" && id != both.ID() {
			continue
		}
		devices, sum := held[id], uint64(0) // with what it read of its own program
		for _, ns := range devices {
			sum += ns
		}
		if whole := s.of(id).IOHeldNS - started[id]; sum != whole {
			t.Errorf("cgroup %d held %v, and %d ns in all", id, devices, whole)
		}
	}
	if s.lost.IOHolds != 0 {
		t.Errorf("%d are lost", s.lost.IOHolds)
	}
}

// What is written back in the background is at the disk, and nobody waits for it. For what is read, and what is
// synced, somebody does, longer than it is at the disk.
func TestWhatSomebodyWaitsForIsTold(t *testing.T) {
	const pieces, size = 64, 256 << 10
	for kind, waited := range map[string]bool{"read": true, "sync": true, "background": false} {
		t.Run(kind, func(t *testing.T) {
			path, device := loopDevice(t, pieces*size)
			s := open(t, DefaultSizes)
			g := kerneltest.ScratchCgroup(t)
			h := start(t, g, "io", kind, path, fmt.Sprint(pieces), fmt.Sprint(size))
			h.ready()
			s.collect(false)
			h.tell()
			h.ready()
			var sum model.IOHold
			s.until("its requests", func() bool {
				for _, hold := range s.holds {
					if hold.Cgroup == g.ID() && hold.Device == device {
						sum.NS += hold.NS
						sum.WaitedNS += hold.WaitedNS
					}
				}
				s.holds = nil
				return sum.NS > 0
			})
			if waited && sum.WaitedNS < sum.NS || !waited && sum.WaitedNS != 0 {
				t.Errorf("held for %d ns, and waited for %d", sum.NS, sum.WaitedNS)
			}
		})
	}
}

// loopDevice is a disk of that size in memory, and its number.
func loopDevice(t testing.TB, size int64) (path, number string) {
	t.Helper()
	memory, err := unix.MemfdCreate("disk", unix.MFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(memory)
	if err := unix.Ftruncate(memory, size); err != nil {
		t.Fatal(err)
	}
	_ = exec.Command("modprobe", "loop").Run() // it may be built in
	control, err := unix.Open("/dev/loop-control", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal("loop devices:", err)
	}
	defer unix.Close(control)
	for range 10 { // another may be as quick
		n, err := unix.IoctlRetInt(control, unix.LOOP_CTL_GET_FREE)
		if err != nil {
			t.Fatal("a free loop device:", err)
		}
		path = fmt.Sprintf("/dev/loop%d", n)
		loop, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(path, err)
		}
		if err := unix.IoctlSetInt(loop, unix.LOOP_SET_FD, memory); err != nil {
			unix.Close(loop)
			continue
		}
		t.Cleanup(func() {
			_ = unix.IoctlSetInt(loop, unix.LOOP_CLR_FD, 0)
			unix.Close(loop)
		})
		var st unix.Stat_t
		if err := unix.Fstat(loop, &st); err != nil {
			t.Fatal(err)
		}
		return path, fmt.Sprintf("%d:%d", unix.Major(st.Rdev), unix.Minor(st.Rdev))
	}
	t.Fatal("no loop device is to be had")
	return "", ""
}

// leftOut is how often each io program was not run because an interrupt found it running.
func (s *seen) leftOut() map[string]uint64 {
	times := map[string]uint64{}
	for name, prog := range s.c.io.coll.Programs {
		stats, err := prog.Stats()
		if err != nil {
			s.t.Fatal(err)
		}
		times[name] = stats.RecursionMisses
	}
	return times
}

// Nothing is left in the table of bios once they are done.
func TestBiosThatAreDoneAreForgotten(t *testing.T) {
	path := onDisk(t, 16<<20)
	s := open(t, DefaultSizes)
	scratch := kerneltest.ScratchCgroup(t)
	h := start(t, scratch, "io", "read", path, "16", fmt.Sprint(1<<20))
	h.ready()
	h.tell()
	h.ready()
	s.until("an empty table", func() bool {
		var key uint64
		var val [3]uint64
		n := 0
		for it := s.c.io.coll.Maps[ioMapBios].Iterate(); it.Next(&key, &val); {
			if val[0] == uint64(scratch.ID()) {
				n++
			}
		}
		return n == 0
	})
}

// A kernel whose tracepoints are not known loses the io programs and nothing else.
func TestWithoutTheIOProgramsTheRestWorks(t *testing.T) {
	s := open(t, DefaultSizes)
	spec, err := loadIo()
	if err != nil {
		t.Fatal(err)
	}
	if err := chooseBlockPrograms(spec, btf.NewCache()); err != nil {
		t.Fatal(err)
	}
	if len(spec.Programs) != 4 {
		t.Errorf("%d programs were chosen, want 4", len(spec.Programs))
	}
	if err := s.c.io.Close(); err != nil {
		t.Fatal(err)
	}
	s.c.io, s.c.ioErr = nil, fmt.Errorf("tracepoint block_rq_issue of this kernel is not known")
	s.collect(true)
	if len(s.c.Programs()) != 6 || len(s.c.Problems()) != 1 {
		t.Errorf("programs %q, problems %q", s.c.Programs(), s.c.Problems())
	}
}

// BenchmarkBlockRequest is what the four programs add to a request, by the kernel's own
// BPF statistics, which read the clock twice around each program.
func BenchmarkBlockRequest(b *testing.B) {
	const pieces = 4000
	path := onDisk(b, pieces*4096)
	s := open(b, DefaultSizes)
	stats, err := ebpf.EnableStats(uint32(unix.BPF_STATS_RUN_TIME))
	if err != nil {
		b.Fatal(err)
	}
	defer stats.Close()
	h := start(b, kerneltest.ScratchCgroup(b), "io", "read", path, fmt.Sprint(pieces), "4096")
	h.ready()
	h.tell()
	for b.Loop() { // all its requests, once
		h.ready()
	}
	sum := 0.0
	for name, p := range s.c.io.coll.Programs {
		st, err := p.Stats()
		if err != nil {
			b.Fatal(err)
		}
		if st.RunCount == 0 {
			continue // of devices that take no requests, such as a device mapper's
		}
		each := float64(st.Runtime) / float64(st.RunCount)
		b.ReportMetric(each, name+"_ns")
		sum += each
	}
	b.ReportMetric(sum, "ns/request")
}
