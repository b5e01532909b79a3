package host

import (
	"bytes"
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
