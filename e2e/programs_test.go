// Package e2e runs the real programs against each other on a real kernel.
package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/policy"
)

// bin is where the programs are: BREAKERD_BIN, or bin/ of the checkout.
func bin(t testing.TB, name string) string {
	t.Helper()
	dir := os.Getenv("BREAKERD_BIN")
	if dir == "" {
		dir = "../bin"
	}
	path, err := filepath.Abs(filepath.Join(dir, name))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Fatalf("%v: run make build first", err)
	}
	return path
}

// house is a breakerd and a breaker-enforcer side by side in directories of their own.
type house struct {
	t                      *testing.T
	dir, run, state, rules string
	client                 *api.Client
	enforcerConfig         string
}

func newHouse(t *testing.T) *house {
	t.Helper()
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF, kerneltest.PSI)
	dir := t.TempDir()
	h := &house{t: t, dir: dir, run: filepath.Join(dir, "run"), state: filepath.Join(dir, "state"), rules: filepath.Join(dir, "rules")}
	h.client = api.NewClient(h.run)
	h.enforcerConfig = h.file("enforcer.yaml", "cooldown: 0s\n")
	return h
}

func (h *house) file(name, text string) string {
	h.t.Helper()
	path := filepath.Join(h.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		h.t.Fatal(err)
	}
	return path
}

// drillPolicy puts the shipped policy of the drill among the rules.
func (h *house) drillPolicy() {
	h.t.Helper()
	f, err := policy.Shipped().Open("drill.rego")
	if err != nil {
		h.t.Fatal(err)
	}
	defer f.Close()
	var text bytes.Buffer
	if _, err := text.ReadFrom(f); err != nil {
		h.t.Fatal(err)
	}
	h.file("rules/drill.rego", text.String())
}

// program is one of ours, running.
type program struct {
	t      *testing.T
	cmd    *exec.Cmd
	mu     sync.Mutex
	output bytes.Buffer
	ended  chan struct{}
}

func (p *program) Write(b []byte) (int, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.Write(b)
}

func (p *program) said() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.output.String()
}

func (h *house) start(name string, args ...string) *program {
	h.t.Helper()
	args = append(args, "--runtime-dir", h.run, "--state-dir", h.state)
	p := &program{t: h.t, cmd: exec.Command(bin(h.t, name), args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = p, p
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGTERM}
	if err := p.cmd.Start(); err != nil {
		h.t.Fatal(err)
	}
	go func() {
		p.cmd.Wait()
		close(p.ended)
	}()
	h.t.Cleanup(func() {
		p.signal(syscall.SIGTERM)
		if h.t.Failed() {
			h.t.Logf("%s said:\n%s", name, p.said())
		}
	})
	return p
}

// signal ends the program and waits until it has ended.
func (p *program) signal(s syscall.Signal) {
	p.t.Helper()
	p.cmd.Process.Signal(s)
	select {
	case <-p.ended:
	case <-time.After(20 * time.Second):
		p.cmd.Process.Kill()
		p.t.Errorf("%s did not end within 20 s of %v", p.cmd.Path, s)
	}
}

func (h *house) enforcer() *program { return h.start("breaker-enforcer", "--config", h.enforcerConfig) }

func (h *house) breakerd(mode string, args ...string) *program {
	return h.start("breakerd", append(args, "--config", h.file("breakerd.yaml", "breaker: {start_quiet: 0s}\n"), "--mode", mode, "--policy", h.rules)...)
}

// ready waits until breakerd sees, and the enforcer answers it where it has to.
func (h *house) ready() {
	h.t.Helper()
	h.eventually(15*time.Second, "breakerd is ready", func(ctx context.Context) bool {
		s, err := h.client.Status(ctx)
		return err == nil && s.Samples > 0 && s.Enforcer.State != "unreachable"
	})
}

func (h *house) eventually(bound time.Duration, what string, ok func(context.Context) bool) {
	h.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), bound)
	defer cancel()
	for !ok(ctx) {
		select {
		case <-ctx.Done():
			h.t.Fatalf("%v passed, and it is not so that %s", bound, what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// ctl runs breakerctl and returns what it wrote.
func (h *house) ctl(args ...string) (stdout string, err error) {
	h.t.Helper()
	var out, errs bytes.Buffer
	cmd := exec.Command(bin(h.t, "breakerctl"), append(args, "--runtime-dir", h.run)...)
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err = cmd.Run(); err != nil {
		err = errors.Join(err, errors.New(errs.String()))
	}
	return out.String(), err
}

func decode[T any](t *testing.T, text string) T {
	t.Helper()
	var v T
	if err := json.Unmarshal([]byte(text), &v); err != nil {
		t.Fatalf("%v in: %s", err, text)
	}
	return v
}
