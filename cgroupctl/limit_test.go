package cgroupctl

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

// files are a cgroup's limits, and a machine that has every controller but some.
type files struct {
	now   map[string]string // that of I/O by slot
	lack  string
	used  uint64 // bytes of memory
	oomd  string
	unit  uint64 // what systemd has of each limit; 0 is none
	other bool   // io.max limits something else, too
}

func (f files) limitNow(w model.FileWrite) (string, error) {
	if now, ok := f.now[slot(w)]; ok || w.File != ioFile || f.now[ioFile] == "" {
		return now, nil
	}
	return ioHolds("", w.Wrote[:strings.Index(w.Wrote, " ")], w.Wrote[strings.Index(w.Wrote, " ")+1:strings.Index(w.Wrote, "=")]), nil
}

func (f files) limitsNow(string) (bool, error) { return f.other, nil }

func (f files) memoryNow() (uint64, error) { return f.used, nil }

func (f files) oomKiller() (string, error) { return f.oomd, nil }

func (f files) machineHas(controller string) (bool, error) { return controller != f.lack, nil }

func (f files) most(l limit) float64 {
	return map[string]float64{"cpu.max": 4e6, "memory.high": 1 << 30}[l.file]
}

func (f files) unitLimit(_ string, of model.UnitLimit) (model.UnitLimit, error) {
	of.Value, of.DropIn = math.MaxUint64, true
	if f.unit != 0 {
		of.Value = f.unit
	}
	return of, nil
}

func TestPlanLimits(t *testing.T) {
	all := files{now: map[string]string{"cpu.max": "max 100000", "memory.high": "max", "pids.max": "4915"}}
	io := files{now: map[string]string{"cpu.max": "max 100000", "io.max": "there", "io.max 8:0 wbps": "8:0 wbps=50000000"}}
	rates := []IORate{{Device: "8:0", Read: 100e6, Write: 200e6}, {Device: "254:16", Read: 500_000, Write: 2e6}}
	service := Owner{Own: true, Version: 257, Unit: Unit{Name: "a.service", ActiveState: "active"}}
	stopping := service
	stopping.Unit.Job = "stop"
	unlimited := func(property string) model.UnitLimit {
		return model.UnitLimit{Property: property, Value: math.MaxUint64, DropIn: true}
	}
	for _, tt := range []struct {
		name    string
		files   files
		owner   Owner
		action  model.Action
		rates   []IORate
		want    []model.FileWrite
		refused string
	}{
		{name: "half of a CPU", files: all, action: model.Action{CPUPercent: 50},
			want: []model.FileWrite{{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000"}}},
		{name: "two CPUs and a half, over four", files: files{now: map[string]string{"cpu.max": "40000 10000"}}, action: model.Action{CPUPercent: 250},
			want: []model.FileWrite{{File: "cpu.max", Was: "40000 10000", Wrote: "25000 10000"}}},
		{name: "so little that the period grows", files: files{now: map[string]string{"cpu.max": "max 10000"}}, action: model.Action{CPUPercent: 1},
			want: []model.FileWrite{{File: "cpu.max", Was: "max 10000", Wrote: "1000 100000"}}},
		{name: "everything at once, in whole pages", files: all, action: model.Action{CPUPercent: 100, MemoryHigh: 100<<20 + 1, PIDsMax: 50},
			want: []model.FileWrite{
				{File: "cpu.max", Was: "max 100000", Wrote: "100000 100000"},
				{File: "memory.high", Was: "max", Wrote: "104857600"},
				{File: "pids.max", Was: "4915", Wrote: "50"},
			}},
		{name: "a unit that has no cpu.max yet", files: files{}, owner: service, action: model.Action{CPUPercent: 50},
			want: []model.FileWrite{{File: "cpu.max", Wrote: "50000 100000", Unit: "a.service", Limit: unlimited(CPUQuota)}}},
		{name: "a unit with a quota in a period of its own", files: files{now: map[string]string{"cpu.max": "30000 50000"}, unit: 600_000}, owner: service, action: model.Action{CPUPercent: 50},
			want: []model.FileWrite{{File: "cpu.max", Was: "30000 50000", Wrote: "25000 50000", Unit: "a.service", Limit: model.UnitLimit{Property: CPUQuota, Value: 600_000, DropIn: true}}}},
		{name: "a unit with a quota that its period does not divide", files: files{now: map[string]string{"cpu.max": "20001 33333"}, unit: 600_060}, owner: service, action: model.Action{CPUPercent: 50},
			want: []model.FileWrite{{File: "cpu.max", Was: "20001 33333", Wrote: "16666 33333", Unit: "a.service", Limit: model.UnitLimit{Property: CPUQuota, Value: 600_060, DropIn: true}}}},
		{name: "a unit with a limit of memory in no whole pages", files: files{now: map[string]string{"memory.high": "209715200"}, unit: 200<<20 + 1}, owner: service, action: model.Action{MemoryHigh: 100 << 20},
			want: []model.FileWrite{{File: "memory.high", Was: "209715200", Wrote: "104857600", Unit: "a.service", Limit: model.UnitLimit{Property: MemoryHigh, Value: 200<<20 + 1, DropIn: true}}}},
		{name: "a unit whose quota somebody wrote", files: files{now: map[string]string{"cpu.max": "80000 100000"}}, owner: service, action: model.Action{CPUPercent: 50}, refused: "systemd did not write"},
		{name: "a unit whose quota somebody took away", files: files{now: map[string]string{"cpu.max": "max 100000"}, unit: 800_000}, owner: service, action: model.Action{CPUPercent: 50}, refused: "systemd did not write"},
		{name: "a container's scope, of whose quota its runtime told systemd whole percent", files: files{now: map[string]string{"cpu.max": "55500 100000"}, unit: 560_000}, owner: service, action: model.Action{CPUPercent: 50}, refused: "systemd did not write"},
		{name: "a unit whose memory somebody limited", files: files{now: map[string]string{"memory.high": "209715200"}, unit: 300 << 20}, owner: service, action: model.Action{MemoryHigh: 100 << 20}, refused: "systemd did not write"},
		{name: "a unit whose tasks somebody limited", files: files{now: all.now, unit: 5000}, owner: service, action: model.Action{PIDsMax: 50}, refused: "systemd did not write"},
		{name: "a delegated cgroup that has no cpu.max", files: files{}, action: model.Action{CPUPercent: 50}, refused: "does not give it the cpu controller"},
		{name: "a hybrid host", files: files{lack: "cpu"}, owner: service, action: model.Action{CPUPercent: 50}, refused: "no cpu controller"},
		{name: "one that is limited as much already", files: files{now: map[string]string{"cpu.max": "10000 20000"}}, action: model.Action{CPUPercent: 50}, refused: "holds 10000 20000 already"},
		{name: "one that is limited more already", files: all, action: model.Action{PIDsMax: 5000}, refused: "holds 4915 already"},
		{name: "a unit that is being stopped", files: all, owner: stopping, action: model.Action{PIDsMax: 5}, refused: "stop"},
		{name: "a tenth of what it reads and writes at two devices", files: io, action: model.Action{IOPercent: 10}, rates: rates,
			want: []model.FileWrite{
				{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=10000000"},
				{File: "io.max", Was: "8:0 wbps=50000000", Wrote: "8:0 wbps=20000000"},
				{File: "io.max", Was: "254:16 wbps=max", Wrote: "254:16 wbps=1048576"},
			}},
		{name: "I/O of a unit, and its CPU", files: io, owner: service, action: model.Action{CPUPercent: 50, IOPercent: 100}, rates: rates[:1],
			want: []model.FileWrite{
				{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000", Unit: "a.service", Limit: unlimited(CPUQuota)},
				{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=100000000", Unit: "a.service",
					Limit: model.UnitLimit{Property: IOReadBandwidthMax, Device: "8:0", Value: math.MaxUint64, DropIn: true}},
			}},
		{name: "I/O of a unit that has limits of it", files: files{now: io.now, unit: 5 << 20}, owner: service, action: model.Action{IOPercent: 10}, rates: rates, refused: "of its own"},
		{name: "I/O of a unit whose io.max somebody wrote", files: files{now: io.now, other: true}, owner: service, action: model.Action{IOPercent: 10}, rates: rates, refused: "of its own"},
		{name: "I/O of one that does none", files: io, action: model.Action{IOPercent: 10}, rates: []IORate{{Device: "8:0", Read: 900_000}}, refused: "nothing to limit"},
		{name: "I/O of one that is limited more already", files: io, action: model.Action{IOPercent: 50}, rates: []IORate{{Device: "8:0", Write: 100e6}}, refused: "already"},
		{name: "I/O without the controller", files: all, action: model.Action{IOPercent: 10}, rates: rates, refused: "io controller"},
		{name: "as much memory as is used", files: files{now: all.now, used: 100 << 20}, action: model.Action{MemoryHigh: 100<<20 + 1},
			want: []model.FileWrite{{File: "memory.high", Was: "max", Wrote: "104857600"}}},
		{name: "less memory than is used", files: files{now: all.now, used: 100<<20 + 4096}, action: model.Action{MemoryHigh: 100 << 20}, refused: "104861696 is the least"},
		{name: "memory where systemd-oomd would end somebody", files: files{now: all.now, oomd: "user.slice"}, action: model.Action{MemoryHigh: 100 << 20}, refused: "ManagedOOMMemoryPressure=kill of user.slice"},
		{name: "tasks where systemd-oomd would end somebody", files: files{now: all.now, oomd: "user.slice"}, action: model.Action{PIDsMax: 5},
			want: []model.FileWrite{{File: "pids.max", Was: "4915", Wrote: "5"}}},
		{name: "CPU of one that uses memory", files: files{now: all.now, used: 1 << 30}, action: model.Action{CPUPercent: 50},
			want: []model.FileWrite{{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000"}}},
		{name: "nothing", files: all, refused: "names no limit"},
		{name: "less than is ever left", files: all, action: model.Action{MemoryHigh: 4096}, refused: "less than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, refused, err := planLimits(Ref{Path: "/a.service"}, tt.owner, tt.action, tt.rates, tt.files)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
			if tt.refused == "" && refused != "" || !strings.Contains(refused, tt.refused) {
				t.Errorf("refused %q, want %q", refused, tt.refused)
			}
			for _, w := range got {
				if err := CheckWrite(w); err != nil {
					t.Errorf("planned, and then refused: %v", err)
				}
			}
		})
	}
}

// oomd is a service manager that has systemd-oomd watch one unit.
type oomd struct {
	Units
	kills string
	asked []string
	err   error
}

func (m *oomd) OOMKills(_ context.Context, name string) (bool, error) {
	m.asked = append(m.asked, name)
	return name == m.kills, m.err
}

func TestWhereSystemdOOMDEndsSomebody(t *testing.T) {
	const p = "/user.slice/user-1.slice/user@1.service/app.slice/a.service"
	all := []string{"user@1.service", "user-1.slice", "user.slice", "-.slice"}
	for i, kills := range append(all, "") {
		m := &oomd{kills: kills}
		c := Controller{units: m}
		got, err := c.oomKiller(t.Context(), p)
		if err != nil || got != kills {
			t.Errorf("where %q is watched: %q, %v", kills, got, err)
		}
		if diff := cmp.Diff(all[:min(i+1, len(all))], m.asked); diff != "" {
			t.Error(diff)
		}
	}
	c := Controller{units: &oomd{err: errors.New("no answer")}}
	if _, err := c.oomKiller(t.Context(), p); err == nil {
		t.Error("no answer is no error")
	}
	if got, err := new(Controller).oomKiller(t.Context(), p); got != "" || err != nil {
		t.Errorf("without systemd: %q, %v", got, err)
	}
}

// What a record says is written to a cgroup: nothing may get through that stops, loosens,
// or limits in the undo.
func TestLimitsThatAreNeverWritten(t *testing.T) {
	for _, w := range []model.FileWrite{
		{File: "cpu.max", Was: "50000 100000", Wrote: "max 100000"},
		{File: "cpu.max", Was: "50000 100000", Wrote: "50000 100000"},
		{File: "cpu.max", Was: "max 100000", Wrote: "0 100000"},
		{File: "cpu.max", Was: "max 100000", Wrote: "500 100000"},
		{File: "cpu.max", Was: "", Wrote: "50000 100000"},
		{File: "cpu.max", Was: "max", Wrote: "50000 100000"},
		{File: "cpu.max", Was: "max 100000", Wrote: "50000"},
		{File: "cpu.max", Was: "max 100000", Wrote: "-50000 100000"},
		{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000\n1"},
		{File: "cpu.max", Was: "max 100000", Wrote: "50000 0"},
		{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000", Unit: "a.service"},
		{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000", Unit: "a.service", Limit: model.UnitLimit{Property: MemoryHigh}},
		{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000", Limit: model.UnitLimit{Property: CPUQuota}},
		{File: "memory.high", Was: "max", Wrote: "0"},
		{File: "memory.high", Was: "max", Wrote: "max"},
		{File: "memory.high", Was: "max", Wrote: "01048576"},
		{File: "memory.high", Was: "max", Wrote: "18446744073709551615"},
		{File: "memory.max", Was: "max", Wrote: "104857600"}, // it would have the kernel kill
		{File: "pids.max", Was: "max", Wrote: "0"},
		{File: "../pids.max", Was: "max", Wrote: "10"},
		{File: "cpu.weight", Was: "100", Wrote: "1"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=max"},
		{File: "io.max", Was: "8:0 rbps=2000000", Wrote: "8:0 rbps=3000000"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=1000"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 wbps=2000000"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:16 rbps=2000000"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=2000000 wbps=1"},
		{File: "io.max", Was: "8:0 riops=max", Wrote: "8:0 riops=2000000"},
		{File: "io.max", Was: "08:0 rbps=max", Wrote: "08:0 rbps=2000000"},
		{File: "io.max", Was: "", Wrote: "8:0 rbps=2000000"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=2000000", Unit: "a.service", Limit: model.UnitLimit{Property: IOReadBandwidthMax, Device: "8:16"}},
		{File: "io.weight", Was: "default 100", Wrote: "default 1"},
		{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000", Step: "max 100000"},
		{File: "cpu.max", Was: "80000 100000", Wrote: "50000 100000", Step: "80000 100000"},
		{File: "cpu.max", Was: "80000 100000", Wrote: "50000 100000", Step: "50000 100000"},
		{File: "cpu.max", Was: "80000 100000", Wrote: "50000 100000", Step: "500 100000"},
		{File: "cpu.max", Was: "80000 100000", Wrote: "50000 100000", Step: "60000 100000\n1"},
		{File: "memory.high", Was: "max", Wrote: "1048576", Step: "0"},
		{File: "pids.max", Was: "max", Wrote: "10", Step: "20"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=2000000", Step: "8:0 wbps=3000000"},
		{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=2000000", Step: "8:16 rbps=3000000"},
		{File: "cgroup.freeze", Was: "0", Wrote: "1", Step: "0"},
	} {
		if err := CheckWrite(w); err == nil {
			t.Errorf("%+v is let through", w)
		}
	}
}

// Half way to what was there, or, where that was no limit, to what there is.
func TestTheStepBetween(t *testing.T) {
	rates := []IORate{{Device: "8:0", Read: 100e6, Write: 200e6}}
	service := Owner{Own: true, Version: 257, Unit: Unit{Name: "a.service", ActiveState: "active"}}
	for _, tt := range []struct {
		name   string
		now    map[string]string
		owner  Owner
		action model.Action
		want   []string
	}{
		{"of four CPUs", map[string]string{"cpu.max": "max 100000"}, Owner{}, model.Action{CPUPercent: 50}, []string{"225000 100000"}},
		{"of a limit, in its own period", map[string]string{"cpu.max": "190000 95000"}, Owner{}, model.Action{CPUPercent: 50}, []string{"118750 95000"}},
		{"of more CPUs than there are", map[string]string{"cpu.max": "900000 100000"}, Owner{}, model.Action{CPUPercent: 100}, []string{"250000 100000"}},
		{"of a unit that has no cpu.max yet", nil, service, model.Action{CPUPercent: 50}, []string{"225000 100000"}},
		{"where all CPUs are less than it is limited to", map[string]string{"cpu.max": "max 100000"}, Owner{}, model.Action{CPUPercent: 500}, []string{""}},
		{"where nothing lies between", map[string]string{"cpu.max": "50001 100000"}, Owner{}, model.Action{CPUPercent: 50}, []string{""}},
		{"of all memory, in whole pages", map[string]string{"memory.high": "max"}, Owner{}, model.Action{MemoryHigh: 1<<20 + 4096}, []string{"537395200"}},
		{"of a limit of memory", map[string]string{"memory.high": "314572800"}, Owner{}, model.Action{MemoryHigh: 100 << 20}, []string{"209715200"}},
		{"of forks", map[string]string{"pids.max": "4915"}, Owner{}, model.Action{PIDsMax: 100}, []string{""}},
		{"of what was read and written", map[string]string{"io.max": "there", "io.max 8:0 wbps": "8:0 wbps=50000000"}, Owner{}, model.Action{IOPercent: 10},
			[]string{"8:0 rbps=55000000", "8:0 wbps=35000000"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, ease := range []int64{0, 10_000} {
				tt.action.EaseMS = ease
				writes, refused, err := planLimits(Ref{Path: "/a"}, tt.owner, tt.action, rates, files{now: tt.now})
				if refused != "" || err != nil {
					t.Fatal(refused, err)
				}
				var steps []string
				for _, w := range writes {
					steps = append(steps, w.Step)
					if ease == 0 && w.Step != "" {
						t.Errorf("not asked for: %+v", w)
					}
					if err := CheckWrite(w); err != nil {
						t.Errorf("planned, and then refused: %v", err)
					}
					if w.Step == "" {
						continue
					}
					// As it is written, and as it is written down afterwards.
					_, step, err := toStep(w)
					if w.Wrote, w.Step = w.Step, w.Wrote; err != nil || step.Wrote != w.Wrote || CheckWrite(w) != nil {
						t.Errorf("the step is %+v, %v; then %v", step, err, CheckWrite(w))
					}
				}
				if ease > 0 {
					if diff := cmp.Diff(tt.want, steps); diff != "" {
						t.Error(diff)
					}
				}
			}
		})
	}
}

func TestWhatACgroupReadsAndWrites(t *testing.T) {
	for _, tt := range []struct {
		name, before, after string
		want                []IORate
	}{
		{name: "nothing", before: "", after: ""},
		{name: "two devices, of which one is new",
			before: "8:0 rbytes=1000 wbytes=5 rios=1 wios=1 dbytes=0 dios=0\n",
			after:  "8:0 rbytes=501000 wbytes=5 rios=3 wios=1 dbytes=0 dios=0\n254:16 rbytes=0 wbytes=100 rios=0 wios=1 dbytes=0 dios=0\n",
			want:   []IORate{{Device: "254:16", Write: 200}, {Device: "8:0", Read: 1e6}}},
		{name: "a device that did nothing, without an end of its line",
			before: "7:0 8:0 rbytes=0 wbytes=0\n", after: "7:0 8:0 rbytes=5 wbytes=0\n",
			want: []IORate{{Device: "8:0", Read: 10}}},
		{name: "a device that was taken away and put back", before: "8:0 rbytes=50 wbytes=0\n", after: "8:0 rbytes=5 wbytes=0\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before, err := parseIOStat(tt.before)
			if err != nil {
				t.Fatal(err)
			}
			after, err := parseIOStat(tt.after)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, ioRates(before, after, ioWindow)); diff != "" {
				t.Error(diff)
			}
		})
	}
	for _, text := range []string{"8:0 rbytes=x", "rbytes=1", "8:0 wbytes=-1"} {
		if got, err := parseIOStat(text); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestALimitInIOMax(t *testing.T) {
	const text = "8:16 rbps=2097152 wbps=max riops=max wiops=120\n8:1 rbps=max wbps=7 riops=max wiops=max\n"
	for _, tt := range []struct{ device, key, want string }{
		{"8:16", "rbps", "8:16 rbps=2097152"},
		{"8:16", "wbps", "8:16 wbps=max"},
		{"8:1", "wbps", "8:1 wbps=7"},
		{"8:0", "rbps", "8:0 rbps=max"},
	} {
		if got := ioHolds(text, tt.device, tt.key); got != tt.want {
			t.Errorf("%s of %s is %q, want %q", tt.key, tt.device, got, tt.want)
		}
	}
}

func FuzzIO(f *testing.F) {
	f.Add("8:16 rbps=2097152 wbps=max riops=max wiops=120\n")
	f.Add("7:0 8:0 rbytes=5 wbytes=0\n")
	f.Fuzz(func(t *testing.T, text string) {
		_, _ = parseIOStat(text)
		if got := ioHolds(text, "8:0", "rbps"); !strings.HasPrefix(got, "8:0 rbps=") {
			t.Errorf("got %q", got)
		}
	})
}
