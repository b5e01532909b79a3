package host

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// Meter reads the state of the whole machine again and again, over files that it keeps
// open: to open and close them each time takes longer than to read them. It is for one
// goroutine.
type Meter struct {
	reader                      Reader
	stat, meminfo               kept
	cpuStall, memStall, ioStall kept
	bootID                      string
	root                        file
	rootIsProc                  bool
	dirs                        int // of proc, that are no process
	counted                     int // readings since dirs was counted
}

// Meter opens what a machine is read from. Pressure may be missing.
func (r Reader) Meter() (*Meter, error) {
	m := &Meter{
		reader: r, stat: kept{path: r.proc("stat")}, meminfo: kept{path: r.proc("meminfo")},
		cpuStall: kept{path: r.proc("pressure/cpu")}, memStall: kept{path: r.proc("pressure/memory")}, ioStall: kept{path: r.proc("pressure/io")},
	}
	var err error
	if m.bootID, err = r.BootID(); err != nil {
		return nil, err
	}
	if m.root, err = openDir(unix.AT_FDCWD, r.ProcRoot); err != nil {
		return nil, fmt.Errorf("open %s: %w", r.ProcRoot, err)
	}
	if m.rootIsProc, err = isProc(m.root, r.ProcRoot); err != nil {
		m.root.close()
		return nil, err
	}
	return m, nil
}

// Close closes the files.
func (m *Meter) Close() {
	m.root.close()
	for _, k := range []*kept{&m.stat, &m.meminfo, &m.cpuStall, &m.memStall, &m.ioStall} {
		k.close()
	}
}

// Host reads the state of the whole machine.
func (m *Meter) Host() (model.Host, error) {
	host := model.Host{BootID: m.bootID}
	cpu, err := m.cpu()
	if err != nil {
		return model.Host{}, err
	}
	host.CPUs, host.CPUBusyNS, host.CPUIdleNS, host.StealNS = cpu.Online, cpu.BusyNS, cpu.IdleNS, cpu.StealNS
	mem, err := m.memory()
	if err != nil {
		return model.Host{}, err
	}
	host.MemTotalBytes, host.MemAvailBytes, host.SwapFreeBytes = mem.TotalBytes, mem.AvailBytes, mem.SwapFree
	if host.Processes, err = m.processes(); err != nil {
		return model.Host{}, err
	}
	host.Pressure, err = m.Pressure()
	switch {
	case errors.Is(err, ErrPressureOff):
		host.PressureAbsent = true
	case err != nil:
		return model.Host{}, err
	}
	return host, nil
}

func (m *Meter) cpu() (CPU, error) {
	if err := m.stat.rewind(); err != nil {
		return CPU{}, fmt.Errorf("read %s: %w", m.stat.path, err)
	}
	cpu, err := parseCPU(&m.stat)
	if err != nil {
		return CPU{}, fmt.Errorf("parse %s %w", m.stat.path, err)
	}
	return cpu, nil
}

func (m *Meter) memory() (Memory, error) {
	text, err := m.meminfo.text()
	if err != nil {
		return Memory{}, fmt.Errorf("read %s: %w", m.meminfo.path, err)
	}
	mem, err := parseMeminfo(text)
	if err != nil {
		return Memory{}, fmt.Errorf("parse %s %w", m.meminfo.path, err)
	}
	return mem, nil
}

// countAgain is after how many readings the directories of proc are counted anew: a
// module that is loaded may bring one.
const countAgain = 256

func (m *Meter) processes() (int, error) {
	if !m.rootIsProc {
		return 0, nil
	}
	if m.counted--; m.counted < 0 {
		if _, err := unix.Seek(int(m.root), 0, unix.SEEK_SET); err != nil {
			return 0, fmt.Errorf("list %s: %w", m.reader.ProcRoot, err)
		}
		var err error
		if m.dirs, err = directoriesBeforePIDs(m.root); err != nil {
			return 0, fmt.Errorf("list %s: %w", m.reader.ProcRoot, err)
		}
		m.counted = countAgain
	}
	return countProcesses(m.root, m.reader.ProcRoot, m.dirs)
}

// Pressure reads the pressure totals of the whole machine, and nothing else: it takes
// 12 µs and allocates nothing (BenchmarkMeterPressure), Host 54 µs.
func (m *Meter) Pressure() (model.Pressure, error) {
	var p model.Pressure
	for _, f := range []struct {
		from *kept
		into *model.Stall
	}{{&m.cpuStall, &p.CPU}, {&m.memStall, &p.Memory}, {&m.ioStall, &p.IO}} {
		text, err := f.from.text()
		if *f.into, err = pressureOf(text, err, f.from.path); err != nil {
			return model.Pressure{}, err
		}
	}
	return p, nil
}

// kept is a file of the kernel that stays open, and is read from its beginning again and
// again: what it says is made as it is read.
type kept struct {
	path string
	f    file
	open bool
	at   int64
	buf  []byte
}

// rewind goes back to the beginning.
func (k *kept) rewind() error {
	k.at = 0
	if k.open {
		return nil
	}
	f, err := openFile(unix.AT_FDCWD, k.path)
	if err != nil {
		return err
	}
	k.f, k.open = f, true
	return nil
}

func (k *kept) close() {
	if k.open {
		k.f.close()
		k.open = false
	}
}

// Read reads on. After an error the file is opened anew the next time: what was mounted
// over it (lxcfs) may have been mounted again.
func (k *kept) Read(buf []byte) (int, error) {
	n, err := retry(func() (int, error) { return unix.Pread(int(k.f), buf, k.at) })
	switch {
	case err != nil:
		k.close()
		return 0, err
	case n == 0:
		return 0, io.EOF
	}
	k.at += int64(n)
	return n, nil
}

// text is the whole file, until the next reading of it. It is all made at once
// (single_open of the kernel), so that less than there was room for is all of it.
func (k *kept) text() ([]byte, error) {
	if err := k.rewind(); err != nil {
		return nil, err
	}
	if k.buf == nil {
		k.buf = make([]byte, 4096)
	}
	for n := 0; ; {
		more, err := k.Read(k.buf[n:])
		n += more
		switch {
		case errors.Is(err, io.EOF), err == nil && n < len(k.buf):
			return k.buf[:n], nil
		case err != nil:
			return nil, err
		case n >= maxFile:
			return nil, fmt.Errorf("longer than %d bytes", maxFile)
		}
		k.buf = append(k.buf, make([]byte, n)...)
	}
}
