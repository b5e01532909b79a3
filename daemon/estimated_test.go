package daemon

import (
	"testing"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

func TestTheBoardTellsWhatIsEstimatedFromWhatIsMeasured(t *testing.T) {
	b := newBoard(unitOf)
	boot := time.Hour
	for i := range uint64(8) {
		boot += tickLength
		s := waiting(boot, 10*time.Millisecond)
		s.Keyframe = i == 0
		s.Host = model.Host{MemTotalBytes: 1 << 30, MemAvailBytes: 1 << 20}
		s.Cgroups[0].IOHeldNS = 30e6
		s.Cgroups[1].IOHeldNS = 10e6
		s.Cgroups[1].Detail = &model.CgroupDetail{Pressure: &model.Pressure{IO: model.Stall{SomeUS: 20_000 * i}, Memory: model.Stall{SomeUS: 5_000 * i}}}
		s.Procs.Usage = []model.Usage{{ProcID: model.ProcID{PID: 7}, Cgroup: job, RSSBytes: (i + 1) << 24}}
		b.sample(s)
	}
	got, err := b.blame(0)
	if err != nil {
		t.Fatal(err)
	}
	want := map[model.Resource]struct {
		estimated   bool
		stall, self float64
	}{
		model.CPU:    {false, 80, 0},
		model.IO:     {true, 7 * 15, 7 * 5},
		model.Memory: {true, 7 * 5, 0},
	}
	if len(got.Pairs) != len(want) || len(got.Victims) != len(want) {
		t.Fatalf("%d pairs and %d victims: %+v", len(got.Pairs), len(got.Victims), got)
	}
	for _, p := range got.Pairs {
		if w := want[p.Resource]; p.StallMS != w.stall || p.Estimated != w.estimated || p.Offender.CgroupID != job || p.Victim.CgroupID != service {
			t.Errorf("%s: %+v, want %+v", p.Resource, p, w)
		}
	}
	for _, v := range got.Victims {
		w := want[v.Resource]
		want := api.VictimShares{Cgroup: v.Cgroup, Resource: v.Resource, Estimated: w.estimated, WaitMS: w.stall + w.self, NeighbourMS: w.stall, SelfMS: w.self}
		if v != want {
			t.Errorf("%s: %+v, want %+v", v.Resource, v, want)
		}
	}
}

func TestTheMemoryOfProcessesIsAddedUpByCgroup(t *testing.T) {
	r := newRSS()
	look := func(exited []model.Exit, usage ...model.Usage) {
		r.sample(&model.Sample{Procs: model.ProcChanges{Usage: usage, Exited: exited}})
	}
	one, two := model.ProcID{PID: 1}, model.ProcID{PID: 2}
	look(nil, model.Usage{ProcID: one, Cgroup: job, RSSBytes: 100}, model.Usage{ProcID: two, Cgroup: job, RSSBytes: 50})
	if n := r.grown(job); n != 150 {
		t.Errorf("grew by %d at first", n)
	}
	look(nil, model.Usage{ProcID: one, Cgroup: job, RSSBytes: 130})
	if n := r.grown(job); n != 30 {
		t.Errorf("grew by %d", n)
	}
	look(nil) // no look at the processes
	if n := r.grown(job); n != 30 {
		t.Errorf("grew by %d, and nobody looked", n)
	}
	look([]model.Exit{{ProcID: one}}, model.Usage{ProcID: two, Cgroup: service, RSSBytes: 60})
	if r.grown(job) != 0 || r.grown(service) != 60 || len(r.procs) != 1 || len(r.now) != 1 {
		t.Errorf("after an end and a move: %+v", r)
	}
}
