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
)

// watched is the breakerd that is tried. It runs in monitor mode with an empty
// configuration: the defaults are what is proved.
type watched struct {
	client *api.Client
	cmd    *exec.Cmd
	output bytes.Buffer
	ended  chan struct{}
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

func startWatched(ctx context.Context, path, temp string) (*watched, error) {
	config := filepath.Join(temp, "empty.yaml")
	if err := os.WriteFile(config, nil, 0o600); err != nil {
		return nil, err
	}
	run := filepath.Join(temp, "run")
	w := &watched{client: api.NewClient(run), ended: make(chan struct{})}
	w.cmd = exec.Command(path, "--config", config, "--mode", "monitor", "--runtime-dir", run, "--state-dir", filepath.Join(temp, "state"))
	w.cmd.Stdout, w.cmd.Stderr = &w.output, &w.output
	w.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGKILL}
	if err := w.cmd.Start(); err != nil {
		return nil, fmt.Errorf("start %s: %w", path, err)
	}
	go func() {
		_ = w.cmd.Wait() // whoever waits for ended looks at how it ended
		close(w.ended)
	}()
	for deadline := time.Now().Add(startBound); ; {
		err := w.client.Ready(ctx)
		if err == nil {
			return w, nil
		}
		select {
		case <-w.ended:
			return nil, fmt.Errorf("breakerd did not start:\n%s", bytes.TrimSpace(w.output.Bytes()))
		case <-ctx.Done():
			return nil, errors.Join(context.Cause(ctx), w.stop())
		case <-time.After(100 * time.Millisecond):
		}
		if time.Now().After(deadline) {
			return nil, errors.Join(fmt.Errorf("breakerd is not ready after %v: %w", startBound, err), w.stop())
		}
	}
}

func (w *watched) stop() error {
	_ = w.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-w.ended:
		return nil
	case <-time.After(10 * time.Second):
		return errors.Join(errors.New("breakerd did not end when asked"), w.cmd.Process.Kill())
	}
}
