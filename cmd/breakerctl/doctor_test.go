package main

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/model"
)

// healthy is a site on which everything is as it should be.
func healthy(t *testing.T) site {
	t.Helper()
	dir, err := os.MkdirTemp("", "site") // a socket's path is at most 107 bytes, and a test's name is long
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	s := site{
		release: "6.12.30-amd64", proc: dir + "/proc", sys: dir + "/sys", run: dir + "/run",
		cgroup2: func() (host.CgroupMount, error) {
			return host.CgroupMount{Point: dir + "/sys/fs/cgroup", Root: "/"}, nil
		},
		unsynced: func() (bool, error) { return false, nil },
		tool: func(_ context.Context, name string, args ...string) (string, error) {
			if args[0] == "--version" {
				return "systemd 257 (257.7-1)\n+PAM +AUDIT\n", nil
			}
			return "LoadState=loaded\nActiveState=active\nUnitFileState=enabled\nNRestarts=0\nResult=success\nStatusText=monitor; 0 incidents open\n", nil
		},
		config: [2]string{dir + "/breakerd.yaml", dir + "/enforcer.yaml"},
	}
	for path, text := range map[string]string{
		"proc/sys/kernel/unprivileged_bpf_disabled": "2\n",
		"proc/cmdline":                     "quiet\n",
		"proc/pressure/cpu":                "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
		"proc/pressure/memory":             "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
		"proc/pressure/io":                 "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n",
		"proc/77/status":                   "Name:\tbreakerd\nUid:\t998\t998\t998\t998\nCapEff:\t0000000000000000\n",
		"sys/kernel/btf/vmlinux":           "",
		"sys/kernel/security/lockdown":     "none [integrity] confidentiality\n",
		"sys/fs/cgroup/cgroup.controllers": "cpuset cpu io memory hugetlb pids rdma misc\n",
		"run/systemd/system/x":             "",
		"var/log/journal/x":                "",
		"breakerd.yaml":                    "policies: {paths: []}\n",
		"enforcer.yaml":                    "",
	} {
		put(t, filepath.Join(dir, path), text)
	}
	for _, socket := range []string{"dbus/system_bus_socket", "systemd/journal/socket"} {
		path := filepath.Join(s.run, socket)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
	}
	return s
}

func put(t *testing.T, path, text string) {
	t.Helper()
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func (s site) findings(t *testing.T) []finding {
	return append(append(s.machine(t.Context()), s.configuration()...), s.unit(t.Context(), "breakerd.service")...)
}

// trouble is what is not ok, with its advice.
func trouble(all []finding) (lines []string) {
	for _, f := range all {
		if f.Status != fine {
			lines = append(lines, strings.Join([]string{f.Status, f.Name, f.Detail, f.Advice}, " | "))
		}
	}
	return lines
}

func TestDoctorFindsNothingOnAHealthyMachine(t *testing.T) {
	all := healthy(t).findings(t)
	if lines := trouble(all); lines != nil || worst(all) != fine {
		t.Errorf("%s: %q", worst(all), lines)
	}
	if len(all) < 14 {
		t.Errorf("it looked at %d things only", len(all))
	}
}

func TestDoctorSaysWhatIsWrongAndWhatToDo(t *testing.T) {
	remove := func(t *testing.T, path string) {
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, *site)
		want  []string // status, name, and parts of what is said
	}{
		{"an old kernel", func(_ *testing.T, s *site) { s.release = "5.4.0-1-amd64" }, []string{failure, "kernel", "5.10 or later"}},
		{"a kernel of no known kind", func(_ *testing.T, s *site) { s.release = "plan9" }, []string{warning, "kernel", "cannot be told"}},
		{"no BTF", func(t *testing.T, s *site) { remove(t, s.sys+"/kernel/btf") }, []string{failure, "BTF", "CONFIG_DEBUG_INFO_BTF=y"}},
		{"lockdown", func(t *testing.T, s *site) {
			put(t, s.sys+"/kernel/security/lockdown", "none integrity [confidentiality]\n")
		}, []string{failure, "lockdown", "lockdown=integrity"}},
		{"no bpf", func(t *testing.T, s *site) { remove(t, s.proc+"/sys/kernel/unprivileged_bpf_disabled") }, []string{failure, "bpf", "CONFIG_BPF_SYSCALL"}},
		{"bpf for all", func(t *testing.T, s *site) { put(t, s.proc+"/sys/kernel/unprivileged_bpf_disabled", "0\n") }, []string{warning, "bpf", "sysctl"}},
		{"no cgroup2", func(_ *testing.T, s *site) {
			s.cgroup2 = func() (host.CgroupMount, error) { return host.CgroupMount{}, host.ErrNoCgroup2 }
		}, []string{failure, "cgroup2", "unified_cgroup_hierarchy=1"}},
		{"a hybrid machine", func(t *testing.T, s *site) { put(t, s.sys+"/fs/cgroup/cgroup.controllers", "hugetlb\n") }, []string{warning, "cgroup2", "cpu, memory, io, pids"}},
		{"a container", func(_ *testing.T, s *site) {
			at := s.sys + "/fs/cgroup"
			s.cgroup2 = func() (host.CgroupMount, error) { return host.CgroupMount{Point: at, Root: "/docker/abc"}, nil }
		}, []string{warning, "cgroup2", "/docker/abc"}},
		{"pressure never on", func(t *testing.T, s *site) { remove(t, s.proc+"/pressure") }, []string{warning, "pressure", "boot with psi=1"}},
		{"pressure switched off", func(t *testing.T, s *site) {
			remove(t, s.proc+"/pressure")
			put(t, s.proc+"/cmdline", "quiet psi=0\n")
		}, []string{warning, "pressure", "replace it with psi=1"}},
		{"an old systemd", func(_ *testing.T, s *site) {
			before := s.tool
			s.tool = func(ctx context.Context, name string, args ...string) (string, error) {
				if args[0] == "--version" {
					return "systemd 241 (241)\n", nil
				}
				return before(ctx, name, args...)
			}
		}, []string{warning, "systemd", "systemd 247 and later"}},
		{"no D-Bus", func(t *testing.T, s *site) { remove(t, s.run+"/dbus") }, []string{warning, "D-Bus", "systemctl start dbus"}},
		{"no journald", func(t *testing.T, s *site) { remove(t, s.run+"/systemd/journal") }, []string{warning, "journald", "JSON lines"}},
		{"a clock that runs free", func(_ *testing.T, s *site) { s.unsynced = func() (bool, error) { return true, nil } }, []string{warning, "clock", "chrony"}},
		{"a clock that cannot be asked", func(_ *testing.T, s *site) {
			s.unsynced = func() (bool, error) { return false, errors.New("operation not permitted") }
		}, []string{warning, "clock", "not permitted"}},
		{"a slip in the configuration", func(t *testing.T, s *site) { put(t, s.config[0], "mod: x\n") }, []string{failure, "configuration of breakerd", "breakerd.yaml:1:1"}},
		{"a slip in the enforcer's", func(t *testing.T, s *site) { put(t, s.config[1], "mod: x\n") }, []string{failure, "configuration of breaker-enforcer", "enforcer.yaml:1:1"}},
		{"a policy that does not compile", func(t *testing.T, s *site) {
			put(t, filepath.Join(filepath.Dir(s.run), "p/a.rego"), "package breaker.a\n\naction contains if {\n")
			put(t, s.config[0], "policies: {paths: ["+filepath.Join(filepath.Dir(s.run), "p")+"]}\n")
		}, []string{failure, "policies", "a.rego:3"}},
		{"a unit that failed", unit("ActiveState=failed\nResult=watchdog"), []string{failure, "breakerd.service", "result watchdog", "journalctl -u breakerd.service"}},
		{"a unit that is not started", unit("ActiveState=inactive\nUnitFileState=disabled"), []string{warning, "breakerd.service", "systemctl enable --now breakerd"}},
		{"a unit that was restarted", unit("ActiveState=active\nNRestarts=4"), []string{warning, "breakerd.service", "restarted 4 times"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := healthy(t)
			tt.spoil(t, &s)
			lines := trouble(s.findings(t))
			if len(lines) != 1 {
				t.Fatalf("found %q, want one", lines)
			}
			for _, part := range tt.want {
				if !strings.Contains(lines[0], part) {
					t.Errorf("%q does not say %q", lines[0], part)
				}
			}
			if _, advice, _ := strings.Cut(lines[0], " | "); strings.HasSuffix(advice, "| ") && !strings.Contains(tt.name, "cannot be asked") {
				t.Errorf("%q does not say what to do", lines[0])
			}
		})
	}
}

// unit makes systemctl say this of the unit.
func unit(says string) func(*testing.T, *site) {
	return func(_ *testing.T, s *site) {
		before := s.tool
		s.tool = func(ctx context.Context, name string, args ...string) (string, error) {
			if args[0] == "show" {
				return "LoadState=loaded\n" + says + "\n", nil
			}
			return before(ctx, name, args...)
		}
	}
}

func TestDoctorLooksAtARunningBreakerd(t *testing.T) {
	whole := func() api.Status {
		return api.Status{
			Version: version, PID: 77, Mode: model.Monitor, Programs: []string{"tp_btf/sched_switch"}, StartedAt: time.Now().Add(-time.Hour),
			Host: model.Host{CPUs: 4}, Cost: api.Cost{CPUPercent: 1.5, RSSBytes: 40 << 20}, Privileges: "given up",
		}
	}
	for _, tt := range []struct {
		name  string
		spoil func(*testing.T, *site, *api.Status)
		want  []string
	}{
		{"all is well", func(*testing.T, *site, *api.Status) {}, nil},
		{"nothing attached", func(_ *testing.T, _ *site, st *api.Status) { st.Programs = nil }, []string{failure, "programs", "see BTF"}},
		{"another version", func(_ *testing.T, _ *site, st *api.Status) { st.Version = "0.0.1" }, []string{warning, "versions", "systemctl restart breakerd"}},
		{"too dear", func(_ *testing.T, _ *site, st *api.Status) { st.Cost.CPUPercent = 2.1 }, []string{warning, "budget", "tick: 1s"}},
		{"too dear at the start only", func(_ *testing.T, _ *site, st *api.Status) { st.Cost.CPUPercent, st.StartedAt = 50, time.Now() }, nil},
		{"too large", func(_ *testing.T, _ *site, st *api.Status) { st.Cost.RSSBytes = 61 << 20 }, []string{warning, "budget", "memory"}},
		{"tables full", func(_ *testing.T, _ *site, st *api.Status) { st.LostSinceBoot.Cells = 3 }, []string{warning, "lost", "3 waits"}},
		{"a clock that jumped back", func(_ *testing.T, _ *site, st *api.Status) { st.LostSinceBoot.ClockJumpNS = -5e9 }, []string{warning, "clock since the start", "5s"}},
		{"journal entries lost", func(_ *testing.T, _ *site, st *api.Status) { st.Journal.Lost = 2 }, []string{warning, "journal", "systemd-journald"}},
		{"an unknown block layer", func(_ *testing.T, _ *site, st *api.Status) {
			st.Missing = []api.Missing{{What: "block devices", Text: "nobody is blamed for io"}, {What: "BTF", Text: "was said"}}
		}, []string{warning, "block devices", "blamed for io"}},
		{"a problem", func(_ *testing.T, _ *site, st *api.Status) { st.Problems = []string{"policies refused: x"} }, []string{warning, "problem", "policies refused"}},
		{"errors that were told are no findings", func(_ *testing.T, _ *site, st *api.Status) { st.LastErrors = []api.Told{{Message: "x"}} }, nil},
		{"root", func(t *testing.T, s *site, _ *api.Status) {
			put(t, s.proc+"/77/status", "Uid:\t0\t0\t0\t0\nCapEff:\t000001ffffffffff\n")
		}, []string{warning, "privileges", "as root", "systemctl start breakerd"}},
		{"both are kept", func(t *testing.T, s *site, st *api.Status) {
			put(t, s.proc+"/77/status", "Uid:\t998\t998\t998\t998\nCapEff:\t000000c000000000\n")
			st.Privileges = "kept"
		}, nil},
		{"one too many", func(t *testing.T, s *site, _ *api.Status) {
			put(t, s.proc+"/77/status", "Uid:\t998\t998\t998\t998\nCapEff:\t000000c000200000\n")
		}, []string{warning, "privileges", "0xc000200000"}},
		{"another pid namespace", func(_ *testing.T, _ *site, st *api.Status) { st.PID = 78 }, []string{warning, "privileges", "cannot be seen"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s, status := healthy(t), whole()
			tt.spoil(t, &s, &status)
			lines := trouble(append(statusFindings(status), s.capabilities(status)))
			if tt.want == nil {
				if lines != nil {
					t.Errorf("found %q", lines)
				}
				return
			}
			if len(lines) != 1 {
				t.Fatalf("found %q, want one", lines)
			}
			for _, part := range tt.want {
				if !strings.Contains(lines[0], part) {
					t.Errorf("%q does not say %q", lines[0], part)
				}
			}
		})
	}
}

func TestDoctorEndsWithTheWorst(t *testing.T) {
	for want, statuses := range map[string][]string{fine: {fine, fine}, warning: {fine, warning, fine}, failure: {warning, failure, fine}} {
		var all []finding
		for _, s := range statuses {
			all = append(all, finding{Status: s})
		}
		if got := worst(all); got != want {
			t.Errorf("of %q the worst is %s", statuses, got)
		}
	}
}
