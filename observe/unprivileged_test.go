package observe

import (
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// unprivilegedVar makes TestObservingNeedsCapBPFAndCapPerfmonOnly the process that
// observes, instead of the one that starts it.
const unprivilegedVar = "BREAKERD_TEST_UNPRIVILEGED"

// seen is what the process without privileges has to say.
type seen struct {
	UID       int
	Processes int
	Cgroups   int
	Paths     int
	RunNS     uint64
	Host      model.Host
	Lost      model.Lost
	// After the first sample.
	Privileges   string
	Capabilities []string // effective ones of each thread that has any
}

func TestObservingNeedsCapBPFAndCapPerfmonOnly(t *testing.T) {
	if os.Getenv(unprivilegedVar) != "" {
		observeUnprivileged(t)
		return
	}
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF, kerneltest.PSI)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	// The test binary, wherever it is and whoever may go there.
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = []string{unprivilegedVar + "=1"}
	cmd.ExtraFiles = []*os.File{w}
	cmd.Dir = "/"
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Credential:  &syscall.Credential{Uid: 65534, Gid: 65534},
		AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON},
	}
	out, err := cmd.CombinedOutput()
	w.Close()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	var s seen
	if err := json.NewDecoder(r).Decode(&s); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	t.Logf("%+v", s)
	switch {
	case s.UID != 65534:
		t.Errorf("ran as uid %d", s.UID)
	case s.Processes < 2 || s.Cgroups == 0 || s.RunNS == 0:
		t.Error("saw too little of the kernel's side")
	case s.Paths == 0 || s.Host.CPUs == 0 || s.Host.Pressure.CPU.SomeUS == 0:
		t.Error("saw too little of /proc and cgroupfs")
	case s.Lost.Events != 0 || s.Lost.Cells != 0 || s.Lost.Cgroups != 0:
		t.Error("lost something in a small load")
	case (s.Privileges == "given up") != (len(s.Capabilities) == 0):
		t.Errorf("the capabilities are said to be: %s; threads that have any: %q", s.Privileges, s.Capabilities)
	case s.Privileges != "given up" && !strings.Contains(s.Privileges, "before Linux 5.19") && !strings.Contains(s.Privileges, "not supported"):
		t.Errorf("the capabilities are kept: %s", s.Privileges)
	case strings.Contains(s.Privileges, "before Linux 5.19") && kerneltest.Kernel(t, 5, 19):
		t.Errorf("this kernel is later: %s", s.Privileges)
	}
}

// threadsWithCapabilities are those lines of /proc/self/task/TID/status that say that a
// thread has some.
func threadsWithCapabilities(t *testing.T) (lines []string) {
	t.Helper()
	files, err := filepath.Glob("/proc/self/task/*/status")
	if err != nil || len(files) == 0 {
		t.Fatal(files, err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // a thread that has ended
		}
		for line := range strings.Lines(string(text)) {
			if name, set, _ := strings.Cut(line, ":"); (name == "CapEff" || name == "CapPrm" || name == "CapAmb") && strings.Trim(set, "0 \t\n") != "" {
				lines = append(lines, strings.TrimSpace(line))
			}
		}
	}
	return lines
}

func observeUnprivileged(t *testing.T) {
	o, err := Open(100*time.Millisecond, bpf.DefaultSizes)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for _, m := range o.Missing() {
		if !strings.HasPrefix(m.What, "cgroup2 controllers") { // of a hybrid machine
			t.Error(m.Text)
		}
	}
	first := next(t, o)
	for until := time.Now().Add(50 * time.Millisecond); time.Now().Before(until); {
	}
	second := next(t, o)
	s := seen{UID: os.Getuid(), Processes: len(first.Procs.Forked), Host: second.Host, Lost: second.Lost,
		Privileges: o.Privileges(), Capabilities: threadsWithCapabilities(t)}
	for _, c := range second.Cgroups {
		s.Cgroups++
		s.RunNS += c.RunNS
		if c.Path != "" {
			s.Paths++
		}
	}
	// Standard output belongs to the test's own report.
	if err := json.NewEncoder(os.NewFile(3, "answer")).Encode(s); err != nil {
		t.Fatal(err)
	}
}
