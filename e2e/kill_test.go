package e2e

import (
	"context"
	"encoding/json"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// endless is a fork storm that goes on while it is thawed: 50 processes a second that
// live for a second.
const endless = "while :; do sleep 1 & sleep 0.02; done"

// Both programs do their real work, and one of them is killed at a random moment, again
// and again. The other half of the proof, 255 kills of the enforcer at labelled points and
// at random moments, is with package enforce.
func TestWhicheverProgramIsKilledEverythingIsThawed(t *testing.T) {
	if testing.Short() {
		t.Skip("takes half a minute")
	}
	const (
		kills     = 20
		heartbeat = time.Second
		bound     = 2 * time.Second
	)
	h := newHouse(t)
	h.file("rules/freeze.rego", freezeAll)
	h.enforcerConfig = h.file("enforcer.yaml", `
heartbeat_timeout: 1s
cooldown: 0s
rate:
  per_target: {every: 1ms, burst: 1000}
  overall: {every: 1ms, burst: 1000}
`)
	quick := h.file("quick.yaml", "tick: 100ms\ndetect: {fork_storm: {hold: 100ms}, hysteresis: {close_after: 300ms}}\nbreaker: {start_quiet: 0s}\n")
	breakerd := func() *program {
		p := h.start("breakerd", "--config", quick, "--mode", "enforce", "--policy", h.rules)
		h.ready()
		return p
	}
	scratch := kerneltest.ScratchCgroup(t)
	scratch.Start("sh", "-c", endless)
	thawed := func() bool { return scratch.Read("cgroup.freeze") == "0" && !scratch.Frozen() }

	enforcer, watcher := h.enforcer(), breakerd()
	frozen := 0
	var worst, worstBeat time.Duration
	for i := range kills {
		// Most kills hit while something is held, and the rest anywhere before that.
		if i%4 != 0 {
			h.eventually(15*time.Second, "the storm is frozen", func(context.Context) bool { return scratch.Frozen() })
			frozen++
		}
		time.Sleep(rand.N(150 * time.Millisecond))
		if i%2 == 0 {
			enforcer.cmd.Process.Kill()
			<-enforcer.ended
			// breakerd stands still until we have looked: it would have it frozen anew.
			watcher.cmd.Process.Signal(syscall.SIGSTOP)
			enforcer = h.enforcer()
			// It is back once its socket answers; by then everything has been undone.
			h.eventually(5*time.Second, "the enforcer is back", func(context.Context) bool {
				return strings.Contains(enforcer.said(), "breaker-enforcer is ready")
			})
			back := time.Now()
			for !thawed() && time.Since(back) < bound {
				time.Sleep(time.Millisecond)
			}
			worst = max(worst, time.Since(back))
			if time.Since(back) >= bound {
				t.Fatalf("kill %d: still frozen %v after the enforcer is back", i, bound)
			}
			watcher.cmd.Process.Signal(syscall.SIGCONT)
			continue
		}
		watcher.cmd.Process.Kill()
		killed := time.Now()
		<-watcher.ended
		for !thawed() && time.Since(killed) < heartbeat+bound {
			time.Sleep(time.Millisecond)
		}
		worstBeat = max(worstBeat, time.Since(killed))
		if time.Since(killed) >= heartbeat+bound {
			t.Fatalf("kill %d: still frozen %v after breakerd was killed, with a heartbeat of %v", i, heartbeat+bound, heartbeat)
		}
		watcher = breakerd()
	}
	watcher.signal(syscall.SIGTERM)
	enforcer.signal(syscall.SIGTERM)
	if !thawed() {
		t.Error("still frozen after both were stopped")
	}
	t.Logf("%d kills, %d of them while something was held: thawed at most %v after the enforcer was back, and %v after breakerd was killed (heartbeat %v)",
		kills, frozen, worst.Round(time.Millisecond), worstBeat.Round(time.Millisecond), heartbeat)
	checkLeases(t, h.state)
}

// checkLeases says that every lease has ended, once, and tells why.
func checkLeases(t *testing.T, state string) {
	t.Helper()
	active, _ := filepath.Glob(filepath.Join(state, "leases", "active", "*.json"))
	if len(active) > 0 {
		t.Errorf("leases that never ended: %v", active)
	}
	ended, _ := filepath.Glob(filepath.Join(state, "leases", "ended", "*.json"))
	if len(ended) == 0 {
		t.Error("no lease was recorded")
	}
	reasons := map[model.EndReason]int{}
	for _, file := range ended {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		var l model.Lease
		if err := json.Unmarshal(text, &l); err != nil {
			t.Errorf("%s: %v", file, err)
		}
		if l.EndReason == "" || l.EndedAt == nil {
			t.Errorf("%s does not say why and when it ended", file)
		}
		reasons[l.EndReason]++
	}
	t.Logf("%d leases ended: %v", len(ended), reasons)
}
