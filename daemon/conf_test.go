package daemon

import (
	"context"
	"errors"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/observe"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

// reloading runs a stage whose configuration is what next says at each reload.
func reloading(t *testing.T, s *stage, next *settings.Settings, bad *error) (reload func()) {
	s.conf.load = func() (settings.Settings, error) { return *next, *bad }
	signals := make(chan os.Signal)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { s.reloads(ctx, signals); close(ended) }()
	t.Cleanup(func() { cancel(); <-ended })
	return func() {
		signals <- os.Interrupt
		synctest.Wait()
	}
}

func TestAReloadAppliesWhatCanBeAndSaysWhatCannot(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		next, bad := s.conf.get(), error(nil)
		next.Policies.Paths = nil
		s.conf.now = next
		s.run(t)
		reload := reloading(t, s, &next, &bad)
		s.storm(4)
		if open, _ := s.board.counts(); open != 0 {
			t.Fatalf("%d incidents are open after a second, and the hold is two", open)
		}
		next.Detect.ForkStorm.ForksPerSecond = 1000 // of 80
		next.Tick *= 2
		next.Mode = model.Enforce
		reload()
		s.storm(20)
		if _, total := s.board.counts(); total != 0 {
			t.Errorf("%d incidents opened by a threshold that is not in force any more", total)
		}
		if s.eyes.tick != 500*time.Millisecond {
			t.Errorf("the tick was set to %v", s.eyes.tick)
		}
		if got := s.conf.get(); got.Mode != model.Monitor || got.Detect.ForkStorm.ForksPerSecond != 1000 {
			t.Errorf("in force: %+v", got)
		}
		status := (*view)(s.Daemon).Status(t.Context())
		if !cmp.Equal(status.Config.NeedsRestart, []string{"mode"}) || status.Config.Error != "" {
			t.Errorf("status says %+v", status.Config)
		}
		e := s.diary.last(systemd.MsgConfigLoaded)
		if e.Fields[systemd.FieldChanged] != "tick detect.fork_storm.forks_per_second" || e.Fields[systemd.FieldPending] != "mode" || e.Priority != systemd.Warning {
			t.Errorf("told: %+v", e)
		}
		if line := s.statusLine(); !strings.Contains(line, "needs a restart: mode") {
			t.Errorf("STATUS=%s", line)
		}

		next.Detect.ForkStorm.ForksPerSecond, next.Mode = 10, model.Monitor
		reload()
		s.storm(10)
		if _, total := s.board.counts(); total != 1 {
			t.Errorf("%d incidents with the old threshold again, want 1", total)
		}
		next.Detect.ForkStorm.ForksPerSecond = 1000
		reload()
		s.storm(24) // six seconds, and an incident closes after five
		if open, total := s.board.counts(); open != 0 || total != 1 {
			t.Errorf("%d incidents open of %d: what was open does not close by the new threshold", open, total)
		}
		next.Detect.ForkStorm.ForksPerSecond = 10
		reload()
		if status := (*view)(s.Daemon).Status(t.Context()); len(status.Config.NeedsRestart) != 0 {
			t.Errorf("status still says %+v", status.Config)
		}
	})
}

func TestAConfigurationThatIsRefusedLeavesTheOldOneInForceAndIsToldOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		next, bad := s.conf.get(), errors.New("c.yaml:3:1: unknown key")
		next.Detect.ForkStorm.ForksPerSecond = 1000
		s.run(t)
		reload := reloading(t, s, &next, &bad)
		reload()
		if got := s.conf.get(); got.Detect.ForkStorm.ForksPerSecond != 10 {
			t.Errorf("in force: %+v", got.Detect.ForkStorm)
		}
		status := (*view)(s.Daemon).Status(t.Context())
		if status.Config.Error != bad.Error() || len(status.LastErrors) != 1 || !strings.Contains(status.LastErrors[0].Message, "c.yaml:3:1") {
			t.Errorf("status says %+v, last errors %+v", status.Config, status.LastErrors)
		}
		if n := len(slices.DeleteFunc(s.diary.ids(), func(id systemd.MessageID) bool { return id != systemd.MsgConfigRefused })); n != 1 {
			t.Errorf("told %d times", n)
		}
		if line := s.statusLine(); !strings.Contains(line, "configuration refused") {
			t.Errorf("STATUS=%s", line)
		}
		bad = nil
		reload()
		if status := (*view)(s.Daemon).Status(t.Context()); status.Config.Error != "" {
			t.Errorf("status still says %q", status.Config.Error)
		}
	})
}

func TestWhatTheMachineLacksIsInTheStatusLine(t *testing.T) {
	s := newStage(t, "")
	if got := s.statusLine(); got != "monitor; 0 incidents open, 0 since the start" {
		t.Errorf("STATUS=%s", got)
	}
	s.eyes.lacks = []observe.Missing{{What: "BTF", Text: "nobody is blamed"}, {What: "pressure stall information", Text: "boot with psi=1"}}
	if got := s.statusLine(); !strings.Contains(got, "not on this machine: BTF, pressure stall information; see breakerctl doctor") {
		t.Errorf("STATUS=%s", got)
	}
	status := (*view)(s.Daemon).Status(t.Context())
	// What the process of these tests takes, with the race detector in it, is no matter.
	status.Problems = slices.DeleteFunc(status.Problems, func(p string) bool { return strings.HasPrefix(p, "breakerd itself takes") })
	if want := []api.Missing{{What: "BTF", Text: "nobody is blamed"}, {What: "pressure stall information", Text: "boot with psi=1"}}; !cmp.Equal(status.Missing, want) || len(status.Problems) > 0 {
		t.Errorf("status says %q, and problems %q", status.Missing, status.Problems)
	}
}

func TestOnlyTheLastWarningsAreKept(t *testing.T) {
	s := newStage(t, "")
	s.teller.write(systemd.PoliciesLoaded("x", 1))
	s.teller.write(systemd.IncidentOpened(model.Incident{ID: "a", Level: model.Critical}))
	for range keptTold + 5 {
		s.teller.write(systemd.EnforcerLost(errors.New("gone")))
	}
	if told, lost := s.teller.told(); len(told) != keptTold || lost != 0 || told[0].Priority != 3 {
		t.Errorf("%d are kept, %d lost: %+v", len(told), lost, told)
	}
}

// last is the last entry of a kind.
func (d *diary) last(id systemd.MessageID) (e systemd.Entry) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range d.entries {
		if d.entries[i].MessageID == id {
			e = d.entries[i]
		}
	}
	return e
}
