// Command campaign tries to leave something behind: it kills, stops and starves of memory
// breakerd and breaker-enforcer, at every labelled moment of a lease's life and at random
// ones, and compares every file of the cgroups under test with what it held before.
// docs/campaign.md tells how to read what it prints.
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"

	"github.com/breakerd/breakerd/bench/trial"
)

// options are the command line.
type options struct {
	trial.Options
	kills        int
	rounds       int
	gentle       bool
	breakerd     string
	enforcer     string
	enforcerTest string
	json         string
}

func main() {
	if role := os.Getenv(roleVar); role != "" {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, play(role, os.Args[1:]))
		os.Exit(1)
	}
	trial.Main("campaign", run)
}

func parse() (options, error) {
	var o options
	flag.IntVar(&o.kills, "kills", 1000, "so `many` random moments")
	flag.IntVar(&o.rounds, "rounds", 1, "take each labelled moment so `often`")
	o.Flags("strike only in the lanes whose name matches the `REGEX`: latencies, labelled freeze, random 0, breakerd 1, …",
		"show the `FILE` that --json wrote, and try nothing")
	flag.BoolVar(&o.gentle, "gentle", false, "one lane at a time, without load and without latencies: for an emulated processor")
	flag.StringVar(&o.breakerd, "breakerd", "", "`PATH` of the breakerd to try (default: that of this checkout, built now)")
	flag.StringVar(&o.enforcer, "enforcer", "", "`PATH` of the breaker-enforcer to try (likewise)")
	flag.StringVar(&o.enforcerTest, "enforcer-test", "", "`PATH` of the tests of package enforce, which have the labelled moments (likewise)")
	flag.StringVar(&o.json, "json", "", "write the report to the `FILE`, too")
	if err := trial.Parse(); err != nil {
		return o, err
	}
	if o.kills < 0 || o.rounds < 0 {
		return o, fmt.Errorf("--kills %d --rounds %d: neither can be less than 0", o.kills, o.rounds)
	}
	return o, nil
}

// run reports whether nothing was left behind; the error says that it could not be tried.
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
		return report.Passed, report.write(os.Stdout)
	}
	if os.Geteuid() != 0 {
		return false, errors.New("run as root: it freezes and limits cgroups")
	}
	temp, err := os.MkdirTemp("", prefix)
	if err != nil {
		return false, err
	}
	defer os.RemoveAll(temp)
	if err := o.build(ctx, temp); err != nil {
		return false, err
	}
	report, err := campaign(ctx, o, temp)
	if err != nil {
		return false, err
	}
	if o.json != "" {
		text, err := json.MarshalIndent(report, "", "  ")
		if err != nil {
			return false, err
		}
		if err := os.WriteFile(o.json, append(text, '\n'), 0o644); err != nil {
			return false, err
		}
	}
	return report.Passed, report.write(os.Stdout)
}

// build makes the programs that were not named.
func (o *options) build(ctx context.Context, temp string) error {
	for _, b := range []struct {
		path *string
		name string
		args []string
	}{
		{&o.breakerd, "breakerd", []string{"build", "-o"}},
		{&o.enforcer, "breaker-enforcer", []string{"build", "-o"}},
		{&o.enforcerTest, "enforce.test", []string{"test", "-c", "-o"}},
	} {
		if *b.path != "" {
			continue
		}
		*b.path = filepath.Join(temp, b.name)
		source := "./cmd/" + b.name
		if b.path == &o.enforcerTest {
			source = "./enforce"
		}
		if out, err := exec.CommandContext(ctx, "go", append(b.args, *b.path, source)...).CombinedOutput(); err != nil {
			return fmt.Errorf("build %s: %w: %s (run from the checkout, or name the programs)", b.name, err, out)
		}
	}
	return nil
}
