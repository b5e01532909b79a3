package detect

import (
	"fmt"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

func TestPathsOfCgroupsThatAreGoneAreForgottenAndThoseOfOpenIncidentsAreNot(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	contend := func() {
		s.fight(120*time.Millisecond, 10*time.Millisecond, 0)
		s.end(1, 1)
	}
	for range 16 {
		contend()
	}
	in := s.open(model.CPUContention)
	if in == nil {
		t.Fatal("nothing opened")
	}
	// For a minute thousands of cgroups come and go each second. The culprit and its
	// victim are not named again, and still wait.
	next := model.CgroupID(1000)
	most := 0
	for range 4 * 60 {
		for range 1000 {
			s.sample.Cgroups = append(s.sample.Cgroups, model.CgroupSample{ID: next, Path: fmt.Sprintf("/job-%d", next), RunNS: 1})
			next++
		}
		s.sample.Cgroups = append(s.sample.Cgroups, model.CgroupSample{ID: job, RunNS: 4e8}, model.CgroupSample{ID: service, RunNS: 5e7, WaitNS: 12e7})
		s.waits(job, service, 120*time.Millisecond)
		s.end(1, 1)
		most = max(most, len(s.watch.window.names.byID))
	}
	if bound := 4000 * 17; most > bound {
		t.Errorf("%d paths were remembered, want those of the last 16 s at most (%d)", most, bound)
	}
	in = s.open(model.CPUContention)
	if in == nil || in.Victims[0].Cgroup != "/service" || s.watch.window.path(job) != "/job" {
		t.Errorf("the names of an open incident were forgotten: %+v", in)
	}
	for range 4 * 40 {
		s.end(0, 0)
	}
	if left := len(s.watch.window.names.byID); left != 0 {
		t.Errorf("%d paths are remembered 40 s after everything ended", left)
	}
}

func TestAKeyframeNamesTheCgroupsThatAreKnown(t *testing.T) {
	s := newScene()
	s.cgroup(model.CgroupSample{ID: service, RunNS: 1})
	s.cgroup(model.CgroupSample{ID: job, RunNS: 1})
	s.end(0, 0)
	key := s.watch.Keyframe()
	if len(key.Cgroups) != 2 || key.Cgroups[0].Path != "/job" || key.Cgroups[1].Path != "/service" {
		t.Errorf("cgroups %+v, want /job and /service", key.Cgroups)
	}
	if !key.Keyframe || len(key.Procs.Forked) != 1 {
		t.Errorf("keyframe %+v, want one with the one process", key)
	}
}
