package host

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrNoCgroup2 says that cgroup2 is mounted nowhere.
var ErrNoCgroup2 = errors.New("cgroup2 is not mounted (boot with systemd.unified_cgroup_hierarchy=1, " +
	"or mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified)")

// CgroupMount is a place where cgroup2 can be seen.
type CgroupMount struct {
	Point string // the directory
	Root  string // the cgroup that is seen there: "/" is all of them
}

// FindCgroup2 finds cgroup2 wherever it is mounted: at /sys/fs/cgroup, beside
// the v1 controllers at /sys/fs/cgroup/unified (hybrid), or anywhere else.
func FindCgroup2(procRoot string) (CgroupMount, error) {
	return findCgroup2(procRoot, isCgroup2)
}

// findCgroup2 takes the first mount that can be seen. A mount may be hidden by
// one on top of it and is listed all the same, so the place itself is asked.
func findCgroup2(procRoot string, visible func(point string) bool) (CgroupMount, error) {
	path := filepath.Join(procRoot, "self/mountinfo")
	text, err := readFile(path)
	if err != nil {
		return CgroupMount{}, err
	}
	mounts, err := parseMountinfo(text)
	if err != nil {
		return CgroupMount{}, fmt.Errorf("parse %s %w", path, err)
	}
	for _, m := range mounts {
		if visible(m.Point) {
			return m, nil
		}
	}
	return CgroupMount{}, fmt.Errorf("find cgroup2 in %s: %w", path, ErrNoCgroup2)
}

func isCgroup2(point string) bool {
	var fs unix.Statfs_t
	return unix.Statfs(point, &fs) == nil && int64(fs.Type) == unix.CGROUP2_SUPER_MAGIC
}

// parseMountinfo finds the mounts of cgroup2, those of the whole hierarchy first
// (a container may also have a part of it). The type comes after " - ", because
// the fields before it are optional.
//
//	31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
//	33 31 0:30 / /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu
//	41 31 0:38 / /sys/fs/cgroup/unified rw,relatime shared:4 - cgroup2 cgroup2 rw
func parseMountinfo(text []byte) ([]CgroupMount, error) {
	var mounts []CgroupMount
	err := lines(text, func(number int, line []byte) error {
		before, after, found := bytes.Cut(line, []byte(" - "))
		if !found {
			return malformed(number, "no \" - \" in %q", clip(line))
		}
		if !bytes.HasPrefix(after, []byte("cgroup2 ")) {
			return nil
		}
		fields := bytes.Fields(before)
		if len(fields) < 5 {
			return malformed(number, "no mount point in %q", clip(line))
		}
		mounts = append(mounts, CgroupMount{Root: unoctal(fields[3]), Point: unoctal(fields[4])})
		return nil
	})
	slices.SortStableFunc(mounts, func(a, b CgroupMount) int {
		switch {
		case a.Root == b.Root:
			return 0
		case a.Root == "/":
			return -1
		case b.Root == "/":
			return 1
		}
		return 0
	})
	return mounts, err
}

// unoctal undoes the escapes of mountinfo: space, tab, newline, backslash and
// (since 5.16) # are written as \040 and so on.
func unoctal(name []byte) string {
	var out strings.Builder
	for i := 0; i < len(name); i++ {
		if c, ok := octal(name[i:]); ok {
			out.WriteByte(c)
			i += 3
		} else {
			out.WriteByte(name[i])
		}
	}
	return out.String()
}

func octal(escape []byte) (byte, bool) {
	if len(escape) < 4 || escape[0] != '\\' {
		return 0, false
	}
	value := 0
	for _, digit := range escape[1:4] {
		if digit < '0' || digit > '7' {
			return 0, false
		}
		value = value<<3 | int(digit-'0')
	}
	return byte(value), value <= 0xff
}

// Controllers reads which controllers cgroup2 has. On a hybrid machine that may
// be none: freezing and pressure work there, cpu.max and memory.current do not.
//
//	cpuset cpu io memory hugetlb pids rdma misc
func (r Reader) Controllers() ([]string, error) {
	text, err := readFile(filepath.Join(r.CgroupRoot, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	return strings.Fields(string(text)), nil
}
