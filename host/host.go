// Package host reads what the kernel says about the machine: /proc/pressure,
// the files of cgroup2, /proc. It only reads, and needs no privilege for most
// of it.
//
// Reading and parsing are apart: a parser is a pure function of kernel text,
// shown above it, and a reader opens the file below a mount point that is a
// value, so that everything runs on a fixture tree as well as on a machine.
//
// What the kernel does not have is an error that says so ([ErrPressureOff],
// [ErrNoCgroup2]) or a missing value, never a zero that could be taken for a
// measurement. What vanished between being named and being read is [ErrGone].
package host

import (
	"fmt"
	"path/filepath"

	"github.com/breakerd/breakerd/model"
)

// Reader reads below two mount points. It holds nothing open and may be copied
// and used from several goroutines.
type Reader struct {
	ProcRoot   string // where proc is mounted: /proc
	CgroupRoot string // where cgroup2 is mounted, see FindCgroup2
}

// NewReader returns a reader of this machine.
func NewReader() (Reader, error) {
	const proc = "/proc"
	mount, err := FindCgroup2(proc)
	if err != nil {
		return Reader{}, err
	}
	return Reader{ProcRoot: proc, CgroupRoot: mount.Point}, nil
}

// Host reads the state of the whole machine.
func (r Reader) Host() (model.Host, error) {
	m, err := r.Meter()
	if err != nil {
		return model.Host{}, err
	}
	defer m.Close()
	return m.Host()
}

// proc is the path of a file below the mount of proc.
func (r Reader) proc(name string) string { return filepath.Join(r.ProcRoot, name) }

// malformed says where kernel text is not what we know it to be.
func malformed(line int, format string, args ...any) error {
	return fmt.Errorf("line %d: %w", line, fmt.Errorf(format, args...))
}
