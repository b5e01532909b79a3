package main

import (
	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/systemd"
)

// run serves until it is told to stop, and tells systemd and the journal when it begins
// and ends.
func run(c *cobra.Command, p enforce.Program, journal *systemd.Journal) error {
	tell := func(e systemd.Entry, notify error) {
		if err := journal.Write(e); err != nil {
			p.Log.Warn("journal entry lost", "error", err)
		}
		if notify != nil {
			p.Log.Warn("systemd was not told", "error", notify)
		}
	}
	p.Ready = func() {
		tell(systemd.Started("breaker-enforcer", version, model.Enforce), systemd.Ready("waiting for breakerd"))
	}
	p.Stopping = func() {
		tell(systemd.Stopped("breaker-enforcer", "asked to stop"), systemd.Stopping("releasing every lease"))
	}
	return p.Run(c.Context())
}
