package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/host"
)

// site is the machine that doctor looks at. Tests look at another one.
type site struct {
	release string // of the kernel
	proc    string // where proc is mounted
	sys     string // where sysfs is
	run     string // /run
	cgroup2 func() (host.CgroupMount, error)
	// tool runs a program of systemd's and returns what it wrote.
	tool func(ctx context.Context, name string, args ...string) (string, error)
	// unsynced says that nobody keeps the clock right.
	unsynced func() (bool, error)
	config   [2]string // as of breakerctl config
}

// toolBound is how long systemctl or journalctl may take.
const toolBound = 5 * time.Second

func thisSite() site {
	var u unix.Utsname
	_ = unix.Uname(&u) // it cannot fail
	return site{
		release: unix.ByteSliceToString(u.Release[:]), proc: "/proc", sys: "/sys", run: "/run",
		cgroup2: func() (host.CgroupMount, error) { return host.FindCgroup2("/proc") },
		tool: func(ctx context.Context, name string, args ...string) (string, error) {
			ctx, cancel := context.WithTimeout(ctx, toolBound)
			defer cancel()
			out, err := exec.CommandContext(ctx, name, args...).Output()
			return string(out), err
		},
		unsynced: func() (bool, error) {
			var t unix.Timex
			_, err := unix.Adjtimex(&t)
			return t.Status&unix.STA_UNSYNC != 0, err
		},
	}
}

// machine looks at what breakerd needs of the machine.
func (s site) machine(ctx context.Context) []finding {
	all := []finding{s.kernel(), s.btf(), s.lockdown(), s.bpfSetting()}
	if mount, err := s.cgroup2(); err != nil {
		all = append(all, finding{"cgroup2", failure, err.Error(), "mount it, or boot with systemd.unified_cgroup_hierarchy=1"})
	} else {
		all = append(all, s.cgroups(mount))
	}
	return append(all, s.pressure(), s.systemd(ctx), s.dbus(), s.journald(), s.clock())
}

func (s site) kernel() finding {
	f := finding{"kernel", fine, s.release, ""}
	var major, minor int
	switch _, err := fmt.Sscanf(s.release, "%d.%d", &major, &minor); {
	case err != nil:
		f.Status, f.Advice = warning, "its version cannot be told: breakerd needs Linux 5.10 or later"
	case major < 5 || major == 5 && minor < 10:
		f.Status, f.Advice = failure, "boot Linux 5.10 or later"
	}
	return f
}

func (s site) btf() finding {
	path := s.sys + "/kernel/btf/vmlinux"
	if _, err := os.Stat(path); err != nil {
		return finding{"BTF", failure, err.Error() + ": no kernel program can be attached, and nobody is blamed",
			"boot a kernel built with CONFIG_DEBUG_INFO_BTF=y, as every Debian, Ubuntu and Fedora kernel since 2020 is"}
	}
	return finding{"BTF", fine, path, ""}
}

// lockdown: in its strictest form the kernel lets nobody read its memory, and the
// programs do. A kernel without it has no such file.
//
//	none [integrity] confidentiality
func (s site) lockdown() finding {
	text, err := os.ReadFile(s.sys + "/kernel/security/lockdown")
	switch {
	case err != nil:
		return finding{"lockdown", fine, "off", ""}
	case bytes.Contains(text, []byte("[confidentiality]")):
		return finding{"lockdown", failure, "confidentiality: the kernel lets no eBPF program read what it is to read", "boot with lockdown=integrity or lockdown=none"}
	}
	return finding{"lockdown", fine, strings.TrimSpace(string(text)), ""}
}

func (s site) bpfSetting() finding {
	text, err := os.ReadFile(s.proc + "/sys/kernel/unprivileged_bpf_disabled")
	if err != nil {
		return finding{"bpf", failure, "the kernel has no bpf(2): " + err.Error(), "boot a kernel built with CONFIG_BPF_SYSCALL=y"}
	}
	value := strings.TrimSpace(string(text))
	f := finding{"bpf", fine, "kernel.unprivileged_bpf_disabled=" + value, ""}
	if value == "0" {
		f.Status, f.Advice = warning, "any user may load eBPF programs: not needed by breakerd, and better off (sysctl kernel.unprivileged_bpf_disabled=2)"
	}
	return f
}

func (s site) cgroups(mount host.CgroupMount) finding {
	f := finding{"cgroup2", fine, mount.Point, ""}
	names, err := host.Reader{ProcRoot: s.proc, CgroupRoot: mount.Point}.Controllers()
	if err != nil {
		return finding{"cgroup2", failure, err.Error(), "mount cgroup2, or boot with systemd.unified_cgroup_hierarchy=1"}
	}
	f.Detail += ", controllers: " + or(strings.Join(names, " "), "none")
	if mount.Root != "/" {
		f.Status, f.Detail = warning, f.Detail+", only "+mount.Root+" is seen"
		f.Advice = "this is a part of the hierarchy, as in a container: run breakerd where all of it is mounted"
		return f
	}
	var lacking []string
	for _, name := range []string{"cpu", "memory", "io", "pids"} {
		if !slices.Contains(names, name) {
			lacking = append(lacking, name)
		}
	}
	if len(lacking) > 0 {
		f.Status = warning
		f.Advice = "without " + strings.Join(lacking, ", ") + " freezing works, limits and quotas are not seen, and memory is estimated from processes; for all of it boot with systemd.unified_cgroup_hierarchy=1"
	}
	return f
}

func (s site) pressure() finding {
	_, err := host.Reader{ProcRoot: s.proc}.Pressure()
	if err == nil {
		return finding{"pressure", fine, s.proc + "/pressure", ""}
	}
	if !errors.Is(err, host.ErrPressureOff) {
		return finding{"pressure", warning, err.Error(), "cpu_contention, memory_pressure, io_pressure and psi_saturation cannot be seen"}
	}
	f := finding{"pressure", warning, "pressure stall information is off: cpu_contention, memory_pressure, io_pressure and psi_saturation cannot be seen", ""}
	const grub = " GRUB_CMDLINE_LINUX in /etc/default/grub, then run update-grub (Fedora: grubby --update-kernel=ALL --args=psi=1) and boot again"
	cmdline, _ := os.ReadFile(s.proc + "/cmdline")
	if slices.Contains(strings.Fields(string(cmdline)), "psi=0") {
		f.Advice = "the kernel was booted with psi=0: replace it with psi=1 in" + grub
	} else {
		f.Advice = "boot with psi=1: add it to" + grub
	}
	return f
}

// systemdOldest is the oldest systemd that the units are tried with.
const systemdOldest = 247

func (s site) systemd(ctx context.Context) finding {
	if _, err := os.Stat(s.run + "/systemd/system"); err != nil {
		return finding{"systemd", warning, "systemd is not pid 1 here", "start breakerd by other means; nobody restarts it, and a drill may be needed after each boot"}
	}
	out, err := s.tool(ctx, "systemctl", "--version")
	if err != nil {
		return finding{"systemd", warning, "systemctl --version: " + err.Error(), "is systemd installed whole?"}
	}
	// systemd 252 (252.39-1~deb12u1)
	first, _, _ := strings.Cut(out, "\n")
	f := finding{"systemd", fine, first, ""}
	if fields := strings.Fields(first); len(fields) > 1 {
		if version, err := strconv.Atoi(fields[1]); err == nil && version < systemdOldest {
			f.Status, f.Advice = warning, fmt.Sprintf("the units are for systemd %d and later: an older one leaves out what it does not know", systemdOldest)
		}
	}
	return f
}

func (s site) dbus() finding {
	path := s.run + "/dbus/system_bus_socket"
	conn, err := net.DialTimeout("unix", path, time.Second)
	if err != nil {
		return finding{"D-Bus", warning, err.Error(), "systemd cannot be asked about units: start dbus (systemctl start dbus)"}
	}
	conn.Close()
	return finding{"D-Bus", fine, path, ""}
}

func (s site) journald() finding {
	path := s.run + "/systemd/journal/socket"
	info, err := os.Stat(path)
	switch {
	case err != nil || info.Mode().Type() != fs.ModeSocket:
		return finding{"journald", warning, path + " is not there", "breakerd writes JSON lines to standard error instead: journalctl has nothing to show"}
	case !exists(filepath.Join(filepath.Dir(s.run), "var/log/journal")):
		return finding{"journald", fine, path + ", until the next boot only (make /var/log/journal to keep it)", ""}
	}
	return finding{"journald", fine, path, ""}
}

func exists(path string) bool {
	_, err := os.Stat(path)
	return err == nil
}

func (s site) clock() finding {
	unsynced, err := s.unsynced()
	switch {
	case err != nil:
		return finding{"clock", warning, err.Error(), ""}
	case unsynced:
		return finding{"clock", warning, "nobody keeps the clock right (STA_UNSYNC): times in the journal may be wrong, and a jump of more than a second discards what was seen", "start chrony or systemd-timesyncd"}
	}
	return finding{"clock", fine, "synchronised", ""}
}

// configuration looks at the files as breakerctl config check does.
func (s site) configuration() (all []finding) {
	for _, part := range checkConfig(&s.config) {
		name := "configuration of " + part.Part
		if part.Part == "policies" {
			name = "policies"
		}
		f := finding{name, fine, part.Detail, ""}
		if !part.OK {
			f.Status, f.Detail = failure, strings.Join(part.Errors, "; ")
			f.Advice = "correct it; breakerctl config check says whether it would be loaded"
		}
		all = append(all, f)
	}
	return all
}
