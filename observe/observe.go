// Package observe makes samples: it joins, once a tick, what the kernel programs
// counted with what /proc and cgroupfs say. Only here do bpf and host meet.
package observe

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/internal/cputime"
	"github.com/breakerd/breakerd/model"
)

const (
	// A calm machine's process table is read this often, to correct what lost records
	// left wrong; a busy one's each second, to see who uses the CPUs.
	calmScan = 10 * time.Second
	busyScan = time.Second
	// What is dear is done so rarely that it takes at most one part in this of the time: its
	// own CPU time, because where others keep it from running it is needed most.
	sparing = 100
	// A wait that goes on is counted before it ends when it is longer (SETTLE_NS in
	// bpf/sched.h).
	longWaitUS = 20_000
	// The machine is busy from this CPU pressure, or this many forks in a second.
	busySomePercent = 5
	busyForks       = 5
	// It is, too, when one part in this of its memory was taken since the last walk: 24 MB
	// of 24 GB.
	shrinkParts = 1000
)

// Observer watches this machine.
type Observer struct {
	reader    host.Reader
	meter     *host.Meter
	collector kernelSide
	missing   []Missing
	tree      *host.Tree
	tick      time.Duration
	nextTick  atomic.Int64 // that was set and is not in force yet; 0 if none
	privilege atomic.Pointer[string]
	self      model.ProcID // zero where /proc is of another pid namespace

	now        func() (host.Clocks, error)
	timer      *time.Timer
	due        time.Time // of the next look
	late       time.Duration
	seen       glance    // the last
	sampled    time.Time // when the last sample was taken
	stirredAt  time.Time // when more happened than on a calm machine
	clocks     host.Clocks
	last       model.Host
	forkRate   float64 // a second, in the last sample
	started    bool
	scanned    time.Time
	scanCost   time.Duration
	scanAvail  uint64    // bytes of memory that were available then
	settled    time.Time // when waits that go on were last looked for
	settleCost time.Duration
	walked     time.Time
	walkCost   time.Duration
	details    details
}

// Open attaches the kernel programs and looks once at everything there is. Where they
// cannot be attached because the kernel has no BTF, it watches the machine's pressure and
// nothing else: see Missing.
func Open(tick time.Duration, sizes bpf.Sizes) (*Observer, error) {
	reader, err := host.NewReader()
	if err != nil {
		return nil, err
	}
	return begin(tick, reader, func() (kernelSide, error) { return bpf.Open(sizes) })
}

func begin(tick time.Duration, reader host.Reader, attach func() (kernelSide, error)) (*Observer, error) {
	collector, err := attach()
	switch {
	case errors.Is(err, bpf.ErrNoBTF):
		collector = blind{}
	case err != nil:
		return nil, err
	}
	o := &Observer{
		reader:    reader,
		collector: collector,
		tree:      reader.Tree(),
		tick:      tick,
		now:       host.ReadClocks,
		details:   newDetails(),
		missing:   missing(reader, collector),
	}
	if o.meter, err = reader.Meter(); err != nil {
		return nil, errors.Join(err, collector.Close())
	}
	if stat, err := reader.ProcStat(int32(os.Getpid())); err == nil {
		o.self = stat.ProcID
	}
	if o.clocks, err = o.now(); err != nil {
		return nil, errors.Join(err, o.Close())
	}
	o.stirredAt = time.Now() // nothing is known yet
	o.due = o.stirredAt.Add(tick)
	o.timer = time.NewTimer(tick)
	return o, nil
}

// Reader reads the machine that is watched.
func (o *Observer) Reader() host.Reader { return o.reader }

// Programs names the kernel programs that are attached.
func (o *Observer) Programs() []string { return o.collector.Programs() }

// SetTick changes how often a sample is taken, from the next one on. It may be called
// while another goroutine is in Next.
func (o *Observer) SetTick(tick time.Duration) { o.nextTick.Store(int64(tick)) }

// Close detaches the kernel programs.
func (o *Observer) Close() error {
	o.meter.Close()
	return o.collector.Close()
}

// Next waits for the end of a tick in which something happened, and where nothing does for
// Longest at most, and returns what was seen since the last sample. The first sample is a
// keyframe: it lists every process.
func (o *Observer) Next(ctx context.Context) (*model.Sample, error) {
	for first := true; first || o.calm(); first = false {
		if err := o.wait(ctx); err != nil {
			return nil, err
		}
	}
	s := &model.Sample{Keyframe: !o.started}
	s.Lost.LateNS, o.late = int64(o.late), 0
	if err := o.fill(s); err != nil {
		return nil, fmt.Errorf("take a sample: %w", err)
	}
	if !o.started {
		o.started = true
		o.dropCapabilities()
	}
	return s, nil
}

// wait waits for the end of the tick, or of a doze.
func (o *Observer) wait(ctx context.Context) (err error) {
	until := o.due
	var stirred <-chan struct{}
	if o.drowsy() {
		if stirred, err = o.collector.Doze(); err != nil {
			return err
		}
	}
	if stirred != nil {
		defer func() { err = errors.Join(err, o.collector.Awake()) }()
		until = o.dozeUntil()
	}
	for waiting := true; waiting; {
		o.timer.Reset(time.Until(until))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-stirred: // it is looked at as early as if nobody had dozed
			stirred = nil
			if until = time.Now(); until.Before(o.due) {
				until = o.due
			}
		case <-o.timer.C:
			waiting = false
		}
	}
	if tick := o.nextTick.Swap(0); tick != 0 {
		o.tick = time.Duration(tick)
	}
	if late := time.Since(until); late > o.tick/2 {
		o.late = max(o.late, late)
	}
	// Ticks that were missed are not made up for: one long sample says it as well.
	for o.due = o.due.Add(o.tick); time.Until(o.due) <= 0; {
		o.due = o.due.Add(o.tick)
	}
	return nil
}

func (o *Observer) fill(s *model.Sample) error {
	now, err := o.now()
	if err != nil {
		return err
	}
	elapsed := now.Since(o.clocks)
	o.clocks, o.sampled = now, time.Now()
	s.Time, s.BootNS, s.LengthNS = now.Time().UTC(), now.Boot, int64(elapsed.Length)
	s.Lost.SuspendedNS, s.Lost.ClockJumpNS = int64(elapsed.Suspended), int64(elapsed.Jump)

	if s.Host, err = o.meter.Host(); err != nil {
		return err
	}
	o.seen = glance{boot: now.Boot, pressure: s.Host.Pressure}
	if o.settleDue(s) {
		if o.settleCost, err = cputime.Of(o.collector.SettleWaits); err != nil {
			return err
		}
		o.settled = time.Now()
	}
	if _, none := o.collector.(blind); none {
		o.last = s.Host
		return nil // who uses what is not known, so that nobody may be accused
	}
	busy := o.busy(s)
	if busy {
		o.stirredAt = time.Now()
	}
	scan := o.scanDue(busy)
	cost, err := cputime.Of(func() error { return o.collector.Collect(s, scan) })
	if err != nil {
		return err
	}
	if scan {
		o.scanned, o.scanCost, o.scanAvail = time.Now(), cost, s.Host.MemAvailBytes
	}
	before := o.last
	var forks uint64
	for i := range s.Cgroups {
		forks += s.Cgroups[i].Forks
	}
	o.last, o.forkRate = s.Host, float64(forks)/max(s.Length(), time.Millisecond).Seconds()
	o.nameCommands(s)
	if err := o.namePaths(s); err != nil {
		return err
	}
	o.readDetails(s, before)
	return nil
}

// settleDue says whether waits that go on are worth looking for: somebody waited for
// long in this tick, which pressure tells at once, and the last look was cheap enough.
func (o *Observer) settleDue(s *model.Sample) bool {
	if time.Since(o.settled) < sparing*o.settleCost {
		return false
	}
	if !o.started || s.Host.PressureAbsent {
		return true
	}
	// One task that waits all the time is one CPU's part of the machine's pressure.
	us := s.Host.Pressure.CPU.SomeUS - o.last.Pressure.CPU.SomeUS
	return us*uint64(max(1, s.Host.CPUs)) >= longWaitUS
}

// scanDue says whether the process table is worth its cost now: 10 ms at 20,000 tasks.
func (o *Observer) scanDue(busy bool) bool {
	if !o.started {
		return true
	}
	interval := calmScan
	if busy {
		interval = max(busyScan, sparing*o.scanCost)
	}
	return time.Since(o.scanned) >= interval-o.tick/2
}

func (o *Observer) busy(s *model.Sample) bool {
	us := float64(s.Host.Pressure.CPU.SomeUS - o.last.Pressure.CPU.SomeUS)
	if us*1000/float64(s.LengthNS)*100 > busySomePercent {
		return true
	}
	// Somebody takes memory: who, only a walk tells where there is no memory controller.
	if s.Host.MemAvailBytes+s.Host.MemTotalBytes/shrinkParts < o.scanAvail {
		return true
	}
	return o.forkRate > busyForks
}

// nameCommands reads the command lines of processes that were found and not seen to
// be made, breakerd's own among them. Everybody else's came with its exec.
func (o *Observer) nameCommands(s *model.Sample) {
	for i := range s.Procs.Forked {
		if p := &s.Procs.Forked[i]; p.Found && !p.Kernel {
			// Without it the process still has its comm; it may be gone already.
			p.Cmdline, _ = o.reader.Cmdline(p.PID)
			p.Self = p.ProcID == o.self
		}
	}
}

// namePaths gives every cgroup of the sample its path. A walk over the tree finds new
// ones; it is not done more often than it can be afforded, and until then a path is
// empty: the id is the identity.
func (o *Observer) namePaths(s *model.Sample) error {
	for i := range s.Cgroups {
		c := &s.Cgroups[i]
		path, known := o.tree.Path(c.ID)
		if !known && time.Since(o.walked) >= sparing*o.walkCost {
			cost, err := cputime.Of(o.tree.Refresh)
			if err != nil {
				return err
			}
			o.walked, o.walkCost = time.Now(), cost
			path, _ = o.tree.Path(c.ID)
		}
		c.Path = path
	}
	return nil
}
