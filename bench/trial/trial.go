// Package trial is what the programs have in common that try breakerd and print a report: they
// have options only, end with what the report says, and show again what another run wrote.
package trial

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"syscall"
)

// Options are those of every trial.
type Options struct {
	Only regexp.Regexp // by name, what is tried
	Read string        // the file with a report that is to be shown, and nothing tried
}

// Flags defines them, each with the words for it.
func (o *Options) Flags(only, read string) {
	flag.TextVar(&o.Only, "only", regexp.MustCompile(""), only)
	flag.StringVar(&o.Read, "read", "", read)
}

// Parse parses the command line, in which there are only options.
func Parse() error {
	flag.Parse()
	if flag.NArg() > 0 {
		return fmt.Errorf("%q: there are only options", flag.Arg(0))
	}
	return nil
}

// Main runs a trial until it has ended or is interrupted, and ends the program: with 1 where it
// was not passed, and with 2 where it could not be tried.
func Main(name string, run func(context.Context) (passed bool, err error)) {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
	passed, err := run(ctx)
	stop()
	if err != nil {
		fmt.Fprintf(os.Stderr, "%s: %v\n", name, err)
		os.Exit(2)
	}
	if !passed {
		os.Exit(1)
	}
}

// Load reads the report that another run wrote.
func Load(path string, report any) error {
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	if err := json.Unmarshal(text, report); err != nil {
		return fmt.Errorf("read report %s: %w", path, err)
	}
	return nil
}
