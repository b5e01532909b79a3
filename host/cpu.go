package host

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"strconv"

	"golang.org/x/sys/unix"
)

// CPU is how the CPUs spent their time since boot.
type CPU struct {
	Online  int
	BusyNS  uint64
	IdleNS  uint64 // idle and iowait
	StealNS uint64 // taken by the hypervisor
}

// tickNS is the length of a clock tick in /proc: USER_HZ is 100 on every
// architecture that Go knows, whatever the kernel's own HZ.
const tickNS = 10_000_000

// CPU reads the times of all CPUs together, and counts those online.
func (r Reader) CPU() (CPU, error) {
	path := r.proc("stat")
	f, err := openFile(unix.AT_FDCWD, path)
	if err != nil {
		return CPU{}, fmt.Errorf("read %s: %w", path, err)
	}
	defer f.close()
	cpu, err := parseCPU(eof{f})
	if err != nil {
		return CPU{}, fmt.Errorf("parse %s %w", path, err)
	}
	return cpu, nil
}

// eof turns a file's 0 bytes into io.EOF.
type eof struct{ file }

func (e eof) Read(buf []byte) (int, error) {
	n, err := e.file.Read(buf)
	if n == 0 && err == nil {
		err = io.EOF
	}
	return n, err
}

// parseCPU reads the first lines of /proc/stat and stops at the first that is
// not about a CPU: the line intr that follows has a number for each interrupt,
// tens of kilobytes on a large machine. Ticks: user nice system idle iowait irq
// softirq steal guest guest_nice. Guest time is within user and nice already.
// CPUs that are offline have no line.
//
//	cpu  9441 0 3820 169377 325 0 88 105 0 0
//	cpu0 4612 0 1858 84948 72 0 13 56 0 0
//	cpu1 4828 0 1961 84428 252 0 74 49 0 0
//	intr 325843 0 0 0 0 0 0
func parseCPU(from io.Reader) (CPU, error) {
	var cpu CPU
	text := bufio.NewReaderSize(from, 1024)
	for number := 1; ; number++ {
		if start, err := text.Peek(3); err != nil && !errors.Is(err, io.EOF) {
			return CPU{}, malformed(number, "%w", err)
		} else if string(start) != "cpu" {
			if number == 1 {
				return CPU{}, malformed(1, "%q does not begin with cpu", start)
			}
			return cpu, nil
		}
		line, err := text.ReadSlice('\n')
		if err != nil && !errors.Is(err, io.EOF) {
			return CPU{}, malformed(number, "%w", err)
		}
		if number > 1 {
			cpu.Online++
			continue
		}
		if cpu, err = parseCPUTimes(line); err != nil {
			return CPU{}, malformed(number, "%w", err)
		}
	}
}

func parseCPUTimes(line []byte) (CPU, error) {
	const user, nice, system, idle, iowait, irq, softirq, steal = 0, 1, 2, 3, 4, 5, 6, 7
	fields := bytes.Fields(line)
	if string(fields[0]) != "cpu" || len(fields) < 1+idle+1 {
		return CPU{}, fmt.Errorf("%q are not the times of all CPUs", clip(line))
	}
	var ns [steal + 1]uint64 // what an old kernel does not have stays 0
	for i, field := range fields[1:] {
		if i == len(ns) {
			break
		}
		ticks, err := strconv.ParseUint(string(field), 10, 64)
		if err != nil {
			return CPU{}, fmt.Errorf("time %q is no number", field)
		}
		ns[i] = ticks * tickNS
	}
	return CPU{
		BusyNS:  ns[user] + ns[nice] + ns[system] + ns[irq] + ns[softirq],
		IdleNS:  ns[idle] + ns[iowait],
		StealNS: ns[steal],
	}, nil
}
