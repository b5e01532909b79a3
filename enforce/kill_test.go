package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// How often the enforcer is killed: at each labelled moment, and at random ones.
const (
	killsAtPoint  = 9
	killsAtRandom = 130
	// killsInside are those where the tree is moved away from somebody else.
	killsInside = 4
	// killsAsserting are those where somebody else has written what is held.
	killsAsserting = 5
	// undoneWithin is the promise: any program killed at any instant, to everything
	// undone, from when the enforcer is back.
	undoneWithin = 2 * time.Second
)

// killPoint makes this test binary an enforcer that kills itself with SIGKILL at a
// labelled moment. The real program has no such thing.
const killPoint = "BREAKERD_TEST_KILL_AT"

// stopPoint makes this test binary an enforcer that stops itself with SIGSTOP when it first
// comes to a labelled moment, and listPoints has it print those moments: bench/campaign does
// the rest.
const (
	stopPoint  = "BREAKERD_TEST_STOP_AT"
	listPoints = "BREAKERD_TEST_POINTS"
)

// leaderless makes this test binary a process whose first thread has ended.
const leaderless = "BREAKERD_TEST_LEADERLESS"

func init() {
	if os.Getenv(leaderless) != "" {
		runtime.LockOSThread() // TestMain runs in the first thread then
	}
}

func TestMain(m *testing.M) {
	// Every step is synced to the disk, and no test is about that: in memory it takes half the time.
	if st, err := os.Stat("/dev/shm"); err == nil && st.IsDir() && os.Getenv("TMPDIR") == "" {
		os.Setenv("TMPDIR", "/dev/shm")
	}
	if os.Getenv(leaderless) != "" {
		go func() {
			for {
				time.Sleep(time.Hour)
			}
		}()
		time.Sleep(50 * time.Millisecond) // other threads are there now
		unix.RawSyscall(unix.SYS_EXIT, 0, 0, 0)
	}
	if nice := os.Getenv(niceProbe); nice != "" {
		probeNice(nice)
	}
	if os.Getenv(vforker) != "" {
		waitAfterVfork()
	}
	if os.Getenv(listPoints) != "" {
		out := map[string][]string{"every": points, "throttle": pointsThrottle, "inside": pointsInside, "assert": pointsAssert, "ease": pointsEase}
		if err := json.NewEncoder(os.Stdout).Encode(out); err != nil {
			os.Exit(1)
		}
		os.Exit(0)
	}
	if point := os.Getenv(killPoint); point != "" {
		runUntil(func(at string) {
			if at == point {
				unix.Kill(os.Getpid(), unix.SIGKILL)
				select {}
			}
		})
	}
	if point := os.Getenv(stopPoint); point != "" {
		var once sync.Once
		runUntil(func(at string) {
			if at == point {
				once.Do(stopHere)
			}
		})
	}
	os.Exit(m.Run())
}

// runUntil is the enforcer, with something that happens at the labelled moments.
func runUntil(at func(string)) {
	p := Program{
		ConfigFile: os.Args[1], RuntimeDir: os.Args[2], StateDir: os.Args[3],
		Log: slog.New(slog.NewJSONHandler(os.Stderr, nil)), at: at,
	}
	if err := p.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// stopHere stops the process at this instruction. A signal to the process could be taken by
// another thread, while this one goes on for a while.
func stopHere() {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	unix.Tgkill(os.Getpid(), unix.Gettid(), unix.SIGSTOP)
}

// killer kills enforcers and looks at what is left behind.
type killer struct {
	t       *testing.T
	program string // the real one
	config  string
	run     string
	state   string
	groups  []*kerneltest.Cgroup
	roots   []int
	client  *Client

	bystander int // in the group apart, and no part of the tree there

	n        int
	proposed map[string]bool // by ID: the enforcer said that it is held
	kills    int
	frozen   int // kills that left something frozen behind
	longest  time.Duration
}

func TestKill(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	if testing.Short() {
		t.Skip("kills 200 enforcers")
	}
	k := &killer{t: t, program: build(t), run: t.TempDir(), state: t.TempDir(), proposed: map[string]bool{}}
	k.config = filepath.Join(t.TempDir(), "enforcer.yaml")
	if err := os.WriteFile(k.config, []byte("rate:\n  per_target: {every: 1ms, burst: 1000}\n  overall: {every: 1ms, burst: 1000}\nreach: {leases: 10, processes_percent: 100}\ncooldown: 0s\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for i := range 4 {
		g := kerneltest.ScratchCgroup(t)
		if i == apart {
			k.bystander = g.Start("sleep", "3600").Process.Pid
			time.Sleep(20 * time.Millisecond) // start times are in ticks of 10 ms
		}
		root := g.Start("sh", "-c", "sleep 3600 & sleep 3600 & while :; do sleep 0.05; done")
		k.groups, k.roots = append(k.groups, g), append(k.roots, root.Process.Pid)
	}
	k.client = NewClient(k.run)
	began := time.Now()
	for _, point := range points {
		for range killsAtPoint {
			k.killAt(point)
		}
	}
	for _, point := range slices.Concat(points, pointsInside) {
		for range killsInside {
			k.killInside(point)
		}
	}
	for _, point := range pointsAssert {
		for range killsAsserting {
			k.killAsserting(point)
		}
	}
	labelled := k.kills
	for range killsAtRandom {
		k.killAtRandom()
	}
	if k.kills < 200 {
		t.Errorf("%d kills, want 200 at least", k.kills)
	}
	if k.frozen == 0 {
		t.Error("no kill left anything frozen: this test tries nothing")
	}
	t.Logf("%d kills (%d at labelled moments, %d at random), %d of them with something frozen; %d leases; longest undo after a start %s; %s in all",
		k.kills, labelled, k.kills-labelled, k.frozen, len(k.proposed), k.longest.Round(time.Millisecond), time.Since(began).Round(time.Second))
}

// build makes the real program.
func build(t testing.TB) string {
	t.Helper()
	program := filepath.Join(t.TempDir(), "breaker-enforcer")
	out, err := exec.Command("go", "build", "-o", program, "../cmd/breaker-enforcer").CombinedOutput()
	if err != nil {
		t.Fatalf("build breaker-enforcer: %v\n%s", err, out)
	}
	return program
}

func (k *killer) start(point string) *exec.Cmd {
	k.t.Helper()
	cmd := exec.Command(k.program, "--config", k.config, "--runtime-dir", k.run, "--state-dir", k.state)
	if point != "" {
		cmd = exec.Command(os.Args[0], k.config, k.run, k.state)
		cmd.Env = append(os.Environ(), killPoint+"="+point)
	}
	log, err := os.OpenFile(filepath.Join(k.run, "log"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		k.t.Fatal(err)
	}
	defer log.Close()
	cmd.Stderr = log
	if err := cmd.Start(); err != nil {
		k.t.Fatal(err)
	}
	k.t.Cleanup(func() { // of those that were not ended and waited for before
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return cmd
}

// answers waits until the enforcer of this process answers.
func (k *killer) answers(cmd *exec.Cmd) {
	k.t.Helper()
	for until := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) {
		st, err := k.client.Status(k.t.Context())
		if err == nil && st.PID == cmd.Process.Pid {
			return
		}
		if time.Now().After(until) {
			k.t.Fatalf("the enforcer does not answer: %v\n%s", err, k.log())
		}
	}
}

func (k *killer) log() string {
	b, _ := os.ReadFile(filepath.Join(k.run, "log"))
	return string(b[max(0, len(b)-4000):])
}

// propose asks to freeze one of the cgroups. It returns the ID; the enforcer may die
// meanwhile.
func (k *killer) propose(i int, hold time.Duration) string {
	k.n++
	d := about(k.t, k.groups[i], fmt.Sprintf("kill-%d", k.n), k.roots[i], hold)
	out, err := k.client.Propose(k.t.Context(), d)
	switch {
	case err != nil, out.Error != "": // killed, or its time was up before it was held
		k.proposed[d.ID] = false
	case out.ConfirmedAt != nil:
		k.proposed[d.ID] = true
	default:
		k.t.Errorf("propose %s: %+v", d.ID, out)
	}
	return d.ID
}

// killAt has an enforcer kill itself at a labelled moment.
func (k *killer) killAt(point string) {
	k.t.Helper()
	cmd := k.start(point)
	k.answers(cmd)
	id := k.propose(0, time.Minute)
	if k.proposed[id] {
		_, _ = k.client.Release(k.t.Context(), id)
	}
	err := cmd.Wait()
	if !wasKilled(err) {
		k.t.Fatalf("at %q the enforcer ended with %v, not with SIGKILL\n%s", point, err, k.log())
	}
	k.check(point, id)
}

// apart is the group in which the tree is not alone.
const apart = 3

// killInside has an enforcer kill itself where it moves a tree away from somebody else.
func (k *killer) killInside(point string) {
	k.t.Helper()
	cmd := k.start(point)
	k.answers(cmd)
	id := k.propose(apart, time.Minute)
	if k.proposed[id] {
		_, _ = k.client.Release(k.t.Context(), id)
	}
	if err := cmd.Wait(); !wasKilled(err) {
		k.t.Fatalf("at %q the enforcer ended with %v, not with SIGKILL\n%s", point, err, k.log())
	}
	k.check(point+", inside", id)
}

// killAsserting has an enforcer kill itself where it is about to write again what somebody
// else has written over.
func (k *killer) killAsserting(point string) {
	k.t.Helper()
	cmd := k.start(point)
	k.answers(cmd)
	id := k.propose(apart, time.Minute)
	made := inside(k.groups[apart])
	if !k.proposed[id] || len(made) != 1 {
		k.t.Fatalf("%s is not held: %q\n%s", id, made, k.log())
	}
	if err := os.WriteFile(filepath.Join(made[0], "cgroup.freeze"), []byte("0"), 0); err != nil {
		k.t.Fatal(err)
	}
	if err := cmd.Wait(); !wasKilled(err) {
		k.t.Fatalf("at %q the enforcer ended with %v, not with SIGKILL\n%s", point, err, k.log())
	}
	k.check(point, id)
}

// inside are the cgroups that were made below a group.
func inside(g *kerneltest.Cgroup) []string {
	made, _ := filepath.Glob(filepath.Join(g.Dir, cgroupctl.InsideName("*")))
	return made
}

// killAtRandom kills the real program while leases are made, end and are released.
func (k *killer) killAtRandom() {
	k.t.Helper()
	cmd := k.start("")
	k.answers(cmd)
	var ids []string
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range k.groups {
			// Some end by themselves within the time, some are released, some stay.
			id := k.propose(i, time.Duration(1+rand.IntN(30))*time.Millisecond)
			ids = append(ids, id)
			if rand.IntN(3) == 0 {
				_, _ = k.client.Release(k.t.Context(), id)
			}
		}
	}()
	time.Sleep(time.Duration(rand.IntN(25000)) * time.Microsecond)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	<-done
	k.check("random", ids...)
}

// check looks at what a killed enforcer left, starts the real one, and looks again.
func (k *killer) check(when string, ids ...string) {
	k.t.Helper()
	k.kills++
	any := false
	for _, g := range k.groups {
		if g.Read("cgroup.freeze") != "1" && len(inside(g)) == 0 {
			continue
		}
		any = true
		// What is frozen must have a record that leads to it.
		if !k.recorded(g) {
			k.t.Errorf("%s: %s is frozen and no record says so", when, g.Path)
		}
	}
	if any {
		k.frozen++
	}
	began := time.Now()
	cmd := k.start("")
	// The promise counts from when it is back, but it holds from its start on.
	for !k.thawed() {
		if time.Since(began) > undoneWithin {
			k.t.Fatalf("%s: still frozen %s after the start\n%s", when, undoneWithin, k.log())
		}
		time.Sleep(200 * time.Microsecond)
	}
	if took := time.Since(began); any && took > k.longest {
		k.longest = took
	}
	k.answers(cmd)
	if !k.thawed() {
		k.t.Errorf("%s: something is frozen after recovery", when)
	}
	for _, id := range ids {
		k.checkRecord(when, id)
	}
	// Proposed again, it must not be done again.
	if len(ids) > 0 {
		if _, err := os.Stat(k.file(endedDir, ids[0])); err == nil {
			d := about(k.t, k.groups[0], ids[0], k.roots[0], time.Minute)
			out, err := k.client.Propose(k.t.Context(), d)
			if err != nil || out.LeaseID != ids[0] || k.groups[0].Read("cgroup.freeze") != "0" {
				k.t.Errorf("%s: %s was done twice: %+v, %v", when, ids[0], out, err)
			}
		}
	}
	if k.kills%20 == 0 {
		if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
			k.t.Error(err)
		}
		if err := cmd.Wait(); err != nil {
			k.t.Errorf("SIGTERM: %v\n%s", err, k.log())
		}
		return
	}
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
}

func (k *killer) thawed() bool {
	for _, g := range k.groups {
		if g.Read("cgroup.freeze") != "0" || g.Frozen() || len(inside(g)) != 0 {
			return false
		}
	}
	pids := k.groups[apart].PIDs()
	return slices.Contains(pids, k.bystander) && slices.Contains(pids, k.roots[apart]) && len(pids) >= 4
}

func (k *killer) file(dir, id string) string { return filepath.Join(k.state, "leases", dir, id+suffix) }

func (k *killer) recorded(g *kerneltest.Cgroup) bool {
	files, _ := filepath.Glob(k.file(activeDir, "*"))
	for _, f := range files {
		b, _ := os.ReadFile(f)
		var l model.Lease
		if json.Unmarshal(b, &l) == nil && l.Decision.Target.CgroupID == g.ID() {
			return true
		}
	}
	return false
}

// checkRecord wants the record of a lease in ended/ and nowhere else. Where the
// enforcer was killed before it wrote one, there is none, and nothing was done.
func (k *killer) checkRecord(when, id string) {
	k.t.Helper()
	_, active := os.Stat(k.file(activeDir, id))
	b, err := os.ReadFile(k.file(endedDir, id))
	switch {
	case active == nil:
		k.t.Errorf("%s: the record of %s is still active (ended too: %v)", when, id, err == nil)
	case err != nil && k.proposed[id]:
		k.t.Errorf("%s: the lease %s was held and is lost", when, id)
	case err == nil:
		l, err := parseRecord(id, b)
		if err != nil || l.State != model.LeaseEnded || l.EndReason == "" || l.EndedAt == nil {
			k.t.Errorf("%s: the record of %s says %+v, %v", when, id, l, err)
		}
	}
}

func wasKilled(err error) bool {
	var exit *exec.ExitError
	if !errors.As(err, &exit) {
		return false
	}
	ws, ok := exit.Sys().(interface {
		Signaled() bool
	})
	return ok && ws.Signaled()
}
