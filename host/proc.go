package host

import (
	"bytes"
	"errors"
	"fmt"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/breakerd/breakerd/model"
	"golang.org/x/sys/unix"
)

// ProcStat is what /proc/PID/stat says of a process.
type ProcStat struct {
	model.ProcID
	PPID  int32
	Comm  string // raw: may hold anything but NUL
	State byte   // R running, S sleeping, D uninterruptible, Z zombie, T stopped, …
	Flags uint64 // PF_… of include/linux/sched.h
	CPUNS uint64 // user and system time of all its threads, to 10 ms
}

// Kernel reports whether it is a kernel thread (PF_KTHREAD).
func (s ProcStat) Kernel() bool { return s.Flags&0x00200000 != 0 }

// ProcStat reads the stat file of a process.
func (r Reader) ProcStat(pid int32) (ProcStat, error) {
	text, path, err := r.readProc(pid, "stat", maxFile)
	if err != nil {
		return ProcStat{}, err
	}
	stat, err := parseProcStat(text)
	if err != nil {
		return ProcStat{}, fmt.Errorf("parse %s %w", path, err)
	}
	return stat, nil
}

// Cmdline reads the command line of a process, or its first 256 bytes.
// Kernel threads and zombies have none, and for a moment within exec nobody has:
// an empty one is worth asking for again.
func (r Reader) Cmdline(pid int32) (string, error) {
	text, _, err := r.readProc(pid, "cmdline", maxCmdline)
	if err != nil {
		return "", err
	}
	return parseCmdline(text), nil
}

// CgroupOf reads the path of the cgroup that a process is in. Of a zombie whose
// cgroup was removed, the kernel says the path with " (deleted)" behind it.
func (r Reader) CgroupOf(pid int32) (string, error) {
	text, path, err := r.readProc(pid, "cgroup", maxFile)
	if err != nil {
		return "", err
	}
	cgroup, err := parseProcCgroup(text)
	if err != nil {
		return "", fmt.Errorf("parse %s %w", path, err)
	}
	return cgroup, nil
}

// UID reads the real user id of a process. The owner of /proc/PID would be
// cheaper, but is root for every process that is not dumpable.
func (r Reader) UID(pid int32) (uint32, error) {
	text, path, err := r.readProc(pid, "status", maxFile)
	if err != nil {
		return 0, err
	}
	uid, err := parseProcUID(text)
	if err != nil {
		return 0, fmt.Errorf("parse %s %w", path, err)
	}
	return uid, nil
}

// readProc reads a file of a process. One that ended while the file was open
// gives ESRCH.
func (r Reader) readProc(pid int32, name string, limit int) (text []byte, path string, err error) {
	path = filepath.Join(r.ProcRoot, strconv.Itoa(int(pid)), name)
	text, err = readUpTo(unix.AT_FDCWD, path, limit)
	switch {
	case missing(err), errors.Is(err, unix.ESRCH):
		return nil, path, fmt.Errorf("read %s: %w", path, ErrGone)
	case err != nil:
		return nil, path, fmt.Errorf("read %s: %w", path, err)
	}
	return text, path, nil
}

// parseProcStat reads /proc/PID/stat. The name is written as it is, and a process
// chooses its own: ") R 1\n" is a fine name. Nothing after the name holds a
// parenthesis, so it ends at the last one.
//
//	6578 (cat) R 6576 6576 5238 0 -1 4194304 97 0 0 0 0 0 0 0 20 0 1 0 91795 3133440 382 …
//	 1    2    3 4                   9                14 15            22
func parseProcStat(text []byte) (ProcStat, error) {
	// Positions after the name, which is field 2.
	const state, ppid, flags, utime, stime, starttime = 0, 1, 6, 11, 12, 19
	pid, rest, found := bytes.Cut(text, []byte(" ("))
	end := bytes.LastIndexByte(rest, ')')
	if !found || end < 0 {
		return ProcStat{}, malformed(1, "no name in parentheses in %q", clip(text))
	}
	fields := bytes.Fields(rest[end+1:])
	if len(fields) <= starttime || len(fields[state]) != 1 {
		return ProcStat{}, malformed(1, "%d fields after the name in %q", len(fields), clip(text))
	}
	stat := ProcStat{Comm: string(rest[:end]), State: fields[state][0]}
	var bad error
	number := func(field []byte, bits int) uint64 {
		n, err := strconv.ParseUint(string(field), 10, bits)
		if err != nil && bad == nil {
			bad = malformed(1, "%q is no number", field)
		}
		return n
	}
	stat.PID = int32(number(pid, 31))
	stat.PPID = int32(number(fields[ppid], 31))
	stat.Flags = number(fields[flags], 64)
	stat.CPUNS = (number(fields[utime], 64) + number(fields[stime], 64)) * tickNS
	stat.StartTime = number(fields[starttime], 64)
	if bad != nil {
		return ProcStat{}, bad
	}
	return stat, nil
}

// maxCmdline bounds a command line, in bytes: enough to recognise a program by.
const maxCmdline = 256

// parseCmdline makes one line of arguments that are separated by NULs. A process
// may write anything there, in any encoding.
//
//	make\0-j2\0all\0
func parseCmdline(text []byte) string {
	args := strings.TrimRight(string(text), "\x00")
	line := strings.ToValidUTF8(strings.ReplaceAll(args, "\x00", " "), "\uFFFD")
	if len(line) > maxCmdline {
		line = strings.ToValidUTF8(line[:maxCmdline], "")
	}
	return line
}

// parseProcCgroup finds the line of cgroup2, which has number 0 and no
// controllers. A path cannot hold a newline: the kernel refuses such a name.
//
//	4:memory:/user.slice
//	1:name=systemd:/user.slice/user-1000.slice/session-3.scope
//	0::/user.slice/user-1000.slice/session-3.scope
func parseProcCgroup(text []byte) (string, error) {
	var path string
	_ = lines(text, func(_ int, line []byte) error {
		if p, ok := bytes.CutPrefix(line, []byte("0::/")); ok && path == "" {
			path = "/" + string(p)
		}
		return nil
	})
	if path == "" {
		return "", malformed(1, "no 0::/ in %q", clip(text))
	}
	return path, nil
}

// parseProcUID reads the real one of the four user ids. The name above them
// cannot pose as them: in this file its newlines are escaped.
//
//	Name:	cat
//	Uid:	1000	1000	1000	1000
func parseProcUID(text []byte) (uint32, error) {
	var uid uint32
	found := false
	err := lines(text, func(number int, line []byte) error {
		ids, ok := bytes.CutPrefix(line, []byte("Uid:\t"))
		if !ok || found {
			return nil
		}
		first, _, _ := bytes.Cut(ids, []byte("\t"))
		n, err := strconv.ParseUint(string(first), 10, 32)
		if err != nil {
			return malformed(number, "%q is no user id", first)
		}
		uid, found = uint32(n), true
		return nil
	})
	switch {
	case err != nil:
		return 0, err
	case !found:
		return 0, malformed(1, "no Uid in %q", clip(text))
	}
	return uid, nil
}
