package main

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) release() *cobra.Command {
	var all bool
	c := &cobra.Command{
		Use: "release ID | --all", Short: "Let go what is held, before its time is up", Args: cobra.MaximumNArgs(1), ValidArgsFunction: a.completeLeases,
		Long: `End a lease, or all of them: what was frozen is thawed, and the command returns when that
is done. If breakerd does not answer within two seconds, the enforcer is asked itself. If that
does not answer either, these let go as well. Others may be held next: breakerctl pause first
where that is not wanted.

  kill -USR2 $(pidof breaker-enforcer)
  systemctl stop breaker-enforcer        or end the process with SIGTERM
  /usr/libexec/breakerd/breaker-enforcer --undo
                                         if it does not run any more`,
		RunE: func(c *cobra.Command, args []string) error {
			id := ""
			switch {
			case all == (len(args) == 1):
				return errors.New("name one lease, or say --all")
			case !all:
				if id = args[0]; id == "" {
					return errors.New("the lease's ID is empty: breakerctl leases lists them")
				}
			}
			if err := a.letGo(c.Context(), id); err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), map[string]any{"released": or(id, "all")})
			}
			fmt.Fprintf(c.OutOrStdout(), "released %s\n", safetext.Printable(or(id, "everything")))
			return nil
		},
	}
	c.Flags().BoolVar(&all, "all", false, "every lease")
	return c
}

// askBound is how long breakerd may take. Letting go takes milliseconds; a breakerd that
// hangs must not stand between an operator and the enforcer.
const askBound = 2 * time.Second

// letGo releases a lease, or all of them where the ID is "".
func (a *app) letGo(ctx context.Context, id string) error {
	bounded, cancel := context.WithTimeout(ctx, askBound)
	defer cancel()
	err := a.client().Release(bounded, id)
	if err == nil {
		return nil
	}
	enforcer := enforce.NewClient(a.runtimeDir)
	defer enforcer.Close()
	var direct error
	if id == "" {
		_, direct = enforcer.ReleaseAll(ctx)
	} else {
		_, direct = enforcer.Release(ctx, id)
	}
	if direct == nil {
		return nil
	}
	return fmt.Errorf("%w; and the enforcer: %w", err, direct)
}
