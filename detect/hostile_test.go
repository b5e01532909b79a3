package detect

import (
	"encoding/json"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// A recording comes from anybody. Whatever it says, feeding it must end, must not panic,
// and must give incidents that can be written as JSON.

// wild is a value that somebody might write into a recording.
func wild(rng *rand.Rand) uint64 {
	switch rng.IntN(6) {
	case 0:
		return 0
	case 1:
		return math.MaxUint64
	case 2:
		return 1 << 63
	case 3:
		return rng.Uint64()
	}
	return rng.Uint64N(uint64(time.Second))
}

func cgroupOf(rng *rand.Rand) model.CgroupID { return model.CgroupID(rng.IntN(4)) }

func hostilePressure(rng *rand.Rand) model.Pressure {
	return model.Pressure{
		CPU:    model.Stall{SomeUS: wild(rng)},
		Memory: model.Stall{SomeUS: wild(rng), FullUS: wild(rng)},
		IO:     model.Stall{SomeUS: wild(rng), FullUS: wild(rng)},
	}
}

func hostileSample(rng *rand.Rand) *model.Sample {
	id := func() model.ProcID {
		return model.ProcID{PID: int32(rng.IntN(6)), StartTime: uint64(rng.IntN(3))}
	}
	cgroup := func() model.CgroupID { return cgroupOf(rng) }
	s := &model.Sample{
		Time: time.Unix(rng.Int64N(1<<33), 0).UTC(), BootNS: int64(wild(rng)), LengthNS: int64(wild(rng)),
		Keyframe: rng.IntN(20) == 0,
		Host: model.Host{
			BootID: string(rune('a' + rng.IntN(2)*rng.IntN(2))), CPUs: rng.IntN(5) - 2, CPUBusyNS: wild(rng), StealNS: wild(rng),
			Pressure: hostilePressure(rng), MemAvailBytes: wild(rng),
		},
	}
	for range rng.IntN(5) {
		path := ""
		for range rng.IntN(4) {
			path += "/" + string(rune('x'+rng.IntN(2)))
		}
		var weights []uint32
		for range rng.IntN(2) * rng.IntN(6) {
			weights = append(weights, uint32(wild(rng)))
		}
		c := model.CgroupSample{ID: cgroup(), Path: path, CPUWeights: weights, RunNS: wild(rng), WaitNS: wild(rng), Forks: wild(rng), Exits: wild(rng), ShortExits: wild(rng), IOHeldNS: wild(rng)}
		if rng.IntN(2) == 0 {
			p := hostilePressure(rng)
			c.Detail = &model.CgroupDetail{ThrottledNS: wild(rng), Pressure: &p, AnonBytes: wild(rng), ShmemBytes: wild(rng), MemoryMaxBytes: wild(rng)}
		}
		s.Cgroups = append(s.Cgroups, c)
	}
	for range rng.IntN(6) {
		s.Waits = append(s.Waits, model.Wait{
			Resource: model.CPU, By: []model.WaitSource{model.ByCgroup, model.ByCgroup, model.ByKernel, "x"}[rng.IntN(4)],
			Offender: cgroup(), Victim: cgroup(), NS: wild(rng),
		})
	}
	for range rng.IntN(5) {
		s.Procs.Forked = append(s.Procs.Forked, model.Proc{ProcID: id(), Parent: id(), Cgroup: cgroup(), Comm: "\xff\x00"})
	}
	for range rng.IntN(4) {
		s.Procs.Usage = append(s.Procs.Usage, model.Usage{ProcID: id(), Cgroup: cgroup(), CPUNS: wild(rng), RSSBytes: wild(rng)})
	}
	for range rng.IntN(4) {
		s.Procs.Exited = append(s.Procs.Exited, model.Exit{ProcID: id(), CPUNS: wild(rng)})
	}
	return s
}

func TestHostileSamplesGiveIncidentsThatCanBeWritten(t *testing.T) {
	opened := 0
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 2))
		cfg := DefaultConfig()
		cfg.ForkStorm.Hold, cfg.CPUContention.Hold, cfg.NoisyNeighbour.Hold, cfg.Hysteresis.CloseAfter = 1, 1, 1, 1
		cfg.ShortLivedJobs.Hold, cfg.MemoryPressure.Hold, cfg.IOPressure.Hold, cfg.PSISaturation.Hold = 1, 1, 1, 1
		w := NewWatch(cfg, func(string) model.Workload { return model.Workload{} })
		boot := int64(time.Hour)
		for range 80 {
			s := hostileSample(rng)
			if seed%2 == 0 { // time goes on, so that more opens
				boot += rng.Int64N(int64(time.Second))
				s.BootNS, s.Host.BootID, s.Keyframe = boot, "a", false
				s.LengthNS = int64(rng.IntN(3)) * rng.Int64N(int64(time.Second))
			}
			for _, c := range w.Feed(s) {
				if c.Type == Opened {
					opened++
				}
				if _, err := json.Marshal(c.Incident); err != nil {
					t.Fatalf("seed %d: %v: %+v", seed, err, c.Incident)
				}
				if v := c.Incident.Severity; !(v >= 0 && v <= 1) {
					t.Fatalf("seed %d: severity %v", seed, v)
				}
				for _, v := range []float64{c.Incident.Confidence, c.Incident.Margin} {
					if !(v >= 0 && v <= 1) {
						t.Fatalf("seed %d: confidence %v, margin %v", seed, c.Incident.Confidence, c.Incident.Margin)
					}
				}
				if v := c.Incident.Culprit.Share; !(v >= 0 && v <= 1) {
					t.Fatalf("seed %d: share %v", seed, v)
				}
			}
			if _, err := json.Marshal(w.Measures(cgroupOf(rng))); err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			checkTable(t, w.window.table)
			if len(w.window.samples) > maxSamples {
				t.Fatalf("seed %d: the window holds %d samples", seed, len(w.window.samples))
			}
		}
		w.Keyframe()
	}
	if opened < 100 {
		t.Errorf("only %d incidents opened: the samples are too tame to test anything", opened)
	}
}

func TestAStormInATickWithoutLengthHasFiniteFigures(t *testing.T) {
	s := newScene()
	bomb := s.proc(model.ProcID{PID: 1}, job, "bomb")
	for i := range 20 {
		s.storm(bomb, job, 10, 5)
		if i > 10 {
			s.sample.LengthNS = 0
		}
		s.end(0.5, 0)
		for _, c := range s.changes {
			for key, v := range c.Incident.Evidence {
				if math.IsInf(v, 0) || math.IsNaN(v) {
					t.Fatalf("%s is %v", key, v)
				}
			}
		}
	}
	if s.open(model.ForkStorm) == nil {
		t.Error("nothing opened")
	}
}

func TestWaitsWhoseSumOverflowsAccuseNobodyOfAnInfiniteShare(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	s.end(0.1, 0)
	for range 20 {
		s.cgroup(model.CgroupSample{ID: job, RunNS: 1})
		s.cgroup(model.CgroupSample{ID: service, RunNS: 1})
		for range 2 {
			s.sample.Waits = append(s.sample.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: job, Victim: service, NS: 1 << 62})
		}
		s.end(1, 1)
		for _, c := range s.changes {
			if _, err := json.Marshal(c.Incident); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func TestTimeThatStandsOrRunsBackwardsDoesNotFillTheWindow(t *testing.T) {
	for _, tt := range []struct {
		name string
		boot func(i int64) int64
	}{
		{"stands", func(int64) int64 { return 7 }},
		{"runs backwards", func(i int64) int64 { return -i }},
		{"jumps between the ends", func(i int64) int64 { return math.MaxInt64 * (1 - 2*(i%2)) }},
		{"goes on by a nanosecond", func(i int64) int64 { return i }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := NewWatch(DefaultConfig(), func(string) model.Workload { return model.Workload{} })
			for i := range int64(2000) {
				w.Feed(&model.Sample{BootNS: tt.boot(i), LengthNS: int64(tick)})
				if n := len(w.window.samples); n > maxSamples || n != len(w.window.charges) {
					t.Fatalf("the window holds %d samples and %d charges", n, len(w.window.charges))
				}
			}
		})
	}
}

func TestAnIncidentThatWasOpenAsTheClockWentBackStillCloses(t *testing.T) {
	s := newScene()
	bomb := s.proc(model.ProcID{PID: 1}, job, "bomb")
	for range 12 {
		s.storm(bomb, job, 10, 0)
		s.end(0.5, 0)
	}
	s.end(0.1, 0)
	if s.open(model.ForkStorm) == nil {
		t.Fatal("nothing opened")
	}
	s.now -= 30 * time.Minute
	for range 4 * 7 {
		for _, c := range s.end(0.1, 0) {
			if c.Type == Closed {
				return
			}
		}
	}
	t.Error("still open 7 s after the clock went back")
}
