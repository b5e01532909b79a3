// Command breaker-enforcer is the only program of breakerd that writes a cgroup.
package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/systemd"
)

// mostThreads run Go code at a time: an undo for each of a few leases, and the answers to them.
const mostThreads = 4

// version is set by the linker.
var version = "devel"

func main() {
	// Go ends a program that writes to a standard error whose reader is gone, as journald's is
	// where it was stopped, although systemd has SIGPIPE ignored (os/signal).
	signal.Ignore(syscall.SIGPIPE)
	boundThreads()
	log := newLogWriter(os.Stderr)
	err := command(log).ExecuteContext(context.Background())
	if err != nil {
		fmt.Fprintln(log, "breaker-enforcer:", err)
	}
	log.Close()
	if err != nil {
		os.Exit(1)
	}
}

// boundThreads bounds them unless the environment says so. Go's collector of garbage may start one
// for each CPU, and there are machines with more of them than a unit may have threads: to be refused
// one ends the program.
func boundThreads() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(mostThreads, runtime.GOMAXPROCS(0)))
	}
}

func command(log io.Writer) *cobra.Command {
	p := enforce.Program{Version: version, Log: slog.New(slog.NewJSONHandler(log, nil))}
	var undo bool
	c := &cobra.Command{
		Use:           "breaker-enforcer",
		Short:         "Freeze or throttle a cgroup for a limited time, if every guard agrees, and undo it again",
		Long:          long,
		Version:       version,
		Args:          cobra.NoArgs,
		SilenceUsage:  true,
		SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			journal := systemd.OpenJournal("breaker-enforcer", log)
			defer journal.Close()
			p.Recorder = enforce.NewJournalRecorder(journal, p.Log)
			if undo {
				return undoAll(c, p)
			}
			return run(c, p, journal)
		},
	}
	c.CompletionOptions.DisableDefaultCmd = true
	c.SetVersionTemplate("breaker-enforcer {{.Version}}\n")
	f := c.Flags()
	f.StringVar(&p.ConfigFile, "config", "", "configuration `FILE` (default "+enforce.DefaultConfigFile+", which may be missing)")
	f.StringVar(&p.RuntimeDir, "runtime-dir", "/run/breakerd", "`DIR` of the socket; made if missing")
	f.StringVar(&p.StateDir, "state-dir", "/var/lib/breakerd", "`DIR` of the records of leases; made if missing")
	f.StringVar(&p.CgroupRoot, "cgroup-root", "", "`DIR` where cgroup2 is mounted (default: found in /proc/self/mountinfo)")
	f.BoolVar(&undo, "undo", false, "undo every lease that is left, report, and exit; refused while an enforcer runs")
	return c
}
