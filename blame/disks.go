package blame

import (
	"strings"

	"github.com/breakerd/breakerd/model"
)

// disks is who used which disk over a span. It is worked out once for all victims.
type disks struct {
	apart bool // the disks are told apart
	asked map[string]map[model.CgroupID]diskTime
	used  map[stretch]map[string]*diskUse
}

// diskTime is how long requests were under way.
type diskTime struct{ waited, held uint64 }

// diskUse is whose requests were at a disk between two samples.
type diskUse struct {
	kernel uint64
	by     map[model.CgroupID]uint64
}

// stood is for which disks a victim stalled, by how long its requests took at each.
type stood struct {
	by       map[string]uint64
	together bool // all disks are one
}

// stretch is two samples, and whether all disks are one between them.
type stretch struct {
	after, until int
	together     bool
}

// loopDevices is how the numbers of loop devices begin.
const loopDevices = "7:"

// tell looks through the samples.
func (d *disks) tell(samples []*model.Sample) {
	if d.asked != nil {
		return
	}
	for _, s := range samples {
		d.apart = d.apart || len(s.IOHolds) > 0
	}
	for _, s := range samples {
		d.apart = d.apart && s.Lost.IOHolds == 0
	}
	d.asked, d.used = make(map[string]map[model.CgroupID]diskTime), make(map[stretch]map[string]*diskUse)
	for i, s := range samples {
		for _, h := range d.holds(samples[max(0, i-1)], s) {
			if h.By != model.ByCgroup {
				continue
			}
			by := d.asked[h.Device]
			if by == nil {
				by = make(map[model.CgroupID]diskTime)
				d.asked[h.Device] = by
			}
			t := by[h.Cgroup]
			by[h.Cgroup] = diskTime{plus(t.waited, h.WaitedNS), plus(t.held, h.NS)}
		}
	}
}

// holds are who held which disk in a sample. Where they are not told apart (in recordings of
// before they were, or where the kernel's table was full) they are one.
func (d *disks) holds(before, s *model.Sample) []model.IOHold {
	if d.apart {
		return s.IOHolds
	}
	var holds []model.IOHold
	for i := range s.Cgroups {
		if c := &s.Cgroups[i]; c.IOHeldNS > 0 {
			holds = append(holds, model.IOHold{By: model.ByCgroup, Cgroup: c.ID, NS: c.IOHeldNS})
		}
	}
	if kernel := less(s.Host.KernelIOHeldNS, before.Host.KernelIOHeldNS); kernel > 0 {
		holds = append(holds, model.IOHold{By: model.ByKernel, NS: kernel})
	}
	return holds
}

// between is who held each disk between two samples; with together, all of them as one.
func (d *disks) between(samples []*model.Sample, after, until int, together bool) map[string]*diskUse {
	key := stretch{after, until, together}
	if use, known := d.used[key]; known {
		return use
	}
	use := make(map[string]*diskUse)
	for i := after + 1; i <= until; i++ {
		for _, h := range d.holds(samples[i-1], samples[i]) {
			if together {
				h.Device = ""
			}
			u := use[h.Device]
			if u == nil {
				u = &diskUse{by: make(map[model.CgroupID]uint64)}
				use[h.Device] = u
			}
			if h.By == model.ByKernel {
				u.kernel = plus(u.kernel, h.NS)
			} else {
				u.by[h.Cgroup] = plus(u.by[h.Cgroup], h.NS)
			}
		}
	}
	d.used[key] = use
	return use
}

// stoodAt is for which disks a victim stalled, by how long it waited for its requests at each.
// Those of the whole span count, not only of the moment in which it stalled: a request counts
// where it is done, which on a slow disk is later. Who only wrote in the background is taken by
// those writes.
//
// All disks are one where they are not told apart, or the victim uses a loop device, whose
// requests are made again at the disk below.
func (sp *span) stoodAt(victim model.CgroupID) *stood {
	sp.disks.tell(sp.samples)
	waited, held := make(map[string]uint64), make(map[string]uint64)
	together := !sp.disks.apart
	for disk, by := range sp.disks.asked {
		for id, t := range by {
			if !sp.isPart(id, victim) {
				continue
			}
			if t.waited > 0 {
				waited[disk] = plus(waited[disk], t.waited)
			}
			if t.held > 0 {
				held[disk] = plus(held[disk], t.held)
			}
			together = together || strings.HasPrefix(disk, loopDevices)
		}
	}
	by := waited
	if len(by) == 0 {
		by = held
	}
	if together && len(by) > 0 {
		by = map[string]uint64{"": 1}
	}
	return &stood{by, together}
}
