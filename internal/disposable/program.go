package disposable

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"
)

// Program is a program that was started, and what it said.
type Program struct {
	cmd    *exec.Cmd
	output output
	ended  chan struct{}
}

// output is what a program has said so far.
type output struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (o *output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.text.Write(p)
}

// Start starts a program that must not outlive this one: it is sent the signal then. A
// terminal's Ctrl-C is not for it, so that it ends after everything else.
func Start(orphaned syscall.Signal, path string, args ...string) (*Program, error) {
	return start(&syscall.SysProcAttr{Pdeathsig: orphaned, Setpgid: true}, path, args)
}

// StartSession does so in a session of its own, as systemd starts a service: where the kernel
// groups tasks by session, nobody else is in its group.
func StartSession(orphaned syscall.Signal, path string, args ...string) (*Program, error) {
	return start(&syscall.SysProcAttr{Pdeathsig: orphaned, Setsid: true}, path, args)
}

// StartIn does so in a cgroup, named by its directory, from the program's first
// instruction on (Linux 5.7).
func StartIn(cgroup string, orphaned syscall.Signal, path string, args ...string) (*Program, error) {
	dir, err := os.Open(cgroup)
	if err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	defer dir.Close()
	return start(&syscall.SysProcAttr{Pdeathsig: orphaned, Setpgid: true, UseCgroupFD: true, CgroupFD: int(dir.Fd())}, path, args)
}

func start(attr *syscall.SysProcAttr, path string, args []string) (*Program, error) {
	p := &Program{cmd: exec.Command(path, args...), ended: make(chan struct{})}
	p.cmd.Stdout, p.cmd.Stderr = &p.output, &p.output
	p.cmd.SysProcAttr = attr
	if err := p.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	go func() {
		_ = p.cmd.Wait() // whoever waits for the end looks at how it ended
		close(p.ended)
	}()
	return p, nil
}

// Name is the program's, without its directory.
func (p *Program) Name() string { return filepath.Base(p.cmd.Path) }

// PID is its process's.
func (p *Program) PID() int { return p.cmd.Process.Pid }

// Ended is closed when it has ended.
func (p *Program) Ended() <-chan struct{} { return p.ended }

// Output is what it has said so far, on both outputs.
func (p *Program) Output() string {
	p.output.mu.Lock()
	defer p.output.mu.Unlock()
	return string(bytes.TrimSpace(p.output.text.Bytes()))
}

// Stop asks it to end, and kills it where it does not within the bound, which is an error.
func (p *Program) Stop(bound time.Duration) error {
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
		return nil
	case <-time.After(bound):
		err := errors.Join(fmt.Errorf("%s did not end when asked", p.Name()), p.cmd.Process.Kill())
		<-p.ended
		return err
	}
}
