package bench

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

// The machine that the limits speak of.
const (
	crowdProcesses = 20_000
	crowdCgroups   = 2000
)

// crowd are processes that were made for real, in cgroups that were, too.
type crowd struct {
	b *testing.B
	w *worker
}

// newCrowd makes them below a scratch cgroup: as many processes in each, all asleep, or
// one of each cgroup at work now and then.
func newCrowd(b *testing.B, scratch *kerneltest.Cgroup, busy bool) *crowd {
	b.Helper()
	kerneltest.Require(b, kerneltest.Kill)
	each := crowdProcesses / crowdCgroups
	return &crowd{b, startWorker(b, nil, "crowd", scratch.Dir, strconv.Itoa(crowdCgroups), strconv.Itoa(each), strconv.FormatBool(busy))}
}

func (c *crowd) end() { c.w.end(c.b) }

// beCrowd makes the crowd, and takes it away when its standard input ends.
func beCrowd(args []string) (err error) {
	dir := args[0]
	cgroups, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	each, err := strconv.Atoi(args[2])
	if err != nil {
		return err
	}
	busy := args[3] == "true"
	signal.Ignore(syscall.SIGCHLD) // so that nobody needs to wait for them
	// If the benchmark is stopped, this one goes on until the crowd has gone.
	signal.Ignore(syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGPIPE)
	home := filepath.Dir(dir)
	defer func() { err = errors.Join(err, enter(home), disperse(dir, cgroups)) }()
	for i := range cgroups {
		in := memberDir(dir, i)
		if err := os.Mkdir(in, 0o755); err != nil {
			return err
		}
		// A move of this one, and no CLONE_INTO_CGROUP for each child: both wait until no
		// task is within a fork, which takes 8 ms.
		if err := enter(in); err != nil {
			return err
		}
		for n := range each {
			// They begin spread over a period.
			first := time.Duration(i) * napLength / time.Duration(cgroups)
			if err := makeMember(busy && n == 0, first.Nanoseconds()); err != nil {
				return fmt.Errorf("process %d of cgroup %d: %w", n, i, err)
			}
		}
	}
	if err := enter(home); err != nil {
		return err
	}
	fmt.Println("ready")
	_, err = io.Copy(io.Discard, os.Stdin)
	return err
}

// enter moves this process into a cgroup.
func enter(dir string) error {
	return os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte("0"), 0)
}

func memberDir(dir string, i int) string { return filepath.Join(dir, fmt.Sprintf("service-%04d", i)) }

// disperse kills the crowd and removes its cgroups.
func disperse(dir string, cgroups int) error {
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil {
		return err
	}
	for until := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		text, err := os.ReadFile(filepath.Join(dir, "cgroup.events"))
		if err != nil {
			return err
		}
		if strings.Contains(string(text), "populated 0") {
			break
		}
		if time.Now().After(until) {
			return errors.New("the crowd does not end")
		}
	}
	for i := range cgroups {
		if err := unix.Rmdir(memberDir(dir, i)); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	// The benchmark may have been killed, and then nobody else removes it.
	return unix.Rmdir(dir)
}

const (
	napLength = 200 * time.Millisecond
	// Of turns of the loop: some 20 µs, so that all of them use a third of one CPU.
	spinTurns = 10_000
)

// makeMember makes one process of the crowd: a copy of this one that never
// becomes another program, because 20,000 of those fit into less memory. The child is a
// copy of one thread only: it makes raw system calls, and nothing else of Go works in it.
//
//go:norace
//go:noinline
func makeMember(busy bool, firstNapNS int64) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	nap := unix.Timespec{Nsec: firstNapNS}
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return errno
	}
	if pid != 0 {
		return nil
	}
	for !busy {
		syscall.RawSyscall(unix.SYS_PAUSE, 0, 0, 0)
	}
	for {
		syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&nap)), 0, 0)
		nap.Nsec = napLength.Nanoseconds()
		for turn := 0; turn < spinTurns; turn++ {
			spun++
		}
	}
}

// spun keeps the loop from being left out.
var spun uint64
