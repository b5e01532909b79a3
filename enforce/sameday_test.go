package enforce

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/internal/kerneltest"
	deciding "github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/recording"
)

// A day of storms, of which some can be held and some cannot, goes once through a dry run
// over the real cgroups and once through the enforcer over a writer that writes. What is
// decided, refused, held and let go is the same, and at the same time.
func TestTheSameRecordedDayGivesTheSameInADryRunAndInEnforce(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	w := newWorld(t)
	job, sshd := kerneltest.ScratchCgroup(t), kerneltest.ScratchCgroup(t)
	var tree, beside [2]int32
	for i := range 2 {
		tree[i] = int32(job.Start("sleep", "3600").Process.Pid)
		beside[i] = int32(sshd.Start("sleep", "3600").Process.Pid)
	}
	// proc is the same for both: in job a tree that may be held, in sshd one that may not.
	w.process(tree[0], 1, oldStart, "bomb", "/usr/bin/bomb")
	w.process(tree[1], tree[0], oldStart+1, "child", "/usr/bin/bomb")
	w.process(beside[0], 1, oldStart, "sshd", "/usr/sbin/sshd")
	w.process(beside[1], beside[0], oldStart+1, "sshd", "/usr/sbin/sshd")

	mount, err := cgroupctl.FindRoot()
	if err != nil {
		t.Fatal(err)
	}
	real, err := cgroupctl.Open(mount)
	if err != nil {
		t.Fatal(err)
	}
	defer real.Close()
	fake := [2]cgroupctl.Ref{w.fake.Make(job.Path, tree[:]...), w.fake.Make(sshd.Path, beside[:]...)}

	roots := [2]model.ProcID{{PID: tree[0], StartTime: oldStart}, {PID: beside[0], StartTime: oldStart}}
	dry := w.day(t, model.DryRun, cgroupctl.NewDry(real), freezeStorms, recorded9to5(t, [2]cgroupctl.Ref{job.Ref(), sshd.Ref()}, roots, storms))
	if job.Frozen() || sshd.Frozen() {
		t.Error("the dry run froze something")
	}
	enforced := w.day(t, model.Enforce, w.fake, freezeStorms, recorded9to5(t, fake, roots, storms))
	if diff := cmp.Diff(dry, enforced); diff != "" {
		t.Errorf("the same day (-dry run +enforce):\n%s", diff)
	}
	seen := make(map[string]int)
	for _, line := range dry {
		seen[line.What]++
	}
	if seen["held"] < 3 || seen["ended"] < 3 || seen["refused by grace"] < 3 || seen["refused by cooldown"] < 3 || seen["refused by protected"] < 3 {
		t.Errorf("the day is too tame to prove anything: %v", seen)
	}
	if n := len(w.fake.Writes()); n < 6 {
		t.Errorf("the enforcer made %d writes", n)
	}
}

// A day of throttles: who storms again once it is loosened is tightened again, and who does not
// is let go. The cgroups of both are in memory, because a machine need not have the controllers:
// that a dry writer takes the steps that the real one takes is for package cgroupctl.
func TestTheSameDayOfThrottlesGivesTheSameInADryRunAndInEnforce(t *testing.T) {
	calm := func(time.Duration) bool { return false }
	again := func(at time.Duration) bool {
		return at <= 5*time.Second || at > 22*time.Second && at <= 27*time.Second
	}
	var days [2][]happened
	for i, mode := range []model.Mode{model.DryRun, model.Enforce} {
		w := newWorld(t)
		job, _ := w.limited("/a", 100)
		other, _ := w.limited("/b", 200)
		roots := [2]model.ProcID{{PID: 100, StartTime: oldStart}, {PID: 200, StartTime: oldStart}}
		days[i] = w.day(t, mode, w.fake, throttleStorms, recorded9to5(t, [2]cgroupctl.Ref{job, other}, roots, [2]func(time.Duration) bool{again, calm}))
		w.wantLimits("/a", "max 100000", "4915")
	}
	if diff := cmp.Diff(days[0], days[1]); diff != "" {
		t.Errorf("the same day (-dry run +enforce):\n%s", diff)
	}
	var seen []string
	for _, line := range days[0] {
		switch line.What {
		case "held", "loosened", "ended":
			seen = append(seen, line.What+" "+line.For.String()+" "+line.Why)
		}
	}
	want := []string{
		"held 30s ", "loosened 20s ", "ended 22s replaced", "held 1m0s ", "loosened 50s ", "ended 1m0s expired",
		"held 2m0s ", "loosened 1m50s ", // in the next storms, of which the day does not see the end
	}
	if diff := cmp.Diff(want, seen); diff != "" {
		t.Errorf("of the day (-want +got):\n%s", diff)
	}
}

const throttleStorms = `package breaker.storms

import rego.v1

action contains {"kind": "throttle", "cpu_percent": 50, "scope": "cgroup", "for": "30s", "reason": "a storm"} if {
	input.incident.kind == "fork_storm"
}
`

// happened is something that was decided, or became of it.
type happened struct {
	At           time.Duration // since the day began
	What, Cgroup string
	Why          string
	For          time.Duration
}

// storms are when within two minutes each cgroup forks. The first stops when it is held, as it
// would: a recording goes on as it was made, and what holds it seems to be of no use.
var storms = [2]func(time.Duration) bool{
	func(at time.Duration) bool {
		return at <= 5*time.Second || at > 22*time.Second && at <= 31*time.Second
	},
	func(at time.Duration) bool { return at > time.Minute },
}

// recorded9to5 is a recording of storms in two cgroups.
func recorded9to5(t *testing.T, cgroups [2]cgroupctl.Ref, roots [2]model.ProcID, storms [2]func(time.Duration) bool) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := recording.NewEncoder(&b, recording.Header{})
	if err != nil {
		t.Fatal(err)
	}
	const tick = 250 * time.Millisecond
	next := int32(4_000_000) // processes that live too short to be found
	for i := range 4 * 60 * 4 {
		at := time.Duration(i+1) * tick
		s := &model.Sample{
			Time: dayBegan.Add(at), BootNS: int64(time.Hour + at), LengthNS: int64(tick), Keyframe: i == 0,
			Host: model.Host{BootID: "5f0c", CPUs: 2, PressureAbsent: true},
		}
		if i == 0 {
			pid1 := model.ProcID{PID: 1, StartTime: 1}
			s.Procs.Forked = []model.Proc{
				{ProcID: pid1, Cgroup: 1, Comm: "systemd", Found: true},
				{ProcID: roots[0], Parent: pid1, Cgroup: cgroups[0].ID, Comm: "bomb", Found: true},
				{ProcID: roots[1], Parent: pid1, Cgroup: cgroups[1].ID, Comm: "bomb", Found: true},
			}
		}
		for c, ref := range cgroups {
			forks := 0
			if storms[c](at % (2 * time.Minute)) {
				forks = 20
			}
			for range forks {
				next++
				s.Procs.Forked = append(s.Procs.Forked, model.Proc{ProcID: model.ProcID{PID: next, StartTime: 200}, Parent: roots[c], Cgroup: ref.ID, Comm: "child"})
			}
			s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: ref.ID, Path: ref.Path, Forks: uint64(forks)})
		}
		if err := enc.Encode(recording.Record{Sample: s}); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.End(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

var dayBegan = time.Date(2026, 1, 1, 9, 0, 0, 0, time.UTC)

const freezeStorms = `package breaker.storms

import rego.v1

action contains {"kind": "freeze", "scope": "cgroup", "for": "20s", "reason": "a storm"} if {
	input.incident.kind == "fork_storm"
}
`

// day plays a recording, and writes down what happens. The clock is that of the samples.
func (w *world) day(t *testing.T, mode model.Mode, cgroups Cgroups, rule string, recorded []byte) (all []happened) {
	t.Helper()
	now := dayBegan
	log := &dayLog{now: &now}
	w.open(func(o *Options) {
		*o = Options{Mode: mode, Config: DefaultConfig(), Cgroups: cgroups, Recorder: log, Proc: w.proc, Now: func() time.Time { return now }}
		o.Config.HeartbeatTimeout = 0
		o.Config.Grace, o.Config.Cooldown = config.Duration(2*time.Second), config.Duration(5*time.Second)
		if mode == model.Enforce {
			o.StateDir = t.TempDir()
		}
	})
	defer w.close()
	set, err := policy.LoadSources(map[string]string{"storms.rego": rule})
	if err != nil {
		t.Fatal(err)
	}
	j := deciding.New(detect.DefaultConfig(), set, func(string) model.Workload { return model.Workload{} })
	dec, err := recording.NewDecoder(bytes.NewReader(recorded), "the day")
	if err != nil {
		t.Fatal(err)
	}
	var take func([]deciding.Event)
	take = func(events []deciding.Event) {
		for _, e := range events {
			switch e.Type {
			case deciding.Wanted:
				o := w.e.Propose(context.Background(), *e.Decision)
				log.outcome(e.Decision, &o)
				take(j.Outcome(o))
			case deciding.Measured: // only who is held for real shows whether that helped
			default:
				log.add(happened{What: string(e.Type), Cgroup: e.Incident.Culprit.Cgroup, Why: string(e.Incident.Kind)})
			}
		}
	}
	for {
		r, err := dec.Next()
		if errors.Is(err, io.EOF) {
			return log.all
		}
		if err != nil {
			t.Fatal(err)
		}
		now = r.Sample.Time
		if next, due := w.e.Next(); due && !next.After(now) {
			w.e.Advance(now)
		}
		take(j.Sample(context.Background(), r.Sample))
	}
}

// dayLog writes down what happens, without what tells one run from another.
type dayLog struct {
	now *time.Time
	all []happened
}

func (l *dayLog) add(h happened) {
	h.At = l.now.Sub(dayBegan)
	l.all = append(l.all, h)
}

func (l *dayLog) outcome(d *model.Decision, o *model.Outcome) {
	h := happened{What: "held", Cgroup: d.Target.Cgroup, Why: o.Reason, For: d.Action.For()}
	switch {
	case o.Error != "":
		h.What, h.Why = "failed", o.Error
	case o.RefusedBy != "":
		h.What = "refused by " + o.RefusedBy
	}
	l.add(h)
}

func (l *dayLog) Lease(lease model.Lease) {
	if lease.State == model.LeaseHeld && lease.EasedAt != nil {
		l.add(happened{What: "loosened", Cgroup: lease.Decision.Target.Cgroup, For: lease.EasedAt.Sub(*lease.HeldAt)})
	}
	if lease.State == model.LeaseEnded {
		l.add(happened{What: "ended", Cgroup: lease.Decision.Target.Cgroup, Why: fmt.Sprint(lease.EndReason, lease.Note), For: lease.EndedAt.Sub(*lease.HeldAt)})
	}
}

func (l *dayLog) Refused(model.Decision, model.Outcome) {}
func (l *dayLog) Approval(model.Approval)               {}
