package detect

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// contention plays a fight of two hogs against a service until an incident is open.
func contention(t *testing.T, s *scene) *model.Incident {
	t.Helper()
	_, hogs := hogsAndService(s)
	s.end(0.1, 0)
	for i := range 12 {
		for _, h := range hogs {
			s.uses(h, job, time.Duration(i+1)*100*time.Millisecond)
		}
		if i == 3 {
			s.sample.Procs.Execed = append(s.sample.Procs.Execed, model.Exec{ProcID: hogs[0], Comm: "cc1", Cmdline: "cc1 -O3 all.c"})
		}
		s.fight(60*time.Millisecond, 5*time.Millisecond, 0)
		s.end(1, 0.9)
		if in := s.open(model.CPUContention); in != nil {
			return in
		}
	}
	t.Fatal("nothing opened")
	return nil
}

func TestTriageOfAContentionSaysWhoDidWhatToWhom(t *testing.T) {
	in := contention(t, newScene())
	tr := in.Triage
	if tr == nil {
		t.Fatal("no triage")
	}
	for _, want := range []string{`"/job"`, `"/service" waited 240 ms in each second because of it (cpu, measured)`, "for a CPU 90 % of the time", `"cc1 -O3 all.c"`} {
		if !strings.Contains(tr.Cause, want) {
			t.Errorf("the cause does not say %s:\n%s", want, tr.Cause)
		}
	}
	if len(tr.Cgroups) < 2 || tr.Cgroups[0].CgroupID != job || tr.Cgroups[1].CgroupID != service {
		t.Errorf("cgroups %+v, want the culprit's and then the victim's", tr.Cgroups)
	}
	if p := tr.Processes[0]; p.CgroupID != job || p.CPUPercent != 40 || !p.CPUKnown {
		t.Errorf("the first process is %+v, want one of the job that uses 40 %% of a CPU", p)
	}
	if tr.Seen.Samples == 0 || tr.Seen.LongestTickMS != 250 {
		t.Errorf("seen %+v", tr.Seen)
	}
	if len(tr.Execs) != 1 || tr.Execs[0].CgroupID != job {
		t.Errorf("execs %+v", tr.Execs)
	}
}

func TestTriageIsOfTheMomentInWhichTheIncidentOpened(t *testing.T) {
	s := newScene()
	in := contention(t, s)
	first, _ := json.Marshal(in.Triage)
	for range 8 {
		s.fight(10*time.Millisecond, 90*time.Millisecond, 0)
		s.end(1, 1)
	}
	if again, _ := json.Marshal(in.Triage); string(again) != string(first) {
		t.Error("the triage of an open incident changed")
	}
}

func TestTriageStaysSmallWhateverNamesAreChosen(t *testing.T) {
	s := newScene()
	evil := strings.Repeat("\x01\xff\"\u202e", 2000)
	_, hogs := hogsAndService(s)
	for i := range s.sample.Procs.Forked {
		s.sample.Procs.Forked[i].Cmdline = evil
	}
	for id := model.CgroupID(200); id < 240; id++ {
		p := s.proc(model.ProcID{PID: 1}, id, evil)
		s.sample.Procs.Execed = append(s.sample.Procs.Execed, model.Exec{ProcID: p, Comm: evil, Cmdline: evil})
	}
	s.end(0.1, 0)
	for i := range 12 {
		for id := model.CgroupID(200); id < 240; id++ {
			s.sample.Cgroups = append(s.sample.Cgroups, model.CgroupSample{ID: id, Path: fmt.Sprint("/", evil, id), RunNS: 1e6, WaitNS: 6e7})
			s.waits(job, id, 60*time.Millisecond)
		}
		for _, h := range hogs {
			s.uses(h, job, time.Duration(i+1)*100*time.Millisecond)
			for range 30 {
				p := s.fork(h, job, evil)
				s.sample.Procs.Execed = append(s.sample.Procs.Execed, model.Exec{ProcID: p, Comm: evil, Cmdline: evil})
				s.exit(p)
			}
		}
		s.fight(60*time.Millisecond, 5*time.Millisecond, 0)
		s.cgroup(model.CgroupSample{ID: job, Forks: 60})
		s.end(1, 1)
		for _, c := range s.changes {
			text, err := json.Marshal(c.Incident.Triage)
			if err != nil {
				t.Fatal(err)
			}
			if len(text) > triageBytes || len(text) < 2000 {
				t.Errorf("%s: a triage of %d bytes, want at most %d and not nothing", c.Incident.Kind, len(text), triageBytes)
			}
			if strings.ContainsAny(c.Incident.Triage.Cause, "\x01\u202e") {
				t.Errorf("a name stands raw in %q", c.Incident.Triage.Cause)
			}
		}
	}
	if s.open(model.CPUContention) == nil || s.open(model.ForkStorm) == nil {
		t.Error("nothing opened")
	}
}

func TestARecordingGivesTheSameTriage(t *testing.T) {
	play := func(again bool) string {
		s := newScene()
		w := NewWatch(DefaultConfig(), func(string) model.Workload { return model.Workload{} })
		bomb := s.proc(model.ProcID{PID: 1}, job, "b\xff\xfemb")
		var out string
		for range 14 {
			for range 20 {
				p := s.fork(bomb, job, "b\xff\xfemb")
				s.sample.Procs.Execed = append(s.sample.Procs.Execed, model.Exec{ProcID: p, Comm: "x", Cmdline: strings.Repeat("\xff\xfe", 200)})
			}
			s.cgroup(model.CgroupSample{ID: job, Forks: 20, Execs: 20})
			sample := s.sample
			s.end(0.5, 0.1)
			if again {
				text, err := json.Marshal(sample)
				if err != nil {
					t.Fatal(err)
				}
				sample = &model.Sample{}
				if err := json.Unmarshal(text, sample); err != nil {
					t.Fatal(err)
				}
			}
			for _, c := range w.Feed(sample) {
				text, _ := json.Marshal(c.Incident.Triage)
				out += string(text)
			}
		}
		return out
	}
	if live, replayed := play(false), play(true); live != replayed || !strings.Contains(live, "made 80 processes a second") {
		t.Errorf("live and replayed differ, or say nothing:\n%s\n%s", live, replayed)
	}
}

func TestFiguresOfProcessesAndCgroups(t *testing.T) {
	s := newScene()
	contention(t, s)
	procs := s.watch.Processes(func(p *model.ProcessFigures) float64 { return p.CPUPercent }, 2)
	if len(procs) != 2 || procs[0].CgroupID != job || procs[0].StallCausedEstimate <= 0 {
		t.Errorf("processes %+v, want the two hogs with their part of the stall", procs)
	}
	sum := 0.0
	for _, p := range s.watch.Processes(func(p *model.ProcessFigures) float64 { return p.CPUPercent }, 100) {
		if p.CgroupID == job {
			sum += p.StallCausedEstimate
		}
	}
	groups := s.watch.Cgroups(func(g *model.CgroupFigures) float64 { return g.StallCausedMSPerSecond }, 1)
	if len(groups) != 1 || groups[0].CgroupID != job || groups[0].StallCausedMSPerSecond <= 0 {
		t.Fatalf("cgroups %+v, want the job", groups)
	}
	if caused := groups[0].StallCausedMSPerSecond; sum < 0.99*caused || sum > 1.01*caused {
		t.Errorf("the processes' parts of the stall add up to %.1f ms/s, want %.1f", sum, caused)
	}
	why := s.watch.WhyNot(service)
	if len(why.WaitedFor) != 1 || why.WaitedFor[0].OffenderID != job || len(why.WaitedForIt) != 1 {
		t.Errorf("why not %+v", why)
	}
	h := why.Shares
	if total := h.NeighbourMS + h.SelfMS + h.OwnQuotaMS + h.OurThrottleMS + h.KernelMS + h.StealMS + h.UnknownMS; total < h.WaitMS-1 || total > h.WaitMS+1 || h.WaitMS == 0 {
		t.Errorf("shares %+v add up to %.1f", h, total)
	}
	if quiet := s.watch.WhyNot(4711); quiet.Cgroup.CgroupID != 4711 || len(quiet.WaitedFor) != 0 {
		t.Errorf("a cgroup that nobody saw: %+v", quiet)
	}
	if _, there := s.watch.Process(99999); there {
		t.Error("a process that is not there was found")
	}
}

func TestAWatchThatSawNothingHasNoFigures(t *testing.T) {
	w := NewWatch(DefaultConfig(), func(string) model.Workload { return model.Workload{} })
	if n := len(w.Processes(func(*model.ProcessFigures) float64 { return 0 }, 5)) + len(w.Cgroups(func(*model.CgroupFigures) float64 { return 0 }, 5)); n != 0 {
		t.Errorf("%d figures of nothing", n)
	}
	if why := w.WhyNot(3); why.Cgroup.CgroupID != 3 {
		t.Errorf("%+v", why)
	}
}

// Of memory and io the triage tells what was waited for, and not who waited for a CPU meanwhile.
func TestTriageIsAboutTheResourceThatIsWaitedFor(t *testing.T) {
	held := map[model.CgroupID]time.Duration{job: 900 * time.Millisecond, service: 50 * time.Millisecond}
	for _, tt := range []struct {
		kind model.Kind
		wait func(*squeeze)
		want string
		did  string
	}{
		{model.IOPressure, func(s *squeeze) {
			s.stall[service].IO.SomeUS += 200_000
			s.tick(0, 0.6, held)
		}, "(io, estimated)", "Its requests were at the block devices for 3600 ms in each second"},
		{model.MemoryPressure, func(s *squeeze) {
			s.anon[job] += 20 << 20
			s.stall[service].Memory.SomeUS += 100_000
			s.tick(0.3, 0, nil)
		}, "(memory, estimated)", "Its 1 processes have"},
	} {
		s := newSqueeze()
		for range 40 {
			s.waits(job, service, 15*time.Millisecond)
			s.waits(session, service, 40*time.Millisecond)
			tt.wait(s)
			if s.open(tt.kind) != nil {
				break
			}
		}
		in := s.open(tt.kind)
		if in == nil || in.Triage == nil {
			t.Fatalf("%s: %+v", tt.kind, in)
		}
		for _, want := range []string{tt.want, tt.did} {
			if !strings.Contains(in.Triage.Cause, want) {
				t.Errorf("%s: the cause does not say %q:\n%s", tt.kind, want, in.Triage.Cause)
			}
		}
		if strings.Contains(in.Triage.Cause, "(cpu, measured)") {
			t.Errorf("%s: the cause is about another resource:\n%s", tt.kind, in.Triage.Cause)
		}
		first := in.Triage.Blame[0]
		if first.OffenderID != job || first.VictimID != service || first.Resource == model.CPU || !first.Estimated {
			t.Errorf("%s: the blame begins with %+v", tt.kind, first)
		}
		var estimated bool
		for _, p := range s.watch.WhyNot(service).WaitedFor {
			estimated = estimated || p.Estimated && p.OffenderID == job && p.Resource == first.Resource
		}
		if !estimated {
			t.Errorf("%s: why-not does not tell who made the service wait", tt.kind)
		}
	}
}
