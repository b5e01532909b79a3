package daemon

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

func TestTheAPIAsksTheJudgeBetweenTwoSamples(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		s.run(t)
		s.storm(12)
		v := (*view)(s.Daemon)
		procs, err := v.Processes(t.Context(), api.Ranking{By: model.SortForks, Most: 1})
		if err != nil || len(procs) != 1 || procs[0].ProcID != bomb || procs[0].Cgroup != "/job" || procs[0].ForksPerSecond != 80 {
			t.Errorf("processes %+v, error %v, want the bomb with 80 forks a second", procs, err)
		}
		groups, err := v.Cgroups(t.Context(), api.Ranking{By: model.SortForks, Most: 1})
		if err != nil || len(groups) != 1 || groups[0].CgroupID != job {
			t.Errorf("cgroups %+v, error %v, want the bomb's", groups, err)
		}
		why, err := v.WhyNot(t.Context(), api.Subject{PID: bomb.PID})
		if err != nil || why.Process == nil || why.Cgroup.Cgroup != "/job" || len(why.Culprit) != 1 || len(why.Kinds) < 2 || !why.Kinds[0].Measures[0].Met {
			t.Errorf("why not %+v, error %v: want an incident and a threshold that is met", why, err)
		}
		if _, err := v.WhyNot(t.Context(), api.Subject{PID: 31337}); !errors.Is(err, api.ErrNotFound) || !strings.Contains(err.Error(), "31337") {
			t.Errorf("of a process that is not there: %v", err)
		}
		s.stop()
		synctest.Wait()
		ended, cancel := context.WithCancel(t.Context())
		cancel()
		if _, err := v.Processes(ended, api.Ranking{By: model.SortCPU, Most: 1}); err == nil {
			t.Error("a pipeline that has ended answered")
		}
	})
}

func TestACgroupIsFoundBelowTheMountOnly(t *testing.T) {
	root := t.TempDir()
	if id, err := cgroupID(root, "/"); err != nil || id == 0 {
		t.Errorf("the root: %d, %v", id, err)
	}
	for _, path := range []string{"/gone", "../../etc/passwd", "/../../etc/hostname", "a\x00b", strings.Repeat("a", 5000)} {
		if id, err := cgroupID(root, path); err == nil {
			t.Errorf("%q is cgroup %d", path, id)
		}
	}
	if _, err := cgroupID(root, "/gone"); !errors.Is(err, api.ErrNotFound) {
		t.Errorf("a cgroup that is gone: %v", err)
	}
}

func TestOnlyTheNewestIncidentsKeepTheirTriage(t *testing.T) {
	b := newBoard(func(string) model.Workload { return model.Workload{} })
	for i := range maxTriages + 50 {
		b.incident(model.Incident{ID: string(rune('A' + i)), State: model.Closed, Triage: &model.Triage{Cause: "x"}})
	}
	with := 0
	for _, in := range b.all() {
		if in.Triage != nil {
			with++
		}
	}
	if all := b.all(); with != maxTriages || all[0].Triage == nil {
		t.Errorf("%d incidents keep a triage, want the newest %d", with, maxTriages)
	}
}
