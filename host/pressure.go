package host

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"

	"github.com/breakerd/breakerd/model"
	"golang.org/x/sys/unix"
)

// ErrPressureOff says that the kernel keeps no pressure stall information: built
// without CONFIG_PSI (before 4.20 always), booted with psi=0 or, where the
// distribution built it off, without psi=1, or switched off for one cgroup
// through cgroup.pressure (since 6.1).
var ErrPressureOff = errors.New("pressure stall information is off (boot with psi=1)")

// Pressure reads the pressure totals of the whole machine. They are fresh: the
// kernel adds up all CPUs at each read, only the averages lag.
func (r Reader) Pressure() (model.Pressure, error) {
	var p model.Pressure
	for _, f := range []struct {
		name string
		into *model.Stall
	}{{"cpu", &p.CPU}, {"memory", &p.Memory}, {"io", &p.IO}} {
		path := filepath.Join(r.ProcRoot, "pressure", f.name)
		stall, err := readPressure(unix.AT_FDCWD, path, path)
		if err != nil {
			return model.Pressure{}, err
		}
		*f.into = stall
	}
	return p, nil
}

func readPressure(dir int, name, path string) (model.Stall, error) {
	text, err := readFileAt(dir, name, path)
	return pressureOf(text, err, path)
}

// pressureOf tells PSI that is off from a pressure of zero. Where it is off, older
// kernels have the files all the same and answer EOPNOTSUPP, newer ones have none.
func pressureOf(text []byte, err error, path string) (model.Stall, error) {
	switch {
	case missing(err), errors.Is(err, unix.EOPNOTSUPP):
		return model.Stall{}, fmt.Errorf("read %s: %w", path, ErrPressureOff)
	case err != nil:
		return model.Stall{}, err
	}
	stall, err := parsePressure(text)
	if err != nil {
		return model.Stall{}, fmt.Errorf("parse %s %w", path, err)
	}
	return stall, nil
}

// parsePressure reads the totals (µs) of a pressure file. The full line of cpu
// is there since 5.13, and always 0 for the whole machine; /proc/pressure/irq
// (since 6.1) has no some line. Lines we do not know are none of our business.
//
//	some avg10=0.28 avg60=1.63 avg300=4.80 total=34014992
//	full avg10=0.00 avg60=0.00 avg300=0.00 total=0
func parsePressure(text []byte) (model.Stall, error) {
	var stall model.Stall
	seen := false
	err := lines(text, func(number int, line []byte) error {
		var into *uint64
		kind, rest, _ := bytes.Cut(line, []byte(" "))
		switch string(kind) {
		case "some":
			into = &stall.SomeUS
		case "full":
			into = &stall.FullUS
		default:
			return nil
		}
		for field := range bytes.FieldsSeq(rest) {
			value, isTotal := bytes.CutPrefix(field, []byte("total="))
			if !isTotal {
				continue
			}
			total, err := strconv.ParseUint(string(value), 10, 64)
			if err != nil {
				return malformed(number, "total %q is no number", value)
			}
			*into, seen = total, true
			return nil
		}
		return malformed(number, "no total in %q", line)
	})
	if err != nil {
		return model.Stall{}, err
	}
	if !seen {
		return model.Stall{}, malformed(1, "neither some nor full in %q", clip(text))
	}
	return stall, nil
}

// clip shortens text for an error.
func clip(text []byte) []byte { return text[:min(len(text), 80)] }
