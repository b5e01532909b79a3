package host

import (
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// Clocks are the machine's three clocks at one moment, in nanoseconds.
type Clocks struct {
	Wall int64 // CLOCK_REALTIME: can be set, and jumps when it is
	Boot int64 // CLOCK_BOOTTIME: goes on while the machine sleeps
	Mono int64 // CLOCK_MONOTONIC: stands still meanwhile
}

// Elapsed is what happened between two moments.
type Elapsed struct {
	Length    time.Duration // true length, sleep included
	Suspended time.Duration // how much of it the machine slept
	Jump      time.Duration // how far the wall clock was set, backwards if negative
}

// skew is the difference between clocks that means nothing: they are read one
// after the other, and the reader may lose its CPU in between.
const skew = 5 * time.Millisecond

// Since compares two moments. The wall clock is held against the one that goes
// on in sleep: a machine that wakes up has not had its clock set. Slewing by NTP
// is no jump either, as it bends all three alike.
func (c Clocks) Since(prev Clocks) Elapsed {
	return Elapsed{
		Length:    time.Duration(c.Boot - prev.Boot),
		Suspended: max(0, beyondSkew((c.Boot-prev.Boot)-(c.Mono-prev.Mono))),
		Jump:      beyondSkew((c.Wall - prev.Wall) - (c.Boot - prev.Boot)),
	}
}

func beyondSkew(ns int64) time.Duration {
	if d := time.Duration(ns); d <= -skew || d >= skew {
		return d
	}
	return 0
}

// Time is the wall clock as a time.
func (c Clocks) Time() time.Time { return time.Unix(0, c.Wall) }

// ReadClocks reads the clocks as close together as it can: where the reader lost
// its CPU meanwhile it tries again, a few times.
func ReadClocks() (Clocks, error) {
	const tight, tries = 50 * time.Microsecond, 4
	var c Clocks
	for range tries {
		var err error
		if c.Mono, err = clock(unix.CLOCK_MONOTONIC); err != nil {
			return Clocks{}, err
		}
		if c.Boot, err = clock(unix.CLOCK_BOOTTIME); err != nil {
			return Clocks{}, err
		}
		if c.Wall, err = clock(unix.CLOCK_REALTIME); err != nil {
			return Clocks{}, err
		}
		after, err := clock(unix.CLOCK_MONOTONIC)
		if err != nil {
			return Clocks{}, err
		}
		if time.Duration(after-c.Mono) < tight {
			break
		}
	}
	return c, nil
}

func clock(id int32) (int64, error) {
	var t unix.Timespec
	if err := unix.ClockGettime(id, &t); err != nil {
		return 0, fmt.Errorf("read clock %d: %w", id, err)
	}
	return t.Nano(), nil
}
