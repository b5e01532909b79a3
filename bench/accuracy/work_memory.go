package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	mebibyte = 1 << 20
	// mostMB bounds what one worker may take of the memory.
	mostMB = 8000
	// sparedMB is how much memory is always left to the machine.
	sparedMB = 64
)

// grow takes memory at -rate MB a second up to -upto MB, and keeps it. In -mode steps it
// takes it once in a second instead, and in -mode shared it lies in a file in memory.
func (w *worker) grow() error {
	if w.upto > mostMB {
		return fmt.Errorf("%v MB are more than the %d that are allowed", w.upto, mostMB)
	}
	flags, fd := unix.MAP_PRIVATE|unix.MAP_ANONYMOUS, -1
	size := int(w.upto) * mebibyte
	if w.mode == "shared" {
		var err error
		if fd, err = unix.MemfdCreate(prefix+"memory", 0); err != nil {
			return err
		}
		if err := unix.Ftruncate(fd, int64(size)); err != nil {
			return err
		}
		flags = unix.MAP_SHARED
	}
	memory, err := unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, flags)
	if err != nil {
		return err
	}
	// Whole huge pages would make steps out of a slope.
	if err := unix.Madvise(memory, unix.MADV_NOHUGEPAGE); err != nil && err != unix.EINVAL {
		return err
	}
	step := 50 * time.Millisecond
	if w.mode == "steps" {
		step = time.Second
	}
	begin, taken := time.Now(), 0
	for end := begin.Add(w.life); time.Now().Before(end); time.Sleep(step) {
		want := min(size, int(w.rate*mebibyte*time.Since(begin).Seconds()))
		for ; taken < want && availableMB() > sparedMB; taken += mebibyte {
			touch(memory[taken:min(size, taken+mebibyte)])
		}
	}
	return nil
}

func touch(memory []byte) {
	for i := 0; i < len(memory); i += 4096 {
		memory[i] = byte(i>>12) | 1
	}
}

// availableMB is MemAvailable of /proc/meminfo.
func availableMB() int {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "MemAvailable:"); ok {
			kb, _ := strconv.Atoi(strings.TrimSuffix(strings.TrimSpace(rest), " kB"))
			return kb >> 10
		}
	}
	return 0
}

// thrash reads a file of -mb MB over and over, through a mapping: where less memory is to
// be had, every page has to come from the disk again.
func (w *worker) thrash() error {
	path, err := w.makeFile()
	if err != nil {
		return err
	}
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, w.mb*mebibyte, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	return w.everywhere(func() {
		sum := byte(0)
		for end := time.Now().Add(w.life); time.Now().Before(end); {
			for i := 0; i < len(memory); i += 4096 {
				sum += memory[i]
			}
			if w.every > 0 {
				time.Sleep(w.every)
			}
		}
		runtime.KeepAlive(sum)
	})
}
