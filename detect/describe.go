package detect

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// incidentID is the same for the same samples, and its own for every tree: two storms
// may break out in one cgroup within one tick. Twelve hexadecimal digits stay unique
// for millions of incidents of one machine.
func incidentID(t *track, s *model.Sample) string {
	var root model.ProcID
	if t.root != nil {
		root = t.root.ProcID
	}
	sum := sha256.Sum256(fmt.Appendf(nil, "%s %s %s %d %v %d", s.Host.BootID, t.kind, t.resource, t.cgroup, root, s.BootNS))
	return hex.EncodeToString(sum[:6])
}

// describe names the culprit once, as it was when the incident opened.
func (w *Watch) describe(t *track, f finding) {
	t.incident.Contributors = append(t.incident.Contributors, f.contributors...)
	if t.cgroup == 0 {
		return // nobody stands out, and nobody is named
	}
	w.identify(t, f)
}

// identify says who the culprit is, as far as is known now.
func (w *Watch) identify(t *track, f finding) {
	c := model.Culprit{CgroupID: t.cgroup, Scope: model.ScopeCgroup, Share: round3(f.share)}
	w.locate(&c)
	if f.root != nil {
		c.Scope = model.ScopeTree
	}
	if n := f.largest; n != nil {
		c.Root = model.CulpritRoot{ProcID: n.ProcID, Comm: n.Comm, Cmdline: n.Cmdline}
		c.UID = n.UID
	}
	t.incident.Culprit = c
}

// locate says where the culprit is, as far as is known now.
func (w *Watch) locate(c *model.Culprit) {
	c.Cgroup = w.window.path(c.CgroupID)
	c.Workload = w.name(c.Cgroup)
	c.Unit = c.Workload.Unit
}

// maxVictims bounds the victims of an incident that goes on while cgroups come and go:
// those that wait least are left out.
const maxVictims = 256

// addStall adds what the culprit's cgroup made its victims wait in one sample, where that
// is measured.
func (t *track) addStall(waits []blame.Cell) {
	if t.incident.Estimated || t.resource != model.CPU {
		return
	}
	for _, c := range waits {
		victim, ns, ok := c.For(t.cgroup)
		if !ok {
			continue
		}
		if _, is := t.stall[victim]; is {
			t.stall[victim] += float64(ns) / 1e6
		}
	}
}

// estimateStall adds what the culprit's cgroup made its victims wait for so long, at the
// pace of the last seconds.
func (t *track) estimateStall(f finding, d time.Duration) {
	for _, h := range f.victims {
		t.stall[h.victim] += h.msPerSecond * max(0, d.Seconds())
	}
}

// listVictims lists them as they are now, the worst first.
func (w *Watch) listVictims(t *track) {
	ids := sortedIDs(t.stall)
	slices.SortStableFunc(ids, func(x, y model.CgroupID) int { return cmp.Compare(t.stall[y], t.stall[x]) })
	for _, id := range ids[min(len(ids), maxVictims):] {
		delete(t.stall, id)
	}
	t.incident.Victims = t.incident.Victims[:0]
	for _, id := range ids[:min(len(ids), maxVictims)] {
		path := w.window.path(id)
		name := w.name(path)
		t.incident.Victims = append(t.incident.Victims, model.Victim{
			Cgroup: path, CgroupID: id, Unit: name.Unit, Workload: name, Resource: t.resource, StallMS: round(t.stall[id]),
		})
	}
}

func culpritName(c model.Culprit) string {
	where := cgroupName(c.Cgroup, c.CgroupID)
	if c.Scope == model.ScopeCgroup {
		return fmt.Sprintf("%s (%d processes)", where, c.Processes)
	}
	return fmt.Sprintf("The tree of %s (pid %d) in %s", c.Root.Comm, c.Root.PID, where)
}

func (w *Watch) victimNames(hurts []hurt) []string {
	var names []string
	for _, h := range hurts {
		name := cgroupName(w.window.path(h.victim), h.victim)
		names = append(names, fmt.Sprintf("%s %.0f ms in each second", name, h.msPerSecond))
	}
	return names
}

// cgroupName names a cgroup within a sentence.
func cgroupName(path string, id model.CgroupID) string {
	switch path {
	case "":
		return fmt.Sprintf("cgroup %d", id)
	case "/":
		return "the root cgroup"
	}
	return path
}
