package systemd

import (
	"regexp"
	"testing"
	"time"
)

func TestNotify(t *testing.T) {
	path, conn := journald(t) // the manager's socket is of the same kind
	t.Setenv("NOTIFY_SOCKET", path)
	tests := []struct {
		name, want string
		call       func() error
	}{
		{"ready", "^READY=1\nSTATUS=watching$", func() error { return Ready("watching") }},
		{"reloading", "^RELOADING=1\nMONOTONIC_USEC=[1-9][0-9]*$", Reloading},
		{"stopping", "^STOPPING=1\nSTATUS=terminated$", func() error { return Stopping("terminated") }},
		{"status", "^STATUS=2 incidents$", func() error { return Status("2 incidents") }},
		{"watchdog", "^WATCHDOG=1$", Watchdog},
		{"a hostile status stays in its line", `^STATUS=x\\x0aMAINPID=1$`, func() error { return Status("x\nMAINPID=1") }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if err := tt.call(); err != nil {
				t.Fatal(err)
			}
			if got := receive(t, conn); !regexp.MustCompile(tt.want).MatchString(got) {
				t.Errorf("got %q", got)
			}
		})
	}
}

func TestNotifyDoesNothingWithoutAManager(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Ready("x"); err != nil {
		t.Error(err)
	}
}

func TestWatchdogIsDueAtHalfTheTime(t *testing.T) {
	t.Setenv("WATCHDOG_USEC", "10000000")
	t.Setenv("WATCHDOG_PID", "")
	if d, err := WatchdogInterval(); err != nil || d != 5*time.Second {
		t.Errorf("got %v, %v", d, err)
	}
	t.Setenv("WATCHDOG_USEC", "")
	if d, err := WatchdogInterval(); err != nil || d != 0 {
		t.Errorf("without: %v, %v", d, err)
	}
}
