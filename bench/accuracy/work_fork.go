package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"sync/atomic"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

func lockThread() { runtime.LockOSThread() }

// mostForks bounds every storm, whatever was asked for.
const mostForks = 4000

// nap is a child's life or a part of it, in the form of the system call that it may make:
// a child of a process with threads that has not executed a program may use nothing of
// Go's but raw system calls.
type nap = unix.Timespec

// storm forks one process -every so often, -most of them, each of which stays as long as
// -stay says. As -mode: plain; daemon (forked twice, adopted by somebody else); setsid;
// recursive (every child forks on, as often as its parent).
func (w *worker) storm() error {
	if w.most <= 0 || w.most > mostForks {
		return fmt.Errorf("%d forks: at least 1, at most %d", w.most, mostForks)
	}
	signal.Ignore(syscall.SIGCHLD) // children need no funeral
	stay, every := unix.NsecToTimespec(w.stay.Nanoseconds()), unix.NsecToTimespec(w.every.Nanoseconds())
	if w.mode == "recursive" {
		return forkOn(w.most, &every, &stay)
	}
	due := time.Now()
	for range w.most {
		if err := forkOne(w.mode, &stay); err != nil {
			return err
		}
		due = due.Add(w.every)
		time.Sleep(time.Until(due))
	}
	time.Sleep(w.life)
	return nil
}

func (w *worker) forkSleeper() error {
	stay := unix.NsecToTimespec(w.life.Nanoseconds())
	signal.Ignore(syscall.SIGCHLD)
	return forkOne("plain", &stay)
}

func forkOne(mode string, stay *nap) error {
	var errno syscall.Errno
	switch mode {
	case "plain":
		errno = forkPlain(stay, false)
	case "setsid":
		errno = forkPlain(stay, true)
	case "daemon":
		errno = forkTwice(stay)
	default:
		return errors.New("no such mode: " + mode)
	}
	if errno != 0 {
		return fmt.Errorf("fork: %w", errno)
	}
	return nil
}

// The functions below run in children, where no stack can grow and no lock be taken.

//go:nosplit
func forkPlain(stay *nap, setsid bool) syscall.Errno {
	pid, errno := rawFork()
	if errno != 0 || pid != 0 {
		return errno
	}
	if setsid {
		syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	}
	rawSleep(stay)
	rawExit()
	return 0
}

//go:nosplit
func forkTwice(stay *nap) syscall.Errno {
	pid, errno := rawFork()
	if errno != 0 || pid != 0 {
		return errno
	}
	syscall.RawSyscall(unix.SYS_SETSID, 0, 0, 0)
	if pid, _ = rawFork(); pid == 0 {
		rawSleep(stay)
	}
	rawExit()
	return 0
}

// forkOn lets every process fork on until there have been so many in all. The count lies
// in memory that all share.
func forkOn(most int, every, stay *nap) error {
	page, err := unix.Mmap(-1, 0, os.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED|unix.MAP_ANONYMOUS)
	if err != nil {
		return err
	}
	multiply((*int64)(unsafe.Pointer(&page[0])), int64(most), every, stay)
	return nil
}

//go:nosplit
func multiply(count *int64, most int64, every, stay *nap) {
	for atomic.AddInt64(count, 1) <= most {
		rawFork() // both go on
		rawSleep(every)
	}
	rawSleep(stay)
	rawExit()
}

//go:nosplit
func rawFork() (uintptr, syscall.Errno) {
	pid, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	return pid, errno
}

//go:nosplit
func rawSleep(d *nap) {
	// Go interrupts a thread that it believes to compute for long, as a parent's here.
	for left := *d; ; {
		at := uintptr(unsafe.Pointer(&left))
		if _, _, errno := syscall.RawSyscall(unix.SYS_NANOSLEEP, at, at, 0); errno != unix.EINTR {
			return
		}
	}
}

//go:nosplit
func rawExit() {
	for {
		syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
	}
}

// jobs runs the command again and again, in -n places at a time, or one -every so often
// whatever became of the last. Without a command a job is -work of a CPU. Not more than
// -most in all, where that is not 0.
func (w *worker) jobs() error {
	slots := make(chan struct{}, max(1, w.n))
	due := time.Now()
	for i := 0; w.most == 0 || i < w.most; i++ {
		slots <- struct{}{}
		cmd := command("once", "-work", w.work.String())
		if len(w.args) > 0 {
			cmd = exec.Command(w.args[0], w.args[1:]...)
			cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		}
		if err := cmd.Start(); err != nil {
			return err
		}
		go func() {
			_ = cmd.Wait() // that it fails is the point of some
			<-slots
		}()
		if w.every > 0 {
			due = due.Add(w.every)
			time.Sleep(time.Until(due))
		}
	}
	time.Sleep(w.life)
	return nil
}

// shell becomes a shell with a script.
func (w *worker) shell() error {
	script := fmt.Sprintf("ulimit -t %d\n", int(lifeBound.Seconds())) + w.args[0]
	return syscall.Exec("/bin/sh", append([]string{"sh", "-c", script, "accuracy"}, w.args[1:]...), os.Environ())
}
