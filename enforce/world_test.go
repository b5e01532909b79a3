package enforce

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// world is a machine in memory: cgroups that are a Fake, and processes that are
// files like those of proc.
type world struct {
	t     testing.TB
	fake  *cgroupctl.Fake
	proc  string
	state string
	log   *recorded
	e     *Engine
	n     int
}

const (
	testSelf  = 900  // the enforcer's pid
	testTicks = 1e6  // the time since boot
	oldStart  = 1000 // of processes that have been there for long
	newStart  = testTicks - 300
)

type recorded struct {
	mu      sync.Mutex
	leases  []model.Lease
	refused []model.Outcome
	asked   []model.Approval
}

func (r *recorded) Lease(l model.Lease) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.leases = append(r.leases, l)
}

func (r *recorded) Refused(_ model.Decision, o model.Outcome) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.refused = append(r.refused, o)
}

func (r *recorded) Approval(a model.Approval) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asked = append(r.asked, a)
}

// newWorld has pid 1, a hundred old processes and the enforcer.
func newWorld(t testing.TB) *world {
	w := &world{t: t, fake: cgroupctl.NewFake(), proc: t.TempDir(), state: t.TempDir(), log: &recorded{}}
	w.process(1, 0, 1, "systemd", "/usr/lib/systemd/systemd")
	w.process(testSelf, 1, oldStart, "breaker-enforce", "/usr/sbin/breaker-enforcer")
	for pid := range 100 {
		w.process(int32(50000+pid), 1, oldStart, "old", "/usr/bin/old")
	}
	return w
}

func (w *world) process(pid, ppid int32, start uint64, comm, exe string) {
	w.t.Helper()
	dir := filepath.Join(w.proc, strconv.Itoa(int(pid)))
	os.RemoveAll(dir)
	if err := os.Mkdir(dir, 0o755); err != nil {
		w.t.Fatal(err)
	}
	text := fmt.Sprintf("%d (%s) S %d 1 1 0 -1 4194304 0 0 0 0 0 0 0 0 20 0 1 0 %d 0 0\n", pid, comm, ppid, start)
	if err := os.WriteFile(filepath.Join(dir, "stat"), []byte(text), 0o644); err != nil {
		w.t.Fatal(err)
	}
	if exe != "" {
		if err := os.Symlink(exe, filepath.Join(dir, "exe")); err != nil {
			w.t.Fatal(err)
		}
	}
}

func (w *world) end(pid int32) { os.RemoveAll(filepath.Join(w.proc, strconv.Itoa(int(pid)))) }

// tree makes a cgroup with a root process and two children.
func (w *world) tree(p string, root int32) cgroupctl.Ref {
	w.process(root, 1, newStart, "make", "/usr/bin/make")
	w.process(root+1, root, newStart+1, "cc1", "/usr/bin/cc1")
	w.process(root+2, root+1, newStart+2, "cc1", "/usr/bin/cc1")
	return w.fake.Make(p, root, root+1, root+2)
}

func (w *world) decide(r cgroupctl.Ref, root int32, hold time.Duration) model.Decision {
	w.n++
	return model.Decision{
		ID: fmt.Sprintf("fs-1-%d", w.n), IncidentID: "fs-1", Kind: model.ForkStorm, At: time.Now(),
		Action: model.Action{Kind: model.Freeze, Scope: model.ScopeTree, ForMS: hold.Milliseconds(), Reason: "a test"},
		Target: model.Target{
			Cgroup: r.Path, CgroupID: r.ID, Scope: model.ScopeTree,
			Root: model.ProcID{PID: root, StartTime: newStart},
		},
		Policy: "breaker.test", OpenedAt: time.Now(), Confidence: 1, Observed: 1,
	}
}

func (w *world) options() Options {
	c := DefaultConfig()
	c.Cooldown = 0 // what is about it says so
	return Options{
		Mode: model.Enforce, Config: c, Cgroups: w.fake, StateDir: w.state,
		Recorder: w.log, Proc: w.proc,
	}
}

// open starts an engine, as after a start of the program.
func (w *world) open(change ...func(*Options)) *Engine {
	w.t.Helper()
	o := w.options()
	for _, c := range change {
		c(&o)
	}
	e, err := Open(o)
	if err != nil {
		w.t.Fatal(err)
	}
	e.proc.self = testSelf
	e.proc.boot.Store(testTicks)
	e.proc.memory.Store(1000 << 20)
	w.e = e
	return e
}

// crash lets go of the engine's lock and forgets it, as a SIGKILL does.
func (w *world) crash() {
	w.e.records.close()
	w.e = nil
}

func (w *world) close() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := w.e.Close(ctx); err != nil {
		w.t.Error(err)
	}
}

func (w *world) held(p string) bool { return w.fake.Freeze(p) == "1" }

func (w *world) wantHeld(p string, want bool) {
	w.t.Helper()
	if w.held(p) != want {
		w.t.Errorf("%s frozen: %v, want %v", p, w.held(p), want)
	}
}

// wantFiled checks in which directories the record of a lease lies.
func (w *world) wantFiled(id string, where ...string) {
	w.t.Helper()
	var got []string
	for _, dir := range []string{activeDir, endedDir, unreadableDir} {
		if _, err := os.Stat(filepath.Join(w.state, "leases", dir, id+suffix)); err == nil {
			got = append(got, dir)
		}
	}
	if fmt.Sprint(got) != fmt.Sprint(where) {
		w.t.Errorf("the record of %s lies in %v, want %v", id, got, where)
	}
}
