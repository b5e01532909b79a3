package main

import (
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/systemd"
)

// waiting is what there is to say until breakerd is heard of.
const waiting = "waiting for breakerd"

// silentAfter is how long breakerd, whose heart beats once a second, may be silent before
// the line says so. What is held is let go later: see heartbeat_timeout.
const silentAfter = 5 * time.Second

// statusLine is what systemctl status shows: who is heard of, and what is held.
func statusLine(is enforce.Status, refused bool, now time.Time) string {
	line := waiting
	switch {
	case is.Paused != "":
		line = is.Paused
	case is.LastHeartbeat != nil && now.Sub(*is.LastHeartbeat) > silentAfter:
		line = fmt.Sprintf("breakerd was last heard of %s ago", now.Sub(*is.LastHeartbeat).Round(time.Second))
	case is.LastHeartbeat != nil:
		line = "breakerd is connected"
	}
	return fmt.Sprintf("%s; %d leases%s", line, is.Leases, configNote(refused))
}

func configNote(refused bool) string {
	if !refused {
		return ""
	}
	return "; configuration refused: see breakerctl config check"
}

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
	if err := systemd.Status("undoing whatever was left behind"); err != nil {
		p.Log.Warn("systemd was not told", "error", err)
	}
	p.Ready = func() {
		tell(systemd.Started("breaker-enforcer", version, model.Enforce), systemd.Ready(waiting))
	}
	p.Stopping = func() {
		tell(systemd.Stopped("breaker-enforcer", "asked to stop"), systemd.Stopping("releasing every lease"))
	}
	var refused atomic.Bool // the configuration that was read last
	p.Reloading = func() {
		if err := systemd.Reloading(); err != nil {
			p.Log.Warn("systemd was not told", "error", err)
		}
	}
	p.Reloaded = func(changed, pending []string, err error) {
		said := systemd.ConfigLoaded("breaker-enforcer", changed, pending)
		if err != nil {
			said = systemd.ConfigRefused("breaker-enforcer", err)
		}
		refused.Store(err != nil)
		tell(said, systemd.Ready("the configuration was read again"+configNote(err != nil)))
	}
	var err error
	if p.AliveEvery, err = systemd.WatchdogInterval(); err != nil {
		p.Log.Warn("the watchdog is not served", "error", err)
	}
	if p.AliveEvery > 0 {
		p.Alive = func(is enforce.Status) {
			if err := errors.Join(systemd.Watchdog(), systemd.Status(statusLine(is, refused.Load(), time.Now()))); err != nil {
				p.Log.Warn("systemd was not told", "error", err)
			}
		}
	}
	if p.Listener, err = systemd.Listener(); err != nil {
		return err
	}
	return p.Run(c.Context())
}
