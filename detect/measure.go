package detect

import "github.com/breakerd/breakerd/model"

// Measured is what one detector measures of one cgroup, beside its thresholds, also far
// below them.
type Measured struct {
	Kind     model.Kind      `json:"kind"`
	Measures []model.Measure `json:"measures"`
	// Missing says in plain words why something could not be measured; "" where
	// everything could.
	Missing string `json:"missing,omitempty"`
}

// Measures says for every kind, in the order of Kinds, how far a cgroup is from an
// incident, as of the last sample that was fed. It answers why there is none. Like Feed
// it is not for two goroutines at a time.
func (w *Watch) Measures(cgroup model.CgroupID) []Measured {
	var all []Measured
	for _, d := range w.detectors {
		m := Measured{Kind: d.kind()}
		if len(w.window.samples) == 0 {
			m.Missing = "nothing has been seen yet"
			all = append(all, m)
			continue
		}
		m.Measures = d.measure(w.window, cgroup)
		for _, f := range m.Measures {
			if !f.Known {
				m.Missing = w.window.whyUnknown()
			}
		}
		all = append(all, m)
	}
	return all
}

func (w *window) whyUnknown() string {
	switch {
	case w.now().Host.PressureAbsent:
		return "the kernel gives no pressure stall information (boot with psi=1)"
	case len(w.samples) < 2 || w.now().BootNS-w.samples[0].BootNS < int64(kept)/2:
		return "the window has just begun"
	}
	return "nobody has read that figure of this cgroup lately"
}

// over is a figure that leads to an incident where it reaches its threshold.
func over(name string, value, threshold float64) model.Measure {
	return model.Measure{Name: name, Value: round(value), Threshold: threshold, Known: true, Met: value >= threshold}
}

// known is the same where the figure may not be there.
func known(name string, value float64, ok bool, threshold float64) model.Measure {
	if !ok {
		return model.Measure{Name: name, Threshold: threshold}
	}
	return over(name, value, threshold)
}
