package host

import (
	"errors"
	"fmt"
	"path/filepath"

	"github.com/breakerd/breakerd/model"
	"golang.org/x/sys/unix"
)

// CgroupDetail reads the files of one cgroup; path is below the mount. What its
// controllers do not provide is left out. Processes is not filled in: counting
// them is a walk over all, and whoever asks has the process table.
func (r Reader) CgroupDetail(path string) (model.CgroupDetail, error) {
	c, err := r.openCgroup(path)
	if err != nil {
		return model.CgroupDetail{}, err
	}
	defer c.close()

	var detail model.CgroupDetail
	pressure, err := c.pressure()
	switch {
	case errors.Is(err, ErrPressureOff):
	case err != nil:
		return model.CgroupDetail{}, err
	default:
		detail.Pressure = &pressure
	}

	stat, err := readOptional(c, "cpu.stat", parseCPUStat)
	if err != nil {
		return model.CgroupDetail{}, err
	}
	above, err := r.throttledAbove(path)
	if err != nil {
		return model.CgroupDetail{}, err
	}
	detail.ThrottledNS = max(stat.ThrottledUS, above) * 1000

	if detail.MemoryBytes, err = readOptional(c, "memory.current", parseBytes); err != nil {
		return model.CgroupDetail{}, err
	}
	io, err := readOptional(c, "io.stat", parseIOStat)
	if err != nil {
		return model.CgroupDetail{}, err
	}
	detail.IOReadBytes, detail.IOWriteBytes = io.ReadBytes, io.WriteBytes

	// A cgroup that is removed loses its files first: then what seemed not to be
	// provided was gone.
	if c.lacking && !c.alive() {
		return model.CgroupDetail{}, c.gone()
	}
	return detail, nil
}

// throttledAbove is the longest time (µs) that an ancestor was throttled: a quota
// anywhere above holds a task as well as its own. The root has none.
func (r Reader) throttledAbove(path string) (uint64, error) {
	var longest uint64
	for dir := parent(path); dir != "/"; dir = parent(dir) {
		file := filepath.Join(r.CgroupRoot, dir, "cpu.stat")
		text, err := readFile(file)
		switch {
		case vanished(err): // and the cgroup with it, which its own files say
			continue
		case err != nil:
			return 0, err
		}
		stat, err := parseCPUStat(text)
		if err != nil {
			return 0, fmt.Errorf("parse %s %w", file, err)
		}
		longest = max(longest, stat.ThrottledUS)
	}
	return longest, nil
}

func parent(path string) string { return filepath.Dir(filepath.Clean("/" + path)) }

// CgroupPressure reads the pressure totals of one cgroup.
func (r Reader) CgroupPressure(path string) (model.Pressure, error) {
	c, err := r.openCgroup(path)
	if err != nil {
		return model.Pressure{}, err
	}
	defer c.close()
	p, err := c.pressure()
	if c.lacking && !c.alive() {
		return model.Pressure{}, c.gone()
	}
	return p, err
}

// CgroupEvents reads whether a cgroup is populated and frozen. The root has no
// such file.
func (r Reader) CgroupEvents(path string) (CgroupEvents, error) {
	c, err := r.openCgroup(path)
	if err != nil {
		return CgroupEvents{}, err
	}
	defer c.close()
	text, err := c.read("cgroup.events")
	if err != nil {
		if missing(err) && !c.alive() {
			err = c.gone()
		}
		return CgroupEvents{}, err
	}
	events, err := parseCgroupEvents(text)
	if err != nil {
		return CgroupEvents{}, fmt.Errorf("parse %s %w", c.file("cgroup.events"), err)
	}
	return events, nil
}

// cgroup is the directory of a cgroup, held open: all files read through it are
// of the same one, even if it is removed and made again meanwhile.
type cgroup struct {
	fd      file
	dir     string
	lacking bool // a file was not there
}

func (r Reader) openCgroup(path string) (*cgroup, error) {
	c := &cgroup{dir: filepath.Join(r.CgroupRoot, path)}
	dir, err := openDir(unix.AT_FDCWD, c.dir)
	switch {
	case vanished(err):
		return nil, c.gone()
	case err != nil:
		return nil, fmt.Errorf("open %s: %w", c.dir, err)
	}
	c.fd = dir
	return c, nil
}

func (c *cgroup) close()                  { c.fd.close() }
func (c *cgroup) file(name string) string { return filepath.Join(c.dir, name) }
func (c *cgroup) gone() error             { return fmt.Errorf("read %s: %w", c.dir, ErrGone) }

func (c *cgroup) read(name string) ([]byte, error) {
	text, err := readFileAt(int(c.fd), name, c.file(name))
	if errors.Is(err, unix.ENODEV) {
		err = c.gone()
	}
	return text, err
}

// alive reports whether the path still leads to the cgroup that is held.
func (c *cgroup) alive() bool {
	var held, now unix.Stat_t
	return unix.Fstat(int(c.fd), &held) == nil && unix.Stat(c.dir, &now) == nil &&
		held.Ino == now.Ino && held.Dev == now.Dev
}

func (c *cgroup) pressure() (p model.Pressure, err error) {
	for _, f := range []struct {
		name string
		into *model.Stall
	}{{"cpu.pressure", &p.CPU}, {"memory.pressure", &p.Memory}, {"io.pressure", &p.IO}} {
		*f.into, err = readPressure(int(c.fd), f.name, c.file(f.name))
		switch {
		case errors.Is(err, ErrPressureOff):
			c.lacking = true
			return model.Pressure{}, err
		case errors.Is(err, unix.ENODEV):
			return model.Pressure{}, c.gone()
		case err != nil:
			return model.Pressure{}, err
		}
	}
	return p, nil
}

// readOptional reads a file that is only there where its controller is.
func readOptional[T any](c *cgroup, name string, parse func([]byte) (T, error)) (T, error) {
	var none T
	text, err := c.read(name)
	switch {
	case missing(err):
		c.lacking = true
		return none, nil
	case err != nil:
		return none, err
	}
	value, err := parse(text)
	if err != nil {
		return none, fmt.Errorf("parse %s %w", c.file(name), err)
	}
	return value, nil
}

// vanished reports whether a cgroup went away: the name is gone, or (ENODEV) it
// was removed while its file was open.
func vanished(err error) bool { return missing(err) || errors.Is(err, unix.ENODEV) }
