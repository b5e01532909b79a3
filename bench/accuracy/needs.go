package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
)

// need is something that a scenario cannot do without.
type need string

// What scenarios need.
const (
	needTwoCPUs  need = "2 CPUs"
	needPSI      need = "PSI"
	needCPU      need = "cpu controller"
	needMemory   need = "memory controller"
	needSmall    need = "a small machine" // of which all memory may be used
	needRealtime need = "real-time scheduling"
	needDisk     need = "a disk for O_DIRECT"
	needGo       need = "the go command"
	needCtl      need = "breakerctl"
)

// smallBytes is how much memory a machine may have that is filled to the brim.
const smallBytes = 2 << 30

// place is what there is on this machine.
type place struct {
	mount       string
	controllers []string
	memTotal    uint64
	dir         string
	missing     map[need]string
}

// look finds out what is there.
func look(o options) (*place, error) {
	p := &place{dir: o.dir, missing: make(map[need]string)}
	var err error
	if p.mount, err = cgroupctl.FindRoot(); err != nil {
		return nil, err
	}
	text, err := os.ReadFile(filepath.Join(p.mount, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	p.controllers = strings.Fields(string(text))
	for n, c := range map[need]string{needCPU: "cpu", needMemory: "memory"} {
		if !slices.Contains(p.controllers, c) {
			p.missing[n] = fmt.Sprintf("%s has no %s controller", p.mount, c)
		}
	}
	if n := runtime.NumCPU(); n < 2 {
		p.missing[needTwoCPUs] = fmt.Sprintf("there is %d", n)
	}
	if _, err := os.ReadFile("/proc/pressure/cpu"); err != nil {
		p.missing[needPSI] = err.Error()
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return nil, err
	}
	p.memTotal = uint64(info.Totalram) * uint64(info.Unit)
	if p.memTotal > smallBytes {
		p.missing[needSmall] = fmt.Sprintf("it has %d MB of memory, and only up to %d are filled", p.memTotal>>20, smallBytes>>20)
	}
	p.missing[needRealtime] = lacksRealtime()
	p.missing[needDisk] = lacksDirect(o.dir)
	if _, err := exec.LookPath("go"); err != nil {
		p.missing[needGo] = "it is not in PATH"
		if o.ctl == "" {
			p.missing[needCtl] = "name it with --breakerctl"
		}
	}
	return p, nil
}

// lacksRealtime tries it: with CONFIG_RT_GROUP_SCHED it is refused.
func lacksRealtime() string {
	self, err := os.Executable()
	if err != nil {
		return err.Error()
	}
	cmd := exec.Command(self, "-life", "1s", "-sched", "fifo", "-n", "0")
	cmd.Env = append(os.Environ(), workerVar+"=idle")
	if out, err := cmd.CombinedOutput(); err != nil {
		return strings.TrimSpace(fmt.Sprintf("%v %s", err, out))
	}
	text, err := os.ReadFile("/proc/sys/kernel/sched_rt_runtime_us")
	if us, _ := strconv.Atoi(strings.TrimSpace(string(text))); err != nil || us < 0 {
		return "it is not throttled (kernel.sched_rt_runtime_us), and a hog could take a CPU for good"
	}
	return ""
}

// lacksDirect tries to open a file without the page cache.
func lacksDirect(dir string) string {
	f, err := os.CreateTemp(dir, prefix)
	if err != nil {
		return err.Error()
	}
	defer os.Remove(f.Name())
	defer f.Close()
	fd, err := unix.Open(f.Name(), unix.O_RDONLY|unix.O_DIRECT, 0)
	if err != nil {
		return fmt.Sprintf("%s: %v", dir, err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return err.Error()
	}
	if unix.Major(st.Dev) == 0 {
		return dir + " is not on a disk; --dir names one that is"
	}
	return ""
}

// why says what is missing for a scenario; "" if nothing is.
func (p *place) why(s scenario) string {
	for _, n := range s.needs {
		if m := p.missing[n]; m != "" {
			return fmt.Sprintf("needs %s: %s", n, m)
		}
	}
	return ""
}
