package host

import (
	"bytes"
	"math"
	"strconv"
	"strings"
)

// CPUStat is cpu.stat of a cgroup, in µs.
type CPUStat struct {
	UsageUS     uint64
	NrThrottled uint64
	// ThrottledUS is summed over the CPUs, so it can grow faster than time goes by.
	// A CPU that is being throttled counts only once it is let go.
	ThrottledUS uint64
}

// parseCPUStat reads what is there: the root and cgroups without the cpu
// controller have usage alone.
//
//	usage_usec 133497906
//	user_usec 94410636
//	system_usec 39087270
//	nice_usec 0
//	nr_periods 42
//	nr_throttled 40
//	throttled_usec 3811042
//	nr_bursts 0
//	burst_usec 0
func parseCPUStat(text []byte) (CPUStat, error) {
	var stat CPUStat
	err := keyValues(text, func(key string, value uint64) {
		switch key {
		case "usage_usec":
			stat.UsageUS = value
		case "nr_throttled":
			stat.NrThrottled = value
		case "throttled_usec":
			stat.ThrottledUS = value
		}
	})
	if err != nil {
		return CPUStat{}, err
	}
	return stat, nil
}

// CgroupEvents is cgroup.events.
type CgroupEvents struct {
	Populated bool // the cgroup or one below has processes
	Frozen    bool // all of them stand still; since 5.2
}

// parseCgroupEvents reads the states that a cgroup can be waited for.
//
//	populated 1
//	frozen 0
func parseCgroupEvents(text []byte) (CgroupEvents, error) {
	var events CgroupEvents
	populated := false
	err := keyValues(text, func(key string, value uint64) {
		switch key {
		case "populated":
			events.Populated, populated = value == 1, true
		case "frozen":
			events.Frozen = value == 1
		}
	})
	switch {
	case err != nil:
		return CgroupEvents{}, err
	case !populated:
		return CgroupEvents{}, malformed(1, "no populated in %q", clip(text))
	}
	return events, nil
}

// keyValues reads lines of a key and a number, the form that cgroup2 calls "flat
// keyed".
func keyValues(text []byte, f func(key string, value uint64)) error {
	return lines(text, func(number int, line []byte) error {
		key, value, _ := strings.Cut(string(line), " ")
		n, err := strconv.ParseUint(value, 10, 64)
		if err != nil || key == "" {
			return malformed(number, "%q is no key and number", clip(line))
		}
		f(key, n)
		return nil
	})
}

// IOStat is io.stat of a cgroup, summed over the devices.
type IOStat struct {
	ReadBytes  uint64
	WriteBytes uint64
}

// parseIOStat adds up all devices. Some have no numbers, and a cost controller
// may add keys of its own.
//
//	8:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0
//	254:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0 cost.usage=17
//	254:16
func parseIOStat(text []byte) (IOStat, error) {
	var stat IOStat
	err := lines(text, func(number int, line []byte) error {
		for field := range bytes.FieldsSeq(line) {
			var into *uint64
			key, value, _ := strings.Cut(string(field), "=")
			switch key {
			case "rbytes":
				into = &stat.ReadBytes
			case "wbytes":
				into = &stat.WriteBytes
			default:
				continue
			}
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return malformed(number, "%q is no number of bytes", field)
			}
			*into += n
		}
		return nil
	})
	if err != nil {
		return IOStat{}, err
	}
	return stat, nil
}

// parseBytes reads a file that holds one number, such as memory.current.
//
//	1679360
func parseBytes(text []byte) (uint64, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 64)
	if err != nil {
		return 0, malformed(1, "%q is no number of bytes", clip(text))
	}
	return n, nil
}

// MemoryStat is what matters here of memory.stat.
type MemoryStat struct {
	AnonBytes    uint64
	FileBytes    uint64 // with shared memory
	ShmemBytes   uint64
	RefaultPages uint64 // total: evicted and needed again
	ScanPages    uint64 // total: looked at to be reclaimed
}

// parseMemoryStat reads some of its lines. Until 5.8 there is one workingset_refault,
// later one for each kind of page. pgscan is the sum of the pgscan_ lines; refaults that add
// up to more than a number holds are as many as it does.
//
//	anon 12288
//	file 4096
//	kernel 16384
//	shmem 0
//	file_mapped 0
//	workingset_refault_anon 0
//	workingset_refault_file 3
//	pgscan 120
func parseMemoryStat(text []byte) (MemoryStat, error) {
	var stat MemoryStat
	err := keyValues(text, func(key string, value uint64) {
		switch key {
		case "anon":
			stat.AnonBytes = value
		case "file":
			stat.FileBytes = value
		case "shmem":
			stat.ShmemBytes = value
		case "workingset_refault", "workingset_refault_anon", "workingset_refault_file":
			stat.RefaultPages += min(value, math.MaxUint64-stat.RefaultPages)
		case "pgscan":
			stat.ScanPages = value
		}
	})
	if err != nil {
		return MemoryStat{}, err
	}
	return stat, nil
}

// parseLimit reads a file that holds a limit: memory.max, memory.high, pids.max. No limit
// is 0; a limit of nothing is 1, so that it is not taken for none.
//
//	max
func parseLimit(text []byte) (uint64, error) {
	word := strings.TrimSuffix(string(text), "\n")
	if word == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(word, 10, 64)
	if err != nil {
		return 0, malformed(1, "%q is no limit", clip(text))
	}
	return max(n, 1), nil
}

// parseCPUMax reads quota and period (µs) as percent of one CPU; no quota is 0.
//
//	20000 100000
func parseCPUMax(text []byte) (float64, error) {
	quota, period, _ := strings.Cut(strings.TrimSuffix(string(text), "\n"), " ")
	us, err := strconv.ParseUint(period, 10, 64)
	if err != nil || us == 0 {
		return 0, malformed(1, "%q is no quota and period", clip(text))
	}
	if quota == "max" {
		return 0, nil
	}
	n, err := strconv.ParseUint(quota, 10, 64)
	if err != nil {
		return 0, malformed(1, "%q is no quota and period", clip(text))
	}
	return 100 * float64(n) / float64(us), nil
}

// parseIOMax says whether there is a limit on any device. One without has no line.
//
//	254:0 rbps=max wbps=1048576 riops=max wiops=max
func parseIOMax(text []byte) (limited bool, err error) {
	err = lines(text, func(number int, line []byte) error {
		_, rest, found := bytes.Cut(line, []byte(" "))
		if !found {
			return malformed(number, "%q is no device and limits", clip(line))
		}
		for field := range bytes.FieldsSeq(rest) {
			_, value, found := bytes.Cut(field, []byte("="))
			if !found {
				return malformed(number, "%q is no limit", clip(field))
			}
			limited = limited || string(value) != "max"
		}
		return nil
	})
	return limited && err == nil, err
}
