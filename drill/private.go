package drill

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/internal/disposable"
)

// Private is a breakerd and a breaker-enforcer of the drill's own, side by side with
// whatever is installed. They end with the drill.
type Private struct {
	Client *api.Client
	dir    string
	parts  []*disposable.Program
}

// Dir holds everything that the two programs write.
func (p *Private) Dir() string { return p.dir }

// startBound is how long a program may take to be ready. Loading the kernel programs
// takes 0.1 s, and on an emulated processor a second and more.
const startBound = 15 * time.Second

// StartPrivate starts both programs with a policy that freezes the drill's offenders and
// nothing else. policy is the text of drill.rego.
func StartPrivate(ctx context.Context, policy []byte) (_ *Private, err error) {
	dir, err := os.MkdirTemp("", prefix)
	if err != nil {
		return nil, err
	}
	p := &Private{Client: api.NewClient(filepath.Join(dir, "run")), dir: dir}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.Stop())
		}
	}()
	policies := filepath.Join(dir, "policies")
	if err := errors.Join(os.Mkdir(policies, 0o755), os.WriteFile(filepath.Join(policies, "drill.rego"), policy, 0o644)); err != nil {
		return nil, err
	}
	// The drill is not about the machine's configuration, nor does it wait after a start.
	config := filepath.Join(dir, "breakerd.yaml")
	if err := os.WriteFile(config, []byte("breaker: {start_quiet: 0s}\n"), 0o644); err != nil {
		return nil, err
	}
	// Nor does it wait until the enforcer would be asked anything on a machine that lives.
	enforcer := filepath.Join(dir, "enforcer.yaml")
	if err := os.WriteFile(enforcer, []byte("cooldown: 0s\n"), 0o644); err != nil {
		return nil, err
	}
	dirs := []string{"--runtime-dir", filepath.Join(dir, "run"), "--state-dir", filepath.Join(dir, "state")}
	if err := p.start("breaker-enforcer", append(dirs, "--config", enforcer)...); err != nil {
		return nil, err
	}
	if err := p.start("breakerd", append(dirs, "--config", config, "--mode", "enforce", "--policy", policies)...); err != nil {
		return nil, err
	}
	return p, p.awaitReady(ctx)
}

func (p *Private) start(name string, args ...string) error {
	path, err := sibling(name)
	if err != nil {
		return err
	}
	// They end after the offenders have been let go.
	s, err := disposable.Start(syscall.SIGTERM, path, args...)
	if err != nil {
		return err
	}
	p.parts = append(p.parts, s)
	return nil
}

// sibling finds a program of ours: beside this one, or where packages put it.
func sibling(name string) (string, error) {
	self, err := os.Executable()
	if err != nil {
		return "", err
	}
	for _, dir := range []string{filepath.Dir(self), "/usr/sbin", "/usr/libexec/breakerd"} {
		if path := filepath.Join(dir, name); exec.Command(path, "--version").Run() == nil {
			return path, nil
		}
	}
	return "", fmt.Errorf("%s is neither beside %s nor in /usr/sbin or /usr/libexec/breakerd: build it with make build", name, self)
}

// awaitReady waits until breakerd sees and the enforcer answers it.
func (p *Private) awaitReady(ctx context.Context) error {
	var last error
	for deadline := time.Now().Add(startBound); time.Now().Before(deadline); {
		for _, s := range p.parts {
			select {
			case <-s.Ended():
				return fmt.Errorf("%s did not start:\n%s", s.Name(), s.Output())
			default:
			}
		}
		last = p.Client.Ready(ctx)
		if last == nil {
			status, err := p.Client.Status(ctx)
			if err == nil && status.Enforcer.State == "connected" {
				return nil
			}
			last = errors.Join(err, errors.New("the enforcer: "+status.Enforcer.State))
		}
		if err := sleep(ctx, poll); err != nil {
			return err
		}
	}
	return fmt.Errorf("breakerd is not ready after %v: %w", startBound, last)
}

// Stop ends both programs, breakerd first, and removes their directories.
func (p *Private) Stop() error {
	var errs []error
	for i := len(p.parts) - 1; i >= 0; i-- {
		errs = append(errs, p.parts[i].Stop(startBound))
	}
	return errors.Join(append(errs, os.RemoveAll(p.dir))...)
}

// Output is what the programs said, for a person who looks for what went wrong.
func (p *Private) Output() string {
	var b strings.Builder
	for _, s := range p.parts {
		fmt.Fprintf(&b, "%s:\n%s\n", s.Name(), s.Output())
	}
	return b.String()
}
