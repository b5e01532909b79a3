package systemd

import (
	"fmt"
	"strings"
	"time"

	"github.com/breakerd/breakerd/safetext"
	"github.com/coreos/go-systemd/v22/daemon"
	"golang.org/x/sys/unix"
)

// Ready tells the service manager that the program is at work (also again, after
// Reloading). Like all of these it does nothing where NOTIFY_SOCKET is not set.
func Ready(status string) error { return notify("READY=1", statusLine(status)) }

// Reloading tells that the configuration is being read again; Ready must follow.
// The time is what Type=notify-reload (systemd 253) waits for.
func Reloading() error {
	var now unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_MONOTONIC, &now); err != nil {
		return fmt.Errorf("notify systemd: read clock: %w", err)
	}
	return notify("RELOADING=1", fmt.Sprintf("MONOTONIC_USEC=%d", now.Nano()/1000))
}

// Stopping tells that the program is about to end.
func Stopping(status string) error { return notify("STOPPING=1", statusLine(status)) }

// Status sets the line that systemctl status shows.
func Status(status string) error { return notify(statusLine(status)) }

// Watchdog tells that the program is alive.
func Watchdog() error { return notify("WATCHDOG=1") }

// WatchdogInterval is how often Watchdog is due: half of what the unit allows, 0
// where it does not ask for it.
func WatchdogInterval() (time.Duration, error) {
	allowed, err := daemon.SdWatchdogEnabled(false)
	if err != nil {
		return 0, fmt.Errorf("read watchdog interval: %w", err)
	}
	return allowed / 2, nil
}

// statusLine keeps a status to its line: a newline would begin another message to
// the service manager.
func statusLine(status string) string { return "STATUS=" + safetext.Printable(status) }

func notify(lines ...string) error {
	if _, err := daemon.SdNotify(false, strings.Join(lines, "\n")); err != nil {
		return fmt.Errorf("notify systemd: %w", err)
	}
	return nil
}
