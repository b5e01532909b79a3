package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/internal/disposable"
	"github.com/breakerd/breakerd/model"
)

// stage is a scenario that takes place: its cgroups and what runs in them.
type stage struct {
	scenario scenario
	ground   *ground
	path     string // below the mount
	temp     string // files of its own, on the disk
	actors   map[string]*exec.Cmd
	began    time.Time // the innocents
	started  time.Time // the trouble
	ended    time.Time
}

func (st *stage) dir(cgroup string) string {
	return filepath.Join(st.ground.mount, st.path, cgroup)
}

// set makes the cgroups.
func (g *ground) set(s scenario, run int, temp string) (*stage, error) {
	st := &stage{scenario: s, ground: g, path: fmt.Sprintf("%s/%s-%d", g.path, s.name, run), actors: make(map[string]*exec.Cmd)}
	st.temp = filepath.Join(temp, fmt.Sprintf("%s-%d", s.name, run))
	if err := errors.Join(os.Mkdir(st.temp, 0o755), os.Mkdir(st.dir(""), 0o755)); err != nil {
		return nil, err
	}
	// A scenario's cgroups share its part of the CPUs, as those of a hybrid host do, but
	// where one of them has a quota.
	give := []string{"memory", "io"}
	for _, l := range s.limits {
		if strings.HasPrefix(l.file, "cpu.") {
			give = append(give, "cpu")
		}
	}
	for _, c := range give {
		// What is not there, no scenario that needs it comes here without.
		_ = os.WriteFile(filepath.Join(st.dir(""), "cgroup.subtree_control"), []byte("+"+c), 0)
	}
	for _, a := range s.actors {
		if err := os.MkdirAll(st.dir(a.cgroup), 0o755); err != nil {
			return nil, err
		}
	}
	for _, c := range s.culprits { // one may be where nobody is yet
		if err := os.MkdirAll(st.dir(c), 0o755); err != nil {
			return nil, err
		}
	}
	for _, l := range s.limits {
		if err := os.WriteFile(filepath.Join(st.dir(l.cgroup), l.file), []byte(l.value), 0); err != nil {
			return nil, fmt.Errorf("limit %s: %w", l.cgroup, err)
		}
	}
	if s.file > 0 {
		// Here and not in a worker: it is no part of the load.
		if _, err := (&worker{file: dataFile, mb: s.file, temp: st.temp}).makeFile(); err != nil {
			return nil, err
		}
	}
	return st, nil
}

// start starts the actors that are there from the beginning, or those that come late.
func (st *stage) start(late bool) error {
	for _, a := range st.scenario.actors {
		if a.late != late {
			continue
		}
		// From its first instruction on it is in its cgroup (Linux 5.7).
		dir, err := os.Open(st.dir(a.cgroup))
		if err != nil {
			return err
		}
		args := append([]string{"-temp", st.temp}, a.args...)
		cmd := command(a.kind, args...)
		cmd.Dir = st.temp
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
		cmd.SysProcAttr.Setpgid = true
		err = cmd.Start()
		dir.Close()
		if err != nil {
			return fmt.Errorf("start %s: %w", a.name, err)
		}
		st.actors[a.name] = cmd
	}
	return nil
}

// died names actors that ended with an error, which is a mistake of the scenario.
func (st *stage) died() string {
	for name, cmd := range st.actors {
		var status syscall.WaitStatus
		pid, err := syscall.Wait4(cmd.Process.Pid, &status, syscall.WNOHANG, nil)
		if err == nil && pid > 0 && status != 0 {
			return fmt.Sprintf("%s ended (status %#x)", name, uint32(status))
		}
	}
	return ""
}

// end kills what runs.
func (st *stage) end() {
	dir := st.dir("")
	for _, cmd := range st.actors {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = disposable.Clear(dir, prefix) // the ground is cleared again at the end, and tells then
	for _, cmd := range st.actors {
		_ = cmd.Wait() // it was killed
	}
	_ = os.RemoveAll(st.temp)
}

// ids are the kernel's ids of the scenario's cgroups, which are their inodes.
func (st *stage) ids() map[model.CgroupID]string {
	ids := make(map[model.CgroupID]string)
	_ = filepath.WalkDir(st.dir(""), func(path string, d fs.DirEntry, err error) error {
		var stat unix.Stat_t
		if err == nil && d.IsDir() && unix.Stat(path, &stat) == nil {
			ids[model.CgroupID(stat.Ino)] = strings.TrimPrefix(path, st.ground.mount)
		}
		return nil
	})
	return ids
}

// pause ends the offenders only, so that the victims' figures can be read at rest.
func (st *stage) pause() {
	for _, a := range st.scenario.actors {
		if cmd := st.actors[a.name]; cmd != nil && a.late {
			_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		}
	}
}

// delay is how long the tasks of a cgroup waited for a CPU since they began, by the
// kernel's own account.
func (st *stage) delay(cgroup string) time.Duration {
	text, _ := os.ReadFile(filepath.Join(st.dir(cgroup), "cgroup.procs"))
	var sum time.Duration
	for pid := range strings.FieldsSeq(string(text)) {
		sum += runDelay("/proc/" + pid)
	}
	return sum
}

// blamed is how long breakerd says that the tasks of a cgroup waited, since they began.
func blamed(ctx context.Context, c *api.Client, path string) (time.Duration, error) {
	b, err := c.Blame(ctx, 0)
	if err != nil {
		return 0, err
	}
	for _, v := range b.Victims {
		if v.Cgroup.Cgroup == path {
			return time.Duration(v.WaitMS * float64(time.Millisecond)), nil
		}
	}
	return 0, nil
}

// pressure is the total of a line, some or full, of a file of pressure.
func pressure(path, line string) time.Duration {
	text, _ := os.ReadFile(path)
	for l := range strings.Lines(string(text)) {
		if kind, rest, _ := strings.Cut(l, " "); kind == line {
			if _, total, ok := strings.Cut(strings.TrimSpace(rest), "total="); ok {
				us, _ := strconv.ParseInt(total, 10, 64)
				return time.Duration(us) * time.Microsecond
			}
		}
	}
	return 0
}

// busy is how much CPU time has been used: by all, by what is below our ground, and by
// this process and breakerd.
type busy struct{ all, ground, proof time.Duration }

func (g *ground) busy(breakerd int) busy {
	var b busy
	// cpu.stat's usage_usec is there without the cpu controller, too.
	text, _ := os.ReadFile(filepath.Join(g.dir(), "cpu.stat"))
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, "usage_usec "); ok {
			us, _ := strconv.ParseInt(strings.TrimSpace(rest), 10, 64)
			b.ground = time.Duration(us) * time.Microsecond
		}
	}
	const tick = 10 * time.Millisecond // of USER_HZ
	text, _ = os.ReadFile("/proc/stat")
	line, _, _ := strings.Cut(string(text), "\n")
	for i, f := range strings.Fields(line) {
		// user nice system idle iowait irq softirq
		if n, err := strconv.Atoi(f); err == nil && i <= 7 && i != 4 && i != 5 {
			b.all += time.Duration(n) * tick
		}
	}
	for _, pid := range []string{"self", strconv.Itoa(breakerd)} {
		text, _ := os.ReadFile("/proc/" + pid + "/stat")
		if _, rest, ok := strings.Cut(string(text), ") "); ok {
			if f := strings.Fields(rest); len(f) > 13 {
				user, _ := strconv.Atoi(f[11])
				system, _ := strconv.Atoi(f[12])
				b.proof += time.Duration(user+system) * tick
			}
		}
	}
	return b
}

// outside is how much of a CPU others used between two moments, in percent of one.
func outside(before, after busy, took time.Duration) float64 {
	others := (after.all - before.all) - (after.ground - before.ground) - (after.proof - before.proof)
	return max(0, 100*others.Seconds()/took.Seconds())
}

// fields are the numbers of a file such as cgroup.procs.
func fields(text []byte) []int {
	var all []int
	for f := range strings.FieldsSeq(string(text)) {
		if n, err := strconv.Atoi(f); err == nil {
			all = append(all, n)
		}
	}
	return all
}
