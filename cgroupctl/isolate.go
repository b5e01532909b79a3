package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// insidePrefix begins the name of every cgroup that we make below another.
const insidePrefix = "breakerd-"

// InsideName is the name of the cgroup that a lease makes below its target.
func InsideName(lease string) string { return insidePrefix + lease }

// CheckInside says what is wrong with the name of such a cgroup, if anything is.
func CheckInside(name string) error {
	if rest, ok := strings.CutPrefix(name, insidePrefix); !ok || rest == "" || strings.ContainsAny(name, "/\n\x00") {
		return fmt.Errorf("%q is no name of a cgroup that breakerd makes", name)
	}
	return nil
}

// ErrEnded says that a process has ended, so that it cannot be moved.
var ErrEnded = errors.New("the process has ended")

// Isolate makes a cgroup below one, frozen from the start on: whoever is moved into it
// stands still at once and can fork no more.
//
// A cgroup that holds processes can have others below it as long as it gives them no
// controllers (cgroup.subtree_control is empty); to systemd they belong to the same unit.
func (c *Controller) Isolate(from Ref, name string) (Ref, error) {
	if err := CheckInside(name); err != nil {
		return Ref{}, &notWritten{err}
	}
	dir, err := c.open(from)
	if err != nil {
		return Ref{}, err
	}
	defer unix.Close(dir)
	child := Ref{Path: path.Join(from.Path, name)}
	if err := unix.Mkdirat(dir, name, 0o755); err != nil {
		return Ref{}, &notWritten{fmt.Errorf("make cgroup %s: %w", child, gone(err))}
	}
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err == nil {
		defer unix.Close(fd)
		var st unix.Stat_t
		if err = unix.Fstat(fd, &st); err == nil {
			child.ID = inode(st)
			err = write(fd, child, freezeFile, "1")
		}
	}
	if err != nil {
		if unix.Unlinkat(dir, name, unix.AT_REMOVEDIR) == nil {
			return Ref{}, &notWritten{fmt.Errorf("make cgroup %s: %w", child, err)}
		}
		return Ref{}, fmt.Errorf("make cgroup %s: %w", child, err)
	}
	return child, nil
}

// Attach moves a process, with all its threads, into a cgroup. ErrEnded says that there
// is no such process any more.
func (c *Controller) Attach(to Ref, pid int32) error {
	dir, err := c.open(to)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return attach(dir, to, pid)
}

func attach(dir int, to Ref, pid int32) error {
	if pid <= 0 {
		return fmt.Errorf("move process %d into %s: it belongs to a pid namespace that cannot be seen from here", pid, to)
	}
	fd, err := openBeneath(dir, "cgroup.procs", unix.O_WRONLY)
	if err != nil {
		return fmt.Errorf("open cgroup.procs of %s: %w", to, gone(err))
	}
	defer unix.Close(fd)
	for {
		_, err = unix.Write(fd, strconv.AppendInt(nil, int64(pid), 10))
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err == unix.ESRCH:
		return fmt.Errorf("move process %d into %s: %w", pid, to, ErrEnded)
	case err != nil:
		return fmt.Errorf("move process %d into %s: %w", pid, to, gone(err))
	}
	return nil
}

// rejoinFrozen bounds the time in which processes are moved back while they still stand
// still. They cannot fork meanwhile, so one pass over them is enough; but nobody is kept
// frozen for long because there are many.
const rejoinFrozen = 300 * time.Millisecond

// Rejoin moves everybody in a cgroup that Isolate made, and in those below it, back to
// the one that it was made below, and removes it. It can be done at any moment and any
// number of times. A cgroup with others below it cannot be removed, so the one they
// came from is there as long as ours is.
func (c *Controller) Rejoin(ctx context.Context, from Ref, name string) (note string, err error) {
	if err := CheckInside(name); err != nil {
		return "", err
	}
	dir, err := c.open(from)
	if errors.Is(err, ErrGone) {
		return noteGone, nil
	}
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	child := Ref{Path: path.Join(from.Path, name)}
	fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		if gone(err) == ErrGone {
			return "", nil // it was never made, or everybody is back already
		}
		return "", fmt.Errorf("open cgroup %s: %w", child, err)
	}
	defer unix.Close(fd)
	ctx, cancel := bound(ctx)
	defer cancel()
	stillUntil := time.Now().Add(rejoinFrozen)
	moved := moveAll(ctx, fd, dir, child, from, stillUntil)
	// Whatever became of that, nobody stays frozen.
	err = write(fd, child, freezeFile, "0")
	if errors.Is(err, ErrGone) {
		return "", nil
	}
	if err != nil {
		return "", errors.Join(moved, err)
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 16*time.Millisecond) {
		if moved = moveAll(ctx, fd, dir, child, from, time.Time{}); moved == nil {
			err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR)
			switch {
			case err == nil || gone(err) == ErrGone:
				return "", nil
			case err != unix.EBUSY:
				return "", fmt.Errorf("remove cgroup %s: %w", child, err)
			}
			// Somebody forked meanwhile, or is on his way out.
			moved = fmt.Errorf("remove cgroup %s: %w", child, err)
		}
		if errors.Is(moved, ErrGone) {
			return "", nil
		}
		select {
		case <-ctx.Done():
			return "", fmt.Errorf("undo %s: %w: %w", child, ErrThawed, moved)
		case <-time.After(wait):
		}
	}
}

// moveAll moves everybody who is in a cgroup or below it into another, and removes those
// below it, until the time is up (never, if it is zero).
func moveAll(ctx context.Context, dir, to int, from, target Ref, until time.Time) error {
	names, err := children(dir)
	if err != nil {
		return err
	}
	for _, name := range names {
		sub, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err != nil {
			if gone(err) == ErrGone {
				continue
			}
			return err
		}
		// It is told of under the name of the one above: paths of cgroups that are nested by the
		// thousand would fill the memory.
		err = moveAll(ctx, sub, to, from, target, until)
		unix.Close(sub)
		if err != nil && !errors.Is(err, ErrGone) {
			return err
		}
		// EBUSY: somebody is in it still; the next pass finds him.
		if err := unix.Unlinkat(dir, name, unix.AT_REMOVEDIR); err != nil && err != unix.EBUSY && gone(err) != ErrGone {
			return fmt.Errorf("remove cgroup %s: %w", path.Join(from.Path, name), err)
		}
	}
	text, err := read(dir, from, "cgroup.procs")
	if err != nil {
		return err
	}
	pids, err := appendPIDs(nil, text)
	if err != nil {
		return fmt.Errorf("read cgroup.procs of %s: %w", from, err)
	}
	for _, pid := range slices.Compact(pids) {
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
		if !until.IsZero() && time.Now().After(until) {
			return nil
		}
		if err := attach(to, target, pid); err != nil && !errors.Is(err, ErrEnded) {
			return err
		}
	}
	return nil
}
