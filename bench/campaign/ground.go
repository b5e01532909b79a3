package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/internal/disposable"
	"github.com/breakerd/breakerd/model"
)

// prefix begins the names of all that is made.
const prefix = "breakerd-campaign-"

// ground holds every cgroup that is made, below one of our own.
type ground struct {
	mount, path string
	added       []string // controllers that were given to the children of the root
	controllers []string // that our cgroups have
	memory      string   // where cgroups with a limit of memory can be made; "" if nowhere
}

func newGround() (*ground, error) {
	mount, err := cgroupctl.FindRoot()
	if err != nil {
		return nil, err
	}
	disposable.Sweep(mount, prefix)
	g := &ground{mount: mount, path: "/" + prefix + strconv.Itoa(os.Getpid())}
	there, err := os.ReadFile(filepath.Join(mount, "cgroup.controllers"))
	if err != nil {
		return nil, err
	}
	given, err := os.ReadFile(filepath.Join(mount, "cgroup.subtree_control"))
	if err != nil {
		return nil, err
	}
	for _, c := range []string{"cpu", "memory", "pids"} {
		if !slices.Contains(strings.Fields(string(there)), c) {
			continue
		}
		g.controllers = append(g.controllers, c)
		if !slices.Contains(strings.Fields(string(given)), c) {
			g.added = append(g.added, c)
		}
	}
	if err := os.Mkdir(g.dir(), 0o755); err != nil {
		return nil, err
	}
	if err := errors.Join(control(mount, "+", g.added), control(g.dir(), "+", g.controllers)); err != nil {
		return nil, errors.Join(err, g.clear())
	}
	g.memory = g.dir()
	if !slices.Contains(g.controllers, "memory") {
		// On a hybrid host the memory controller is a hierarchy of its own.
		const v1 = "/sys/fs/cgroup/memory"
		g.memory = ""
		if _, err := os.Stat(v1 + "/memory.limit_in_bytes"); err == nil {
			disposable.Sweep(v1, prefix)
			g.memory = v1 + g.path
			if err := os.Mkdir(g.memory, 0o755); err != nil {
				return nil, errors.Join(err, g.clear())
			}
		}
	}
	return g, nil
}

func (g *ground) dir() string { return g.mount + g.path }

// control gives controllers to the cgroups below a directory, or takes them back.
func control(dir, sign string, controllers []string) error {
	for _, c := range controllers {
		if err := os.WriteFile(filepath.Join(dir, "cgroup.subtree_control"), []byte(sign+c), 0); err != nil {
			return err
		}
	}
	return nil
}

func (g *ground) clear() error {
	err := disposable.Clear(g.dir(), prefix)
	if g.memory != "" && g.memory != g.dir() {
		err = errors.Join(err, disposable.Clear(g.memory, prefix))
	}
	return errors.Join(err, control(g.mount, "-", g.added))
}

// group is a cgroup under test.
type group struct {
	kind kind
	dir  string
	ref  cgroupctl.Ref
	// root is at the root of the tree, and members are processes that must be in the cgroup
	// itself, whatever was done.
	root    model.ProcID
	members []int
	// original is what every file held before anything was done.
	original map[string]string
}

// kind is what is done to a cgroup.
type kind string

const (
	whole    kind = "freeze"          // the cgroup holds the tree and nobody else
	apart    kind = "isolated freeze" // the tree is moved away from somebody else
	throttle kind = "throttle"
)

// tree is what is frozen: processes that sleep, and one that forks all the time.
const tree = "sleep 3600 & sleep 3600 & while :; do sleep 0.05; done"

// newGroup makes a cgroup with a tree of processes, which a shell makes.
func (g *ground) newGroup(name string, k kind, sh string) (*group, error) {
	c := &group{kind: k, dir: filepath.Join(g.dir(), name)}
	if err := os.Mkdir(c.dir, 0o755); err != nil {
		return nil, err
	}
	var st unix.Stat_t
	if err := unix.Stat(c.dir, &st); err != nil {
		return nil, err
	}
	c.ref = cgroupctl.Ref{Path: c.dir[len(g.mount):], ID: model.CgroupID(st.Ino)}
	if k == apart {
		pid, err := c.run("sleep", "3600")
		if err != nil {
			return nil, err
		}
		c.members = append(c.members, pid)
		time.Sleep(30 * time.Millisecond) // it is older than the tree, in ticks of 10 ms
	}
	if k == throttle { // limits of its own, of which each must come back
		for file, value := range map[string]string{"cpu.max": "190000 95000", "memory.high": "805306368", "pids.max": "700"} {
			if err := os.WriteFile(filepath.Join(c.dir, file), []byte(value), 0); err != nil {
				return nil, err
			}
		}
	}
	root, err := c.run("sh", "-c", sh)
	if err != nil {
		return nil, err
	}
	c.members = append(c.members, root)
	start, err := startTime(root)
	if err != nil {
		return nil, err
	}
	c.root = model.ProcID{PID: int32(root), StartTime: start}
	c.original, err = snapshot(c.dir)
	return c, err
}

// run starts something in the cgroup from its first instruction on.
func (c *group) run(name string, args ...string) (pid int, err error) {
	dir, err := os.Open(c.dir)
	if err != nil {
		return 0, err
	}
	defer dir.Close()
	cmd := exec.Command(name, args...)
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setsid: true}
	if err := cmd.Start(); err != nil {
		return 0, err
	}
	go cmd.Wait() // reaps it, however it ends
	return cmd.Process.Pid, nil
}

// snapshot is every file of a cgroup, and of those below it, that somebody can write and
// that does not change by itself.
func snapshot(dir string) (map[string]string, error) {
	files := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		name := e.Name()
		if e.IsDir() {
			below, err := snapshot(filepath.Join(dir, name))
			if err != nil {
				return nil, err
			}
			files[name] = "a cgroup"
			for file, text := range below {
				files[name+"/"+file] = text
			}
			continue
		}
		info, err := e.Info()
		if err != nil {
			return nil, err
		}
		counts := strings.HasSuffix(name, ".pressure") && name != "cgroup.pressure" || strings.HasSuffix(name, ".peak") ||
			name == "cgroup.procs" || name == "cgroup.threads"
		if info.Mode().Perm()&0o600 != 0o600 || counts {
			continue
		}
		text, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return nil, err
		}
		files[name] = strings.TrimSpace(string(text))
	}
	return files, nil
}

// differs says what is not as it was; "" if nothing is.
func (c *group) differs() string {
	now, err := snapshot(c.dir)
	if err != nil {
		return err.Error() // a cgroup below that goes just now
	}
	for file, text := range now {
		if was, ok := c.original[file]; !ok || was != text {
			return fmt.Sprintf("%s of %s holds %q, and held %q", file, c.ref, text, was)
		}
	}
	for file := range c.original {
		if _, ok := now[file]; !ok {
			return fmt.Sprintf("%s of %s is gone", file, c.ref)
		}
	}
	events, err := os.ReadFile(filepath.Join(c.dir, "cgroup.events"))
	if err != nil || strings.Contains(string(events), "frozen 1") {
		return fmt.Sprintf("%s stands still (%v)", c.ref, err)
	}
	procs, err := os.ReadFile(filepath.Join(c.dir, "cgroup.procs"))
	if err != nil {
		return err.Error()
	}
	there := strings.Fields(string(procs))
	for _, pid := range c.members {
		if !slices.Contains(there, strconv.Itoa(pid)) {
			return fmt.Sprintf("process %d is not in %s", pid, c.ref)
		}
	}
	return ""
}

// startTime is the 22nd field of /proc/PID/stat.
func startTime(pid int) (uint64, error) {
	fields, err := stat(fmt.Sprintf("/proc/%d", pid))
	if err != nil {
		return 0, err
	}
	return strconv.ParseUint(fields[22-3], 10, 64)
}

// stat is the stat of a directory of /proc, from its third field on.
func stat(dir string) ([]string, error) {
	text, err := os.ReadFile(dir + "/stat")
	if err != nil {
		return nil, err
	}
	fields := strings.Fields(string(text[strings.LastIndexByte(string(text), ')')+1:]))
	if len(fields) < 22 {
		return nil, fmt.Errorf("%s/stat: too short", dir)
	}
	return fields, nil
}
