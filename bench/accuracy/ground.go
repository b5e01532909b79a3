package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"github.com/breakerd/breakerd/internal/disposable"
)

// prefix begins the name of everything that is made outside this process.
const prefix = "breakerd-accuracy-"

// ground is the disposable part of the cgroup tree below which everything happens.
type ground struct {
	mount string
	path  string   // below the mount
	added []string // controllers that the root did not give to its children before
}

// newGround makes it, with the controllers that there are, and clears away what was left
// by a run that was killed together with its janitor.
func newGround(p *place) (*ground, error) {
	disposable.Sweep(p.mount, prefix)
	g := &ground{mount: p.mount, path: fmt.Sprintf("/%s%d", prefix, os.Getpid())}
	if err := os.Mkdir(g.dir(), 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup: %w: run as root", err)
	}
	before, err := os.ReadFile(filepath.Join(g.mount, "cgroup.subtree_control"))
	if err != nil {
		return nil, errors.Join(err, g.clear())
	}
	for _, c := range []string{"cpu", "memory", "io", "pids"} {
		if !slices.Contains(p.controllers, c) {
			continue
		}
		if !slices.Contains(strings.Fields(string(before)), c) {
			g.added = append(g.added, c)
		}
		for _, dir := range []string{g.mount, g.dir()} {
			if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte("+"+c), 0); err != nil {
				return nil, errors.Join(fmt.Errorf("give %s to the children of %s: %w", c, dir, err), g.clear())
			}
		}
	}
	return g, nil
}

func (g *ground) dir() string { return filepath.Join(g.mount, g.path) }

// clear ends what runs, removes the cgroups, and takes back the controllers.
func (g *ground) clear() error {
	errs := []error{disposable.Clear(g.dir(), prefix)}
	for _, c := range g.added {
		// Somebody may have come to need it meanwhile, and then the kernel keeps it (EBUSY).
		_ = os.WriteFile(filepath.Join(g.mount, "cgroup.subtree_control"), []byte("-"+c), 0)
	}
	return errors.Join(errs...)
}

// janitor starts the process that clears up if this one is killed. It waits for the end
// of its standard input, whose other end only this process holds.
func (g *ground) janitor(temp string) (stop func() error, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	args := append([]string{"-mount", g.mount, "-path", g.path, "-temp", temp}, g.added...)
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), workerVar+"=janitor")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true} // a terminal's Ctrl-C is not for it
	stdin, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the janitor: %w", err)
	}
	return func() error { return errors.Join(stdin.Close(), cmd.Wait()) }, nil
}

// tidy is the janitor's whole life.
func tidy(mount, path, temp string, added []string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	g := &ground{mount: mount, path: path, added: added}
	err := g.clear()
	if filepath.IsAbs(temp) && strings.HasPrefix(filepath.Base(temp), prefix) {
		err = errors.Join(err, os.RemoveAll(temp))
	}
	return err
}
