package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/internal/disposable"
)

// watched is the breakerd that is tried. It runs in monitor mode with an empty
// configuration: the defaults are what is proved. Like the installed one it has a cgroup
// of its own.
type watched struct {
	client *api.Client
	*disposable.Program
}

// startBound is how long breakerd may take to be ready: 0.1 s, and on an emulated
// processor some seconds.
const startBound = 30 * time.Second

// build makes a program of this checkout.
func build(ctx context.Context, temp, name string) (string, error) {
	path := filepath.Join(temp, name)
	cmd := exec.CommandContext(ctx, "go", "build", "-o", path, "github.com/breakerd/breakerd/cmd/"+name)
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("build %s: %w\n%s", name, err, bytes.TrimSpace(out))
	}
	return path, nil
}

func startWatched(ctx context.Context, path, cgroup, temp string) (*watched, error) {
	config := filepath.Join(temp, "empty.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return nil, err
	}
	run := filepath.Join(temp, "run")
	p, err := disposable.StartIn(cgroup, syscall.SIGKILL, path, "--config", config, "--mode", "monitor", "--runtime-dir", run, "--state-dir", filepath.Join(temp, "state"))
	if err != nil {
		return nil, err
	}
	w := &watched{client: api.NewClient(run), Program: p}
	for deadline := time.Now().Add(startBound); ; {
		err := w.client.Ready(ctx)
		if err == nil {
			return w, nil
		}
		select {
		case <-w.Ended():
			return nil, fmt.Errorf("breakerd did not start:\n%s", w.Output())
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), w.stop())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("breakerd is not ready after %v: %w", startBound, err), w.stop())
		}
	}
}

func (w *watched) stop() error { return w.Stop(10 * time.Second) }
