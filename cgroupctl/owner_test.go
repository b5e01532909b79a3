package cgroupctl_test

import (
	"context"
	"errors"
	"math"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// units is a service manager in memory that has one unit, with the cgroup of a test.
type units struct {
	mu       sync.Mutex
	g        *kerneltest.Cgroup
	unit     cgroupctl.Unit
	version  int
	err      error // what every question gets
	thawFail error
	ends     bool          // right after it was frozen or limited
	again    bool          // it is started again right before it is frozen
	slow     time.Duration // until it says what the limits are
	limits   map[string]uint64
	asked    []string
}

func (u *units) ask(what string) error {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.asked = append(u.asked, what)
	return u.err
}

func (u *units) Version(context.Context) (int, error) { return u.version, u.ask("version") }

func (u *units) Look(_ context.Context, name string) (cgroupctl.Unit, error) {
	if err := u.ask("look"); err != nil {
		return cgroupctl.Unit{}, err
	}
	if name != u.unit.Name {
		return cgroupctl.Unit{}, cgroupctl.ErrNoUnit
	}
	return u.unit, nil
}

func (u *units) Freeze(context.Context, string) error {
	if err := u.ask("freeze"); err != nil {
		return err
	}
	if u.again {
		u.g.Remove()
		if err := os.Mkdir(u.g.Mount+u.g.Path, 0o755); err != nil {
			return err
		}
	}
	u.g.Write("cgroup.freeze", "1")
	u.unit.FreezerState = "frozen"
	u.end()
	return nil
}

func (u *units) end() {
	if u.ends {
		u.g.Remove()
	}
}

// Limits has no limit where none was set.
func (u *units) Limits(ctx context.Context, _ string, of ...model.UnitLimit) ([]model.UnitLimit, error) {
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(u.slow):
	}
	for i := range of {
		of[i].Value = math.MaxUint64
		if v, ok := u.limits[of[i].Property]; ok {
			of[i].Value = v
		}
	}
	return of, u.ask("limits")
}

func (u *units) SetLimits(_ context.Context, _ string, to []model.UnitLimit) error {
	for _, l := range to {
		u.limits[l.Property] = l.Value
	}
	u.end()
	return u.ask("set")
}

func (u *units) ResetLimits(_ context.Context, _ string, was, _ []model.UnitLimit) error {
	for _, l := range was {
		u.limits[l.Property] = l.Value
	}
	return u.ask("reset")
}

func (u *units) Thaw(context.Context, string) error {
	if err := errors.Join(u.ask("thaw"), u.thawFail); err != nil {
		return err
	}
	if !u.ends {
		u.g.Write("cgroup.freeze", "0")
	}
	u.unit.FreezerState = "running"
	return nil
}

func (u *units) OOMKills(_ context.Context, name string) (bool, error) {
	return false, u.ask("oom " + name)
}

func withUnits(t *testing.T) (*units, *cgroupctl.Controller) {
	g := kerneltest.ScratchUnit(t)
	g.Start("sleep", "600")
	u := &units{g: g, version: 252, limits: map[string]uint64{}, unit: cgroupctl.Unit{
		Name: strings.TrimPrefix(g.Path, "/"), ControlGroup: g.Path, ActiveState: "active", FreezerState: "running",
	}}
	c := open(t, g.Mount)
	c.UseUnits(u)
	return u, c
}

func TestAUnitIsFrozenAndThawedThroughItsManager(t *testing.T) {
	u, c := withUnits(t)
	w := cgroupctl.FreezeUnitWrite(u.unit.Name)
	if err := c.Apply(u.g.Ref(), w); err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(t.Context(), u.g.Ref(), true); err != nil || u.unit.FreezerState != "frozen" {
		t.Errorf("%v, %+v", err, u.unit)
	}
	note, err := c.Restore(t.Context(), u.g.Ref(), w)
	if err != nil || note != "" || u.g.Frozen() || u.unit.FreezerState != "running" || !slices.Contains(u.asked, "thaw") {
		t.Errorf("%q, %v, %+v", note, err, u.unit)
	}
}

func TestAManagerThatDoesNotAnswerKeepsNothingFrozen(t *testing.T) {
	for _, c := range []struct {
		name  string
		spoil func(*units)
	}{
		{"it does not answer at all", func(u *units) { u.err = errors.New("no answer") }},
		{"it refuses to thaw while a job waits", func(u *units) { u.thawFail = errors.New("unit has a pending job") }},
	} {
		t.Run(c.name, func(t *testing.T) {
			u, ctl := withUnits(t)
			w := cgroupctl.FreezeUnitWrite(u.unit.Name)
			if err := ctl.Apply(u.g.Ref(), w); err != nil {
				t.Fatal(err)
			}
			c.spoil(u)
			// Thawed at once, and an error, so that systemd is told when it is back.
			if _, err := ctl.Restore(t.Context(), u.g.Ref(), w); err == nil || u.g.Frozen() || u.g.Read("cgroup.freeze") != "0" {
				t.Errorf("%v, frozen %v", err, u.g.Frozen())
			}
			u.err, u.thawFail = nil, nil
			if _, err := ctl.Restore(t.Context(), u.g.Ref(), w); err != nil || u.unit.FreezerState != "running" {
				t.Errorf("%v, %+v", err, u.unit)
			}
		})
	}
}

// A kernel that is given little time to confirm is no reason to give systemd as little.
func TestAManagerHasItsOwnTimeToResetLimits(t *testing.T) {
	u, c := withUnits(t)
	u.slow = 50 * time.Millisecond
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	w := model.FileWrite{File: "pids.max", Was: "max", Wrote: "100", Unit: u.unit.Name, Limit: model.UnitLimit{Property: cgroupctl.TasksMax, Value: math.MaxUint64}}
	if _, err := c.Restore(ctx, u.g.Ref(), w); err != nil || !slices.Contains(u.asked, "reset") {
		t.Errorf("%v, asked %q", err, u.asked)
	}
}

func TestAFreezeOfAUnitThatIsNotTheCgroupsIsRefused(t *testing.T) {
	u, c := withUnits(t)
	for _, name := range []string{"ssh.service", "x", "../a.service"} {
		w := cgroupctl.FreezeUnitWrite(name)
		if err := c.Apply(u.g.Ref(), w); err == nil || !cgroupctl.Untouched(err) {
			t.Errorf("apply through %s: %v", name, err)
		}
		if _, err := c.Restore(t.Context(), u.g.Ref(), w); err == nil {
			t.Errorf("restore through %s was done", name)
		}
	}
	below := u.g.Child("below")
	if err := c.Apply(below.Ref(), cgroupctl.FreezeUnitWrite(u.unit.Name)); err == nil {
		t.Error("a cgroup below was frozen through the unit")
	}
	if len(u.asked) != 0 {
		t.Errorf("asked %q", u.asked)
	}
}

// A service ends, or is started again, between the call and the look at what it did: the unit
// keeps what was set, so that it has to be undone.
func TestAUnitThatEndsAsItIsHeldIsUndone(t *testing.T) {
	for _, tt := range []struct {
		name  string
		write func(unit string) model.FileWrite
		left  func(*units) bool
	}{
		{"frozen", cgroupctl.FreezeUnitWrite, func(u *units) bool { return u.unit.FreezerState != "running" }},
		{"limited", func(unit string) model.FileWrite {
			return model.FileWrite{
				File: "cpu.max", Wrote: "50000 100000", Unit: unit,
				Limit: model.UnitLimit{Property: cgroupctl.CPUQuota, Value: math.MaxUint64},
			}
		}, func(u *units) bool { return u.limits[cgroupctl.CPUQuota] != math.MaxUint64 }},
	} {
		t.Run(tt.name, func(t *testing.T) {
			u, c := withUnits(t)
			w := tt.write(u.unit.Name)
			r := u.g.Ref()
			if w.File == "cpu.max" {
				var err error
				if w.Was, err = c.Holds(r, w); err != nil {
					t.Fatal(err)
				}
			}
			u.ends = true
			if err := c.Apply(r, w); err == nil || cgroupctl.Untouched(err) || !tt.left(u) {
				t.Fatalf("got %v, left %v", err, tt.left(u))
			}
			if _, err := c.Restore(t.Context(), r, w); err != nil || tt.left(u) {
				t.Errorf("restored with %v, left %v", err, tt.left(u))
			}
		})
	}
}

// A service is started again between the look at it and the call, so that systemd freezes the new one.
func TestAUnitThatIsStartedAgainBeforeItIsHeldIsNotLeftFrozen(t *testing.T) {
	u, c := withUnits(t)
	w, r := cgroupctl.FreezeUnitWrite(u.unit.Name), u.g.Ref()
	u.again = true
	if err := c.Apply(r, w); err == nil {
		t.Error("somebody else was frozen, and nothing is said")
	}
	if u.g.Frozen() || u.unit.FreezerState != "running" {
		t.Errorf("left frozen: %v, %s", u.g.Frozen(), u.unit.FreezerState)
	}
	if _, err := c.Restore(t.Context(), r, w); err != nil || u.g.Frozen() {
		t.Errorf("restored with %v", err)
	}
}

func TestWhoseACgroupIs(t *testing.T) {
	const p = "/batch.slice/a.service"
	u := &units{version: 257, unit: cgroupctl.Unit{Name: "a.service", ControlGroup: p, Delegate: true}}
	g := kerneltest.ScratchCgroup(t)
	c := open(t, g.Mount)
	owner := func(p string) (cgroupctl.Owner, error) {
		return c.Owner(t.Context(), cgroupctl.Ref{Path: p, ID: 1})
	}
	if o, err := owner(p); err != nil || o.Unit.Name != "" {
		t.Errorf("without systemd: %+v, %v", o, err)
	}
	c.UseUnits(u)
	for _, tt := range []struct {
		path, unit string
		own        bool
	}{
		{p, "a.service", true},
		{p + "/job/1", "a.service", false},
		{"/scratch", "", false},
		{"/scratch/b.service", "", false},
		{"/other.service/job", "", false}, // systemd does not know it
	} {
		if o, err := owner(tt.path); err != nil || o.Unit.Name != tt.unit || o.Own != tt.own {
			t.Errorf("%s: %+v, %v", tt.path, o, err)
		}
	}
	u.unit.ControlGroup = "/system.slice/a.service"
	if o, err := owner(p); err == nil {
		t.Errorf("a path that systemd says is another: %+v", o)
	}
	if o, err := owner("/other.service"); err == nil {
		t.Errorf("a unit that systemd does not know: %+v", o)
	}
	u.err = errors.New("no answer")
	if o, err := owner(p); err == nil {
		t.Errorf("no answer: %+v", o)
	}
	u.err, u.unit = nil, cgroupctl.Unit{Name: `run-p1\x2dq.mount`, ControlGroup: `/system.slice/run-p1\x2dq.mount`}
	if o, err := owner(u.unit.ControlGroup); err != nil || !o.Own {
		t.Errorf("an escaped name: %+v, %v", o, err)
	}
	u.unit = cgroupctl.Unit{Name: "cpu.service", ControlGroup: "/_cpu.service"}
	if o, err := owner("/_cpu.service"); err != nil || !o.Own {
		t.Errorf("a name that is a file's: %+v, %v", o, err)
	}
}

func TestHowACgroupIsFrozen(t *testing.T) {
	own := func(version int, change ...func(*cgroupctl.Unit)) cgroupctl.Owner {
		o := cgroupctl.Owner{Own: true, Version: version, Unit: cgroupctl.Unit{Name: "a", ActiveState: "active", FreezerState: "running"}}
		for _, c := range change {
			c(&o.Unit)
		}
		return o
	}
	below := func(version int) cgroupctl.Owner {
		return cgroupctl.Owner{Version: version, Unit: cgroupctl.Unit{Name: "u"}}
	}
	watchdog := func(d time.Duration) func(*cgroupctl.Unit) { return func(u *cgroupctl.Unit) { u.Watchdog = d } }
	starts := func(d time.Duration) func(*cgroupctl.Unit) {
		return func(u *cgroupctl.Unit) { u.ActiveState, u.Job, u.StartTimeout = "activating", "start", d }
	}
	lives := func(o cgroupctl.Owner, change func(*cgroupctl.Unit)) cgroupctl.Owner { change(&o.Unit); return o }
	job := func(j string) func(*cgroupctl.Unit) { return func(u *cgroupctl.Unit) { u.Job = j } }
	for _, tt := range []struct {
		name, path string
		owner      cgroupctl.Owner
		way        cgroupctl.Way
		refused    string
	}{
		{"where there is no systemd", "/a.service", cgroupctl.Owner{}, cgroupctl.WayDirect, ""},
		{"a container's below a delegated scope", "/docker-1.scope/init", below(257), cgroupctl.WayDirect, ""},
		{"a service under 247", "/a.service", own(247), cgroupctl.WayUnit, ""},
		{"a service under 254", "/a.service", own(254), cgroupctl.WayUnit, ""},
		{"a service under 255", "/a.service", own(255), cgroupctl.WayInside, ""},
		{"a mount under 257", "/a.mount", own(257), cgroupctl.WayInside, ""},
		{"a service under 245", "/a.service", own(245), cgroupctl.WayDirect, ""},
		{"a scope under 252", "/a.scope", own(252), cgroupctl.WayUnit, ""},
		{"a scope under 257", "/a.scope", own(257), cgroupctl.WayDirect, ""},
		{"a slice under 252", "/a.slice", own(252), "", "freeze a unit of it"},
		{"a slice under 257", "/a.slice", own(257), "", "freeze a unit of it"},
		{"a service of a user's systemd", "/user@1.service/app.slice/a.service", below(252), cgroupctl.WayInside, ""},
		{"a slice of a user's systemd", "/user@1.service/app.slice", below(252), "", "another service manager"},
		{"a short watchdog", "/a.service", own(257, watchdog(time.Minute)), "", "watchdog"},
		{"a watchdog that is longer", "/a.service", own(257, watchdog(3*time.Minute)), cgroupctl.WayInside, ""},
		{"a short watchdog that FreezeUnit would not stop", "/a.service", own(252, watchdog(time.Minute)), "", "watchdog"},
		{"a cgroup below a short watchdog", "/a.service/main", lives(below(257), watchdog(time.Minute)), "", "watchdog"},
		{"a cgroup below a watchdog that is longer", "/a.service/main", lives(below(257), watchdog(3*time.Minute)), cgroupctl.WayDirect, ""},
		{"one that has to start within a time", "/a.service", own(257, starts(90*time.Second)), "", "starts still"},
		{"a cgroup below one that has to start within a time", "/a.service/main", lives(below(257), starts(90*time.Second)), "", "starts still"},
		{"one that has started within its time", "/a.service", own(257, func(u *cgroupctl.Unit) { u.StartTimeout = 90 * time.Second }), cgroupctl.WayInside, ""},
		{"one that may start for ever", "/a.service", own(257, starts(0)), cgroupctl.WayInside, ""},
		{"one that is being stopped", "/a.service", own(257, job("stop")), "", "left alone"},
		{"one that starts still, as a job does all its life", "/a.service", own(257, job("start")), cgroupctl.WayInside, ""},
		{"one that starts still where systemd would not freeze it", "/a.service", own(252, job("start")), "", "a job is queued"},
		{"one that has failed", "/a.service", own(257, func(u *cgroupctl.Unit) { u.ActiveState = "failed" }), "", "left alone"},
		{"one that somebody else froze", "/a.service", own(252, func(u *cgroupctl.Unit) { u.FreezerState = "frozen" }), "", "somebody else"},
	} {
		way, refused := cgroupctl.WayToFreeze(tt.path, tt.owner, 31*time.Second)
		if way != tt.way || !strings.Contains(refused, tt.refused) || (refused == "") != (tt.refused == "") {
			t.Errorf("%s: %q, %q", tt.name, way, refused)
		}
	}
}

func TestWhoWasMovedInsideIsMovedBackFromWherever(t *testing.T) {
	g := kerneltest.ScratchCgroup(t)
	root := g.Start("sh", "-c", "sleep 600 & sleep 600 & wait")
	c := open(t, g.Mount)
	name := cgroupctl.InsideName("x-1")
	child, err := c.Isolate(g.Ref(), name)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Isolate(g.Ref(), name); err == nil || !cgroupctl.Untouched(err) {
		t.Errorf("made twice: %v", err)
	}
	if err := c.Attach(child, int32(root.Process.Pid)); err != nil {
		t.Fatal(err)
	}
	if err := c.Confirm(t.Context(), child, true); err != nil {
		t.Error(err)
	}
	if err := c.Attach(child, 1<<22); !errors.Is(err, cgroupctl.ErrEnded) {
		t.Errorf("a process that is not there: %v", err)
	}
	// Somebody else has made cgroups below ours meanwhile, and moved into one.
	in := *g
	in.Path, in.Dir = child.Path, g.Mount+child.Path
	deep := in.Child("a").Child("b")
	deep.Write("cgroup.procs", strconv.Itoa(root.Process.Pid))
	note, err := c.Rejoin(t.Context(), g.Ref(), name)
	if err != nil || note != "" {
		t.Errorf("%q, %v", note, err)
	}
	if _, err := c.Find(child.Path); !errors.Is(err, cgroupctl.ErrGone) || g.Frozen() || !slices.Contains(g.PIDs(), root.Process.Pid) {
		t.Errorf("%v; %v are back", err, g.PIDs())
	}
	if _, err := c.Rejoin(t.Context(), g.Ref(), name); err != nil {
		t.Errorf("a second time: %v", err)
	}
	for _, name := range []string{"", "breakerd-", "a", "breakerd-/../..", "../breakerd-a"} {
		if _, err := c.Isolate(g.Ref(), name); err == nil {
			t.Errorf("isolate %q was done", name)
		}
		if _, err := c.Rejoin(t.Context(), g.Ref(), name); err == nil {
			t.Errorf("rejoin %q was done", name)
		}
	}
}
