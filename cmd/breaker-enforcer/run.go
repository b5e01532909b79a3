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
	p.Reloading = func() {
		if err := systemd.Reloading(); err != nil {
			p.Log.Warn("systemd was not told", "error", err)
		}
	}
	p.Reloaded = func(changed, pending []string, err error) {
		said, status := systemd.ConfigLoaded("breaker-enforcer", changed, pending), "waiting for breakerd"
		if err != nil {
			said, status = systemd.ConfigRefused("breaker-enforcer", err), "waiting for breakerd; configuration refused: see breakerctl config check"
		}
		tell(said, systemd.Ready(status))
	}
	var err error
	if p.AliveEvery, err = systemd.WatchdogInterval(); err != nil {
		p.Log.Warn("the watchdog is not served", "error", err)
	}
	if p.AliveEvery > 0 {
		p.Alive = func() {
			if err := systemd.Watchdog(); err != nil {
				p.Log.Warn("systemd was not told", "error", err)
			}
		}
	}
	if p.Listener, err = systemd.Listener(); err != nil {
		return err
	}
	return p.Run(c.Context())
}
