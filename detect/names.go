package detect

import "github.com/breakerd/breakerd/model"

// names are the paths of the cgroups that were seen lately, and their weights. A cgroup that runs brings
// its path with every sample, so that one that nothing in the window speaks of may be
// forgotten: a machine that makes a cgroup for each job would fill the memory with them.
type names struct {
	byID     map[model.CgroupID]named
	weighted bool  // one of them has a weight of its own, or had a moment ago
	swept    int64 // boot time
}

type named struct {
	path    string
	weights []uint32 // see model.CgroupSample
	seen    int64    // boot time
}

func newNames() names { return names{byID: make(map[model.CgroupID]named)} }

func (n *names) learn(s *model.Sample) {
	for i := range s.Cgroups {
		if c := &s.Cgroups[i]; c.Path != "" {
			n.byID[c.ID] = named{c.Path, c.CPUWeights, s.BootNS}
			n.weighted = n.weighted || c.CPUWeights != nil
		}
	}
}

// sweep forgets the cgroups that were not seen for as long as the window reaches, but
// those that are still spoken of.
func (n *names) sweep(now int64, spokenOf func() map[model.CgroupID]bool) {
	if since := now - n.swept; since >= 0 && since < int64(kept) {
		return
	}
	n.swept = now
	keep := spokenOf()
	n.weighted = false
	for id, c := range n.byID {
		if age := now - c.seen; (age < 0 || age > int64(kept)) && !keep[id] {
			delete(n.byID, id)
			continue
		}
		n.weighted = n.weighted || c.weights != nil
	}
}

// path names a cgroup as well as it can be named.
func (w *window) path(id model.CgroupID) string { return w.names.byID[id].path }

// paths are those that are known.
func (w *window) paths() []model.CgroupSample {
	var all []model.CgroupSample
	for _, id := range sortedIDs(w.names.byID) {
		all = append(all, model.CgroupSample{ID: id, Path: w.path(id)})
	}
	return all
}

// spokenOf are the cgroups that open incidents name.
func (w *Watch) spokenOf() map[model.CgroupID]bool {
	all := make(map[model.CgroupID]bool)
	for _, tracks := range w.tracks {
		for _, t := range tracks {
			all[t.cgroup] = true
			for victim := range t.stall {
				all[victim] = true
			}
		}
	}
	return all
}
