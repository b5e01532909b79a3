package bpf

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// helperVar makes the test binary one of the programs below instead of a test, so that
// the tests need no other program on the machine and run on any kernel as one file.
const helperVar = "BREAKERD_TEST_HELPER"

// init runs on the thread that leads the process, and keeps main on it.
func init() {
	if os.Getenv(helperVar) != "" {
		runtime.LockOSThread()
	}
}

func TestMain(m *testing.M) {
	name := os.Getenv(helperVar)
	if name == "" {
		os.Exit(m.Run())
	}
	helper := helpers[name]
	if helper == nil {
		fmt.Fprintln(os.Stderr, "no such helper:", name)
		os.Exit(2)
	}
	if err := helper(os.Args[1:]); err != nil {
		fmt.Fprintf(os.Stderr, "helper %s: %v\n", name, err)
		os.Exit(1)
	}
	os.Exit(0)
}

// helpers are what a helper process can do. Each says "ready" where the test waits for
// it, and ends at the latest when its standard input does.
var helpers = map[string]func(args []string) error{
	"end":          func([]string) error { return nil },
	"wait":         waitHelper,
	"threads":      threadsHelper,
	"leader-first": leaderFirstHelper,
	"exec-thread":  execThreadHelper,
	"exec":         execHelper,
	"forks":        forksHelper,
	"storm":        stormHelper,
	"clone-parent": cloneParentHelper,
	"double-fork":  doubleForkHelper,
	"spin":         spinHelper,
	"fill":         fillHelper,
	"open":         openHelper,
	"sleepers":     sleepersHelper,
	"io":           ioHelper,
}

func ready(say ...any) {
	fmt.Println(append([]any{"ready"}, say...)...)
}

func untilTold() { _, _ = bufio.NewReader(os.Stdin).ReadString('\n') }

// waitHelper takes on the user id given, if any, and waits to be told to end.
func waitHelper(args []string) error {
	if len(args) == 2 && args[0] == "uid" {
		uid, err := strconv.Atoi(args[1])
		if err != nil {
			return err
		}
		if err := syscall.Setuid(uid); err != nil {
			return err
		}
	}
	ready()
	untilTold()
	return nil
}

// threadsHelper makes threads and ends each before it ends itself.
func threadsHelper(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	var all, ended sync.WaitGroup
	all.Add(n)
	for range n {
		ended.Go(func() {
			runtime.LockOSThread() // and never unlocks it, so the thread ends
			all.Done()
			all.Wait()
		})
	}
	ended.Wait()
	time.Sleep(20 * time.Millisecond)
	return nil
}

// leaderFirstHelper uses the CPU for 150 ms in its first thread (of its own time, not of
// the clock's, of which a busy machine leaves it only a part), ends that thread, and some
// time later, when told, the process.
func leaderFirstHelper([]string) error {
	go func() {
		untilTold()
		os.Exit(0)
	}()
	for used := time.Duration(0); used < 150*time.Millisecond; {
		var t unix.Timespec
		if err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t); err != nil {
			return err
		}
		used = time.Duration(t.Nano())
	}
	ready()
	syscall.Syscall(unix.SYS_EXIT, 0, 0, 0)
	return nil
}

// execThreadHelper becomes another program from a thread that does not lead it.
func execThreadHelper(args []string) error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()
		if unix.Gettid() == os.Getpid() {
			failed <- fmt.Errorf("this is the leader")
			return
		}
		failed <- execHelper(args)
	}()
	return <-failed
}

// execHelper becomes another helper, when told, under the path and with the arguments
// given.
func execHelper(args []string) error {
	ready()
	var one [1]byte // not a byte more: the rest is for who comes after
	if _, err := os.Stdin.Read(one[:]); err != nil {
		return err
	}
	return syscall.Exec(args[0], args[1:], []string{helperVar + "=wait"})
}

// forksHelper makes short-lived children one after the other, when told.
func forksHelper(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	ready()
	untilTold()
	for range n {
		pid, err := fork(0, func() {})
		if err != nil {
			return err
		}
		if _, err := syscall.Wait4(pid, nil, 0, nil); err != nil {
			return err
		}
	}
	ready()
	untilTold()
	return nil
}

// stormHelper makes as many short-lived children as it can, when told, for the time
// given, and says how many they were.
func stormHelper(args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGCHLD) // so that nobody needs to wait for them
	ready()
	untilTold()
	n := 0
	for until := time.Now().Add(d); time.Now().Before(until); n++ {
		if _, err := fork(0, func() {}); err != nil {
			return err
		}
	}
	// Nobody is left once there is nobody to wait for.
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err == syscall.ECHILD {
			break
		}
	}
	ready(n)
	untilTold()
	return nil
}

func cloneParentHelper([]string) error {
	pid, err := fork(unix.CLONE_PARENT, func() {})
	if err != nil {
		return err
	}
	ready(os.Getpid(), pid)
	untilTold()
	return nil
}

// doubleForkHelper makes a child that makes a grandchild and ends at once.
func doubleForkHelper([]string) error {
	var fds [2]int
	if err := syscall.Pipe(fds[:]); err != nil {
		return err
	}
	var pids [2]int32 // child, grandchild
	child, err := fork(0, func() {
		pid, _, _ := syscall.RawSyscall(unix.SYS_GETPID, 0, 0, 0)
		pids[0] = int32(pid)
		pid, _, _ = syscall.RawSyscall6(unix.SYS_CLONE, uintptr(unix.SIGCHLD), 0, 0, 0, 0, 0)
		if pid == 0 {
			nap()
			return
		}
		pids[1] = int32(pid)
		syscall.RawSyscall(unix.SYS_WRITE, uintptr(fds[1]), addressOf(&pids), 8)
	})
	if err != nil {
		return err
	}
	if _, err := syscall.Wait4(child, nil, 0, nil); err != nil {
		return err
	}
	var raw [8]byte
	if _, err := syscall.Read(fds[0], raw[:]); err != nil {
		return err
	}
	got := *(*[2]int32)(addressPointer(&raw))
	ready(got[0], got[1])
	untilTold()
	return nil
}

// spinHelper keeps as many threads busy as given, when told, for the time given, and
// says how many threads and then waits.
func spinHelper(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	d, err := time.ParseDuration(args[1])
	if err != nil {
		return err
	}
	ready()
	untilTold()
	var spun sync.WaitGroup
	until := time.Now().Add(d)
	for range n {
		spun.Go(func() {
			runtime.LockOSThread()
			for time.Now().Before(until) {
			}
		})
	}
	if len(args) > 2 { // end in the middle of it
		time.Sleep(d / 2)
		os.Exit(0)
	}
	spun.Wait()
	ready()
	untilTold()
	return nil
}

// fillHelper fills as many bytes as given.
func fillHelper(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	mem, err := syscall.Mmap(-1, 0, n, syscall.PROT_READ|syscall.PROT_WRITE, syscall.MAP_PRIVATE|syscall.MAP_ANON)
	if err != nil {
		return err
	}
	for i := 0; i < n; i += os.Getpagesize() {
		mem[i] = 1
	}
	ready()
	untilTold()
	runtime.KeepAlive(mem)
	return nil
}

// sleepersHelper makes as many children as given that sleep until they are killed, as
// they are when their cgroup is removed.
func sleepersHelper(args []string) error {
	n, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	for range n {
		if _, err := fork(0, func() { syscall.RawSyscall(unix.SYS_PAUSE, 0, 0, 0) }); err != nil {
			return err
		}
	}
	ready()
	untilTold()
	return nil
}

// opened is what openHelper has to say, as JSON.
type opened struct {
	Error     string
	UID       int
	CapEff    string
	Processes int    // found by the scan
	Forks     uint64 // counted in the second tick
	Events    int    // forks seen in the second tick
	RunNS     uint64
	Lost      model.Lost
}

// openHelper opens the collector with the privileges that it was given, collects twice,
// forks in between, and says what it saw.
func openHelper([]string) error {
	out := opened{UID: os.Getuid(), CapEff: statusField("CapEff")}
	defer func() { _ = json.NewEncoder(os.Stdout).Encode(out) }()
	c, err := Open(DefaultSizes)
	if err != nil {
		out.Error = err.Error()
		return nil
	}
	defer c.Close()
	first, second := &model.Sample{BootNS: bootNS()}, &model.Sample{}
	if err := c.Collect(first, true); err != nil {
		out.Error = err.Error()
		return nil
	}
	out.Processes = len(first.Procs.Forked)
	for range 10 {
		pid, err := fork(0, func() {})
		if err != nil {
			return err
		}
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	for until := time.Now().Add(20 * time.Millisecond); time.Now().Before(until); {
	}
	time.Sleep(time.Millisecond)
	second.BootNS = bootNS()
	if err := c.Collect(second, true); err != nil {
		out.Error = err.Error()
		return nil
	}
	for _, g := range second.Cgroups {
		out.Forks += g.Forks
		out.RunNS += g.RunNS
	}
	out.Events = len(second.Procs.Forked)
	out.Lost = second.Lost
	return nil
}

func statusField(name string) string {
	text, _ := os.ReadFile("/proc/self/status")
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, name+":"); ok {
			return strings.TrimSpace(rest)
		}
	}
	return ""
}

// helperProc is a helper as the test sees it.
type helperProc struct {
	t   testing.TB
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
	pid int32
}

// start runs a helper, in the cgroup if one is given.
func start(t testing.TB, in *kerneltest.Cgroup, name string, args ...string) *helperProc {
	t.Helper()
	cmd := exec.Command("/proc/self/exe", args...)
	cmd.Env = append(os.Environ(), helperVar+"="+name)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if in != nil {
		dir, err := os.Open(in.Dir)
		if err != nil {
			t.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	// Pdeathsig is of the thread that forks, and a Go thread may end.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	h := &helperProc{t: t, cmd: cmd, in: stdin, out: bufio.NewScanner(stdout), pid: int32(cmd.Process.Pid)}
	t.Cleanup(func() {
		h.in.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return h
}

// ready waits until the helper says so, and returns what else it says.
func (h *helperProc) ready() []string {
	h.t.Helper()
	if !h.out.Scan() {
		h.t.Fatalf("the helper ended too early: %v", h.out.Err())
	}
	words := strings.Fields(h.out.Text())
	if len(words) == 0 || words[0] != "ready" {
		h.t.Fatalf("the helper said %q", h.out.Text())
	}
	return words[1:]
}

func (h *helperProc) tell() {
	h.t.Helper()
	if _, err := io.WriteString(h.in, "\n"); err != nil {
		h.t.Fatal(err)
	}
}

// end tells the helper to end and waits until it has.
func (h *helperProc) end() {
	h.t.Helper()
	h.in.Close()
	if err := h.cmd.Wait(); err != nil {
		h.t.Fatal(err)
	}
}
