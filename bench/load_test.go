package bench

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

// workerVar makes the test binary a worker of a load instead of a test.
const workerVar = "BREAKERD_BENCH_WORKER"

func TestMain(m *testing.M) {
	if kind := os.Getenv(workerVar); kind != "" {
		if err := work(kind, os.Args[1:]); err != nil {
			fmt.Fprintln(os.Stderr, "worker:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// work is the worker's whole life.
func work(kind string, args []string) error {
	switch kind {
	case "crowd":
		return beCrowd(args)
	case "counter":
		return beCounter(args)
	case "storm":
		return beStorm(args)
	case "spin":
		return beSpinner(args)
	}
	return beSwitcher(kind, args)
}

// beSwitcher says that it is ready, waits for the start, does its rounds on one CPU, and
// says that it is done. A token goes from file descriptor 3 to file descriptor 4; the
// worker that is first puts it in.
func beSwitcher(kind string, args []string) error {
	cpu, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	rounds, err := strconv.Atoi(args[1])
	if err != nil {
		return err
	}
	first := args[2] == "first"

	// One thread on one CPU and nobody else of this process in the way.
	runtime.LockOSThread()
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return err
	}
	fmt.Println("ready")
	if _, err := bufio.NewReader(os.Stdin).ReadString('\n'); err != nil {
		return err
	}
	switch kind {
	case "token":
		err = passToken(rounds, first)
	case "yield":
		// Raw, so that the Go scheduler takes no part.
		for range rounds {
			syscall.RawSyscall(unix.SYS_SCHED_YIELD, 0, 0, 0)
		}
	default:
		err = fmt.Errorf("no such load: %q", kind)
	}
	fmt.Println("done")
	return err
}

func passToken(rounds int, first bool) error {
	token := []byte{1}
	if first {
		if _, err := rawWrite(4, token); err != nil {
			return err
		}
	}
	for i := range rounds {
		if n, err := rawRead(3, token); err != nil || n == 0 {
			return fmt.Errorf("read the token: %d bytes, %w", n, err)
		}
		if first && i == rounds-1 {
			break
		}
		if _, err := rawWrite(4, token); err != nil {
			return err
		}
	}
	return nil
}

// load is a set of workers that wait to be started.
type load struct {
	workers []*worker
}

type worker struct {
	cmd *exec.Cmd
	in  io.WriteCloser
	out *bufio.Scanner
}

// place says where a worker runs.
type place struct {
	cgroup *kerneltest.Cgroup
	cpu    int
}

// newLoad starts a worker in each place, and waits until all are ready. The workers
// of a "token" load stand in a circle.
func newLoad(b *testing.B, kind string, rounds int, places []place) *load {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	readers, writers := make([]*os.File, len(places)), make([]*os.File, len(places))
	for i := range places {
		if readers[i], writers[(i+1)%len(places)], err = os.Pipe(); err != nil {
			b.Fatal(err)
		}
	}
	l := &load{}
	for i, p := range places {
		role := "other"
		if i == 0 {
			role = "first"
		}
		cmd := exec.Command(self, strconv.Itoa(p.cpu), strconv.Itoa(rounds), role)
		cmd.Env = append(os.Environ(), workerVar+"="+kind, "GOMAXPROCS=1", "GOGC=off")
		cmd.ExtraFiles = []*os.File{readers[i], writers[i]}
		cmd.Stderr = os.Stderr
		dir, err := os.Open(p.cgroup.Dir)
		if err != nil {
			b.Fatal(err)
		}
		cmd.SysProcAttr = &syscall.SysProcAttr{UseCgroupFD: true, CgroupFD: int(dir.Fd()), Pdeathsig: syscall.SIGKILL}
		in, err := cmd.StdinPipe()
		if err != nil {
			b.Fatal(err)
		}
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		dir.Close()
		l.workers = append(l.workers, &worker{cmd, in, bufio.NewScanner(out)})
	}
	for i := range places {
		readers[i].Close()
		writers[i].Close()
	}
	for _, w := range l.workers {
		w.expect(b, "ready")
	}
	return l
}

// run starts the workers and returns when all are done.
func (l *load) run(b *testing.B) {
	b.Helper()
	for _, w := range l.workers {
		if _, err := io.WriteString(w.in, "go\n"); err != nil {
			b.Fatal(err)
		}
	}
	for _, w := range l.workers {
		w.expect(b, "done")
	}
}

func (l *load) close() {
	for _, w := range l.workers {
		w.in.Close()
		_ = w.cmd.Wait()
	}
}

// startWorker starts one worker, in a cgroup or (nil) in the benchmark's own, and waits
// until it is ready. It ends when its standard input does.
func startWorker(b *testing.B, in *kerneltest.Cgroup, kind string, args ...string) *worker {
	b.Helper()
	self, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	cmd := exec.Command(self, args...)
	cmd.Env = append(os.Environ(), workerVar+"="+kind)
	cmd.Stderr = os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{}
	if kind != "crowd" { // it must live to take its processes and cgroups away
		cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	if in != nil {
		dir, err := os.Open(in.Dir)
		if err != nil {
			b.Fatal(err)
		}
		defer dir.Close()
		cmd.SysProcAttr.UseCgroupFD, cmd.SysProcAttr.CgroupFD = true, int(dir.Fd())
	}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	// A parent's death is that of the thread that started it.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	w := &worker{cmd, stdin, bufio.NewScanner(out)}
	w.expect(b, "ready")
	return w
}

// tell sends the worker a line and returns the one that it answers.
func (w *worker) tell(b *testing.B, line string) string {
	b.Helper()
	if _, err := io.WriteString(w.in, line+"\n"); err != nil {
		b.Fatal(err)
	}
	if !w.out.Scan() {
		b.Fatalf("a worker was told %q and said nothing: %v", line, w.out.Err())
	}
	return w.out.Text()
}

// end lets the worker end and waits for it.
func (w *worker) end(b *testing.B) {
	b.Helper()
	w.in.Close()
	if err := w.cmd.Wait(); err != nil {
		b.Errorf("a worker: %v", err)
	}
}

func (w *worker) expect(b *testing.B, word string) {
	b.Helper()
	if !w.out.Scan() || strings.TrimSpace(w.out.Text()) != word {
		b.Fatalf("a worker said %q (%v), want %q", w.out.Text(), w.out.Err(), word)
	}
}

func rawRead(fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}

func rawWrite(fd int, p []byte) (int, error) {
	n, _, errno := syscall.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&p[0])), uintptr(len(p)))
	if errno != 0 {
		return 0, errno
	}
	return int(n), nil
}
