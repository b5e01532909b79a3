package blame

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

const (
	mib    = 1 << 20
	hog    = 10
	other  = 11
	victim = 20
)

// cg is a cgroup of a sample that held the devices so long.
func cg(id model.CgroupID, path string, held uint64, d *model.CgroupDetail) model.CgroupSample {
	return model.CgroupSample{ID: id, Path: path, IOHeldNS: held, Detail: d}
}

// at is how long somebody's requests were at a device.
func at(device string, id model.CgroupID, ns uint64) model.IOHold {
	return model.IOHold{Device: device, By: model.ByCgroup, Cgroup: id, NS: ns}
}

func waited(h model.IOHold, ns uint64) model.IOHold { h.WaitedNS = ns; return h }

func ioAt(us uint64) *model.CgroupDetail {
	return &model.CgroupDetail{Pressure: &model.Pressure{IO: model.Stall{SomeUS: us}}}
}

func memAt(us, memory uint64) *model.CgroupDetail {
	return &model.CgroupDetail{Pressure: &model.Pressure{Memory: model.Stall{SomeUS: us}}, MemoryBytes: memory}
}

func TestOverIO(t *testing.T) {
	limited := ioAt(100_000)
	limited.IOLimited = true
	tests := []struct {
		name    string
		samples []*model.Sample
		from    int
		want    *Shares
	}{
		{
			name: "a stall is divided by who held the devices meanwhile",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(hog, "/hog", 900*ms, nil), cg(victim, "/victim", 0, ioAt(0))}},
				{Host: model.Host{KernelIOHeldNS: 100 * ms}, Cgroups: []model.CgroupSample{cg(hog, "/hog", 600*ms, nil), cg(other, "/other", 200*ms, nil), cg(victim, "/victim", 100*ms, ioAt(100_000))}},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 60 * ms}, {other, 20 * ms}}, SelfNS: 10 * ms, KernelNS: 10 * ms},
		},
		{
			name: "more than the devices were held is unknown",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0))}},
				{Cgroups: []model.CgroupSample{cg(hog, "/hog", 30*ms, nil), cg(victim, "/victim", 10*ms, ioAt(100_000))}},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 30 * ms}}, SelfNS: 10 * ms, UnknownNS: 60 * ms},
		},
		{
			name: "a victim without a request of its own waited for something else",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0))}},
				{Cgroups: []model.CgroupSample{cg(hog, "/hog", 300*ms, nil), cg(victim, "/victim", 0, ioAt(100_000))}},
			},
			want: &Shares{WaitNS: 100 * ms, UnknownNS: 100 * ms},
		},
		{
			name: "a victim under an io.max accuses nobody",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0))}},
				{Cgroups: []model.CgroupSample{cg(hog, "/hog", 300*ms, nil), cg(victim, "/victim", 10*ms, limited)}},
			},
			want: &Shares{WaitNS: 100 * ms, UnknownNS: 100 * ms, QuotaUnsure: true},
		},
		{
			name: "what is below the victim is itself, what is above it and what has no name is unknown",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/a/b", 0, ioAt(0))}},
				{Cgroups: []model.CgroupSample{cg(1, "/a/b/c", 50*ms, nil), cg(2, "/a", 20*ms, nil), cg(3, "", 20*ms, nil), cg(hog, "/a/bc", 10*ms, nil), cg(victim, "/a/b", 0, ioAt(100_000))}},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 10 * ms}}, SelfNS: 50 * ms, UnknownNS: 40 * ms},
		},
		{
			name: "who fills another disk keeps it from nothing",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil), cg(other, "/other", 0, nil)}},
				{
					Cgroups: []model.CgroupSample{cg(hog, "", 900*ms, nil), cg(other, "", 30*ms, nil), cg(victim, "", 10*ms, ioAt(40_000))},
					IOHolds: []model.IOHold{at("8:0", hog, 900*ms), at("8:16", other, 30*ms), at("8:16", victim, 10*ms)},
				},
			},
			want: &Shares{WaitNS: 40 * ms, Neighbours: []Neighbour{{other, 30 * ms}}, SelfNS: 10 * ms},
		},
		{
			name: "a stall is divided among disks by the victim's own requests, and then by everybody's",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil), cg(other, "/other", 0, nil)}},
				{
					Cgroups: []model.CgroupSample{cg(victim, "", 40*ms, ioAt(100_000))},
					IOHolds: []model.IOHold{
						at("8:0", hog, 90*ms), at("8:0", victim, 10*ms), {Device: "8:0", By: model.ByKernel, NS: 100 * ms},
						at("8:16", other, 30*ms), at("8:16", victim, 30*ms),
					},
				},
			},
			// 25 ms for the first, of whose time it had 5 %, and 75 for the second, which was held for 60.
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{other, 30 * ms}, {hog, 11_250_000}}, SelfNS: 31_250_000, KernelNS: 12_500_000, UnknownNS: 15 * ms},
		},
		{
			name: "it stalled where its requests waited, however short they were at the disk",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil), cg(other, "/other", 0, nil)}},
				{
					Cgroups: []model.CgroupSample{cg(victim, "", 310*ms, ioAt(100_000))},
					IOHolds: []model.IOHold{
						at("8:0", hog, 990*ms), waited(at("8:0", victim, 10*ms), 900*ms),
						at("8:16", other, 900*ms), waited(at("8:16", victim, 300*ms), 300*ms),
					},
				},
			},
			// 75 ms for the first, 25 for the second.
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 74_250_000}, {other, 18_750_000}}, SelfNS: 7 * ms},
		},
		{
			name: "what it writes in the background keeps it from nothing",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil)}},
				{
					Cgroups: []model.CgroupSample{cg(victim, "", 9000*ms, ioAt(100_000))},
					IOHolds: []model.IOHold{at("8:0", victim, 8990*ms), at("8:16", hog, 190*ms), waited(at("8:16", victim, 10*ms), 90*ms)},
				},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 95 * ms}}, SelfNS: 5 * ms},
		},
		{
			name: "a request at a slow disk counts also before it is done",
			from: 1,
			samples: []*model.Sample{
				{
					Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil), cg(other, "/other", 0, nil)},
					IOHolds: []model.IOHold{waited(at("8:0", victim, 100*ms), 1980*ms), at("8:0", hog, 900*ms)},
				},
				{
					Cgroups: []model.CgroupSample{cg(victim, "", 0, ioAt(100_000))},
					IOHolds: []model.IOHold{at("8:0", hog, 900*ms), waited(at("8:16", victim, 20*ms), 20*ms), at("8:16", other, 980*ms)},
				},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 99 * ms}, {other, 980_000}}, SelfNS: 20_000},
		},
		{
			name: "a disk that was done with nothing meanwhile accuses nobody",
			from: 1,
			samples: []*model.Sample{
				{
					Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil)},
					IOHolds: []model.IOHold{waited(at("8:0", victim, 100*ms), 100*ms)},
				},
				{Cgroups: []model.CgroupSample{cg(victim, "", 0, ioAt(100_000))}, IOHolds: []model.IOHold{at("8:16", hog, 900*ms)}},
			},
			want: &Shares{WaitNS: 100 * ms, UnknownNS: 100 * ms},
		},
		{
			name: "a loop device stands on another disk, so that they are one",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil)}},
				{
					Cgroups: []model.CgroupSample{cg(victim, "", 100*ms, ioAt(100_000))},
					IOHolds: []model.IOHold{waited(at("7:0", victim, 100*ms), 100*ms), at("8:0", hog, 900*ms)},
				},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 90 * ms}}, SelfNS: 10 * ms},
		},
		{
			name: "where the kernel's table was full all disks are one",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil), cg(other, "/other", 0, nil)}},
				{
					Lost:    model.Lost{IOHolds: 3},
					Cgroups: []model.CgroupSample{cg(victim, "/victim", 100*ms, ioAt(100_000)), cg(hog, "/hog", 300*ms, nil)},
					IOHolds: []model.IOHold{at("8:0", victim, 100*ms)},
				},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 75 * ms}}, SelfNS: 25 * ms},
		},
		{
			name: "a tick in which the disks were done with nothing is no old recording",
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(victim, "/victim", 0, ioAt(0)), cg(hog, "/hog", 0, nil), cg(other, "/other", 0, nil)}},
				{IOHolds: []model.IOHold{waited(at("8:0", victim, 100*ms), 100*ms), at("8:0", hog, 100*ms)}},
				// Told here once more: it ended between the two looks.
				{Cgroups: []model.CgroupSample{cg(victim, "", 100*ms, ioAt(100_000)), cg(other, "", 500*ms, nil)}},
			},
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 50 * ms}}, SelfNS: 50 * ms},
		},
		{
			name: "what was held before the span is not of it",
			from: 1,
			samples: []*model.Sample{
				{Cgroups: []model.CgroupSample{cg(hog, "/hog", 900*ms, nil), cg(victim, "/victim", 0, ioAt(50_000))}},
				{Cgroups: []model.CgroupSample{cg(hog, "/hog", 30*ms, nil), cg(victim, "/victim", 10*ms, ioAt(90_000))}},
			},
			want: &Shares{WaitNS: 40 * ms, Neighbours: []Neighbour{{hog, 30 * ms}}, SelfNS: 10 * ms},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Victim, tt.want.Resource, tt.want.Estimated = victim, model.IO, true
			if diff := cmp.Diff(tt.want, OverIO(tt.samples, tt.from)[victim]); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestOverMemory(t *testing.T) {
	const total = 1000 * mib
	short := model.Host{MemTotalBytes: total, MemAvailBytes: 50 * mib}
	limit := memAt(100_000, 95*mib)
	limit.MemoryMaxBytes = 100 * mib
	shared := memAt(100_000, 10*mib)
	shared.MemoryHighBytes = 100 * mib
	evicted, refaults := memAt(0, 200*mib), memAt(0, 200*mib)
	evicted.AnonBytes, refaults.AnonBytes = 50*mib, 50*mib
	refaults.RefaultPages = 100 * mib / 4096
	same, again := *evicted, *evicted
	again.Repeated = true
	grew := *refaults
	grew.MemoryBytes = 300 * mib
	two := func(host model.Host, v0, v1, h0, h1 *model.CgroupDetail) []*model.Sample {
		return []*model.Sample{
			{Host: host, Cgroups: []model.CgroupSample{cg(hog, "/s/hog", 0, h0), cg(victim, "/s/victim", 0, v0)}},
			{Host: host, Cgroups: []model.CgroupSample{cg(hog, "/s/hog", 0, h1), cg(victim, "/s/victim", 0, v1)}},
		}
	}
	byUs := func(samples []*model.Sample) []*model.Sample {
		for _, s := range samples {
			s.Cgroups[1].MemoryLimited = true
		}
		return samples
	}
	tests := []struct {
		name    string
		samples []*model.Sample
		grown   func(model.CgroupID) uint64
		want    *Shares
	}{
		{
			name:    "who grew while the machine was short of memory",
			samples: two(short, memAt(0, 100*mib), memAt(100_000, 120*mib), memAt(0, 200*mib), memAt(0, 280*mib)),
			want:    &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 80 * ms}}, SelfNS: 20 * ms},
		},
		{
			name:    "who took back what was evicted",
			samples: two(short, memAt(0, 100*mib), memAt(100_000, 100*mib), evicted, &grew),
			want:    &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 100 * ms}}},
		},
		{
			name: "who takes back what is evicted again, and who holds all without growing, are not told apart",
			samples: func() []*model.Sample {
				all := two(short, memAt(0, 100*mib), memAt(100_000, 100*mib), evicted, refaults)
				for _, s := range all {
					s.Cgroups = append(s.Cgroups, cg(5, "/s/holds", 0, memAt(0, 600*mib)))
				}
				return all
			}(),
			want: &Shares{WaitNS: 100 * ms, UnknownNS: 100 * ms},
		},
		{
			name:    "a victim near its own limit is held by that",
			samples: two(short, memAt(0, 90*mib), limit, memAt(0, 200*mib), memAt(0, 280*mib)),
			want:    &Shares{WaitNS: 100 * ms, OwnQuotaNS: 100 * ms},
		},
		{
			name:    "and one that breakerd limits, by breakerd",
			samples: byUs(two(short, memAt(0, 90*mib), limit, memAt(0, 200*mib), memAt(0, 280*mib))),
			want:    &Shares{WaitNS: 100 * ms, OurThrottleNS: 100 * ms},
		},
		{
			name:    "a limit that it may share with others makes it unknown",
			samples: two(short, memAt(0, 10*mib), shared, memAt(0, 200*mib), memAt(0, 280*mib)),
			want:    &Shares{WaitNS: 100 * ms, UnknownNS: 100 * ms},
		},
		{
			name:    "where there is memory to spare nobody is accused",
			samples: two(model.Host{MemTotalBytes: total, MemAvailBytes: 500 * mib}, memAt(0, 100*mib), memAt(100_000, 100*mib), memAt(0, 200*mib), memAt(0, 280*mib)),
			want:    &Shares{WaitNS: 100 * ms, UnknownNS: 100 * ms},
		},
		{
			name:    "little growth accounts for little",
			samples: two(short, memAt(0, 100*mib), memAt(100_000, 100*mib), memAt(0, 200*mib), memAt(0, 200*mib+total/512/4)),
			want:    &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 25 * ms}}, UnknownNS: 75 * ms},
		},
		{
			name:    "without a controller the processes say who grew",
			samples: two(short, memAt(0, 0), memAt(100_000, 0), nil, nil),
			grown:   func(id model.CgroupID) uint64 { return map[model.CgroupID]uint64{hog: 30 * mib, victim: 10 * mib}[id] },
			want:    &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 75 * ms}}, SelfNS: 25 * ms},
		},
		{
			name:    "what memory.stat told twice is known, also that nothing grew",
			samples: two(short, memAt(0, 100*mib), memAt(100_000, 100*mib), evicted, &same),
			grown:   func(model.CgroupID) uint64 { return 30 * mib },
			want:    &Shares{WaitNS: 100 * ms, SelfNS: 100 * ms},
		},
		{
			name:    "but where it was read once the processes say who grew",
			samples: two(short, memAt(0, 100*mib), memAt(100_000, 100*mib), evicted, &again),
			grown:   func(model.CgroupID) uint64 { return 30 * mib },
			want:    &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 50 * ms}}, SelfNS: 50 * ms},
		},
		{
			name: "a slice is not accused beside what is in it",
			samples: append(two(short, memAt(0, 100*mib), memAt(100_000, 100*mib), memAt(0, 200*mib), memAt(0, 280*mib)),
				&model.Sample{Host: short, Cgroups: []model.CgroupSample{cg(5, "/s", 0, memAt(0, 1*mib))}},
				&model.Sample{Host: short, Cgroups: []model.CgroupSample{cg(5, "/s", 0, memAt(0, 900*mib))}}),
			want: &Shares{WaitNS: 100 * ms, Neighbours: []Neighbour{{hog, 100 * ms}}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tt.want.Victim, tt.want.Resource, tt.want.Estimated = victim, model.Memory, true
			got := OverMemory(tt.samples, 0, tt.grown)[victim]
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

// Whatever a recording says: estimated shares add up, and none is more than the whole.
func TestEstimatedSharesAlwaysAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(7, 8))
	number := func() uint64 {
		switch rng.IntN(6) {
		case 0:
			return []uint64{0, 1, 1 << 62, 1 << 63, 1<<64 - 1}[rng.IntN(5)]
		default:
			return rng.Uint64N(1 << rng.IntN(40))
		}
	}
	paths := []string{"/", "/a", "/a/b", "/a/c", "/d", ""}
	accused := map[model.Resource]int{}
	for range 5000 {
		var samples []*model.Sample
		for range 1 + rng.IntN(6) {
			s := &model.Sample{LengthNS: int64(number()), Host: model.Host{MemTotalBytes: number(), MemAvailBytes: number() / 64, KernelIOHeldNS: number()}}
			for id := range paths {
				c := model.CgroupSample{ID: model.CgroupID(id), Path: paths[id], IOHeldNS: number()}
				if rng.IntN(3) > 0 {
					d := &model.CgroupDetail{MemoryBytes: number(), AnonBytes: number(), ShmemBytes: number(), RefaultPages: number(), IOLimited: rng.IntN(20) == 0}
					if rng.IntN(8) == 0 {
						d.MemoryMaxBytes = number()
					}
					if rng.IntN(4) > 0 {
						d.Pressure = &model.Pressure{Memory: model.Stall{SomeUS: number()}, IO: model.Stall{SomeUS: number()}}
					}
					c.Detail = d
				}
				s.Cgroups = append(s.Cgroups, c)
			}
			for range rng.IntN(8) {
				h := at([]string{"", "8:0", "8:16", "7:0"}[rng.IntN(4)], model.CgroupID(rng.IntN(len(paths)+1)), number())
				if rng.IntN(2) == 0 {
					h.WaitedNS = number()
				}
				if rng.IntN(5) == 0 {
					h.By, h.Cgroup = model.ByKernel, 0
				}
				s.IOHolds = append(s.IOHolds, h)
			}
			if rng.IntN(20) == 0 {
				s.Lost.IOHolds = 1
			}
			samples = append(samples, s)
		}
		from := rng.IntN(len(samples))
		grown := func(model.CgroupID) uint64 { return number() }
		for _, all := range []map[model.CgroupID]*Shares{OverIO(samples, from), OverMemory(samples, from, grown)} {
			for id, s := range all {
				checkSum(t, id, s)
				if !s.Estimated {
					t.Fatalf("cgroup %d: not said to be estimated", id)
				}
				if len(s.Neighbours) > 0 {
					accused[s.Resource]++
				}
				for _, n := range s.Neighbours {
					if n.Offender == id {
						t.Fatalf("cgroup %d is its own neighbour", id)
					}
				}
			}
		}
	}
	if accused[model.IO] < 100 || accused[model.Memory] < 100 {
		t.Errorf("hardly anybody was accused: %v", accused)
	}
}

func checkSum(t *testing.T, id model.CgroupID, s *Shares) {
	t.Helper()
	parts := []uint64{s.SelfNS, s.OwnQuotaNS, s.KernelNS, s.OurThrottleNS, s.StealNS, s.UnknownNS}
	for _, n := range s.Neighbours {
		parts = append(parts, n.NS)
	}
	var sum uint64
	for _, p := range parts {
		if p > s.WaitNS {
			t.Fatalf("cgroup %d: a share of %d ns of %d: %+v", id, p, s.WaitNS, s)
		}
		sum += p
	}
	if sum != s.WaitNS {
		t.Fatalf("cgroup %d: shares add up to %d ns of %d: %+v", id, sum, s.WaitNS, s)
	}
}
