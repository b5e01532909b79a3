package host

import (
	"bytes"
	"fmt"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Memory is what /proc/meminfo says of the whole machine.
type Memory struct {
	TotalBytes uint64
	AvailBytes uint64 // could be had without swapping, the kernel's estimate
	SwapFree   uint64 // bytes
}

// Memory reads how much memory there is.
func (r Reader) Memory() (Memory, error) {
	path := r.proc("meminfo")
	text, err := readFile(path)
	if err != nil {
		return Memory{}, err
	}
	mem, err := parseMeminfo(text)
	if err != nil {
		return Memory{}, fmt.Errorf("parse %s %w", path, err)
	}
	return mem, nil
}

// parseMeminfo reads the lines that matter. "kB" are 1024 bytes. A kernel built without
// swap has no SwapFree.
//
//	MemTotal:       24684084 kB
//	MemFree:        24354492 kB
//	MemAvailable:   24346236 kB
//	SwapFree:              0 kB
func parseMeminfo(text []byte) (Memory, error) {
	var mem Memory
	var total, avail bool
	err := lines(text, func(number int, line []byte) error {
		key, rest, _ := bytes.Cut(line, []byte(":"))
		var into *uint64
		switch string(key) {
		case "MemTotal":
			into, total = &mem.TotalBytes, true
		case "MemAvailable":
			into, avail = &mem.AvailBytes, true
		case "SwapFree":
			into = &mem.SwapFree
		default:
			return nil
		}
		value, _, _ := strings.Cut(strings.TrimSpace(string(rest)), " ")
		kib, err := strconv.ParseUint(value, 10, 54)
		if err != nil {
			return malformed(number, "%q is no size", clip(line))
		}
		*into = kib << 10
		return nil
	})
	switch {
	case err != nil:
		return Memory{}, err
	case !total:
		return Memory{}, malformed(1, "no MemTotal")
	case !avail:
		return Memory{}, malformed(1, "no MemAvailable")
	}
	return mem, nil
}

// BootID reads the identity of this boot of the machine.
func (r Reader) BootID() (string, error) {
	path := r.proc("sys/kernel/random/boot_id")
	text, err := readFile(path)
	if err != nil {
		return "", err
	}
	id, err := parseBootID(text)
	if err != nil {
		return "", fmt.Errorf("parse %s %w", path, err)
	}
	return id, nil
}

// parseBootID reads a UUID.
//
//	152e8026-06a9-491b-a2da-6f96c841d06b
func parseBootID(text []byte) (string, error) {
	id := strings.TrimSuffix(string(text), "\n")
	const form = "xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx"
	ok := len(id) == len(form)
	for i := 0; ok && i < len(form); i++ {
		if form[i] == '-' {
			ok = id[i] == '-'
		} else {
			ok = strings.IndexByte("0123456789abcdef", id[i]) >= 0
		}
	}
	if !ok {
		return "", malformed(1, "%q is no UUID", clip(text))
	}
	return id, nil
}

// Load is the momentary load of the whole machine.
type Load struct {
	Running int // tasks on a CPU or waiting for one
	Tasks   int // threads, not processes
}

// Load reads how many tasks there are. /proc/stat has the running ones as well,
// but only after the interrupts.
func (r Reader) Load() (Load, error) {
	path := r.proc("loadavg")
	text, err := readFile(path)
	if err != nil {
		return Load{}, err
	}
	load, err := parseLoadavg(text)
	if err != nil {
		return Load{}, fmt.Errorf("parse %s %w", path, err)
	}
	return load, nil
}

// parseLoadavg reads the fourth field, running/all. The averages lag by a minute
// and more and count uninterruptible sleep: of no use here.
//
//	0.07 0.28 0.15 5/95 6517
func parseLoadavg(text []byte) (Load, error) {
	if fields := bytes.Fields(text); len(fields) >= 4 {
		running, tasks, found := strings.Cut(string(fields[3]), "/")
		r, err1 := strconv.ParseInt(running, 10, 32)
		t, err2 := strconv.ParseInt(tasks, 10, 32)
		if found && err1 == nil && err2 == nil && r >= 0 && t >= 0 {
			return Load{Running: int(r), Tasks: int(t)}, nil
		}
	}
	return Load{}, malformed(1, "no running/all in %q", clip(text))
}

// Processes counts the processes of the whole machine, without looking at any:
// the link count of proc's root directory is that of an ordinary one, plus the
// number of processes (proc_root_getattr). It counts kernel threads
// and zombies as well. On a tree that is not proc the answer is 0.
func (r Reader) Processes() (int, error) {
	root, err := openDir(unix.AT_FDCWD, r.ProcRoot)
	if err != nil {
		return 0, fmt.Errorf("open %s: %w", r.ProcRoot, err)
	}
	defer root.close()
	if is, err := isProc(root, r.ProcRoot); !is || err != nil {
		return 0, err
	}
	dirs, err := directoriesBeforePIDs(root)
	if err != nil {
		return 0, fmt.Errorf("list %s: %w", r.ProcRoot, err)
	}
	return countProcesses(root, r.ProcRoot, dirs)
}

func isProc(root file, path string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Fstatfs(int(root), &fs); err != nil {
		return false, fmt.Errorf("statfs %s: %w", path, err)
	}
	return int64(fs.Type) == unix.PROC_SUPER_MAGIC, nil
}

func countProcesses(root file, path string, dirs int) (int, error) {
	var stat unix.Stat_t
	if err := unix.Fstat(int(root), &stat); err != nil {
		return 0, fmt.Errorf("stat %s: %w", path, err)
	}
	const dotAndDotDot = 2
	return max(0, int(stat.Nlink)-dotAndDotDot-dirs), nil
}

// directoriesBeforePIDs counts the directories of proc that are no process. They
// come first, so the processes need not be listed.
func directoriesBeforePIDs(root file) (dirs int, err error) {
	buf := make([]byte, 4096)
	for {
		n, err := retry(func() (int, error) { return unix.Getdents(int(root), buf) })
		if n <= 0 || err != nil {
			return dirs, err
		}
		pids := false
		parseDirents(buf[:n], func(e dirent) {
			switch {
			case e.name[0] >= '1' && e.name[0] <= '9':
				pids = true
			case e.isDir && !pids:
				dirs++
			}
		})
		if pids {
			return dirs, nil
		}
	}
}
