// Command accuracy proves that breakerd is right about who: it makes labelled trouble and
// labelled harmless load in cgroups of its own, beside a breakerd of its own that only
// watches, and compares what breakerd said with what was done. docs/accuracy.md tells how
// to read what it prints.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"runtime"
	"slices"

	"github.com/breakerd/breakerd/bench/trial"
)

// options are the command line.
type options struct {
	trial.Options
	runs     int
	breakerd string
	ctl      string
	format   string
	dir      string
	list     bool
}

func init() {
	// PR_SET_PDEATHSIG is about the thread that forked, so the main one has to do that.
	runtime.LockOSThread()
}

func main() {
	if kind := os.Getenv(workerVar); kind != "" {
		if err := work(kind, os.Args[1:]); err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", kind, err)
			os.Exit(1)
		}
		return
	}
	trial.Main("accuracy", run)
}

func parse() (options, error) {
	var o options
	flag.IntVar(&o.runs, "runs", 1, "take each scenario so `often`")
	o.Flags("take the scenarios whose name matches the `REGEX`", "show the `FILE` that -o json wrote, and take nothing")
	flag.BoolVar(&o.list, "list", false, "list the scenarios, what is expected of each, and what is missing here")
	flag.StringVar(&o.breakerd, "breakerd", "", "`PATH` of the breakerd to try (default: that of this checkout, built now)")
	flag.StringVar(&o.ctl, "breakerctl", "", "`PATH` of the breakerctl that replays (default: as for breakerd)")
	flag.StringVar(&o.format, "o", "table", "`FORMAT`: table or json")
	flag.StringVar(&o.dir, "dir", os.TempDir(), "`DIR` on the disk that the scenarios of io use")
	if err := trial.Parse(); err != nil {
		return o, err
	}
	if o.format != "table" && o.format != "json" {
		return o, fmt.Errorf("-o %q is neither table nor json", o.format)
	}
	if o.runs < 1 {
		return o, fmt.Errorf("--runs %d: at least 1", o.runs)
	}
	return o, nil
}

// run reports whether breakerd was right; the error says that it could not be tried.
func run(ctx context.Context) (ok bool, err error) {
	o, err := parse()
	if err != nil {
		return false, err
	}
	if o.Read != "" {
		var report Report
		if err := trial.Load(o.Read, &report); err != nil {
			return false, err
		}
		return report.Summary.Passed, report.write(os.Stdout)
	}
	chosen := slices.DeleteFunc(scenarios(runtime.NumCPU()), func(s scenario) bool { return !o.Only.MatchString(s.name) })
	if len(chosen) == 0 {
		return false, fmt.Errorf("--only %s matches no scenario", &o.Only)
	}
	here, err := look(o)
	if err != nil {
		return false, err
	}
	if o.list {
		return true, writeList(os.Stdout, chosen, here)
	}
	if os.Geteuid() != 0 {
		return false, errors.New("run as root: it makes cgroups, and breakerd needs CAP_BPF and CAP_PERFMON")
	}
	report, err := prove(ctx, o, here, chosen)
	if err != nil {
		return false, err
	}
	if o.format == "json" {
		out := json.NewEncoder(os.Stdout)
		out.SetIndent("", "  ")
		err = out.Encode(report)
	} else {
		err = report.write(os.Stdout)
	}
	return report.Summary.Passed, err
}
