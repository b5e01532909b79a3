package cgroupctl

import (
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"

	"github.com/breakerd/breakerd/model"
)

const memoryFile = "memory.high"

// The properties of a unit that are limits, as D-Bus has them.
const (
	CPUQuota   = "CPUQuotaPerSecUSec" // microseconds of CPU time per second
	MemoryHigh = "MemoryHigh"         // bytes
	TasksMax   = "TasksMax"           // tasks, threads too
	// Bytes per second of one device.
	IOReadBandwidthMax  = "IOReadBandwidthMax"
	IOWriteBandwidthMax = "IOWriteBandwidthMax"
)

// limit is a file of a cgroup that bounds what its processes get. None of them ends a
// process: a memory.high below what is used has the kernel reclaim and slow down, a
// pids.max below what is there has the next fork fail (cgroup-v2.rst).
type limit struct {
	file       string
	key        string // of io.max, which has many limits; "" is the whole file
	controller string
	property   string // of a systemd unit
	none       string // what the file holds while nothing is limited
	// least is the tightest that is ever written, as an amount: no limit of ours stops
	// what it limits.
	least float64
	// read is the amount that a text of the file allows, in the unit of the property.
	read func(text string) (amount float64, ok bool)
	// write is the text that allows what the action asks for, where the file held was. The
	// limits of I/O have none: see planIO.
	write func(a model.Action, was string) string
	// ease is the text that allows an amount, in the form of another text. There is none for
	// pids.max: what forks fills whatever room it is given at once, and keeps it, so that
	// half way is no milder than all the way.
	ease func(amount float64, like string) string
	// asks reports whether the action has this limit.
	asks func(a model.Action) bool
}

// limits are all that may be written.
var limits = []limit{
	{
		file: "cpu.max", controller: "cpu", property: CPUQuota, none: "max 100000", least: 10_000,
		read: readCPUMax, write: writeCPUMax, ease: easeCPUMax,
		asks: func(a model.Action) bool { return a.CPUPercent != 0 },
	},
	{
		file: memoryFile, controller: "memory", property: MemoryHigh, none: "max", least: 1 << 20,
		read: readNumber,
		write: func(a model.Action, _ string) string {
			return wholePages(a.MemoryHigh)
		},
		ease: func(amount float64, _ string) string { return wholePages(uint64(amount)) },
		asks: func(a model.Action) bool { return a.MemoryHigh != 0 },
	},
	{
		file: "pids.max", controller: "pids", property: TasksMax, none: "max", least: 1,
		read:  readNumber,
		write: func(a model.Action, _ string) string { return strconv.FormatUint(a.PIDsMax, 10) },
		asks:  func(a model.Action) bool { return a.PIDsMax != 0 },
	},
	{file: ioFile, key: "rbps", controller: "io", property: IOReadBandwidthMax, least: leastIO, read: readIO, ease: easeIO},
	{file: ioFile, key: "wbps", controller: "io", property: IOWriteBandwidthMax, least: leastIO, read: readIO, ease: easeIO},
}

// IsLimit reports whether a write is one of a limit.
func IsLimit(w model.FileWrite) bool {
	_, ok := limitOf(w)
	return ok
}

func limitOf(w model.FileWrite) (limit, bool) {
	key := ""
	if w.File == ioFile {
		_, key, _, _ = splitIO(w.Wrote)
	}
	for _, l := range limits {
		if l.file == w.File && l.key == key {
			return l, true
		}
	}
	return limit{}, false
}

const (
	defaultPeriod = 100_000 // of cpu.max, in microseconds: the kernel's and systemd's
	leastQuota    = 1_000   // in microseconds: the kernel takes no less
)

// readCPUMax reads cpu.max, in microseconds per second:
//
//	max 100000
//	50000 100000
func readCPUMax(text string) (float64, bool) {
	quota, period, ok := cpuMax(text)
	return quota / period * 1e6, ok
}

func cpuMax(text string) (quota, period float64, ok bool) {
	q, p, _ := strings.Cut(text, " ")
	period, ok = readNumber(p)
	if !ok || period < 1_000 || period > 1_000_000 {
		return 0, 1, false
	}
	quota, ok = readNumber(q)
	return quota, period, ok
}

// writeCPUMax keeps the period, unless the quota would be less than the kernel takes:
// systemd does the same.
func writeCPUMax(a model.Action, was string) string {
	_, period, ok := cpuMax(was)
	if !ok {
		period = defaultPeriod
	}
	if a.CPUPercent/100*period < leastQuota {
		period = math.Ceil(leastQuota * 100 / a.CPUPercent)
	}
	return fmt.Sprintf("%d %d", int64(a.CPUPercent/100*period), int64(period))
}

// easeCPUMax keeps the period.
func easeCPUMax(amount float64, like string) string {
	_, period, _ := cpuMax(like)
	return fmt.Sprintf("%d %d", int64(amount*period/1e6), int64(period))
}

// wholePages is an amount of memory as the kernel has it.
func wholePages(bytes uint64) string {
	page := uint64(os.Getpagesize())
	return strconv.FormatUint(bytes/page*page, 10)
}

// readNumber reads a file that holds a number or max, which is infinite.
func readNumber(text string) (float64, bool) {
	if text == "max" {
		return math.Inf(1), true
	}
	n, err := strconv.ParseUint(text, 10, 63)
	return float64(n), err == nil && strconv.FormatUint(n, 10) == text
}

// checkLimit says what is wrong with a write of a limit. It must be tighter than what
// was there, so that no record, forged or spoilt, can make an undo limit anything.
func checkLimit(l limit, w model.FileWrite) error {
	was := w.Was
	if was == "" && w.Unit != "" {
		was = l.none
	}
	before, ok := l.read(was)
	after, also := l.read(w.Wrote)
	device := ""
	if l.key != "" {
		var key string
		device, key, _, _ = splitIO(w.Was)
		ok = ok && strings.HasPrefix(w.Wrote, ioText(device, key, ""))
	}
	switch {
	case !ok || !also:
		return fmt.Errorf("write %q to %s over %q: the kernel does not write it so", w.Wrote, w.File, w.Was)
	case after < l.least:
		return fmt.Errorf("write %q to %s: it is less than breakerd ever leaves", w.Wrote, w.File)
	case after >= before:
		return fmt.Errorf("write %q to %s over %q: that would loosen it", w.Wrote, w.File, w.Was)
	case w.Step != "" && (l.ease == nil || !l.isStep(w.Step, w.Wrote, before)):
		return fmt.Errorf("write %q to %s, and then %q over %q: that is no step between", w.Wrote, w.File, w.Step, w.Was)
	case w.Unit == "" && w.Limit != model.UnitLimit{}, w.Unit != "" && (w.Limit.Property != l.property || w.Limit.Device != device):
		return fmt.Errorf("write %q to %s: %q is not the unit's property of it", w.Wrote, w.File, w.Limit.Property)
	}
	return nil
}

// unitValue is what the property of a unit has while the file holds text.
func (l limit) unitValue(text string) uint64 {
	amount, _ := l.read(text)
	if math.IsInf(amount, 1) {
		return math.MaxUint64
	}
	return uint64(math.Round(amount))
}

// isSet reports whether a file holds what systemd writes for a value of the property: the quota
// in the period that is there, and memory in whole pages.
func (l limit) isSet(text string, value uint64) bool {
	has := l.unitValue(text)
	if has == value || has == math.MaxUint64 || value == math.MaxUint64 || l.ease == nil {
		return has == value
	}
	return l.ease(float64(value), text) == text
}

// isStep reports whether a text is another limit than ours, at the same device, and tighter
// than what was there, too.
func (l limit) isStep(text, ours string, before float64) bool {
	amount, ok := l.read(text)
	held, _ := l.read(ours)
	if l.key != "" {
		device, key, _, _ := splitIO(ours)
		ok = ok && strings.HasPrefix(text, ioText(device, key, ""))
	}
	return ok && l.least <= amount && amount < before && amount != held
}

// step is the text half way between a limit and what was there: there is none where nothing
// lies between. What was unlimited could have what it is given at most.
func (l limit) step(w model.FileWrite, most float64) string {
	was := w.Was
	if was == "" {
		was = l.none
	}
	before, _ := l.read(was)
	held, _ := l.read(w.Wrote)
	if l.ease == nil || most <= held {
		return ""
	}
	step := l.ease((held+min(before, most))/2, w.Wrote)
	if amount, _ := l.read(step); amount <= held || !l.isStep(step, w.Wrote, before) {
		return ""
	}
	return step
}

// whyReclaimed says why memory.high must not be written where so many bytes are used: below
// that the kernel reclaims first, which may take as long as the disk does, while who writes it
// waits: pid 1, or the enforcer, which could not undo it meanwhile.
func whyReclaimed(r Ref, w model.FileWrite, used uint64) string {
	if most, _ := readNumber(w.Wrote); w.File != memoryFile || float64(used) <= most {
		return ""
	}
	return fmt.Sprintf("%s uses %d bytes of memory now, its page cache among them, and a %s of %s would have whoever writes it wait until the kernel has reclaimed the rest: %d is the least that can be asked for",
		r, used, memoryFile, w.Wrote, used)
}

// limitSource is what planLimits asks about a cgroup.
type limitSource interface {
	// limitNow is what holds instead of what a write writes; "" if the cgroup does not have it.
	limitNow(w model.FileWrite) (string, error)
	// limitsNow reports whether io.max limits anything at a device.
	limitsNow(device string) (bool, error)
	// memoryNow is how much memory the cgroup uses, in bytes; 0 if nobody counts it.
	memoryNow() (uint64, error)
	// oomKiller is the unit, at the cgroup or above it, in which systemd-oomd ends somebody
	// where memory is fought for; "" if there is none.
	oomKiller() (string, error)
	// machineHas reports whether the machine has a controller.
	machineHas(controller string) (bool, error)
	// most is what the machine has of what a limit limits, in the unit of its property.
	most(l limit) float64
	// unitLimit is what a unit has of a limit.
	unitLimit(unit string, of model.UnitLimit) (model.UnitLimit, error)
}

// planLimits decides how the limits of a throttle would be written: through systemd where
// the cgroup is a unit's own, so that systemctl show tells the truth and daemon-reload
// undoes nothing, and directly where it was delegated, or there is no systemd. Else it
// says why it cannot be done.
func planLimits(r Ref, o Owner, a model.Action, rates []IORate, src limitSource) (writes []model.FileWrite, refused string, err error) {
	if u := o.Unit; o.Own && u.Ends() {
		return nil, fmt.Sprintf("unit %s is %s, with the job %q queued: it is left alone", u.Name, u.ActiveState, u.Job), nil
	}
	for _, l := range limits {
		if l.key != "" || !l.asks(a) {
			continue
		}
		w := model.FileWrite{File: l.file}
		if w.Was, err = src.limitNow(w); err != nil {
			return nil, "", err
		}
		if o.Own {
			w.Unit = o.Unit.Name
			has, err := src.machineHas(l.controller)
			switch {
			case err != nil:
				return nil, "", err
			case !has:
				return nil, fmt.Sprintf("%s has no %s: the cgroup2 file system has no %s controller (a hybrid host keeps it elsewhere)", r, l.file, l.controller), nil
			}
			if w.Limit, err = src.unitLimit(w.Unit, model.UnitLimit{Property: l.property}); err != nil {
				return nil, "", err
			}
			// systemd would write its own over what somebody else wrote, once it is told.
			if w.Was != "" && !l.isSet(w.Was, w.Limit.Value) {
				return nil, fmt.Sprintf("%s of %s holds %s, which systemd did not write: unit %s could not be put back to the letter", l.file, r, w.Was, w.Unit), nil
			}
		} else if w.Was == "" {
			return nil, fmt.Sprintf("%s has no %s: the cgroup above does not give it the %s controller (cgroup.subtree_control)", r, l.file, l.controller), nil
		}
		was := w.Was
		if was == "" {
			was = l.none
		}
		w.Wrote = l.write(a, was)
		if before, ok := l.read(was); ok {
			if after, _ := l.read(w.Wrote); after >= before {
				return nil, fmt.Sprintf("%s of %s holds %s already, which is no looser than %s", l.file, r, was, w.Wrote), nil
			}
		}
		if a.EaseMS > 0 {
			w.Step = l.step(w, src.most(l))
		}
		if err := checkLimit(l, w); err != nil {
			return nil, err.Error(), nil
		}
		if l.file == memoryFile {
			used, err := src.memoryNow()
			if err != nil {
				return nil, "", err
			}
			if why := whyReclaimed(r, w, used); why != "" {
				return nil, why, nil
			}
			killer, err := src.oomKiller()
			switch {
			case err != nil:
				return nil, "", err
			case killer != "":
				return nil, fmt.Sprintf("who is over his %s waits for memory, and systemd-oomd may end him for that (ManagedOOMMemoryPressure=kill of %s)", l.file, killer), nil
			}
		}
		writes = append(writes, w)
	}
	if a.IOPercent != 0 {
		io, refused, err := planIO(r, o, a, rates, src)
		if refused != "" || err != nil {
			return nil, refused, err
		}
		writes = append(writes, io...)
	}
	if len(writes) == 0 {
		return nil, "the throttle names no limit", nil
	}
	return writes, "", nil
}
