package detect

import "github.com/breakerd/breakerd/model"

// Measures says for every kind, in the order of Kinds, how far a cgroup is from an
// incident, as of the last sample that was fed. It answers why there is none. Like Feed
// it is not for two goroutines at a time.
func (w *Watch) Measures(cgroup model.CgroupID) []model.KindMeasures {
	all := []model.KindMeasures{}
	for _, d := range w.detectors {
		m := model.KindMeasures{Kind: d.kind()}
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
