// Package disposable makes what a drill and the proof of accuracy need for a while, and
// takes it away again: cgroups with whatever runs in them, and programs.
package disposable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// Sweep clears the cgroups below a mount that are called prefix and the pid of a process
// that does not run any more: it was killed, and could not clear up itself.
func Sweep(mount, prefix string) {
	left, _ := filepath.Glob(filepath.Join(mount, prefix+"*"))
	for _, dir := range left {
		pid, err := strconv.Atoi(strings.TrimPrefix(filepath.Base(dir), prefix))
		if err == nil && errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) {
			_ = Clear(dir, prefix) // somebody else's leftovers: the next one tries again
		}
	}
}

// clearBound is how long killed processes may take to leave their cgroup.
const clearBound = 5 * time.Second

// Clear kills everything below a directory and removes it. One that neither is called
// prefix and something, nor lies below such a one, is left alone.
func Clear(dir, prefix string) error {
	if !strings.Contains(filepath.Clean(dir), "/"+prefix) {
		return fmt.Errorf("clear %s: not a cgroup of ours", dir)
	}
	for until := time.Now().Add(clearBound); ; time.Sleep(20 * time.Millisecond) {
		err := clearOnce(dir)
		if err == nil {
			return nil
		}
		if time.Now().After(until) {
			return fmt.Errorf("clear %s: %w", dir, err)
		}
	}
}

func clearOnce(dir string) error {
	dirs := below(dir)
	for _, d := range dirs { // Linux before 5.14 kills nobody who stands still
		_ = os.WriteFile(filepath.Join(d, "cgroup.freeze"), []byte("0"), 0)
	}
	Kill(dir)
	for _, d := range slices.Backward(dirs) {
		if err := unix.Rmdir(d); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove %s: %w", d, err)
		}
	}
	return nil
}

// below lists a directory and those in it, parents first.
func below(dir string) (dirs []string) {
	_ = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err == nil && d.IsDir() {
			dirs = append(dirs, path)
		}
		return nil // what vanishes meanwhile is cleared already
	})
	return dirs
}

// Kill kills everything in a cgroup and below, frozen or not.
func Kill(dir string) {
	if os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0) != nil { // since 5.14
		killEach(below(dir))
	}
}

// killEach stops everything before it kills: what stands still cannot fork away from it.
func killEach(dirs []string) {
	for _, d := range dirs {
		_ = os.WriteFile(filepath.Join(d, "cgroup.freeze"), []byte("1"), 0)
	}
	for _, d := range dirs {
		text, _ := os.ReadFile(filepath.Join(d, "cgroup.procs"))
		for line := range strings.FieldsSeq(string(text)) {
			if pid, err := strconv.Atoi(line); err == nil && pid > 1 {
				_ = syscall.Kill(pid, syscall.SIGKILL)
			}
		}
		_ = os.WriteFile(filepath.Join(d, "cgroup.freeze"), []byte("0"), 0)
	}
}
