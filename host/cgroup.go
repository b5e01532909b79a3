package host

import (
	"errors"
	"fmt"
	"iter"
	"path/filepath"

	"github.com/breakerd/breakerd/model"
	"golang.org/x/sys/unix"
)

// CgroupDetail reads everything that a sample tells of one cgroup: what CgroupStalls
// reads, memory.stat, and the limits. path is below the mount. What its controllers do not
// provide is left out. Processes is not filled in: counting them is a walk over all, and
// whoever asks has the process table.
func (r Reader) CgroupDetail(path string) (model.CgroupDetail, error) {
	return r.cgroupDetail(path, true)
}

// CgroupStalls reads of a CgroupDetail what changes from tick to tick: pressure, how long
// a quota held it, memory.current and io.stat. It takes half the time.
func (r Reader) CgroupStalls(path string) (model.CgroupDetail, error) {
	return r.cgroupDetail(path, false)
}

func (r Reader) cgroupDetail(path string, whole bool) (model.CgroupDetail, error) {
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
	detail.ThrottledNS = stat.ThrottledUS * 1000

	if detail.MemoryBytes, err = readOptional(c, "memory.current", parseBytes); err != nil {
		return model.CgroupDetail{}, err
	}
	io, err := readOptional(c, "io.stat", parseIOStat)
	if err != nil {
		return model.CgroupDetail{}, err
	}
	detail.IOReadBytes, detail.IOWriteBytes = io.ReadBytes, io.WriteBytes

	if whole {
		mem, err := readOptional(c, "memory.stat", parseMemoryStat)
		if err != nil {
			return model.CgroupDetail{}, err
		}
		detail.AnonBytes, detail.FileBytes, detail.ShmemBytes = mem.AnonBytes, mem.FileBytes, mem.ShmemBytes
		detail.RefaultPages, detail.ScanPages = mem.RefaultPages, mem.ScanPages
		if err := c.limits(&detail); err != nil {
			return model.CgroupDetail{}, err
		}
	}
	if err := c.above(path, &detail, whole); err != nil {
		return model.CgroupDetail{}, err
	}

	// A cgroup that is removed loses its files first: then what seemed not to be
	// provided was gone.
	if c.lacking && !c.alive() {
		return model.CgroupDetail{}, c.gone()
	}
	return detail, nil
}

// limits makes the limits in the detail those of this cgroup, where they are tighter.
func (c *cgroup) limits(detail *model.CgroupDetail) error {
	for _, f := range []struct {
		name string
		into *uint64
	}{{"memory.max", &detail.MemoryMaxBytes}, {"memory.high", &detail.MemoryHighBytes}, {"pids.max", &detail.PIDsMax}} {
		limit, err := readOptional(c, f.name, parseLimit)
		if err != nil {
			return err
		}
		*f.into = tighter(*f.into, limit)
	}
	percent, err := readOptional(c, "cpu.max", parseCPUMax)
	if err != nil {
		return err
	}
	detail.CPUMaxPercent = tighter(detail.CPUMaxPercent, percent)
	limited, err := readOptional(c, "io.max", parseIOMax)
	detail.IOLimited = detail.IOLimited || limited
	return err
}

// tighter is the smaller of two limits, of which 0 is none.
func tighter[T uint64 | float64](a, b T) T {
	if a == 0 || b == 0 {
		return max(a, b)
	}
	return min(a, b)
}

// above adds what the ancestors do to a cgroup: a quota or a limit anywhere above holds a
// task as well as its own. The root has none.
func (c *cgroup) above(path string, detail *model.CgroupDetail, whole bool) error {
	for level := range c.lineage(path) {
		if level == c {
			continue
		}
		if err := level.hold(detail, whole); err != nil {
			return err
		}
	}
	return nil
}

// lineage is a cgroup and those above it, but for the root. What any of them lacks, it lacks.
func (c *cgroup) lineage(path string) iter.Seq[*cgroup] {
	return func(yield func(*cgroup) bool) {
		level, up := c, ""
		for dir := filepath.Clean("/" + path); dir != "/" && yield(level); dir = parent(dir) {
			c.lacking = c.lacking || level.lacking
			up += "../"
			level = &cgroup{fd: c.fd, up: up, dir: filepath.Join(c.dir, up)}
		}
	}
}

func (c *cgroup) hold(detail *model.CgroupDetail, whole bool) error {
	stat, err := readOptional(c, "cpu.stat", parseCPUStat)
	if err != nil {
		return err
	}
	// The sum, because it grows whenever any of them does: of the largest alone, the growth
	// of the others would not be seen.
	detail.ThrottledNS += stat.ThrottledUS * 1000
	if !whole {
		return nil
	}
	return c.limits(detail)
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
	up      string // from there to the cgroup that is meant: "" or "../", and so on
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
	text, err := readFileAt(int(c.fd), c.up+name, c.file(name))
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
