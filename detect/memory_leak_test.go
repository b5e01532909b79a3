package detect

import (
	"fmt"
	"math"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

const mb = 1 << 20

// remember lets a job have so much memory (MB) at each second of its life, as memory.stat
// says or, where there is no controller, only as the memory of its processes, on a host
// with 8 GB. It says when and what opened.
type remember struct {
	memory   func(second float64) float64
	limitMB  uint64
	resident bool    // no memory controller
	mapped   float64 // the part of the resident memory that could be dropped
	every    int     // ticks between two readings
	repeated bool    // with each tick, until it is read again
	seconds  int
}

func (r remember) play(t *testing.T) (in *model.Incident, after time.Duration) {
	t.Helper()
	s := newScene()
	s.host.MemTotalBytes = 8192 * mb
	large := s.proc(model.ProcID{PID: 1}, job, "large")
	leaker := s.proc(model.ProcID{PID: 1}, job, "leaker")
	began := s.now
	var read model.CgroupDetail
	for i := range r.seconds * 4 {
		second := float64(i) * tick.Seconds()
		memory := r.memory(second)
		s.host.MemAvailBytes = uint64((6000 - memory*(1-r.mapped)) * mb)
		if i%max(r.every, 4) == 0 {
			c := model.CgroupSample{ID: job, Path: "/job", RunNS: 1e6}
			if !r.resident {
				read = model.CgroupDetail{AnonBytes: uint64((400 + memory) * mb), MemoryMaxBytes: r.limitMB * mb}
				now := read
				c.Detail = &now
			}
			s.cgroup(c)
			s.sample.Procs.Usage = append(s.sample.Procs.Usage,
				model.Usage{ProcID: large, Cgroup: job, CPUNS: 1, RSSBytes: 400 * mb},
				model.Usage{ProcID: leaker, Cgroup: job, CPUNS: 1, RSSBytes: uint64(memory * mb)})
		} else if r.repeated {
			again := read
			again.Repeated = true
			s.cgroup(model.CgroupSample{ID: job, Path: "/job", RunNS: 1e6, Detail: &again})
		}
		s.end(0.3, 0)
		if in := s.open(model.MemoryLeak); in != nil {
			if in.Culprit.Root.ProcID != leaker || in.Culprit.Outside != 1 {
				t.Errorf("culprit %+v, want the tree of %v and not of the larger %v", in.Culprit, leaker, large)
			}
			return in, s.now - began
		}
	}
	return nil, 0
}

func noise(second float64) float64 { return 6 * math.Sin(second*7.3) * math.Cos(second*3.1) }

func TestALeakIsSeenTheSoonerTheSoonerItHits(t *testing.T) {
	tests := []struct {
		name        string
		leak        remember
		least, most time.Duration
	}{
		{"it hits its own limit within a minute", remember{memory: func(s float64) float64 { return 20 * s }, limitMB: 1600, seconds: 60}, 9 * time.Second, 14 * time.Second},
		{"with noise", remember{memory: func(s float64) float64 { return 20*s + 10 + noise(s) }, limitMB: 1600, seconds: 60}, 9 * time.Second, 20 * time.Second},
		{"it hits the host's memory in five minutes", remember{memory: func(s float64) float64 { return 20 * s }, seconds: 120}, 35 * time.Second, 60 * time.Second},
		{"it hits in half an hour, read each 5 s", remember{memory: func(s float64) float64 { return 3 * s }, every: 20, seconds: 900}, 200 * time.Second, 400 * time.Second},
		{"it is read each 3 s, and what was read is repeated meanwhile", remember{memory: func(s float64) float64 { return 20 * s }, every: 12, repeated: true, seconds: 120}, 35 * time.Second, 60 * time.Second},
		{"nobody counts anonymous memory apart", remember{memory: func(s float64) float64 { return 20 * s }, resident: true, seconds: 120}, 35 * time.Second, 60 * time.Second},
		{"a process that was calm for long", remember{memory: func(s float64) float64 { return 10 + max(0, 40*(s-200)) }, limitMB: 3000, seconds: 260}, 209 * time.Second, 220 * time.Second},
		{"it grows ever faster", remember{memory: func(s float64) float64 { return s * s }, limitMB: 2000, seconds: 60}, 9 * time.Second, 30 * time.Second},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			in, after := tt.leak.play(t)
			if in == nil {
				t.Fatal("nothing opened")
			}
			if after < tt.least || after > tt.most {
				t.Errorf("opened after %v, want %v to %v: %s", after, tt.least, tt.most, in.Summary)
			}
			if in.Level == model.Info || in.Estimated || len(in.Victims) != 0 || in.Confidence < 0.8 {
				t.Errorf("level %s, estimated %v, confidence %v, victims %+v", in.Level, in.Estimated, in.Confidence, in.Victims)
			}
			if !strings.Contains(in.Summary, "grows steadily") || in.Evidence["time_left_s"] <= 0 {
				t.Errorf("%s %v", in.Summary, in.Evidence)
			}
		})
	}
}

func TestMemoryLeakStaysSilent(t *testing.T) {
	warmUp := func(most, tau float64) func(float64) float64 {
		return func(s float64) float64 { return most * (1 - math.Exp(-s/tau)) }
	}
	tests := []struct {
		name string
		leak remember
	}{
		{"while a virtual machine for Java warms up in half a minute", remember{memory: warmUp(1000, 30), seconds: 300}},
		{"while it warms up below its limit", remember{memory: warmUp(1000, 20), limitMB: 2000, seconds: 200}},
		{"while it warms up in minutes", remember{memory: warmUp(1500, 180), seconds: 900}},
		{"while a heap is filled and freed in turn", remember{memory: func(s float64) float64 {
			if s < 60 {
				return min(850, 100*s)
			}
			return 100 + 30*math.Mod(s, 25)
		}, limitMB: 2000, seconds: 300}},
		{"for a pool that starts and stays", remember{memory: func(s float64) float64 { return min(600, 100*s) }, limitMB: 4000, seconds: 200}},
		{"for noise", remember{memory: func(s float64) float64 { return 300 + 30*noise(s) }, seconds: 300}},
		{"for growth that would take hours", remember{memory: func(s float64) float64 { return 0.5 * s }, seconds: 900}},
		{"for growth by little", remember{memory: func(s float64) float64 { return min(40, 4*s) }, limitMB: 500, seconds: 100}},
		{"for files that are mapped", remember{memory: func(s float64) float64 { return 20 * s }, resident: true, mapped: 0.9, seconds: 200}},
		{"for memory that falls", remember{memory: func(s float64) float64 { return 3000 - 20*s }, seconds: 120}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if in, after := tt.leak.play(t); in != nil {
				t.Errorf("opened after %v: %s %v", after, in.Summary, in.Evidence)
			}
		})
	}
}

// memory.stat counts what is below: a slice grows with whoever leaks in it.
func TestALeakIsOfTheCgroupThatGrowsAndNotOfThoseThatHoldIt(t *testing.T) {
	const slice, leaker, other model.CgroupID = 901, 902, 903
	var s *scene
	play := func(leakers func(second uint64) (uint64, uint64)) (accused map[string]bool) {
		s = newScene()
		s.host.MemTotalBytes = 8192 * mb
		s.proc(model.ProcID{PID: 1}, leaker, "leaker")
		s.proc(model.ProcID{PID: 1}, other, "other")
		accused = make(map[string]bool)
		for i := range uint64(4 * 90) {
			if i%4 == 0 {
				one, two := leakers(i / 4)
				s.host.MemAvailBytes = (5000 - one - two) * mb
				for _, c := range []struct {
					id   model.CgroupID
					path string
					mb   uint64
				}{{slice, "/a.slice", 300 + one + two}, {leaker, "/a.slice/leaker", 50 + one}, {other, "/a.slice/other", 150 + two}} {
					s.cgroup(model.CgroupSample{ID: c.id, Path: c.path, Detail: &model.CgroupDetail{AnonBytes: c.mb * mb}})
				}
			}
			for _, c := range s.end(0.3, 0) {
				if c.Incident.Kind == model.MemoryLeak {
					accused[c.Incident.Culprit.Cgroup] = true
				}
			}
		}
		return accused
	}
	one := play(func(s uint64) (uint64, uint64) { return 30 * s, min(s, 20) })
	if diff := cmp.Diff(map[string]bool{"/a.slice/leaker": true}, one); diff != "" {
		t.Errorf("one leaks, accused (-want +got):\n%s", diff)
	}
	for id, want := range map[model.CgroupID]bool{leaker: true, slice: false} {
		all := true
		for _, k := range s.watch.Measures(id) {
			for _, m := range k.Measures {
				all = all && (k.Kind != model.MemoryLeak || m.Met)
			}
		}
		if all != want {
			t.Errorf("why-not says of %d that every threshold is met: %v, want %v", id, all, want)
		}
	}
	both := play(func(s uint64) (uint64, uint64) { return 15 * s, 15 * s })
	if !both["/a.slice"] {
		t.Errorf("two leak to equal parts: accused %v, want what holds them among these", both)
	}
}

// Who has grown by most of it may have been read for the first time only lately.
func TestALeakIsNotOfAnybodyWhileWhoIsBelowWasNotFollowedAsLong(t *testing.T) {
	const slice, leaker model.CgroupID = 901, 902
	s := newScene()
	s.host.MemTotalBytes = 8192 * mb
	s.proc(model.ProcID{PID: 1}, leaker, "leaker")
	accused := make(map[string]time.Duration)
	began := s.now
	for i := range uint64(4 * 90) {
		if second := i / 4; i%4 == 0 {
			s.host.MemAvailBytes = (5000 - 30*second) * mb
			s.cgroup(model.CgroupSample{ID: slice, Path: "/a.slice", Detail: &model.CgroupDetail{AnonBytes: (300 + 30*second) * mb}})
			c := model.CgroupSample{ID: leaker, Path: "/a.slice/leaker", RunNS: 1e6}
			if second > 20 {
				c.Detail = &model.CgroupDetail{AnonBytes: (50 + 30*second) * mb}
			}
			s.cgroup(c)
		}
		for _, c := range s.end(0.3, 0) {
			if name := c.Incident.Culprit.Cgroup; c.Incident.Kind == model.MemoryLeak && accused[name] == 0 {
				accused[name] = s.now - began
			}
		}
	}
	if at := accused["/a.slice/leaker"]; len(accused) != 1 || at < 30*time.Second {
		t.Errorf("accused %v, want the leaker only, when it was followed for long enough", accused)
	}
}

// Whose leak it was may have ended, and been forgotten, before what held it is read again.
func TestALeakOfSomebodyWhoHasEndedIsNobodyElses(t *testing.T) {
	const slice, leaker model.CgroupID = 901, 902
	s := newScene()
	s.host.MemTotalBytes = 8192 * mb
	leak := s.proc(model.ProcID{PID: 1}, leaker, "leaker")
	for i := range uint64(4 * 60) {
		second := i / 4
		if i == 4*30 {
			s.exit(leak)
		}
		if second < 30 && i%4 == 0 {
			s.host.MemAvailBytes = (5000 - 30*second) * mb
			s.cgroup(model.CgroupSample{ID: slice, Path: "/a.slice", Detail: &model.CgroupDetail{AnonBytes: (300 + 30*second) * mb}})
			s.cgroup(model.CgroupSample{ID: leaker, Path: "/a.slice/leaker", Detail: &model.CgroupDetail{AnonBytes: (50 + 30*second) * mb}})
		}
		for _, c := range s.end(0.3, 0) {
			if in := c.Incident; in.Kind == model.MemoryLeak && in.Culprit.Cgroup != "/a.slice/leaker" {
				t.Fatalf("%q is accused after %d s: %s", in.Culprit.Cgroup, second, in.Summary)
			}
		}
	}
}

func TestPageCacheThatFillsIsNoLeak(t *testing.T) {
	s := newScene()
	s.host.MemTotalBytes = 8192 * mb
	reader := s.proc(model.ProcID{PID: 1}, job, "grep")
	for i := range uint64(400) {
		s.host.MemAvailBytes = (6000 - i) * mb // a little falls, for the kernel's own lists
		s.cgroup(model.CgroupSample{ID: job, Detail: &model.CgroupDetail{
			AnonBytes: 50 * mb, FileBytes: 10 * i * mb, MemoryBytes: (50 + 10*i) * mb, MemoryMaxBytes: 4096 * mb,
		}})
		s.sample.Procs.Usage = append(s.sample.Procs.Usage, model.Usage{ProcID: reader, Cgroup: job, RSSBytes: (50 + 10*i) * mb})
		if s.end(0.3, 0); s.open(model.MemoryLeak) != nil {
			t.Fatalf("opened: %s", s.open(model.MemoryLeak).Summary)
		}
	}
}

// A service reads its mapped files for the first time while another takes the host's memory: what
// is available falls, but not by what the service could drop. Nobody reads a memory.stat here.
func TestWhoMapsFilesWhileMemoryFallsIsNoLeak(t *testing.T) {
	const hog = job + 1
	s := newScene()
	s.host.MemTotalBytes = 8192 * mb
	reader := s.proc(model.ProcID{PID: 1}, job, "db")
	taker := s.proc(model.ProcID{PID: 1}, hog, "job")
	told := false
	for i := range uint64(400) {
		s.host.MemAvailBytes = (6000 - 12*i) * mb
		s.cgroup(model.CgroupSample{ID: job, Path: "/db"})
		s.cgroup(model.CgroupSample{ID: hog, Path: "/job"})
		s.sample.Procs.Usage = append(s.sample.Procs.Usage,
			model.Usage{ProcID: reader, Cgroup: job, RSSBytes: (50 + 10*i) * mb, FileBytes: (2 + 10*i) * mb},
			model.Usage{ProcID: taker, Cgroup: hog, RSSBytes: (20 + 12*i) * mb, FileBytes: 2 * mb})
		s.end(0.3, 0)
		if in := s.open(model.MemoryLeak); in != nil {
			if in.Culprit.Cgroup != "/job" {
				t.Fatalf("%s is accused: %s", in.Culprit.Cgroup, in.Summary)
			}
			told = true
		}
	}
	if !told {
		t.Error("who took the memory is not told")
	}
}

func TestALeakThatStopsCloses(t *testing.T) {
	s := newScene()
	s.host.MemTotalBytes, s.host.MemAvailBytes = 8192*mb, 6000*mb
	s.proc(model.ProcID{PID: 1}, job, "p")
	var opened, closed time.Duration
	for i := range uint64(4 * 120) {
		if i%4 == 0 {
			s.cgroup(model.CgroupSample{ID: job, Detail: &model.CgroupDetail{AnonBytes: min(20+5*i, 500) * mb, MemoryMaxBytes: 1000 * mb}})
		}
		for _, c := range s.end(0.3, 0) {
			switch c.Type {
			case Opened:
				opened = s.now
			case Closed:
				closed = s.now
			}
		}
	}
	if opened == 0 || closed == 0 || closed-opened > time.Minute {
		t.Errorf("opened at %v and closed at %v, want it closed within a minute after it stopped", opened, closed)
	}
}

func TestTheLedgerIsBounded(t *testing.T) {
	l, tb := newLedger(), newTable()
	for i := range int64(600) {
		s := &model.Sample{BootNS: int64(time.Hour) + i*int64(time.Second)}
		for j := range model.CgroupID(20) {
			s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: 20*model.CgroupID(i) + j, Detail: &model.CgroupDetail{AnonBytes: 100 * mb}})
			s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: 1e6, Detail: &model.CgroupDetail{AnonBytes: uint64(i) * mb}})
		}
		l.enter(s, tb)
		if len(l.accounts) > mostAccounts {
			t.Fatalf("%d accounts", len(l.accounts))
		}
	}
	if n := len(l.accounts); n > 20*200 {
		t.Errorf("%d cgroups are remembered, want those of the last three minutes", n)
	}
	a := l.accounts[1e6]
	if len(a.anon.fine) != finePoints || cap(a.anon.fine) > 2*finePoints || len(a.anon.coarse) > coarsePoints {
		t.Errorf("%d and %d points", len(a.anon.fine), len(a.anon.coarse))
	}
}

func TestALeakIsSeenAlsoWhereThousandsHadMemoryBefore(t *testing.T) {
	l, tb := newLedger(), newTable()
	const leaks = 1e6
	for i := range int64(60) {
		s := &model.Sample{BootNS: int64(time.Hour) + i*int64(time.Second)}
		add := func(id model.CgroupID, bytes uint64) {
			s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: id, Detail: &model.CgroupDetail{AnonBytes: bytes}})
		}
		for j := range model.CgroupID(mostAccounts) {
			add(10+j, 10*mb)
		}
		if i > 0 { // they were there first
			add(leaks, uint64(100+i)*mb)
		}
		l.enter(s, tb)
		if len(l.accounts) > mostAccounts {
			t.Fatalf("%d accounts", len(l.accounts))
		}
	}
	if got := l.candidates(16 * mb); len(got) != 1 || got[0] != leaks {
		t.Errorf("candidates %v, want the one that grows", got)
	}
}

func TestWhoMeetsMemoryThatOthersTookIsNotSurelyALeak(t *testing.T) {
	for _, tt := range []struct {
		name string
		step float64 // MB that another takes at once, after five minutes
		sure bool
	}{{"it takes the memory itself", 0, true}, {"another took it", 20_000, false}} {
		t.Run(tt.name, func(t *testing.T) {
			s := newScene()
			s.host.MemTotalBytes = 24_000 * mb
			s.proc(model.ProcID{PID: 1}, service, "service")
			var in *model.Incident
			for i := range 4 * 900 {
				if i%4 == 0 {
					second := float64(i) / 4
					taken := 0.0
					if second >= 300 {
						taken = tt.step
					}
					memory := 50 + 2*second
					s.host.MemAvailBytes = uint64((22_000 - taken - memory) * mb)
					if tt.sure { // a smaller machine, of which it has a small part
						s.host.MemAvailBytes = uint64((2000 - memory) * mb)
					}
					s.cgroup(model.CgroupSample{ID: service, RunNS: 1e6, Detail: &model.CgroupDetail{AnonBytes: uint64(memory * mb)}})
					if !tt.sure && second >= 300 {
						s.cgroup(model.CgroupSample{ID: job, RunNS: 1e6, Detail: &model.CgroupDetail{AnonBytes: uint64(taken * mb)}})
					}
				}
				s.end(0.3, 0)
				if in = s.open(model.MemoryLeak); in != nil && s.now > 6*time.Minute+time.Hour {
					break
				}
			}
			if in == nil {
				t.Fatal("nothing opened")
			}
			if in.Culprit.CgroupID != service || (in.Confidence >= 0.5) != tt.sure {
				t.Errorf("cgroup %d with confidence %v: %s", in.Culprit.CgroupID, in.Confidence, in.Summary)
			}
		})
	}
}

// Those that warmed up, and grew more than a leak has so far, do not hide it.
func TestALeakIsSeenBesideManyThatHaveGrownMore(t *testing.T) {
	s := newScene()
	s.host.MemTotalBytes = 24_000 * mb
	s.proc(model.ProcID{PID: 1}, service, "leaker")
	var in *model.Incident
	for second := range 240 {
		s.host.MemAvailBytes = 12_000 * mb
		for i := range model.CgroupID(3 * maxFindings) {
			s.cgroup(model.CgroupSample{ID: 1000 + i, Path: fmt.Sprint("/pod", i), RunNS: 1e6, Detail: &model.CgroupDetail{AnonBytes: uint64(min(20+10*second, 320)) * mb}})
		}
		s.cgroup(model.CgroupSample{ID: service, RunNS: 1e6, Detail: &model.CgroupDetail{AnonBytes: uint64(40+second/2) * mb, MemoryMaxBytes: 200 * mb}})
		for range 4 {
			s.end(0.3, 0)
		}
		for _, c := range s.changes {
			if c.Incident.Kind == model.MemoryLeak && c.Incident.Culprit.CgroupID == service {
				in = c.Incident
			}
		}
	}
	if in == nil {
		t.Error("not told of")
	}
}
