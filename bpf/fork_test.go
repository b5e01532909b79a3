package bpf

import (
	"runtime"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// fork makes a child that does what it is given and ends, without becoming another
// program. The child is a copy of one thread only: it may make raw system calls, and
// must neither allocate nor block in Go.
//
//go:norace
//go:noinline
func fork(flags uintptr, child func()) (pid int, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	r, _, errno := syscall.RawSyscall6(unix.SYS_CLONE, flags|uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
	if errno != 0 {
		return 0, errno
	}
	if r == 0 {
		child()
		for {
			syscall.RawSyscall(unix.SYS_EXIT_GROUP, 0, 0, 0)
		}
	}
	return int(r), nil
}

// nap sleeps for half a second.
//
//go:norace
func nap() {
	ts := unix.Timespec{Nsec: 500_000_000}
	syscall.RawSyscall(unix.SYS_NANOSLEEP, uintptr(unsafe.Pointer(&ts)), 0, 0)
}

func addressOf(v *[2]int32) uintptr { return uintptr(unsafe.Pointer(v)) }

func addressPointer(v *[8]byte) unsafe.Pointer { return unsafe.Pointer(v) }
