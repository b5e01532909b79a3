package cgroupctl

import (
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

// files are a cgroup's limits, and a machine that has every controller but some.
type files struct {
	now  map[string]string
	lack string
}

func (f files) limitNow(file string) (string, error) { return f.now[file], nil }

func (f files) machineHas(controller string) (bool, error) { return controller != f.lack, nil }

func (f files) unitLimit(_, property string) (model.UnitLimit, error) {
	return model.UnitLimit{Property: property, Value: math.MaxUint64, DropIn: true}, nil
}

func TestPlanLimits(t *testing.T) {
	all := files{now: map[string]string{"cpu.max": "max 100000", "memory.high": "max", "pids.max": "4915"}}
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
		{name: "a delegated cgroup that has no cpu.max", files: files{}, action: model.Action{CPUPercent: 50}, refused: "does not give it the cpu controller"},
		{name: "a hybrid host", files: files{lack: "cpu"}, owner: service, action: model.Action{CPUPercent: 50}, refused: "no cpu controller"},
		{name: "one that is limited as much already", files: files{now: map[string]string{"cpu.max": "10000 20000"}}, action: model.Action{CPUPercent: 50}, refused: "holds 10000 20000 already"},
		{name: "one that is limited more already", files: all, action: model.Action{PIDsMax: 5000}, refused: "holds 4915 already"},
		{name: "a unit that is being stopped", files: all, owner: stopping, action: model.Action{PIDsMax: 5}, refused: "stop"},
		{name: "I/O", files: all, action: model.Action{CPUPercent: 50, IOPercent: 10}, refused: "io_percent"},
		{name: "nothing", files: all, refused: "names no limit"},
		{name: "less than is ever left", files: all, action: model.Action{MemoryHigh: 4096}, refused: "less than"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, refused, err := planLimits(Ref{Path: "/a.service"}, tt.owner, tt.action, tt.files)
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
	} {
		if err := CheckWrite(w); err == nil {
			t.Errorf("%+v is let through", w)
		}
	}
}
