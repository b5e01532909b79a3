package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// I/O is limited by io.max, in bytes per second of one device. What a device could do nobody
// knows, so a percentage is one of what the cgroup itself did at that device a moment ago.
//
// io.weight would be no limit: it divides what is fought for among siblings, whose number and
// weights change by the minute, and only where the device has the scheduler BFQ or a cost model
// (io.cost.qos), which few have. Where it does nothing it says nothing of that either.
const ioFile = "io.max"

// ioWindow is how long is looked at what a cgroup reads and writes: a few dozen requests of a
// disk, and short beside the 5 s that breakerd waits for an answer.
const ioWindow = 500 * time.Millisecond

// leastIO is the tightest that is ever written, in bytes per second. A request has 1 MiB or
// little more, and nobody who waits for one can be frozen or ended before it is through.
const leastIO = 1 << 20

// IORate is what a cgroup read and wrote at a device, in bytes per second.
type IORate struct {
	Device      string // its numbers, as in 8:0
	Read, Write float64
}

// ioText is one limit of io.max, as it is written there: 8:0 rbps=1048576.
func ioText(device, key, value string) string { return device + " " + key + "=" + value }

// splitIO takes it apart.
func splitIO(text string) (device, key, value string, ok bool) {
	device, rest, _ := strings.Cut(text, " ")
	key, value, _ = strings.Cut(rest, "=")
	return device, key, value, isDevice(device) && key != "" && value != ""
}

// isDevice reports whether a text is the numbers of a device as the kernel writes them.
func isDevice(text string) bool {
	major, minor, ok := strings.Cut(text, ":")
	for _, number := range []string{major, minor} {
		n, err := strconv.ParseUint(number, 10, 32)
		ok = ok && err == nil && strconv.FormatUint(n, 10) == number
	}
	return ok
}

// readIO reads one limit of io.max.
func readIO(text string) (float64, bool) {
	_, _, value, ok := splitIO(text)
	if !ok {
		return 0, false
	}
	return readNumber(value)
}

// easeIO keeps the device and what is limited there.
func easeIO(amount float64, like string) string {
	device, key, _, _ := splitIO(like)
	return ioText(device, key, strconv.FormatUint(uint64(amount), 10))
}

// ioHolds finds one limit in io.max. What nothing limits has no line:
//
//	8:16 rbps=2097152 wbps=max riops=max wiops=120
func ioHolds(text, device, key string) string {
	for line := range strings.Lines(text) {
		fields := strings.Fields(line)
		if len(fields) == 0 || fields[0] != device {
			continue
		}
		for _, f := range fields[1:] {
			if value, ok := strings.CutPrefix(f, key+"="); ok {
				return ioText(device, key, value)
			}
		}
	}
	return ioText(device, key, "max")
}

// slot is what a write is about: a file, or one limit in a file that has many.
func slot(w model.FileWrite) string {
	if w.File != ioFile {
		return w.File
	}
	device, key, _, _ := splitIO(w.Wrote)
	return ioFile + " " + device + " " + key
}

// parseIOStat reads how many bytes were read and written at each device:
//
//	254:0 rbytes=1459200 wbytes=314773504 rios=192 wios=353 dbytes=0 dios=0
//
// Of a device that did nothing there may be the numbers alone, without an end of the line
// (seen up to 5.15).
func parseIOStat(text string) (map[string][2]uint64, error) {
	stat := map[string][2]uint64{}
	device := ""
	for _, f := range strings.Fields(text) {
		key, value, ok := strings.Cut(f, "=")
		switch {
		case !ok && isDevice(f):
			device = f
		case key == "rbytes", key == "wbytes":
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil || device == "" {
				return nil, fmt.Errorf("no number of bytes of a device: %q", f)
			}
			both := stat[device]
			if key == "rbytes" {
				both[0] = n
			} else {
				both[1] = n
			}
			stat[device] = both
		}
	}
	return stat, nil
}

// IORates looks for a moment at what a cgroup reads and writes. There is none of a cgroup
// without io.stat.
func (c *Controller) IORates(ctx context.Context, r Ref) ([]IORate, error) {
	dir, err := c.open(r)
	if err != nil {
		return nil, err
	}
	defer unix.Close(dir)
	look := func() (map[string][2]uint64, time.Time, error) {
		text, err := read(dir, r, "io.stat")
		if err != nil {
			return nil, time.Time{}, err
		}
		at := time.Now()
		stat, err := parseIOStat(text)
		if err != nil {
			err = fmt.Errorf("read io.stat of %s: %w", r, err)
		}
		return stat, at, err
	}
	before, began, err := look()
	if errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrGone) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	select {
	case <-ctx.Done():
		return nil, fmt.Errorf("look at what %s reads and writes: %w", r, context.Cause(ctx))
	case <-time.After(ioWindow):
	}
	after, ended, err := look()
	if err != nil {
		return nil, err
	}
	return ioRates(before, after, ended.Sub(began)), nil
}

func ioRates(before, after map[string][2]uint64, took time.Duration) []IORate {
	var rates []IORate
	per := func(was, now uint64) float64 {
		if now <= was {
			return 0 // nothing, or a device that was taken away and put back
		}
		return float64(now-was) / took.Seconds()
	}
	for device, now := range after {
		was := before[device]
		rate := IORate{Device: device, Read: per(was[0], now[0]), Write: per(was[1], now[1])}
		if rate.Read > 0 || rate.Write > 0 {
			rates = append(rates, rate)
		}
	}
	slices.SortFunc(rates, func(a, b IORate) int { return strings.Compare(a.Device, b.Device) })
	return rates
}

// planIO decides which limits of I/O an action would set.
func planIO(r Ref, o Owner, a model.Action, rates []IORate, src limitSource) (writes []model.FileWrite, refused string, err error) {
	already := ""
	for _, rate := range rates {
		for _, l := range limits {
			now := rate.Read
			switch l.key {
			case "":
				continue
			case "wbps":
				now = rate.Write
			}
			want := max(now*a.IOPercent/100, leastIO)
			if want > now {
				continue
			}
			w := model.FileWrite{File: ioFile, Wrote: ioText(rate.Device, l.key, strconv.FormatUint(uint64(want), 10))}
			if w.Was, err = src.limitNow(w); err != nil {
				return nil, "", err
			}
			if w.Was == "" {
				break
			}
			if o.Own {
				w.Unit = o.Unit.Name
				if w.Limit, err = src.unitLimit(w.Unit, model.UnitLimit{Property: l.property, Device: rate.Device}); err != nil {
					return nil, "", err
				}
				// systemd writes all limits of a device at once, and names devices by whatever
				// path somebody gave it: two that mean one are not ours to tell apart.
				held, err := src.limitsNow(rate.Device)
				switch {
				case err != nil:
					return nil, "", err
				case w.Limit.Value != l.unitValue(ioText(rate.Device, l.key, "max")), held:
					return nil, fmt.Sprintf("unit %s has limits of I/O of its own, which could not be put back to the letter", w.Unit), nil
				}
			}
			before, ok := l.read(w.Was)
			if after, _ := l.read(w.Wrote); ok && after >= before {
				already = fmt.Sprintf("%s of %s holds %q already, which is no looser than %q", ioFile, r, w.Was, w.Wrote)
				continue
			}
			if a.EaseMS > 0 {
				w.Step = l.step(w, now)
			}
			if err := checkLimit(l, w); err != nil {
				return nil, err.Error(), nil
			}
			writes = append(writes, w)
		}
	}
	if len(writes) > 0 {
		return writes, "", nil
	}
	has, err := src.limitNow(model.FileWrite{File: ioFile, Wrote: ioText("0:0", "rbps", "max")})
	switch {
	case err != nil:
		return nil, "", err
	case has == "":
		return nil, fmt.Sprintf("%s has no %s: it is not given the io controller, by which alone it is known what it reads and writes (IOAccounting=yes of a unit has systemd give it)", r, ioFile), nil
	case already != "":
		return nil, already, nil
	}
	return nil, fmt.Sprintf("%s has read and written less than %d bytes/s at each device in %s: there is nothing to limit", r, leastIO, ioWindow), nil
}
