package observe

import (
	"encoding/json"
	"os"
	"os/exec"
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
	}
}

func observeUnprivileged(t *testing.T) {
	o, err := Open(100*time.Millisecond, bpf.DefaultSizes)
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	if problems := o.Problems(); len(problems) > 0 {
		t.Error(problems)
	}
	first := next(t, o)
	for until := time.Now().Add(50 * time.Millisecond); time.Now().Before(until); {
	}
	second := next(t, o)
	s := seen{UID: os.Getuid(), Processes: len(first.Procs.Forked), Host: second.Host, Lost: second.Lost}
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
