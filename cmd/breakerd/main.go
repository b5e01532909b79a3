// Command breakerd watches this machine, says who stalls whom, and asks the operator's
// policies what to do about it.
package main

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/daemon"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/settings"
)

// version is set by the linker.
var version = "devel"

func main() {
	signal.Ignore(syscall.SIGPIPE) // a journald that is stopped must not end it: see breaker-enforcer
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	if err := command().ExecuteContext(ctx); err != nil {
		fmt.Fprintln(os.Stderr, "breakerd:", err)
		os.Exit(1)
	}
}

func command() *cobra.Command {
	var file, runtimeDir, stateDir, mode string
	var policies []string
	c := &cobra.Command{
		Use: "breakerd", Short: "Watch who stalls whom on this machine, and ask the policies what to do", Long: long,
		Version: version, Args: cobra.NoArgs, SilenceUsage: true, SilenceErrors: true,
		RunE: func(c *cobra.Command, _ []string) error {
			load := func() (settings.Settings, error) {
				return configure(c.Flags(), file, runtimeDir, stateDir, mode, policies)
			}
			reload := make(chan os.Signal, 1)
			signal.Notify(reload, syscall.SIGHUP)
			return daemon.Run(c.Context(), load, stateDir, openHistory, version, slog.New(slog.NewJSONHandler(os.Stderr, nil)), reload)
		},
	}
	c.CompletionOptions.DisableDefaultCmd = true
	c.SetVersionTemplate("breakerd {{.Version}}\n")
	f := c.Flags()
	f.StringVar(&file, "config", "", "configuration `FILE` (default "+settings.DefaultFile+", which may be missing)")
	f.StringVar(&mode, "mode", string(model.Monitor), "`MODE`: monitor, dry-run or enforce")
	f.StringArrayVar(&policies, "policy", nil, "`DIR` of .rego files, or one file, instead of the configuration's; may be given more than once")
	f.StringVar(&runtimeDir, "runtime-dir", settings.Default().RuntimeDir, "`DIR` of the sockets; made if missing")
	f.StringVar(&stateDir, "state-dir", settings.DefaultStateDir, "`DIR` of what is kept: history in its folder history, and what was learned of culprits in daemon")
	return c
}
