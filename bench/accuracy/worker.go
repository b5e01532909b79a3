package main

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// workerVar makes this program a part of a load.
	workerVar = "BREAKERD_ACCURACY_WORKER"
	// settledVar says that the worker has already become what it is to run as.
	settledVar = "BREAKERD_ACCURACY_SETTLED"
)

// lifeBound ends every worker by itself, should nobody be left to end it.
const lifeBound = 60 * time.Second

// worker is what the command line of a worker says.
type worker struct {
	life time.Duration
	// What it runs as.
	nice, cpu int
	sched     string // "", fifo or idle
	ioIdle    bool
	// What it does; each kind of work uses some.
	n, threads, most, mb, block   int
	on, off, every, work, stay    time.Duration
	rate, upto                    float64 // MB a second, MB
	mode, file, mount, path, temp string
	args                          []string
}

func parseWorker(kind string, args []string) (*worker, error) {
	w := &worker{}
	f := flag.NewFlagSet(kind, flag.ContinueOnError)
	f.DurationVar(&w.life, "life", lifeBound, "")
	f.IntVar(&w.nice, "nice", 0, "")
	f.IntVar(&w.cpu, "cpu", -1, "")
	f.StringVar(&w.sched, "sched", "", "")
	f.BoolVar(&w.ioIdle, "io-idle", false, "")
	f.IntVar(&w.n, "n", 1, "")
	f.IntVar(&w.threads, "threads", 1, "")
	f.IntVar(&w.most, "most", 0, "")
	f.IntVar(&w.mb, "mb", 0, "")
	f.IntVar(&w.block, "block", 0, "")
	f.DurationVar(&w.on, "on", 0, "")
	f.DurationVar(&w.off, "off", 0, "")
	f.DurationVar(&w.every, "every", 0, "")
	f.DurationVar(&w.work, "work", 0, "")
	f.DurationVar(&w.stay, "stay", 0, "")
	f.Float64Var(&w.rate, "rate", 0, "")
	f.Float64Var(&w.upto, "upto", 0, "")
	f.StringVar(&w.mode, "mode", "plain", "")
	f.StringVar(&w.file, "file", "", "")
	f.StringVar(&w.mount, "mount", "", "")
	f.StringVar(&w.path, "path", "", "")
	f.StringVar(&w.temp, "temp", "", "")
	if err := f.Parse(args); err != nil {
		return nil, err
	}
	w.args = f.Args()
	return w, nil
}

// work is a worker's whole life.
func work(kind string, args []string) error {
	w, err := parseWorker(kind, args)
	if err != nil {
		return err
	}
	if kind == "janitor" {
		return tidy(w.mount, w.path, w.temp, w.args)
	}
	if err := w.settle(kind, args); err != nil {
		return err
	}
	time.AfterFunc(w.life, func() { os.Exit(0) })
	do, known := map[string]func(*worker) error{
		"spin": (*worker).spin, "serve": (*worker).serve, "idle": (*worker).idle, "once": (*worker).once,
		"storm": (*worker).storm, "jobs": (*worker).jobs, "shell": (*worker).shell,
		"grow": (*worker).grow, "thrash": (*worker).thrash, "pool": (*worker).pool,
		"read": (*worker).read, "append": (*worker).append,
	}[kind]
	if !known {
		return errors.New("no such work")
	}
	return do(w)
}

// settle dies with its parent, and becomes what it is to run as. Niceness, policy and
// affinity belong to a thread, and Go has several: so it sets them and executes itself
// again, and all the threads of what comes after inherit them.
func (w *worker) settle(kind string, args []string) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return err
	}
	limit := uint64(lifeBound/time.Second) * 4 // of CPU time, for all its threads
	if err := unix.Setrlimit(unix.RLIMIT_CPU, &unix.Rlimit{Cur: limit, Max: limit}); err != nil {
		return err
	}
	if os.Getenv(settledVar) != "" {
		return os.Unsetenv(settledVar)
	}
	if w.cpu < 0 && w.nice == 0 && w.sched == "" && !w.ioIdle {
		return nil
	}
	if w.cpu >= 0 {
		var set unix.CPUSet
		set.Set(w.cpu)
		if err := unix.SchedSetaffinity(0, &set); err != nil {
			return fmt.Errorf("stay on CPU %d: %w", w.cpu, err)
		}
	}
	if w.nice != 0 {
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, w.nice); err != nil {
			return fmt.Errorf("be nice %d: %w", w.nice, err)
		}
	}
	if err := w.schedule(); err != nil {
		return err
	}
	if w.ioIdle {
		const whoProcess, classIdle = 1, 3 << 13 // ioprio_set(2)
		if _, _, errno := unix.Syscall(unix.SYS_IOPRIO_SET, whoProcess, 0, classIdle); errno != 0 {
			return fmt.Errorf("use the disk only where it is idle: %w", errno)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	return syscall.Exec(self, append([]string{kind}, args...), append(environment(kind, w.threads), settledVar+"=1"))
}

func (w *worker) schedule() error {
	attr := &unix.SchedAttr{Size: unix.SizeofSchedAttr}
	switch w.sched {
	case "":
		return nil
	case "fifo":
		attr.Policy, attr.Priority = unix.SCHED_FIFO, 1
	case "idle":
		attr.Policy, attr.Nice = unix.SCHED_IDLE, int32(w.nice)
	default:
		return fmt.Errorf("no such policy: %s", w.sched)
	}
	if err := unix.SchedSetAttr(0, attr, 0); err != nil {
		return fmt.Errorf("be scheduled as %s: %w", w.sched, err)
	}
	return nil
}

// environment is that of a worker: as few threads of Go's own as can be, no collector.
func environment(kind string, threads int) []string {
	var env []string
	for _, e := range os.Environ() {
		if name, _, _ := strings.Cut(e, "="); name != workerVar && name != "GOMAXPROCS" && name != "GOGC" {
			env = append(env, e)
		}
	}
	return append(env, workerVar+"="+kind, "GOMAXPROCS="+strconv.Itoa(max(1, threads)), "GOGC=off")
}

// command is another worker, which dies with this process.
func command(kind string, args ...string) *exec.Cmd {
	self, err := os.Executable()
	if err != nil {
		self = "/proc/self/exe"
	}
	cmd := exec.Command(self, args...)
	cmd.Args[0] = kind
	threads := 1
	if w, err := parseWorker(kind, args); err == nil {
		threads = w.threads
	}
	cmd.Env = environment(kind, threads)
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	cmd.Stderr = os.Stderr
	return cmd
}

// idle starts n processes that do nothing, or as many as begin within a second, and does nothing: where
// it takes many seconds to start them, that alone is a storm.
func (w *worker) idle() error {
	begin := time.Now()
	for range w.n {
		if err := w.forkSleeper(); err != nil {
			return err
		}
		if time.Since(begin) > time.Second {
			break
		}
	}
	if w.n > 0 {
		time.Sleep(w.life)
	}
	return nil
}
