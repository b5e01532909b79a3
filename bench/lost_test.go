package bench

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// BenchmarkLost lets a process on each CPU fork as fast as it can while the reader of the
// kernel programs is stopped for five seconds, and compares what was counted with what was
// done. Records of single processes may be lost then; a count may not.
func BenchmarkLost(b *testing.B) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF)
	const stopped = 5 * time.Second
	storm := kerneltest.ScratchCgroup(b)
	reader := startWorker(b, nil, "counter", strconv.FormatUint(uint64(storm.ID()), 10))
	defer reader.end(b)
	var made, counted counts
	for b.Loop() {
		made, counted = counts{}, counts{}
		var before counts
		decode(b, reader.tell(b, "counts"), &before)
		var stormers []*worker
		for range runtime.NumCPU() {
			stormers = append(stormers, startWorker(b, storm, "storm", stopped.String()))
		}
		if err := reader.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
			b.Fatal(err)
		}
		for _, w := range stormers {
			if _, err := io.WriteString(w.in, "go\n"); err != nil {
				b.Fatal(err)
			}
		}
		for _, w := range stormers {
			if !w.out.Scan() {
				b.Fatal("a stormer says nothing")
			}
			n, err := strconv.ParseUint(w.out.Text(), 10, 64)
			if err != nil {
				b.Fatal(err)
			}
			made.Forks += n
		}
		if err := reader.cmd.Process.Signal(syscall.SIGCONT); err != nil {
			b.Fatal(err)
		}
		var after counts
		decode(b, reader.tell(b, "counts"), &after)
		for _, w := range stormers {
			w.end(b)
		}
		counted = counts{after.Forks - before.Forks, after.Exits - before.Exits, after.Records - before.Records, after.Lost - before.Lost}
	}
	n := float64(made.Forks)
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(n/stopped.Seconds(), "forks/s")
	b.ReportMetric((n-float64(counted.Forks))/n, "lost-forks/fork")
	b.ReportMetric((n-float64(counted.Exits))/n, "lost-exits/fork")
	// Of each fork there are two records: it and its end.
	b.ReportMetric(float64(counted.Lost)/(2*n), "lost-records/record")
	b.ReportMetric(float64(counted.Records+counted.Lost)/(2*n), "told-records/record")
}

// counts are those of one cgroup, and the records of all.
type counts struct{ Forks, Exits, Records, Lost uint64 }

func decode(b *testing.B, line string, into *counts) {
	b.Helper()
	if err := json.Unmarshal([]byte(line), into); err != nil {
		b.Fatalf("%v: %q", err, line)
	}
}

// beCounter reads the kernel programs as a tick does, and tells the sums for a cgroup when
// it is asked.
func beCounter(args []string) error {
	id, err := strconv.ParseUint(args[0], 10, 64)
	if err != nil {
		return err
	}
	c, err := bpf.Open(bpf.DefaultSizes)
	if err != nil {
		return err
	}
	defer c.Close()
	var sum counts
	collect := func() error {
		s := &model.Sample{}
		if err := c.Collect(s, false); err != nil {
			return err
		}
		for _, g := range s.Cgroups {
			if g.ID == model.CgroupID(id) {
				sum.Forks += g.Forks
				sum.Exits += g.Exits
			}
		}
		sum.Records += uint64(len(s.Procs.Forked) + len(s.Procs.Exited))
		sum.Lost += s.Lost.Events
		return nil
	}
	asked := make(chan struct{})
	go func() {
		defer close(asked)
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			asked <- struct{}{}
		}
	}()
	fmt.Println("ready")
	for tick := time.NewTicker(tickLength); ; {
		select {
		case <-tick.C:
			if err := collect(); err != nil {
				return err
			}
		case _, more := <-asked:
			if !more {
				return nil
			}
			if err := collect(); err != nil {
				return err
			}
			if err := json.NewEncoder(os.Stdout).Encode(sum); err != nil {
				return err
			}
		}
	}
}

// beStorm makes processes that end at once, for so long, and says how many.
func beStorm(args []string) error {
	d, err := time.ParseDuration(args[0])
	if err != nil {
		return err
	}
	signal.Ignore(syscall.SIGCHLD) // so that nobody needs to wait for them
	in := bufio.NewReader(os.Stdin)
	fmt.Println("ready")
	if _, err := in.ReadString('\n'); err != nil {
		return err
	}
	made := 0
	for until := time.Now().Add(d); time.Now().Before(until); made++ {
		if err := forkAndEnd(); err != nil {
			return err
		}
	}
	// Nobody is left once there is nobody to wait for.
	for {
		if _, err := syscall.Wait4(-1, nil, 0, nil); err == syscall.ECHILD {
			break
		}
	}
	fmt.Println(made)
	_, _ = io.Copy(io.Discard, in)
	return nil
}

// forkAndEnd makes a process that shares this one's memory, as vfork does, and ends at
// once: nothing makes processes faster. The child runs on this stack while the parent
// waits for it, so both make their system call in the same place: what the child writes
// there is what the parent would have written.
//
//go:norace
//go:noinline
func forkAndEnd() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	call, flags := uintptr(unix.SYS_CLONE), uintptr(unix.CLONE_VM|unix.CLONE_VFORK)|uintptr(unix.SIGCHLD)
	for {
		pid, _, errno := syscall.RawSyscall6(call, flags, 0, 0, 0, 0, 0)
		if errno != 0 {
			return errno
		}
		if pid != 0 {
			return nil
		}
		call, flags = unix.SYS_EXIT_GROUP, 0
	}
}
