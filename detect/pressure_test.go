package detect

import (
	"math"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// squeeze is a machine whose memory and disks are short: totals as the kernel keeps them.
type squeeze struct {
	*scene
	anon  map[model.CgroupID]uint64          // bytes
	stall map[model.CgroupID]*model.Pressure // totals
}

func newSqueeze() *squeeze {
	s := &squeeze{scene: newScene(), anon: map[model.CgroupID]uint64{}, stall: map[model.CgroupID]*model.Pressure{}}
	s.host.MemTotalBytes, s.host.MemAvailBytes = 8<<30, 256<<20
	for _, id := range []model.CgroupID{job, service, session} {
		s.proc(model.ProcID{PID: 1}, id, "p")
		s.anon[id], s.stall[id] = 100<<20, &model.Pressure{Memory: model.Stall{SomeUS: 5e9}, IO: model.Stall{SomeUS: 7e9}}
	}
	return s
}

// tick lets memory and io of the host be so much (0 to 1) of the time under full pressure,
// and somebody's some pressure be as much.
func (s *squeeze) tick(memory, io float64, held map[model.CgroupID]time.Duration) {
	s.host.Pressure.Memory.FullUS += uint64(memory * float64(tick.Microseconds()))
	s.host.Pressure.Memory.SomeUS += uint64(memory * float64(tick.Microseconds()))
	s.host.Pressure.IO.FullUS += uint64(io * float64(tick.Microseconds()))
	s.host.Pressure.IO.SomeUS += uint64(io * float64(tick.Microseconds()))
	for _, id := range sortedIDs(s.anon) {
		p := *s.stall[id]
		s.cgroup(model.CgroupSample{ID: id, IOHeldNS: uint64(held[id]), Detail: &model.CgroupDetail{AnonBytes: s.anon[id], Pressure: &p}})
	}
	s.end(0.3, 0)
}

func TestMemoryPressureIsBlamedOnWhoGrowsAndSaidToBeEstimated(t *testing.T) {
	s := newSqueeze()
	for range 12 {
		s.tick(0, 0, nil)
	}
	began := s.now
	for s.open(model.MemoryPressure) == nil {
		s.anon[job] += 20 << 20
		s.stall[service].Memory.SomeUS += 100_000 // of 250
		s.tick(0.3, 0, nil)
		if s.now-began > 8*time.Second {
			t.Fatal("nothing opened within 8 s")
		}
	}
	if took := s.now - began; took < 5*time.Second || took > 6*time.Second {
		t.Errorf("opened after %v, want 5 s and a little", took)
	}
	in := s.open(model.MemoryPressure)
	if in.Culprit.CgroupID != job || !in.Estimated || in.Confidence != 0.7 || in.Margin != 1 {
		t.Errorf("culprit %+v, estimated %v, confidence %v, margin %v", in.Culprit, in.Estimated, in.Confidence, in.Margin)
	}
	before := in.Victims[0].StallMS
	if v := in.Victims; len(v) != 1 || v[0].CgroupID != service || v[0].Resource != model.Memory || before < 500 {
		t.Errorf("victims %+v, want the service, which waits for memory", v)
	}
	for range 4 {
		s.anon[job] += 20 << 20
		s.stall[service].Memory.SomeUS += 100_000
		s.tick(0.3, 0, nil)
	}
	if grew := s.open(model.MemoryPressure).Victims[0].StallMS - before; math.Abs(grew-400) > 40 {
		t.Errorf("the victim's stall grew by %v ms in a second of which it stalled 400", grew)
	}
	if !strings.Contains(in.Summary, "estimate") || in.Level == model.Info {
		t.Errorf("level %s: %s", in.Level, in.Summary)
	}
}

func TestIOPressureIsBlamedOnWhoHoldsTheDevice(t *testing.T) {
	s := newSqueeze()
	for range 40 {
		s.stall[service].IO.SomeUS += 200_000
		s.tick(0, 0.6, map[model.CgroupID]time.Duration{job: 900 * time.Millisecond, service: 50 * time.Millisecond, session: 50 * time.Millisecond})
	}
	in := s.open(model.IOPressure)
	if in == nil {
		t.Fatal("nothing opened")
	}
	if in.Culprit.CgroupID != job || in.Culprit.Scope != model.ScopeCgroup || !in.Estimated || in.Confidence != 0.7 {
		t.Errorf("culprit %+v, confidence %v, want all of cgroup %d with 0.7, as an estimate", in.Culprit, in.Confidence, job)
	}
	if len(in.Victims) != 1 || in.Victims[0].Resource != model.IO {
		t.Errorf("victims %+v, want the service, which waits for io", in.Victims)
	}
}

// A cgroup at its own limit makes the host's pressure by itself; what breakerd does to it
// is no reason to do it again.
func TestWhoStallsAtALimitOfItsOwnMakesThePressure(t *testing.T) {
	for name, ours := range map[string]bool{"its own": false, "breakerd's": true} {
		t.Run(name, func(t *testing.T) {
			s := newSqueeze()
			s.host.MemAvailBytes = 6 << 30
			for range 40 {
				s.stall[job].Memory.SomeUS += 200_000
				s.host.Pressure.Memory.FullUS += uint64(tick.Microseconds() / 2)
				p := *s.stall[job]
				s.cgroup(model.CgroupSample{ID: job, MemoryLimited: ours, Detail: &model.CgroupDetail{MemoryBytes: 47 << 20, MemoryHighBytes: 48 << 20, Pressure: &p}})
				s.end(0.3, 0)
			}
			in := s.open(model.MemoryPressure)
			if in == nil {
				t.Fatal("nothing opened")
			}
			want := model.CgroupID(job)
			if ours {
				want = 0
			}
			if in.Culprit.CgroupID != want || in.Level != model.Info || len(in.Victims) != 0 {
				t.Errorf("culprit %+v, level %s, victims %+v; want cgroup %d, and nobody hurt", in.Culprit, in.Level, in.Victims, want)
			}
		})
	}
}

func TestWhereNobodyStandsOutNobodyIsAccused(t *testing.T) {
	s := newSqueeze()
	for range 60 {
		for _, id := range []model.CgroupID{job, service, session} {
			s.anon[id] += 5 << 20
			s.stall[id].Memory.SomeUS += 100_000
		}
		s.tick(0.4, 0, nil)
	}
	in := s.open(model.MemoryPressure)
	if in == nil {
		t.Fatal("nothing opened")
	}
	if in.Culprit != (model.Culprit{}) || in.Culprit.Known() {
		t.Errorf("culprit %+v, and nobody stands out", in.Culprit)
	}
	if len(in.Victims) != 3 || !strings.Contains(in.Summary, "Nobody stands out") || in.Margin != 0 {
		t.Errorf("victims %+v, margin %v: %s", in.Victims, in.Margin, in.Summary)
	}
}

// It is the host that is under pressure; who makes it may be seen or not from one tick to
// the next.
func TestAPressureIsHeldWhoeverStandsOut(t *testing.T) {
	s := newSqueeze()
	for i := range 48 {
		s.stall[service].IO.SomeUS += 200_000
		by := job
		if i/8%2 == 1 {
			by = session
		}
		s.tick(0, 0.6, map[model.CgroupID]time.Duration{by: time.Second})
		if s.open(model.IOPressure) != nil {
			return
		}
	}
	t.Error("nothing opened in 12 s of pressure")
}

func TestPressureStaysSilent(t *testing.T) {
	tests := []struct {
		name       string
		memory, io float64
		ticks      int
	}{
		{"below its thresholds", 0.09, 0.39, 80},
		{"for four seconds", 0.5, 0.9, 14},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newSqueeze()
			for range tt.ticks {
				s.tick(tt.memory, tt.io, nil)
				if len(s.changes) > 0 {
					t.Fatalf("opened: %+v", s.changes[0].Incident)
				}
			}
		})
	}
}

func TestADiskThatOneCgroupKeepsBusyForItselfIsInformational(t *testing.T) {
	s := newSqueeze()
	for range 100 {
		s.stall[job].IO.SomeUS += 240_000
		s.tick(0, 0.95, map[model.CgroupID]time.Duration{job: 900 * time.Millisecond})
	}
	in := s.open(model.IOPressure)
	if in == nil || in.Level != model.Info || in.Culprit.CgroupID != job || len(in.Victims) != 0 {
		t.Errorf("incident %+v, want an informational one without victims", in)
	}
	if in := s.open(model.PSISaturation); in == nil || in.Level != model.Info {
		t.Errorf("incident %+v, want it told that it lasts, and as no second trouble", in)
	}
}

func TestASaturatedResourceIsToldAfterFifteenSeconds(t *testing.T) {
	s := newScene()
	hogsAndService(s)
	for range 8 {
		s.end(0.1, 0)
	}
	began := s.now
	for s.open(model.PSISaturation) == nil {
		s.fight(0, 0, 900*time.Millisecond)
		if s.end(1, 0.95); s.now-began > 20*time.Second {
			t.Fatal("nothing opened within 20 s")
		}
	}
	if took := s.now - began; took < 15*time.Second || took > 17500*time.Millisecond {
		t.Errorf("opened after %v, want 15 s and up to 2 s to reach the threshold", took)
	}
	in := s.open(model.PSISaturation)
	if in.Level != model.Info || in.Culprit.CgroupID != job || in.Estimated || len(in.Victims) != 0 {
		t.Errorf("%+v: a busy job that hurts nobody is informational, and its share is measured", in)
	}
}

func TestTwoSaturatedResourcesAreTwoIncidents(t *testing.T) {
	s := newSqueeze()
	ids := map[string]bool{}
	for range 80 {
		s.host.Pressure.Memory.SomeUS += uint64(tick.Microseconds())
		s.host.Pressure.IO.SomeUS += uint64(tick.Microseconds())
		s.tick(0, 0, nil)
		for _, c := range s.changes {
			if c.Incident.Kind != model.PSISaturation || c.Incident.Culprit.Known() {
				t.Fatalf("opened %+v", c.Incident)
			}
			ids[c.Incident.ID] = true
		}
	}
	if len(ids) != 2 {
		t.Errorf("incidents %v, want one for memory and one for io", ids)
	}
}
