package e2e

import (
	"context"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

// breakerd as it is installed: a user of its own with two capabilities, which it gives up
// once all is attached, on every thread, and goes on seeing.
func TestBreakerdGivesItsCapabilitiesUpAndGoesOnSeeing(t *testing.T) {
	h := newHouse(t)
	const nobody = 65534
	for _, dir := range []string{h.run, h.state} {
		if err := os.Mkdir(dir, 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Chown(dir, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	// The program, wherever it is and whoever may go there.
	program, err := os.Open(bin(t, "breakerd"))
	if err != nil {
		t.Fatal(err)
	}
	defer program.Close()
	if err := os.Chmod(h.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for dir := h.dir; dir != "/"; dir = filepath.Dir(dir) {
		if info, err := os.Stat(dir); err != nil || info.Mode()&0o001 == 0 {
			os.Chmod(dir, 0o755)
		}
	}
	config := h.file("breakerd.yaml", "policies: {paths: []}\n")
	cmd := exec.Command("/proc/self/fd/3", "--config", config, "--runtime-dir", h.run, "--state-dir", h.state)
	cmd.ExtraFiles = []*os.File{program}
	cmd.Dir = "/"
	cmd.Stderr = t.Output()
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Pdeathsig:   syscall.SIGTERM,
		Credential:  &syscall.Credential{Uid: nobody, Gid: nobody},
		AmbientCaps: []uintptr{unix.CAP_BPF, unix.CAP_PERFMON},
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { cmd.Process.Signal(syscall.SIGTERM); cmd.Wait() })
	h.ready()
	h.eventually(5*time.Second, "it says what became of its capabilities", func(ctx context.Context) bool {
		s, err := h.client.Status(ctx)
		return err == nil && s.Privileges != ""
	})
	s, err := h.client.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if given := s.Privileges == "given up"; given != kerneltest.Kernel(t, 5, 19) {
		t.Errorf("on %s: %s", s.Kernel, s.Privileges)
	} else if given {
		files, _ := filepath.Glob("/proc/" + strconv.Itoa(cmd.Process.Pid) + "/task/*/status")
		if len(files) < 2 {
			t.Fatalf("threads: %q", files)
		}
		for _, file := range files {
			text, _ := os.ReadFile(file)
			for line := range strings.Lines(string(text)) {
				if name, set, _ := strings.Cut(line, ":"); name == "CapEff" || name == "CapPrm" || name == "CapAmb" {
					if strings.Trim(set, "0 \t\n") != "" {
						t.Errorf("%s: %s", file, line)
					}
				}
			}
		}
	}
	// It goes on: a storm is still seen, with its tree.
	load := exec.Command("sh", "-c", storm)
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { load.Process.Kill(); load.Wait() })
	h.eventually(15*time.Second, "a storm is seen without capabilities", func(ctx context.Context) bool {
		all, _ := h.client.Incidents(ctx)
		for _, in := range all {
			if in.Culprit.Root.PID == int32(load.Process.Pid) {
				return true
			}
		}
		return false
	})
	out, err := h.ctl("doctor", "-o", "json")
	var said struct {
		Findings []struct{ Name, Status, Detail, Advice string }
	}
	if jerr := json.Unmarshal([]byte(out), &said); jerr != nil {
		t.Fatalf("%v, %v: %s", err, jerr, out)
	}
	for _, f := range said.Findings {
		if f.Name == "privileges" && (f.Status != "ok" || !strings.Contains(f.Detail, "uid 65534")) {
			t.Errorf("doctor says %+v", f)
		}
		if f.Name == "samples" && f.Status != "ok" {
			t.Errorf("doctor says %+v", f)
		}
	}
}
