//go:build vm

package owner_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// As the machine goes down, systemd stops all units in one transaction, each when those that
// are ordered after it have ended. Nothing is ordered after the enforcer, so it is told to stop
// at once, and lets go of what is held while the stop of that waits for it. A target that
// conflicts with them does the same as shutdown.target, and the machine goes on.
func TestWhatIsHeldAsTheMachineGoesDownEndsInGoodOrder(t *testing.T) {
	dir := t.TempDir()
	if err := os.Chmod(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	script := func(mark string) string {
		return "trap 'echo well >" + mark + "; exit' TERM; while :; do sleep 0.1; done"
	}
	var marks, units []string
	begin := func(options ...string) string {
		mark := filepath.Join(dir, "mark-"+string(rune('a'+len(marks))))
		unit, cgroup := start(t, script(mark), options...)
		marks, units = append(marks, mark), append(units, unit)
		return cgroup
	}
	frozen := begin()
	delegated := begin("-p", "Delegate=yes")
	limited := begin()
	for _, cgroup := range []string{frozen, delegated} {
		if out := propose(t, cgroup, 0, 5*time.Minute); out.ConfirmedAt == nil {
			t.Fatalf("%s: got %+v", cgroup, out)
		}
	}
	throttle(t, limited, model.Action{CPUPercent: 1})

	target := "[Unit]\nConflicts=breaker-enforcer.service breaker-enforcer.socket"
	for _, unit := range units {
		target += " " + unit
	}
	if err := os.WriteFile("/run/systemd/system/going-down.target", []byte(target+"\n"), 0o644); err != nil {
		t.Fatal(err)
	}
	run(t, "systemctl", "daemon-reload")
	t.Cleanup(func() {
		_, _ = try("systemctl", "stop", "going-down.target")
		_ = os.Remove("/run/systemd/system/going-down.target")
		run(t, "systemctl", "start", "breaker-enforcer.socket")
		eventually(t, "it answers again", func() bool { _, err := client.Status(context.Background()); return err == nil })
	})
	began := time.Now()
	run(t, "systemctl", "start", "going-down.target")
	for i, unit := range units {
		eventually(t, unit+" has ended", func() bool { s := prop(t, unit, "ActiveState"); return s == "inactive" || s == "failed" })
		if b, err := os.ReadFile(marks[i]); err != nil {
			t.Errorf("%s was not ended in good order: %q, %v", unit, b, err)
		}
	}
	t.Logf("all had ended after %s", time.Since(began).Round(time.Millisecond))
}
