package blame

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

const ms = 1_000_000

func wait(by model.WaitSource, offender, victim model.CgroupID, ns uint64) model.Wait {
	return model.Wait{Resource: model.CPU, By: by, Offender: offender, Victim: victim, NS: ns}
}

func reading(id model.CgroupID, ns uint64) model.CgroupSample {
	return model.CgroupSample{ID: id, Detail: &model.CgroupDetail{ThrottledNS: ns}}
}

func limited(c model.CgroupSample) model.CgroupSample {
	c.Limited = true
	return c
}

func TestOver(t *testing.T) {
	const hog, other, victim = 10, 11, 20
	tests := []struct {
		name    string
		samples []*model.Sample
		from    int
		want    *Shares
	}{
		{
			name: "each cause keeps what was measured and neighbours are ranked",
			samples: []*model.Sample{
				{Waits: []model.Wait{wait(model.ByCgroup, other, victim, 1*ms), wait(model.ByCgroup, hog, victim, 5*ms), wait(model.ByCgroup, victim, victim, 2*ms)}},
				{Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 5*ms), wait(model.ByKernel, 0, victim, 3*ms), wait(model.ByUnknown, 0, victim, 4*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 20 * ms, Neighbours: []Neighbour{{hog, 10 * ms}, {other, 1 * ms}}, SelfNS: 2 * ms, KernelNS: 3 * ms, UnknownNS: 4 * ms},
		},
		{
			name: "a victim held by its own quota accuses nobody",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 100*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
				{Cgroups: []model.CgroupSample{reading(victim, 130*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 20 * ms, OwnQuotaNS: 20 * ms},
		},
		{
			name: "a victim held by a limit of ours accuses nobody, and it is not its own",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 100*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
				{Cgroups: []model.CgroupSample{limited(reading(victim, 130*ms))}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 20 * ms, OurThrottleNS: 20 * ms},
		},
		{
			name: "a quota that made half the wait may have made the rest, of more tasks",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 0)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
				{Cgroups: []model.CgroupSample{reading(victim, 10*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 20 * ms, OwnQuotaNS: 10 * ms, UnknownNS: 10 * ms, QuotaUnsure: true},
		},
		{
			name: "a quota read only once makes the blame unknown",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 100*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 10 * ms, UnknownNS: 10 * ms, QuotaUnsure: true},
		},
		{
			name: "a victim whose quota nobody could read accuses nobody",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{{ID: victim, QuotaUnread: true}}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 10 * ms, UnknownNS: 10 * ms, QuotaUnsure: true},
		},
		{
			name: "nor one whose quota could not be read any more",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 0)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
				{Cgroups: []model.CgroupSample{{ID: victim, QuotaUnread: true}}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 20 * ms, UnknownNS: 20 * ms, QuotaUnsure: true},
		},
		{
			name: "a tick without a reading between two is covered by them",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 0)}},
				{Cgroups: []model.CgroupSample{{ID: victim, QuotaUnread: true}}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
				{Cgroups: []model.CgroupSample{reading(victim, 0)}},
			},
			from: 1,
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 10 * ms, Neighbours: []Neighbour{{hog, 10 * ms}}},
		},
		{
			name: "a quota's total before the span is what it is compared with",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 100*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
				{Cgroups: []model.CgroupSample{reading(victim, 106*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 10*ms)}},
			},
			from: 1,
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 10 * ms, OwnQuotaNS: 6 * ms, UnknownNS: 4 * ms, QuotaUnsure: true},
		},
		{
			name: "a quota that hardly held it leaves the neighbour the rest",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 100*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 500*ms)}},
				{Cgroups: []model.CgroupSample{reading(victim, 102*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 500*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 1000 * ms, Neighbours: []Neighbour{{hog, 998 * ms}}, OwnQuotaNS: 2 * ms},
		},
		{
			name: "of ten tasks in a queue that is held, each one's wait is the quota's",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 100*ms)}},
				{LengthNS: 250 * ms, Cgroups: []model.CgroupSample{reading(victim, 300*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 2000*ms)}},
			},
			from: 1,
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 2000 * ms, OwnQuotaNS: 1800 * ms, UnknownNS: 200 * ms, QuotaUnsure: true},
		},
		{
			name: "a wait may end after the kernel has counted the quota that made it",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{reading(victim, 100*ms)}},
				{Cgroups: []model.CgroupSample{reading(victim, 190*ms)}},
				{Cgroups: []model.CgroupSample{reading(victim, 190*ms)}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 90*ms)}},
			},
			from: 2,
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 90 * ms, UnknownNS: 90 * ms, QuotaUnsure: true},
		},
		{
			name: "what the hypervisor took is nobody's",
			samples: []*model.Sample{
				{Host: model.Host{StealNS: 0, CPUBusyNS: 0}},
				{Host: model.Host{StealNS: 30 * ms, CPUBusyNS: 10 * ms}, Waits: []model.Wait{wait(model.ByCgroup, hog, victim, 8*ms)}},
			},
			want: &Shares{Victim: victim, Resource: model.CPU, WaitNS: 8 * ms, Neighbours: []Neighbour{{hog, 2 * ms}}, StealNS: 6 * ms},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Over(tt.samples, tt.from)[victim]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestSharesAlwaysAddUpToTheWholeWait(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	sources := []model.WaitSource{model.ByCgroup, model.ByCgroup, model.ByCgroup, model.ByKernel, model.ByAsked, model.ByUnknown}
	ours := 0
	for range 2000 {
		var samples []*model.Sample
		var host model.Host
		held := make([]uint64, 4)
		for range 1 + rng.IntN(8) {
			s := &model.Sample{}
			host.StealNS += rng.Uint64N(200 * ms)
			host.CPUBusyNS += rng.Uint64N(500 * ms)
			s.Host = host
			for id := range held {
				held[id] += rng.Uint64N(300 * ms)
				if rng.IntN(3) > 0 {
					c := reading(model.CgroupID(id+1), held[id])
					c.Limited = rng.IntN(3) == 0
					s.Cgroups = append(s.Cgroups, c)
				}
			}
			for range rng.IntN(20) {
				s.Waits = append(s.Waits, wait(sources[rng.IntN(len(sources))], model.CgroupID(1+rng.IntN(4)), model.CgroupID(1+rng.IntN(4)), rng.Uint64N(900*ms)))
			}
			samples = append(samples, s)
		}
		for id, s := range Over(samples, rng.IntN(len(samples))) {
			sum := s.NeighbourNS() + s.SelfNS + s.OwnQuotaNS + s.OurThrottleNS + s.KernelNS + s.StealNS + s.UnknownNS
			if sum != s.WaitNS || s.AskedNS > s.SelfNS {
				t.Fatalf("cgroup %d: shares add up to %d ns of %d: %+v", id, sum, s.WaitNS, s)
			}
			if s.OurThrottleNS > 0 {
				ours++
			}
		}
	}
	if ours == 0 {
		t.Error("no limit of ours ever held anybody")
	}
}

// A recording may say anything. What overflows wraps around, in the whole as in the parts.
func TestSharesAddUpAlsoWhereTheWaitsOverflow(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	wild := []uint64{0, 1, 1 << 62, 1 << 63, 1<<64 - 1}
	for range 2000 {
		var samples []*model.Sample
		for range 1 + rng.IntN(4) {
			s := &model.Sample{Host: model.Host{StealNS: wild[rng.IntN(5)], CPUBusyNS: wild[rng.IntN(5)]}}
			for range rng.IntN(4) {
				s.Cgroups = append(s.Cgroups, reading(model.CgroupID(rng.IntN(3)), wild[rng.IntN(5)]))
			}
			for range rng.IntN(6) {
				by := []model.WaitSource{model.ByCgroup, model.ByCgroup, model.ByKernel, model.ByAsked, "nobody"}[rng.IntN(5)]
				s.Waits = append(s.Waits, wait(by, model.CgroupID(rng.IntN(3)), model.CgroupID(rng.IntN(3)), wild[rng.IntN(5)]))
			}
			samples = append(samples, s)
		}
		for id, s := range Over(samples, rng.IntN(len(samples))) {
			if sum := s.NeighbourNS() + s.SelfNS + s.OwnQuotaNS + s.OurThrottleNS + s.KernelNS + s.StealNS + s.UnknownNS; sum != s.WaitNS {
				t.Fatalf("cgroup %d: shares add up to %d ns of %d: %+v", id, sum, s.WaitNS, s)
			}
		}
	}
}

func TestEveryOneOfManyNeighboursIsCountedOnce(t *testing.T) {
	const victim = 1
	var samples []*model.Sample
	for range 3 {
		s := &model.Sample{}
		for n := range 3 * manyNeighbours {
			s.Waits = append(s.Waits, wait(model.ByCgroup, model.CgroupID(10+n), victim, uint64(n+1)), wait(model.ByCgroup, model.CgroupID(10+n), 2, 1))
		}
		samples = append(samples, s)
	}
	got := Over(samples, 0)
	for n := range 3 * manyNeighbours {
		if ns := got[victim].By(model.CgroupID(10 + n)); ns != uint64(3*(n+1)) {
			t.Errorf("neighbour %d made it wait %d ns, want %d", n, ns, 3*(n+1))
		}
	}
	if len(got[victim].Neighbours) != 3*manyNeighbours || len(got[2].Neighbours) != 3*manyNeighbours || got[2].NeighbourNS() != 9*manyNeighbours {
		t.Errorf("%+v", got[2])
	}
}
