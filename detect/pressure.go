package detect

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// PressureConfig are the thresholds of memory_pressure and of io_pressure.
type PressureConfig struct {
	// FullPercent is the host's full pressure: the part of the time in which all tasks
	// that had something to do were held up.
	FullPercent float64 `json:"full_percent" yaml:"full_percent" doc:"The host's pressure (full): percent of the time in which everything that had work was held up." range:"1..100"`
	// VictimMSPerSecond is how long a cgroup is held up in each second before it is a
	// victim.
	VictimMSPerSecond float64 `json:"victim_ms_per_second" yaml:"victim_ms_per_second" doc:"How long a cgroup is held up in each second, in ms, before it is a victim." range:"1..1000000"`
	// Hold is how long it must go on.
	Hold config.Duration `json:"hold" yaml:"hold" doc:"How long it must go on." range:"1ms..1h"`
}

// pressureSpan is the span over which the host's pressure is measured: of a second PSI has
// but the tasks' own steps of waiting.
const pressureSpan = time.Second

// percent is how much of the last d tasks were held up for a resource; some of them, or
// all.
func (w *window) percent(r model.Resource, full bool, d time.Duration) (float64, bool) {
	if w.now().Host.PressureAbsent {
		return 0, false
	}
	us, ok := w.growth(d, func(h *model.Host) uint64 {
		s := &h.Pressure.CPU
		switch r {
		case model.Memory:
			s = &h.Pressure.Memory
		case model.IO:
			s = &h.Pressure.IO
		}
		if full {
			return s.FullUS
		}
		return s.SomeUS
	})
	return us / 1e6 * 100, ok
}

// pressure is what memory_pressure and io_pressure have in common.
type pressure struct {
	name     model.Kind
	resource model.Resource
	cfg      PressureConfig
}

func (d pressure) kind() model.Kind    { return d.name }
func (d pressure) hold() time.Duration { return d.cfg.Hold.D() }

func (d pressure) look(w *window) []finding {
	full, ok := w.percent(d.resource, true, pressureSpan)
	ratio := full / d.cfg.FullPercent
	if !ok || ratio < 0.5 {
		return nil
	}
	f := w.accused(d.resource, ratio, d.cfg.VictimMSPerSecond)
	some, _ := w.percent(d.resource, false, pressureSpan)
	f.evidence = map[string]float64{
		"host_" + string(d.resource) + "_full_percent": round(full),
		"host_" + string(d.resource) + "_some_percent": round(some),
	}
	if len(f.victims) > 0 {
		f.evidence["stall_ms_per_second"] = round(f.victims[0].msPerSecond)
	}
	if len(f.contributors) > 0 {
		f.evidence["offender_share_percent"] = round(100 * f.contributors[0].Share)
	}
	if d.resource == model.Memory {
		f.evidence["mem_available_mb"] = round(float64(w.now().Host.MemAvailBytes) / (1 << 20))
	}
	f.explain = func(name string, victims []string) string {
		return fmt.Sprintf("%.0f %% of the time everything that had work was held up for %s. ", full, resourceName(d.resource)) +
			standing(f.cgroup, name, d.resource, victims)
	}
	return []finding{f}
}

func resourceName(r model.Resource) string {
	switch r {
	case model.CPU:
		return "a CPU"
	case model.IO:
		return "a disk"
	}
	return "memory"
}

func (d pressure) measure(w *window, cgroup model.CgroupID) []model.Measure {
	full, ok := w.percent(d.resource, true, pressureSpan)
	return []model.Measure{
		known("host_"+string(d.resource)+"_full_percent", full, ok, d.cfg.FullPercent),
		w.sharePercent(d.resource, cgroup),
	}
}

// sharePercent is how much of all stalls one cgroup makes, beside what it takes to stand
// out.
func (w *window) sharePercent(r model.Resource, cgroup model.CgroupID) model.Measure {
	v := w.blamed(r)
	share := 0.0
	for _, c := range v.contributors {
		if c.CgroupID == cgroup {
			share = c.Share
		}
	}
	return known("offender_share_percent", 100*share, v.contributors != nil, 100*standOutShare)
}
