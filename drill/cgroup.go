package drill

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/disposable"
)

// prefix begins the name of every cgroup that a drill makes; the shipped policy drill.rego
// acts on nothing else.
const prefix = "breakerd-drill-"

// ground is the disposable part of the cgroup tree in which a drill takes place.
type ground struct {
	mount string
	path  string // below the mount
}

// newGround makes it, and clears away what a drill left that was killed.
func newGround(mount string) (*ground, error) {
	disposable.Sweep(mount, prefix)
	g := &ground{mount: mount, path: fmt.Sprintf("/%s%d", prefix, os.Getpid())}
	if err := os.Mkdir(g.dir(), 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup for the drill: %w: run as root", err)
	}
	return g, nil
}

func (g *ground) dir() string { return filepath.Join(g.mount, g.path) }

// child makes a cgroup within the ground.
func (g *ground) child(name string) (*ground, error) {
	c := &ground{mount: g.mount, path: g.path + "/" + name}
	if err := os.Mkdir(c.dir(), 0o755); err != nil {
		return nil, fmt.Errorf("make a cgroup for the drill: %w", err)
	}
	return c, nil
}

// start runs a command in the cgroup, from its first instruction on (Linux 5.7).
func (g *ground) start(cmd *exec.Cmd) error {
	dir, err := os.Open(g.dir())
	if err != nil {
		return err
	}
	defer dir.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start %s in %s: %w", cmd.Path, g.path, err)
	}
	return nil
}

// frozen reports whether the kernel says that everything in the cgroup stands still.
func (g *ground) frozen() bool {
	text, err := os.ReadFile(filepath.Join(g.dir(), "cgroup.events"))
	return err == nil && strings.Contains(string(text), "frozen 1")
}

// processes counts those in the cgroup.
func (g *ground) processes() int {
	text, _ := os.ReadFile(filepath.Join(g.dir(), "cgroup.procs"))
	return len(strings.Fields(string(text)))
}

// awaitFrozen waits until the cgroup is frozen, or thawed, and says when it saw that. It
// asks the kernel, not breakerd.
func (g *ground) awaitFrozen(want bool, bound time.Duration) (time.Time, bool) {
	f, err := os.Open(filepath.Join(g.dir(), "cgroup.events"))
	if err != nil {
		return time.Time{}, false
	}
	defer f.Close()
	for deadline := time.Now().Add(bound); ; {
		if g.frozen() == want {
			return time.Now(), true
		}
		left := time.Until(deadline)
		if left <= 0 {
			return time.Time{}, false
		}
		// The file is readable by exception after each change. A change between the look
		// and the wait is not missed for longer than this.
		left = min(left, 10*time.Millisecond)
		_, _ = unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, int(left.Milliseconds())+1)
		_, _ = f.ReadAt(make([]byte, 128), 0) // arms the next notification
	}
}

// Clear kills everything below a directory of a drill, and removes it.
func Clear(dir string) error { return disposable.Clear(dir, prefix) }
