package detect

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// PSISaturationConfig are the thresholds of psi_saturation.
type PSISaturationConfig struct {
	// SomePercent is the host's some pressure of any one resource: the part of the time in
	// which at least one task was held up for it.
	SomePercent float64 `json:"some_percent" yaml:"some_percent" doc:"The host's pressure (some) of any one resource, in percent of the time." range:"1..100"`
	// VictimMSPerSecond is how long a cgroup is held up in each second before it is a
	// victim.
	VictimMSPerSecond float64 `json:"victim_ms_per_second" yaml:"victim_ms_per_second" doc:"How long a cgroup is held up in each second, in ms, before it is a victim." range:"1..1000000"`
	// Hold is how long it must go on.
	Hold config.Duration `json:"hold" yaml:"hold" doc:"How long it must go on." range:"1ms..1h"`
}

// psiSaturation sees a resource that is in short supply nearly all the time, whoever
// causes it.
type psiSaturation struct{ cfg PSISaturationConfig }

func (d psiSaturation) kind() model.Kind    { return model.PSISaturation }
func (d psiSaturation) hold() time.Duration { return d.cfg.Hold.D() }

var resources = []model.Resource{model.CPU, model.Memory, model.IO}

func (d psiSaturation) look(w *window) []finding {
	var found []finding
	for _, r := range resources {
		// Held for long, and so over more than a second: one quiet moment ends nothing.
		some, ok := w.percent(r, false, hurtSpan)
		ratio := some / d.cfg.SomePercent
		if !ok || ratio < 0.5 {
			continue
		}
		f := w.accused(r, ratio, d.cfg.VictimMSPerSecond)
		f.evidence = map[string]float64{"host_" + string(r) + "_some_percent": round(some)}
		if len(f.contributors) > 0 {
			f.evidence["offender_share_percent"] = round(100 * f.contributors[0].Share)
		}
		f.explain = func(name string, victims []string) string {
			return fmt.Sprintf("%.0f %% of the time somebody was held up for %s. ", some, resourceName(r)) +
				standing(f.cgroup, name, r, victims)
		}
		found = append(found, f)
	}
	return found
}

func (d psiSaturation) measure(w *window, cgroup model.CgroupID) []model.Measure {
	var all []model.Measure
	for _, r := range resources {
		some, ok := w.percent(r, false, hurtSpan)
		share := w.sharePercent(r, cgroup)
		share.Name = string(r) + "_" + share.Name
		all = append(all, known("host_"+string(r)+"_some_percent", some, ok, d.cfg.SomePercent), share)
	}
	return all
}
