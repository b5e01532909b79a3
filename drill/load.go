package drill

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// lifeBound ends every load by itself, should nobody be left to end it.
const lifeBound = 60 * time.Second

// shell runs a script of a load. No process of it uses a CPU for longer than the bound.
func shell(script string, args ...string) *exec.Cmd {
	script = fmt.Sprintf("ulimit -t %d\n", int(lifeBound.Seconds())) + script
	return exec.Command("sh", append([]string{"-c", script, "drill"}, args...)...)
}

// forkStorm leaves about 50 processes a second behind, 600 at the most.
func forkStorm() *exec.Cmd {
	return shell(`i=0; while [ $i -lt 600 ]; do sleep 60 & sleep 0.02; i=$((i+1)); done; wait`)
}

// hogs spin, n of them.
func hogs(n int) *exec.Cmd {
	return shell(`i=0; while [ $i -lt "$1" ]; do (while :; do :; done) & i=$((i+1)); done; wait`, fmt.Sprint(n))
}

// parallelJob keeps n workers busy, each doing one job after the other of so many rounds,
// like a build that has the machine to itself.
func parallelJob(n, rounds int) *exec.Cmd {
	return shell(`
		job='j=0; while [ $j -lt "$0" ]; do j=$((j+1)); done'
		i=0; while [ $i -lt "$1" ]; do (while :; do sh -c "$job" "$2"; done) & i=$((i+1)); done; wait`,
		fmt.Sprint(n), fmt.Sprint(rounds))
}

// Latency is what the victim of a drill felt in half a second: how long requests took
// that need 2 ms of a CPU and come every 8 ms.
type Latency struct {
	At    time.Time `json:"at"`
	P50MS float64   `json:"p50_ms"`
	P99MS float64   `json:"p99_ms"`
}

const (
	requestWork  = 2 * time.Millisecond
	requestEvery = 8 * time.Millisecond
	reportEvery  = 500 * time.Millisecond
)

// Serve is the victim: it works off requests and writes a Latency twice a second.
func Serve(ctx context.Context, w io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, lifeBound)
	defer cancel()
	out := json.NewEncoder(w)
	var took []time.Duration
	due := time.Now()
	report := due.Add(reportEvery)
	for ctx.Err() == nil {
		time.Sleep(time.Until(due))
		work(requestWork)
		took = append(took, time.Since(due))
		// Requests that came while it was held up are answered late, not forgotten, but
		// an old queue does not go on for ever.
		if due = due.Add(requestEvery); time.Since(due) > reportEvery {
			due = time.Now()
		}
		if now := time.Now(); now.After(report) {
			slices.Sort(took)
			l := Latency{At: now, P50MS: at(took, 0.5), P99MS: at(took, 0.99)}
			if err := out.Encode(l); err != nil {
				return nil // nobody listens any more
			}
			took, report = took[:0], now.Add(reportEvery)
		}
	}
	return nil
}

func at(sorted []time.Duration, q float64) float64 {
	return float64(sorted[int(q*float64(len(sorted)-1))].Microseconds()) / 1000
}

// work uses a CPU for so long, by the time of the CPU and not of the clock.
func work(d time.Duration) {
	begin := cpuTime()
	for cpuTime()-begin < d {
	}
}

func cpuTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_PROCESS_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// Janitor clears up when whoever started it is gone, however it went: it waits for the
// end of standard input, whose other end only the drill holds, and then clears the drill's
// cgroups and removes its directory, if it had one.
func Janitor(ground, dir string) error {
	if _, err := io.Copy(io.Discard, os.Stdin); err != nil {
		return err
	}
	var errs []error
	if _, err := os.Stat(ground); err == nil { // else the drill cleared it
		errs = append(errs, Clear(ground))
	}
	if dir != "" {
		errs = append(errs, removeOwn(dir))
	}
	return errors.Join(errs...)
}

// removeOwn removes a directory that a drill made. The programs that were started in it
// end at the same moment, and may still be writing there.
func removeOwn(dir string) error {
	if !strings.HasPrefix(filepath.Base(dir), prefix) || filepath.Dir(dir) != filepath.Clean(os.TempDir()) {
		return fmt.Errorf("remove %s: not a directory of a drill", dir)
	}
	err := os.RemoveAll(dir)
	for range 100 {
		time.Sleep(20 * time.Millisecond)
		if err = os.RemoveAll(dir); err == nil {
			if _, gone := os.Stat(dir); gone != nil {
				return nil
			}
		}
	}
	return err
}
