package cgroupctl

import (
	"errors"
	"fmt"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// State is a cgroup at one moment.
type State struct {
	// Freeze is what cgroup.freeze holds: the wish of whoever wrote it last.
	Freeze string
	// Frozen is what cgroup.events says: every process stands still. With Freeze "0"
	// it means that a cgroup above is frozen.
	Frozen bool
	// PIDs are the processes in the cgroup and in all cgroups below it, sorted. A 0
	// is a process that our pid namespace cannot see.
	PIDs []int32
	// Own are those of them that are in the cgroup itself.
	Own []int32
	// Gives is what cgroup.subtree_control holds: the controllers that the cgroup gives to
	// those below it. One that gives any cannot hold processes itself.
	Gives string
	// ReadOnly says that nothing of it can be written from here, because the file system is
	// mounted so, as in a container.
	ReadOnly bool
	// Below are the paths of the cgroups below it.
	Below      []string
	belowBytes int
	// Omit is the path of this cgroup, or of one below it, that root marked to be
	// left alone (user.oomd_omit or user.oomd_avoid); "" if there is none.
	Omit string
}

// maxBelow bounds the walk through the cgroups below one. A cgroup with more of
// them is no culprit that could be judged, so the walk is an error.
const maxBelow = 4096

// maxBelowBytes bounds the bytes of their paths: whoever may make cgroups can nest them by the
// thousand, with names of 255 bytes, so that 4,096 paths would take 2 GB.
const maxBelowBytes = 1 << 20

// Inspect reads the state of a cgroup.
func (c *Controller) Inspect(r Ref) (State, error) {
	dir, err := c.open(r)
	if err != nil {
		return State{}, err
	}
	defer unix.Close(dir)
	var s State
	var fs unix.Statfs_t
	if err := unix.Fstatfs(dir, &fs); err != nil {
		return State{}, fmt.Errorf("statfs cgroup %s: %w", r, gone(err))
	}
	s.ReadOnly = fs.Flags&unix.ST_RDONLY != 0
	if s.Freeze, err = read(dir, r, freezeFile); err != nil {
		return State{}, err
	}
	text, err := read(dir, r, eventsFile)
	if err != nil {
		return State{}, err
	}
	if s.Frozen, err = parseFrozen(text); err != nil {
		return State{}, fmt.Errorf("read %s of %s: %w", eventsFile, r, err)
	}
	// The root of a hierarchy without controllers has the file as well.
	if s.Gives, err = read(dir, r, "cgroup.subtree_control"); err != nil {
		return State{}, err
	}
	if err := walk(dir, r.Path, true, &s); err != nil {
		return State{}, err
	}
	slices.Sort(s.PIDs)
	slices.Sort(s.Own)
	// The kernel may list a process twice if it moved while we read.
	s.PIDs, s.Own = slices.Compact(s.PIDs), slices.Compact(s.Own)
	return s, nil
}

// walk adds the open cgroup and all below it.
func walk(dir int, p string, top bool, s *State) error {
	r := Ref{Path: p}
	text, err := read(dir, r, "cgroup.procs")
	switch {
	case errors.Is(err, unix.EOPNOTSUPP) && top:
		return fmt.Errorf("read cgroup.procs of %s: %w", p, ErrThreaded)
	case errors.Is(err, unix.EOPNOTSUPP):
		// A threaded cgroup below: the domain above it lists its processes.
	case err != nil:
		return err
	default:
		if s.PIDs, err = appendPIDs(s.PIDs, text); err != nil {
			return fmt.Errorf("read cgroup.procs of %s: %w", p, err)
		}
		if top {
			s.Own = slices.Clone(s.PIDs)
		}
	}
	if s.Omit == "" && marked(dir) {
		s.Omit = p
	}
	names, err := children(dir)
	if err != nil {
		return fmt.Errorf("read directory of cgroup %s: %w", p, err)
	}
	for _, name := range names {
		child := path.Join(p, name)
		if len(s.Below) == maxBelow {
			return fmt.Errorf("walk cgroup: more than %d cgroups below", maxBelow)
		}
		if s.belowBytes += len(child); s.belowBytes > maxBelowBytes {
			return fmt.Errorf("walk cgroup: the paths of the cgroups below have more than %d bytes", maxBelowBytes)
		}
		fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			if gone(err) == ErrGone {
				continue // removed since the directory was read
			}
			return fmt.Errorf("open cgroup %s: %w", child, err)
		}
		s.Below = append(s.Below, child)
		err = walk(fd, child, false, s)
		unix.Close(fd)
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
	}
	return nil
}

// children are the names of the cgroups right below the open one.
func children(dir int) ([]string, error) {
	// A second open, so that reading does not move the offset of a held directory.
	fd, err := openBeneath(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, gone(err)
	}
	f := os.NewFile(uintptr(fd), "cgroup")
	defer f.Close()
	entries, err := f.ReadDir(-1)
	if err != nil {
		return nil, gone(err)
	}
	var names []string
	for _, e := range entries {
		if e.IsDir() {
			names = append(names, e.Name())
		}
	}
	slices.Sort(names)
	return names, nil
}

// appendPIDs parses cgroup.procs, one pid a line:
//
//	1723
//	1725
func appendPIDs(pids []int32, text string) ([]int32, error) {
	for line := range strings.Lines(text) {
		n, err := strconv.ParseInt(strings.TrimSuffix(line, "\n"), 10, 32)
		if err != nil || n < 0 {
			return nil, fmt.Errorf("no pid: %q", line)
		}
		pids = append(pids, int32(n))
	}
	return pids, nil
}

// marked reports whether root asked systemd-oomd to leave the cgroup alone. Such a
// mark counts only on a cgroup that root owns, as systemd-oomd has it, or every
// user could exempt himself. cgroup2 has user.* attributes since 5.7.
func marked(dir int) bool {
	var st unix.Stat_t
	if unix.Fstat(dir, &st) != nil || st.Uid != 0 {
		return false
	}
	var buf [8]byte
	for _, name := range []string{"user.oomd_omit", "user.oomd_avoid"} {
		n, err := unix.Fgetxattr(dir, name, buf[:])
		if err == nil && string(buf[:n]) == "1" {
			return true
		}
	}
	return false
}
