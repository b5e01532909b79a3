package bpf

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cilium/ebpf/btf"
	"github.com/cilium/ebpf/ringbuf"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// maxChanges bounds the fork, exec and exit records of one tick; the rest is lost,
// and said to be.
const maxChanges = 65536

// kernelID is KERNEL_ID of counts.h.
const kernelID = ^uint64(0)

// Collector is the kernel's side of a sample.
type Collector struct {
	programs *programs
	io       *blockPrograms // nil where they do not fit the kernel
	ioErr    error          // why
	cgroups  *totals[uint64, collectorCgroupCounts]
	waits    *drain[collectorWaitCell, uint64]
	lost     [collectorLostKindLOST_KINDS]uint64 // as last read
	scanBuf  []byte
	known    map[model.ProcID]*knownProcess

	kernelIOHeldNS uint64 // since the programs were attached
	ioDone         bool   // a device was done with requests in this tick

	lastCgroups, lastWaits int // how many grew in the last tick

	drained chan struct{} // the reader has emptied the buffer after a Flush
	reader  sync.WaitGroup
	dozing  atomic.Bool // whoever reads a record tells stirred
	stirred chan struct{}

	mu      sync.Mutex // guards what the reader gathers
	changes model.ProcChanges
	records int
	bytes   int // of them
	dropped uint64
	readErr error
	closed  bool // and with it the buffer, whose memory is gone
}

// knownProcess is what the collector remembers to tell changes from one scan of the
// process table to the next.
type knownProcess struct {
	cgroup    model.CgroupID
	cpuNS     uint64
	rssBytes  uint64
	fileBytes uint64
	missing   bool // from the last scan; its exit record may still come
}

// Open loads and attaches the kernel programs. Counting begins at once.
func Open(sizes Sizes) (*Collector, error) {
	kernel := btf.NewCache() // the kernel's types take as long to read as most programs to load
	p, err := loadPrograms(sizes, kernel)
	if err != nil {
		return nil, err
	}
	c := &Collector{
		programs: p,
		cgroups:  newTotals[uint64](p.Cgroups, idleTicks, minusCounts),
		waits:    newDrain[collectorWaitCell, uint64](p.Waits),
		scanBuf:  make([]byte, 64<<10),
		known:    make(map[model.ProcID]*knownProcess),
		drained:  make(chan struct{}),
		stirred:  make(chan struct{}, 1),
	}
	c.io, c.ioErr = loadBlockPrograms(p, kernel)
	c.reader.Go(c.read)
	return c, nil
}

// Close detaches the programs and waits for the reader to end.
func (c *Collector) Close() error {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	err := c.programs.Close()
	if c.io != nil {
		err = errors.Join(err, c.io.Close())
	}
	for range c.drained { // a reader that is about to say that it has drained
	}
	c.reader.Wait()
	return err
}

// Programs names what is attached, for a person.
func (c *Collector) Programs() []string {
	names := []string{"tp_btf/sched_switch", "tp_btf/sched_migrate_task", "tp_btf/sched_process_fork", "tp_btf/sched_process_exec", "tp_btf/sched_process_exit", "iter/task"}
	if c.io != nil {
		names = append(names, slices.Sorted(slices.Values(c.io.names))...)
	}
	return names
}

// Problems says what cannot be seen on this kernel, for a person.
func (c *Collector) Problems() []string {
	if c.ioErr == nil {
		return nil
	}
	return []string{fmt.Sprintf("who uses the block devices is not seen, so that nobody is blamed for io: %v", c.ioErr)}
}

// read empties the event buffer: when a tick flushes it, and earlier when it is a
// quarter full or something stirs while the collector dozes.
func (c *Collector) read() {
	defer close(c.drained)
	var rec ringbuf.Record
	for {
		err := c.programs.ring.ReadInto(&rec)
		switch {
		case errors.Is(err, ringbuf.ErrFlushed):
			c.drained <- struct{}{}
			continue
		case errors.Is(err, os.ErrClosed):
			return
		}
		c.mu.Lock()
		switch {
		case err != nil:
			c.readErr = err
		case c.records >= maxChanges:
			c.dropped++
		default:
			c.records++
			c.bytes += len(rec.RawSample)
			if err := decodeEvent(rec.RawSample, &c.changes); err != nil {
				c.readErr = err
			}
		}
		c.mu.Unlock()
		if err != nil {
			return
		}
		c.wake()
	}
}

// Collect fills the kernel's part of a sample: the growth since the last call. With
// scan it also walks the process table (10 ms at 20,000 tasks on 6.18), which tells
// what each process used, and corrects what lost records left wrong.
func (c *Collector) Collect(s *model.Sample, scan bool) error {
	if err := c.collectEvents(s); err != nil {
		return err
	}
	if err := c.collectCounts(s); err != nil {
		return err
	}
	if err := c.collectLost(s); err != nil {
		return err
	}
	if scan {
		return c.scan(s)
	}
	return nil
}

// Unread is how many bytes of records no sample has taken in yet. It takes no system call.
func (c *Collector) Unread() (bytes int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.closed {
		return 0
	}
	return c.bytes + c.programs.ring.AvailableBytes()
}

// SettleWaits counts the waits that go on, up to now.
// Without it a wait is counted when it ends, or the task is moved, and a task that never
// gets to run is in no sample. It walks all tasks. Collect comes after it, never beside it.
func (c *Collector) SettleWaits() error {
	it, err := c.programs.settle.Open()
	if err != nil {
		return fmt.Errorf("open the iterator over waiting tasks: %w", err)
	}
	defer it.Close()
	for { // it writes nothing: one read is the whole walk, or as much as one read may do
		n, err := it.Read(c.scanBuf)
		if err == io.EOF || (err == nil && n == 0) {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EAGAIN) {
			return fmt.Errorf("walk over the waiting tasks: %w", err)
		}
	}
}

func (c *Collector) collectEvents(s *model.Sample) error {
	// To have the reader find nothing takes two threads longer than all else here.
	if c.Unread() > 0 {
		if err := c.programs.ring.Flush(); err != nil {
			return fmt.Errorf("flush the event buffer: %w", err)
		}
		<-c.drained
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.readErr != nil {
		return fmt.Errorf("read the event buffer: %w", c.readErr)
	}
	s.Procs, c.changes = c.changes, model.ProcChanges{}
	s.Lost.Events += c.dropped
	c.records, c.bytes, c.dropped = 0, 0, 0

	// A forker can be held up after the scan could find its child and before it tells.
	s.Procs.Forked = slices.DeleteFunc(s.Procs.Forked, func(p model.Proc) bool { return c.known[p.ProcID] != nil })
	for _, p := range s.Procs.Forked {
		c.known[p.ProcID] = &knownProcess{cgroup: p.Cgroup}
	}
	for i, p := range s.Procs.Exited {
		// Of threads that ended at once, the last can lack the time of the others.
		if k := c.known[p.ProcID]; k != nil {
			s.Procs.Exited[i].CPUNS = max(p.CPUNS, k.cpuNS)
		}
		delete(c.known, p.ProcID)
	}
	return nil
}

func (c *Collector) collectCounts(s *model.Sample) error {
	// About as many as in the last tick.
	s.Cgroups = make([]model.CgroupSample, 0, c.lastCgroups+c.lastCgroups/8)
	s.Waits = make([]model.Wait, 0, c.lastWaits+c.lastWaits/8)
	c.ioDone = false
	err := c.cgroups.growth(func(id uint64, n collectorCgroupCounts) {
		c.ioDone = c.ioDone || n.IoHeld > 0
		if id == kernelID {
			c.kernelIOHeldNS += n.IoHeld
			return
		}
		cg := model.CgroupID(id)
		s.Cgroups = append(s.Cgroups, model.CgroupSample{
			ID: cg, RunNS: n.Run, WaitNS: n.Wait,
			Forks: n.Forks, Execs: n.Execs, Exits: n.Exits, ShortExits: n.ShortExits,
			IOHeldNS: n.IoHeld, IORequests: n.IoRequests, IOBytes: n.IoBytes,
		})
		if n.WaitSelf > 0 {
			s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: cg, Victim: cg, NS: n.WaitSelf})
		}
		if n.WaitKernel > 0 {
			s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByKernel, Victim: cg, NS: n.WaitKernel})
		}
		if n.WaitAsked > 0 {
			s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByAsked, Victim: cg, NS: n.WaitAsked})
		}
	})
	if err != nil {
		return err
	}
	if err := c.collectHolds(s); err != nil {
		return err
	}
	err = c.waits.each(func(cell collectorWaitCell, ns uint64) {
		w := model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: model.CgroupID(cell.Offender), Victim: model.CgroupID(cell.Victim), NS: ns}
		if cell.Offender == 0 {
			w.By = model.ByUnknown
		}
		s.Waits = append(s.Waits, w)
	})
	if err != nil {
		return err
	}
	s.Host.KernelIOHeldNS = c.kernelIOHeldNS
	c.lastCgroups, c.lastWaits = len(s.Cgroups), len(s.Waits)
	// Hash order is not the same twice; a recording must be.
	slices.SortFunc(s.Cgroups, func(a, b model.CgroupSample) int { return cmp.Compare(a.ID, b.ID) })
	slices.SortFunc(s.Waits, func(a, b model.Wait) int {
		if order := cmp.Compare(a.Victim, b.Victim); order != 0 {
			return order
		}
		return cmp.Or(cmp.Compare(a.By, b.By), cmp.Compare(a.Offender, b.Offender))
	})
	return nil
}

// collectHolds tells the devices apart, in a tick in which one was done with anything. What ends
// between the two looks is in this tick here, and in the next among the counts.
func (c *Collector) collectHolds(s *model.Sample) error {
	if !c.ioDone || c.io == nil {
		return nil
	}
	err := c.io.holds.each(func(cell ioHoldCell, n ioHoldTime) {
		h := model.IOHold{By: model.ByCgroup, Cgroup: model.CgroupID(cell.Cgroup), NS: n.Held, WaitedNS: n.Waited}
		if cell.Cgroup == kernelID {
			h.By, h.Cgroup = model.ByKernel, 0
		}
		if cell.Device != 0 {
			h.Device = fmt.Sprintf("%d:%d", cell.Device>>20, cell.Device&(1<<20-1))
		}
		s.IOHolds = append(s.IOHolds, h)
	})
	slices.SortFunc(s.IOHolds, func(a, b model.IOHold) int {
		return cmp.Or(cmp.Compare(a.Device, b.Device), cmp.Compare(a.By, b.By), cmp.Compare(a.Cgroup, b.Cgroup))
	})
	return err
}

func (c *Collector) collectLost(s *model.Sample) error {
	into := [...]*uint64{
		collectorLostKindLOST_EVENTS:  &s.Lost.Events,
		collectorLostKindLOST_CELLS:   &s.Lost.Cells,
		collectorLostKindLOST_CGROUPS: &s.Lost.Cgroups,
		collectorLostKindLOST_HOLDS:   &s.Lost.IOHolds,
	}
	for kind, field := range into {
		var perCPU []uint64
		if err := c.programs.Lost.Lookup(uint32(kind), &perCPU); err != nil {
			return fmt.Errorf("read what was lost: %w", err)
		}
		var sum uint64
		for _, n := range perCPU {
			sum += n
		}
		*field += sum - c.lost[kind]
		c.lost[kind] = sum
	}
	return nil
}

// scan adds to the sample what the process table says and the records did not.
func (c *Collector) scan(s *model.Sample) error {
	it, err := c.programs.tasks.Open()
	if err != nil {
		return fmt.Errorf("open the task iterator: %w", err)
	}
	defer it.Close()
	table, err := readTasks(it, c.scanBuf)
	if err != nil {
		return err
	}
	c.addUsage(s, table, s.BootNS)
	return nil
}

// addUsage compares the table with what is known. A process younger than the last
// emptying of the event buffer is left alone: its fork record comes with the next tick.
func (c *Collector) addUsage(s *model.Sample, table map[model.ProcID]*process, drainedNS int64) {
	var found []model.Proc
	for id, p := range table {
		k := c.known[id]
		if k == nil {
			if int64(id.StartTime+1)*nsPerTick > drainedNS {
				continue
			}
			k = &knownProcess{}
			c.known[id] = k
			found = append(found, p.Proc)
		}
		k.missing = false
		// A thread that ends while the table is read is in no record of this scan.
		p.cpuNS = max(p.cpuNS, k.cpuNS)
		if k.cpuNS != p.cpuNS || k.rssBytes != p.rssBytes || k.fileBytes != p.fileBytes || k.cgroup != p.Cgroup {
			k.cpuNS, k.rssBytes, k.fileBytes, k.cgroup = p.cpuNS, p.rssBytes, p.fileBytes, p.Cgroup
			s.Procs.Usage = append(s.Procs.Usage, model.Usage{ProcID: id, Cgroup: p.Cgroup, CPUNS: p.cpuNS, RSSBytes: p.rssBytes, FileBytes: p.fileBytes})
		}
	}
	for id, k := range c.known {
		switch {
		case table[id] != nil:
		case !k.missing:
			k.missing = true
		default: // twice: its exit record was lost
			delete(c.known, id)
			// It may have lived less. Nobody is told of for short lives that were not seen.
			life := max(0, s.BootNS-int64(id.StartTime)*nsPerTick)
			s.Procs.Exited = append(s.Procs.Exited, model.Exit{ProcID: id, LifeNS: uint64(life), CPUNS: k.cpuNS})
		}
	}
	slices.SortFunc(found, func(a, b model.Proc) int {
		return cmp.Or(cmp.Compare(a.StartTime, b.StartTime), cmp.Compare(a.PID, b.PID))
	})
	s.Procs.Forked = append(found, s.Procs.Forked...) // what was found is older
	slices.SortFunc(s.Procs.Usage, func(a, b model.Usage) int { return cmp.Compare(a.PID, b.PID) })
}
