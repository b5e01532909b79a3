package daemon

import (
	"maps"

	"github.com/breakerd/breakerd/model"
)

// rss is how much memory the processes of each cgroup have taken: who grew, on machines without
// a memory controller.
type rss struct {
	procs    map[model.ProcID]model.Usage
	now, was map[model.CgroupID]uint64 // bytes, at the last look at the processes and the one before
}

func newRSS() rss {
	return rss{procs: make(map[model.ProcID]model.Usage), now: make(map[model.CgroupID]uint64)}
}

func (r *rss) sample(s *model.Sample) {
	if s.Keyframe {
		*r = newRSS()
	}
	if len(s.Procs.Usage) > 0 {
		r.was = maps.Clone(r.now)
	}
	for _, u := range s.Procs.Usage {
		r.forget(u.ProcID)
		r.procs[u.ProcID] = u
		r.now[u.Cgroup] += u.OwnBytes()
	}
	for _, e := range s.Procs.Exited {
		r.forget(e.ProcID)
	}
}

func (r *rss) forget(id model.ProcID) {
	u, known := r.procs[id]
	if !known {
		return
	}
	delete(r.procs, id)
	if r.now[u.Cgroup] -= u.OwnBytes(); r.now[u.Cgroup] == 0 {
		delete(r.now, u.Cgroup)
	}
}

// grown is the growth (bytes) between the last two looks.
func (r *rss) grown(id model.CgroupID) uint64 {
	if r.was == nil {
		return 0
	}
	return r.now[id] - min(r.was[id], r.now[id])
}
