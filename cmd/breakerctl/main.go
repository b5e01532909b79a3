// Command breakerctl is the operator's command line to breakerd.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/safetext"
)

// version is set by the linker.
var version = "devel"

// errSilent ends with exit status 1 after everything has been said.
var errSilent = errors.New("")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		if status, ok := errors.AsType[exitStatus](err); ok {
			os.Exit(int(status))
		}
		if !errors.Is(err, errSilent) {
			fmt.Fprintln(os.Stderr, "breakerctl:", printableLines(err.Error()))
		}
		if errors.Is(err, api.ErrNotFound) {
			os.Exit(2)
		}
		os.Exit(1)
	}
}

// printableLines keeps the lines of a message, and nothing else that could move a cursor.
func printableLines(text string) string {
	lines := strings.Split(text, "\n")
	for i, line := range lines {
		lines[i] = safetext.Printable(line)
	}
	return strings.Join(lines, "\n")
}

func command() *cobra.Command {
	a := &app{}
	c := &cobra.Command{
		Use: "breakerctl", Short: "See what breakerd sees, and let go what it holds", Long: long,
		Version: version, SilenceUsage: true, SilenceErrors: true,
		PersistentPreRunE: func(c *cobra.Command, _ []string) error {
			if a.runtimeDir == "" {
				return errors.New("--runtime-dir: it must name a directory")
			}
			return a.output.check(c)
		},
	}
	c.CompletionOptions.HiddenDefaultCmd = true
	c.SetVersionTemplate("breakerctl {{.Version}}\n")
	f := c.PersistentFlags()
	f.StringVar(&a.runtimeDir, "runtime-dir", "/run/breakerd", "`DIR` of breakerd's sockets")
	f.VarP(&a.output, "output", "o", "`FORMAT`: table or json")
	c.AddCommand(a.status(), a.incidents(), a.why(), a.whyNot(), a.blame(), a.ps(), a.top(), a.leases(), a.breakers(), a.approve(), a.release(), a.pause(), a.resume(), a.record(), a.replay(), a.report(), a.policy(), a.config(), a.doctor(), a.drill(), drillVictim(), drillJanitor())
	completeValues(c, "output", string(table), string(jsonText))
	return c
}

// app is what the subcommands share.
type app struct {
	runtimeDir string
	output     format
}

func (a *app) client() *api.Client { return api.NewClient(a.runtimeDir) }
