package daemon

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

func unitOf(path string) model.Workload { return model.Workload{Unit: "unit of " + path} }

// waiting is a tick in which the service waits so long for the job.
func waiting(boot time.Duration, wait time.Duration) *model.Sample {
	return &model.Sample{
		Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(boot), BootNS: int64(boot), LengthNS: int64(tickLength),
		Cgroups: []model.CgroupSample{{ID: job, Path: "/job"}, {ID: service, Path: "/service", WaitNS: uint64(wait)}},
		Waits:   []model.Wait{{Resource: model.CPU, By: model.ByCgroup, Offender: job, Victim: service, NS: uint64(wait)}},
	}
}

func TestBlameIsSummedOverTheWindowThatIsAskedFor(t *testing.T) {
	b := newBoard(unitOf)
	boot := time.Hour
	for range 8 * 60 { // 2 minutes, 10 ms a tick
		boot += tickLength
		b.sample(waiting(boot, 10*time.Millisecond))
	}
	tests := []struct {
		window time.Duration
		stall  float64
		since  time.Duration // before the latest sample
	}{
		{0, 4800, 2 * time.Minute},
		{tickLength, 10, tickLength},
		{tickLength / 2, 10, tickLength}, // what it covers is said, not what was asked
		{time.Second, 40, time.Second},
		{30 * time.Second, 1200, 30 * time.Second},
		{5 * time.Minute, 4800, 2 * time.Minute}, // no more was seen
	}
	for _, tt := range tests {
		t.Run(tt.window.String(), func(t *testing.T) {
			got, err := b.blame(tt.window)
			if err != nil {
				t.Fatal(err)
			}
			until := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(boot)
			victim := api.Cgroup{Cgroup: "/service", CgroupID: service, Unit: "unit of /service", Workload: unitOf("/service")}
			want := api.Blame{
				Since: until.Add(-tt.since), Until: until,
				Pairs:   []api.Pair{{Offender: api.Cgroup{Cgroup: "/job", CgroupID: job, Unit: "unit of /job", Workload: unitOf("/job")}, Victim: victim, Resource: model.CPU, StallMS: tt.stall}},
				Victims: []api.VictimShares{{Cgroup: victim, Resource: model.CPU, WaitMS: tt.stall, NeighbourMS: tt.stall}},
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
	if _, err := b.blame(5*time.Minute + 1); err == nil || !isBadRequest(err) {
		t.Errorf("more than is remembered: %v, want a bad request", err)
	}
}

func TestBlameOfNothingIsEmptyListsAndNotNull(t *testing.T) {
	for _, window := range []time.Duration{0, time.Second} {
		got, err := newBoard(unitOf).blame(window)
		if err != nil || got.Pairs == nil || got.Victims == nil {
			t.Errorf("window %v: %+v, error %v", window, got, err)
		}
	}
}

func TestTheSharesOnTheBoardAddUp(t *testing.T) {
	rng := rand.New(rand.NewPCG(4, 4))
	b := newBoard(unitOf)
	boot := time.Hour
	var host model.Host
	for range 600 {
		boot += tickLength
		s := &model.Sample{BootNS: int64(boot), LengthNS: int64(tickLength), Time: time.Unix(0, int64(boot))}
		host.StealNS += rng.Uint64N(1e7)
		host.CPUBusyNS += rng.Uint64N(5e8)
		s.Host = host
		for id := range model.CgroupID(5) {
			c := model.CgroupSample{ID: id + 1}
			if rng.IntN(3) == 0 {
				c.Detail = &model.CgroupDetail{ThrottledNS: uint64(boot) / 50 * uint64(id)}
			}
			s.Cgroups = append(s.Cgroups, c)
		}
		for range rng.IntN(10) {
			s.Waits = append(s.Waits, model.Wait{
				Resource: model.CPU, By: []model.WaitSource{model.ByCgroup, model.ByCgroup, model.ByKernel, model.ByUnknown}[rng.IntN(4)],
				Offender: model.CgroupID(1 + rng.IntN(5)), Victim: model.CgroupID(1 + rng.IntN(5)), NS: rng.Uint64N(5e7),
			})
		}
		b.sample(s)
	}
	for _, window := range []time.Duration{0, time.Second, time.Minute} {
		got, err := b.blame(window)
		if err != nil {
			t.Fatal(err)
		}
		pairs := map[model.CgroupID]float64{}
		for _, p := range got.Pairs {
			pairs[p.Victim.CgroupID] += p.StallMS
		}
		for _, v := range got.Victims {
			sum := v.NeighbourMS + v.SelfMS + v.OwnQuotaMS + v.KernelMS + v.StealMS + v.UnknownMS
			if math.Abs(sum-v.WaitMS) > 0.007 { // a microsecond a share
				t.Errorf("window %v: cgroup %d waited %v ms, and the shares add up to %v", window, v.CgroupID, v.WaitMS, sum)
			}
			if math.Abs(pairs[v.CgroupID]-v.NeighbourMS) > 0.007 {
				t.Errorf("window %v: cgroup %d waited %v ms for neighbours, and its pairs add up to %v", window, v.CgroupID, v.NeighbourMS, pairs[v.CgroupID])
			}
		}
		if len(got.Victims) == 0 {
			t.Errorf("window %v: nobody waited", window)
		}
	}
}

// crowded is a tick in which every one of so many cgroups waits for three others.
func crowded(boot time.Duration, first, cgroups int) *model.Sample {
	s := &model.Sample{BootNS: int64(boot), LengthNS: int64(tickLength), Time: time.Unix(0, int64(boot)).UTC()}
	for i := range cgroups {
		id := model.CgroupID(first + i)
		s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: id, Path: fmt.Sprintf("/%d", id), WaitNS: 3e6})
		for n := range 3 {
			s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: model.CgroupID(first + (i+n+1)%cgroups), Victim: id, NS: 1e6})
		}
	}
	return s
}

func TestWhereThousandsWaitTheBoardIsBoundedAndStillRight(t *testing.T) {
	b := newBoard(unitOf)
	boot := time.Hour
	const cgroups = 1000
	for range 300 {
		boot += tickLength
		b.sample(crowded(boot, 10, cgroups))
	}
	if n := b.recent.entries(); n > maxRecent {
		t.Errorf("%d entries are kept, want %d at most", n, maxRecent)
	}
	for _, window := range []time.Duration{time.Second, 20 * time.Second, time.Minute, 5 * time.Minute} {
		got, err := b.blame(window)
		if err != nil {
			t.Fatal(err)
		}
		covers := got.Until.Sub(got.Since)
		if want := float64(covers/tickLength) * 3; got.Victims[0].WaitMS != want {
			t.Errorf("window %v: a victim waited %v ms in the %v that are covered, want %v", window, got.Victims[0].WaitMS, covers, want)
		}
		if seen := 300 * tickLength; covers < min(window, seen) || covers > 2*window {
			t.Errorf("window %v covers %v", window, covers)
		}
	}
}

func TestCgroupsThatComeAndGoDoNotFillTheBoard(t *testing.T) {
	b := newBoard(unitOf)
	boot := time.Hour
	next := 10
	for range 120 { // an hour, with a thousand new cgroups every 30 s
		boot += 30 * time.Second
		b.sample(crowded(boot, next, 1000))
		next += 1000
	}
	if len(b.sum.pairs) > maxPairs || len(b.sum.victims) > maxPairs || len(b.names) > maxNames {
		t.Errorf("%d pairs, %d victims, %d names: more than the bounds", len(b.sum.pairs), len(b.sum.victims), len(b.names))
	}
	got, err := b.blame(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	for _, v := range got.Victims {
		if v.Cgroup.Cgroup == "" {
			t.Fatal("those that wait now have no names")
		}
	}
	since, _ := b.blame(0)
	for _, v := range since.Victims {
		if v.NeighbourMS != v.WaitMS {
			t.Fatalf("of %v ms only %v are told: the pairs that found no room are missing", v.WaitMS, v.NeighbourMS)
		}
	}
}

func TestTheWallClockMayJump(t *testing.T) {
	b := newBoard(unitOf)
	boot := time.Hour
	for i := range 4 * 600 { // ten minutes
		boot += tickLength
		s := waiting(boot, 10*time.Millisecond)
		if i > 100 {
			s.Time = s.Time.Add(-24 * time.Hour)
		}
		b.sample(s)
	}
	if n, most := len(b.recent), int(maxWindow/tickLength); n > most {
		t.Errorf("%d ticks are kept, want %d", n, most)
	}
	got, err := b.blame(time.Minute)
	if err != nil || got.Victims[0].WaitMS != 2400 {
		t.Errorf("blame %+v, error %v, want 2400 ms", got, err)
	}
}

func TestOldIncidentsMakeRoomAndOpenOnesStay(t *testing.T) {
	b := newBoard(unitOf)
	incident := func(i int, state model.State) model.Incident {
		return model.Incident{ID: fmt.Sprint(i), State: state, Summary: "first"}
	}
	b.incident(incident(0, model.Open))
	for i := 1; i < maxIncidents+50; i++ {
		b.incident(incident(i, model.Closed))
	}
	all := b.all()
	if len(all) != maxIncidents || all[len(all)-1].ID != "0" || all[0].ID != fmt.Sprint(maxIncidents+49) || all[len(all)-2].ID != "51" {
		t.Errorf("%d incidents, the newest %s, the oldest %s and %s: want %d, with the open one kept", len(all), all[0].ID, all[len(all)-1].ID, all[len(all)-2].ID, maxIncidents)
	}
	if open, total := b.counts(); open != 1 || total != maxIncidents+50 {
		t.Errorf("%d open of %d, want 1 of %d", open, total, maxIncidents+50)
	}
	later := incident(0, model.Closed)
	later.Summary = "second"
	b.incident(later)
	if open, total := b.counts(); open != 0 || total != maxIncidents+50 || b.all()[maxIncidents-1].Summary != "second" {
		t.Errorf("%d open of %d after an update, want 0 and the same number", open, total)
	}
}

func TestWhatIsReadFromTheBoardIsACopy(t *testing.T) {
	b := newBoard(unitOf)
	b.incident(model.Incident{ID: "a", Evidence: map[string]float64{"x": 1}, Victims: []model.Victim{{CgroupID: 1}}})
	got := b.all()
	got[0].Evidence["x"], got[0].Victims[0].CgroupID = 2, 2
	if again := b.all()[0]; again.Evidence["x"] != 1 || again.Victims[0].CgroupID != 1 {
		t.Errorf("the board was changed: %+v", again)
	}
}
