package enforce

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// process is what the guards know of a process.
type process struct {
	model.ProcID
	parent int32
	// group and session are led by the processes of these pids.
	group, session int32
	comm           string
	state          byte
	kernel         bool
	threads        int
	bytes          uint64 // resident
	realTime       bool   // it is scheduled before every fair one: SCHED_FIFO, SCHED_RR or SCHED_DEADLINE
	exe            string // its program's file; "" if that cannot be told
	denied         bool   // exe cannot be told because we have no right to know it
}

// String names a process. The comm is quoted, for its owner chose it.
func (p process) String() string { return fmt.Sprintf("%d %q", p.PID, p.comm) }

// procReader reads a proc file system.
type procReader struct {
	dir  string
	self int32         // our own pid
	boot atomic.Uint64 // the time since boot, where a test sets it
	// memory is that of the machine, where a test sets it.
	memory atomic.Uint64
}

// read returns what is known of a process; false if it has ended. A process that is
// there but cannot be read has no exe, and whoever judges it must doubt.
func (r *procReader) read(pid int32) (process, bool) {
	p := process{ProcID: model.ProcID{PID: pid}}
	if pid == 0 {
		return p, true
	}
	s, err := r.stat(pid)
	switch {
	case hasEnded(err):
		return p, false
	case err != nil:
		p.denied = errors.Is(err, fs.ErrPermission)
		return p, true
	}
	p.group, p.session = s.group, s.session
	p.StartTime, p.parent, p.comm, p.state, p.kernel = s.start, s.parent, s.comm, s.state, s.flags&pfKthread != 0
	p.realTime, p.threads = s.priority < 0, s.threads
	p.bytes = s.pages * uint64(os.Getpagesize())
	if s.ended() {
		return p, false
	}
	if p.kernel {
		return p, true
	}
	p.exe, err = os.Readlink(filepath.Join(r.dir, strconv.Itoa(int(pid)), "exe"))
	if err != nil && s.state == 'Z' {
		p.exe, err = r.threadExe(pid)
	}
	if err != nil {
		p.exe = ""
		p.denied = errors.Is(err, fs.ErrPermission)
		// A process on its way out has no program any more: look whether it is that.
		if s, serr := r.stat(pid); hasEnded(serr) || serr == nil && s.ended() {
			return p, false
		}
	}
	return p, true
}

// threadExe is the program of a process whose first thread has ended while others go
// on. A thread that has ended has no program; one that lives has that of them all.
func (r *procReader) threadExe(pid int32) (string, error) {
	links, err := filepath.Glob(filepath.Join(r.dir, strconv.Itoa(int(pid)), "task", "*", "exe"))
	if err != nil || len(links) == 0 {
		return "", fs.ErrNotExist
	}
	var exe string
	for _, link := range links {
		if exe, err = os.Readlink(link); err == nil {
			return exe, nil
		}
	}
	return "", err
}

func (r *procReader) stat(pid int32) (stat, error) {
	b, err := os.ReadFile(filepath.Join(r.dir, strconv.Itoa(int(pid)), "stat"))
	if err != nil {
		return stat{}, err
	}
	return parseStat(b)
}

// hasEnded tells a process that has ended from one that cannot be read: ENOENT from
// the open, ESRCH from a read after the open.
func hasEnded(err error) bool {
	return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ESRCH)
}

// above lists the processes above one, up to pid 1. It keeps what it learns, so that
// a tree is walked once however many ask.
func (r *procReader) above(pid int32, parents map[int32]int32) []int32 {
	var up []int32
	for pid > 1 && len(up) <= math.MaxUint16 {
		parent, known := parents[pid]
		if !known {
			s, err := r.stat(pid)
			if err != nil {
				return up
			}
			parent = s.parent
			parents[pid] = parent
		}
		if parent > 0 {
			up = append(up, parent)
		}
		pid = parent
	}
	return up
}

// pids are those of the machine's processes.
func (r *procReader) pids() []int32 {
	d, err := os.Open(r.dir)
	if err != nil {
		return nil
	}
	defer d.Close()
	names, _ := d.Readdirnames(-1)
	var pids []int32
	for _, name := range names {
		if pid, err := strconv.ParseInt(name, 10, 32); err == nil && pid > 0 {
			pids = append(pids, int32(pid))
		}
	}
	return pids
}

// ticks is the time since boot in the unit of start times.
func (r *procReader) ticks() uint64 {
	if boot := r.boot.Load(); boot != 0 {
		return boot
	}
	if t := bootTicks(); t != 0 {
		return t
	}
	return math.MaxUint64 / 2 // a clock that cannot be read makes nobody young
}

// hasRealTimeThread reports whether any thread of the process has a real-time policy.
func (r *procReader) hasRealTimeThread(pid int32) bool {
	files, _ := filepath.Glob(filepath.Join(r.dir, strconv.Itoa(int(pid)), "task", "*", "stat"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // it has ended
		}
		if s, err := parseStat(b); err == nil && s.priority < 0 {
			return true
		}
	}
	return false
}

// totalMemory is how much the machine has; 0 where that cannot be told. /proc/meminfo is not
// there under ProcSubset=pid.
func (r *procReader) totalMemory() uint64 {
	if set := r.memory.Load(); set != 0 {
		return set
	}
	var info unix.Sysinfo_t
	if unix.Sysinfo(&info) != nil {
		return 0
	}
	return uint64(info.Totalram) * uint64(info.Unit)
}

// blocks reports whether a thread of the process runs or waits uninterruptibly. A
// frozen one sleeps (S, in the v2 freezer), is stopped (T) or traced (t).
func (r *procReader) blocks(pid int32) bool {
	files, _ := filepath.Glob(filepath.Join(r.dir, strconv.Itoa(int(pid)), "task", "*", "stat"))
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue
		}
		if s, err := parseStat(b); err == nil && (s.state == 'R' || s.state == 'D') {
			return true
		}
	}
	return false
}

// stat is the part of /proc/PID/stat that is of use here.
type stat struct {
	comm    string
	state   byte
	parent  int32
	group   int32
	session int32
	flags   uint64
	// priority is below 0 for real-time policies: -2 to -100, and -101 for a deadline.
	priority int
	threads  int
	start    uint64
	pages    uint64 // resident
}

const (
	pfExiting = 0x4      // PF_EXITING: it is on its way out
	pfKthread = 0x200000 // PF_KTHREAD, since 2.6.27
)

// ended reports whether nothing of the process runs any more. A leader that has
// ended while its threads go on has not.
func (s stat) ended() bool {
	return (s.state == 'Z' || s.state == 'X' || s.flags&pfExiting != 0) && s.threads <= 1
}

// parseStat parses /proc/PID/stat (proc_pid_stat(5)). The name in parentheses is the
// owner's to choose and may hold anything, so what follows the last parenthesis counts:
//
//	6469 (sleep) S 6465 6465 5173 0 -1 4194304 123 0 0 0 0 0 0 0 20 0 1 0 91745 2990080 413 …
//	77 (a) R 1 (\n) S 1 77 77 0 -1 …
func parseStat(b []byte) (stat, error) {
	open, end := bytes.IndexByte(b, '('), bytes.LastIndexByte(b, ')')
	if open < 0 || end < open {
		return stat{}, fmt.Errorf("parse stat: no name in %q", b)
	}
	fields := bytes.Fields(b[end+1:])
	// fields[0] is the third of the file.
	field := func(n int) []byte { return fields[n-3] }
	if len(fields) < 22 || len(field(3)) != 1 {
		return stat{}, fmt.Errorf("parse stat: too short: %q", b)
	}
	s := stat{comm: string(b[open+1 : end]), state: field(3)[0]}
	parent, err1 := strconv.ParseInt(string(field(4)), 10, 32)
	group, err5 := strconv.ParseInt(string(field(5)), 10, 32)
	session, err6 := strconv.ParseInt(string(field(6)), 10, 32)
	flags, err2 := strconv.ParseUint(string(field(9)), 10, 64)
	priority, err7 := strconv.ParseInt(string(field(18)), 10, 32)
	threads, err3 := strconv.ParseInt(string(field(20)), 10, 32)
	pages, err8 := strconv.ParseInt(string(field(24)), 10, 64)
	start, err4 := strconv.ParseUint(string(field(22)), 10, 64)
	if err := errors.Join(err1, err2, err3, err4, err5, err6, err7, err8); err != nil {
		return stat{}, fmt.Errorf("parse stat: %w", err)
	}
	s.group, s.session, s.priority = int32(group), int32(session), int(priority)
	s.pages = uint64(max(0, pages))
	s.parent, s.flags, s.threads, s.start = int32(parent), flags, int(threads), start
	return s, nil
}
