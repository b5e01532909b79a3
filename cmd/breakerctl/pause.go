package main

import (
	"context"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) pause() *cobra.Command {
	var long time.Duration
	c := &cobra.Command{
		Use: "pause", Short: "Have nothing new begun for a while", Args: cobra.NoArgs,
		Long: `Have the enforcer begin nothing new, for the time given with --for or until breakerctl resume.
What is held goes on to its end: breakerctl release --all ends it. breakerd goes on to watch
and to tell. A pause outlives a restart of the enforcer, and of the machine.

Whoever is in the group breakerd may pause; only root may resume.

Where nothing answers any more, a file RELEASE does both, for as long as it is there. The
second cannot be taken away by breakerd's own user:

  touch /run/breakerd/RELEASE
  touch /var/lib/breakerd/RELEASE`,
		RunE: func(c *cobra.Command, _ []string) error {
			if c.Flags().Changed("for") && (long < time.Second || long > enforce.MaxPause) {
				return fmt.Errorf("--for %s: it must be between 1s and %s; without it the pause goes on until breakerctl resume", long, enforce.MaxPause)
			}
			return a.tellPaused(c, func(ctx context.Context, e *enforce.Client) (enforce.Status, error) { return e.Pause(ctx, long) })
		},
	}
	c.Flags().DurationVar(&long, "for", 0, "how long, from 1s to 720h; until breakerctl resume if not given")
	return c
}

func (a *app) resume() *cobra.Command {
	return &cobra.Command{
		Use: "resume", Short: "End a pause", Args: cobra.NoArgs,
		Long: `End a pause: the enforcer carries out again what the policies ask for and the guards let through.
Only root may.`,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.tellPaused(c, func(ctx context.Context, e *enforce.Client) (enforce.Status, error) { return e.Resume(ctx) })
		},
	}
}

// tellPaused asks the enforcer itself: breakerd may hang, and may not resume.
func (a *app) tellPaused(c *cobra.Command, ask func(context.Context, *enforce.Client) (enforce.Status, error)) error {
	e := enforce.NewClient(a.runtimeDir)
	defer e.Close()
	status, err := ask(c.Context(), e)
	if err != nil {
		return fmt.Errorf("%w (where breaker-enforcer does not run, nothing is held or begun)", err)
	}
	if a.output == jsonText {
		return writeJSON(c.OutOrStdout(), map[string]any{"paused": status.Paused})
	}
	text := "not paused"
	if status.Paused != "" {
		text = status.Paused
	}
	fmt.Fprintln(c.OutOrStdout(), safetext.Printable(text))
	return nil
}
