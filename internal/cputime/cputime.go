// Package cputime tells what CPU time something takes: its own and not the clock's, which
// goes on where others keep it from running.
package cputime

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Of runs f and tells what CPU time it took of the thread, in the kernel and outside of it.
// What f has other goroutines do is not counted.
func Of(f func() error) (time.Duration, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	before := Thread()
	err := f()
	return Thread() - before, err
}

// Thread is the CPU time of this thread since it began (CLOCK_THREAD_CPUTIME_ID, which is
// always there). It says nothing to a goroutine that may be moved to another thread.
func Thread() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts)
	return time.Duration(ts.Nano())
}
