// Package cgroupctl is the only code that writes a cgroup. It freezes one, waits
// until the kernel confirms it, and puts back what was there before.
//
// A cgroup is named by its path and its kernel id together: a path can be removed
// and made again by somebody else, so a path whose id differs is another cgroup,
// and ours is gone (ErrGone). Everything is opened beneath one held directory.
//
// There are three writers with the same behaviour: Controller is the real one,
// Dry reads the real files and writes nowhere, Fake lives in memory.
package cgroupctl

import (
	"errors"
	"fmt"
	"path"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// Ref names a cgroup.
type Ref struct {
	Path string // below the cgroup2 mount, with a leading slash
	ID   model.CgroupID
}

// String is the path, as it stands in messages.
func (r Ref) String() string { return r.Path }

var (
	// ErrGone says that the cgroup was removed, or that another one has its path.
	// That is a normal end of a cgroup.
	ErrGone = errors.New("the cgroup is gone")
	// ErrOwned says that a file does not hold what it held when it was looked at:
	// somebody else writes it, and it is left alone.
	ErrOwned = errors.New("somebody else has written it")
	// ErrUnconfirmed says that the kernel did not confirm a write within its bound.
	ErrUnconfirmed = errors.New("the kernel did not confirm in time")
	// ErrThawed says that an undo is not complete, though nobody stands still any more.
	ErrThawed = errors.New("nobody is frozen any more, and not everybody is moved back yet")
	// ErrThreaded says that the cgroup holds threads rather than processes.
	ErrThreaded = errors.New("the cgroup is threaded: it holds threads, not processes")
)

// Controller writes the cgroups of this machine.
type Controller struct {
	mount string
	root  int // held open: everything else is opened beneath it
	units Units
}

// Open holds the cgroup2 file system mounted at mount.
func Open(mount string) (*Controller, error) {
	fd, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open cgroup2 mount %s: %w", mount, err)
	}
	var fs unix.Statfs_t
	if err := unix.Fstatfs(fd, &fs); err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("statfs cgroup2 mount %s: %w", mount, err)
	}
	if fs.Type != unix.CGROUP2_SUPER_MAGIC {
		unix.Close(fd)
		return nil, fmt.Errorf("open cgroup2 mount %s: it is no cgroup2 file system (try /sys/fs/cgroup, or /sys/fs/cgroup/unified on a hybrid host)", mount)
	}
	return &Controller{mount: mount, root: fd}, nil
}

// Mount is where the file system is mounted.
func (c *Controller) Mount() string { return c.mount }

// Close lets go of the file system. Nothing that was written is undone.
func (c *Controller) Close() error { return unix.Close(c.root) }

// CheckPath says what is wrong with a path of a cgroup, if anything is: it must be
// absolute and clean, so that one cgroup has one spelling.
func CheckPath(p string) error {
	switch {
	case !strings.HasPrefix(p, "/"):
		return fmt.Errorf("cgroup path %q does not begin with a slash", p)
	case path.Clean(p) != p:
		return fmt.Errorf("cgroup path %q is not clean (it would be %q)", p, path.Clean(p))
	case strings.ContainsRune(p, 0):
		return fmt.Errorf("cgroup path %q has a zero byte", p)
	}
	return nil
}

// Find returns the cgroup that has the path now.
func (c *Controller) Find(p string) (Ref, error) {
	fd, id, err := c.openDir(p)
	if err != nil {
		return Ref{}, err
	}
	unix.Close(fd)
	return Ref{Path: p, ID: id}, nil
}

// open opens the directory of a cgroup, which must still be the one with the id.
func (c *Controller) open(r Ref) (int, error) {
	fd, id, err := c.openDir(r.Path)
	if err != nil {
		return -1, err
	}
	if id != r.ID {
		unix.Close(fd)
		return -1, fmt.Errorf("open cgroup %s: it has the id %d now, not %d: %w", r, id, r.ID, ErrGone)
	}
	return fd, nil
}

func (c *Controller) openDir(p string) (int, model.CgroupID, error) {
	if err := CheckPath(p); err != nil {
		return -1, 0, err
	}
	rel := strings.TrimPrefix(p, "/")
	if rel == "" {
		rel = "."
	}
	fd, err := openBeneath(c.root, rel, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return -1, 0, fmt.Errorf("open cgroup %s: %w", p, gone(err))
	}
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		unix.Close(fd)
		return -1, 0, fmt.Errorf("stat cgroup %s: %w", p, gone(err))
	}
	return fd, inode(st), nil
}

// inode is the id of a cgroup: on a 64-bit kernel the inode number is the whole kernfs id
// since 5.5.
func inode(st unix.Stat_t) model.CgroupID { return model.CgroupID(st.Ino) }
