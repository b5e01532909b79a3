package detect

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// Bounds of a triage.
const (
	triageBytes     = 32 << 10 // as JSON
	triageProcesses = 10
	triageCgroups   = 10
	triageEvents    = 12 // of each kind
	triageOthers    = 4  // processes that are not the culprit's
)

// triage captures what a person would look at now, for an incident that has just opened.
func (w *Watch) triage(of *track) *model.Triage {
	w.listVictims(of)
	in := of.incident
	f := w.figures(hurtSpan)
	t := &model.Triage{Pressure: w.window.hostPressure(hurtSpan), Seen: w.window.observation()}
	t.Processes = f.heaviest(in, of.resource)
	t.Blame = f.about(of.resource)
	t.Cgroups = f.involved(in, t.Blame)
	for i := range t.Blame {
		p := &t.Blame[i]
		p.Offender, p.Victim = cut(p.Offender), cut(p.Victim)
	}
	t.Forks = w.window.lately(&w.window.recent.forks, in.Culprit.CgroupID)
	t.Execs = w.window.lately(&w.window.recent.execs, in.Culprit.CgroupID)
	t.Cause = f.cause(in, of.resource, t)
	shrink(t)
	return t
}

// shrink takes away what matters least until the triage is within its bound. Names in it
// may be all escapes, which JSON writes in six bytes a character.
func shrink(t *model.Triage) {
	for {
		text, err := json.Marshal(t)
		if err == nil && len(text) <= triageBytes {
			return
		}
		longest := max(len(t.Forks), len(t.Execs), len(t.Blame), len(t.Cgroups), len(t.Processes))
		switch {
		case longest <= 1: // what is left is bounded by itself
			return
		case len(t.Forks) == longest:
			t.Forks = t.Forks[:longest-1]
		case len(t.Execs) == longest:
			t.Execs = t.Execs[:longest-1]
		case len(t.Blame) == longest:
			t.Blame = t.Blame[:longest-1]
		case len(t.Cgroups) == longest:
			t.Cgroups = t.Cgroups[:longest-1]
		default:
			t.Processes = t.Processes[:longest-1]
		}
	}
}

// about are who made whom wait: for the resource that an incident is about first, then for the others.
func (f *figures) about(r model.Resource) []model.BlamePair {
	others := slices.DeleteFunc(slices.Clone(allResources), func(other model.Resource) bool { return other == r })
	var pairs []model.BlamePair
	for _, resources := range [][]model.Resource{{r}, others} {
		pairs = append(pairs, f.pairs(resources, maxPairs-len(pairs), func(model.CgroupID, model.CgroupID) bool { return true })...)
	}
	// Who stalls for memory or io stalls in each cgroup above, too.
	var victims []model.CgroupID
	for _, p := range pairs {
		victims = append(victims, p.VictimID)
	}
	above := f.w.window.above(victims)
	return slices.DeleteFunc(pairs, func(p model.BlamePair) bool { return p.Estimated && above(p.VictimID) })
}

// weight is how much a process has to do with an incident. What each did to the disks is not known.
func weight(kind model.Kind, r model.Resource, p *model.ProcessFigures) float64 {
	switch {
	case kind == model.ForkStorm || kind == model.ShortLivedJobs:
		return p.ForksPerSecond
	case r == model.Memory:
		return float64(p.RSSBytes)
	}
	return p.CPUPercent
}

// heaviest are the processes that weigh most: of the culprit's cgroup first, and then a
// few others to compare with.
func (f *figures) heaviest(in *model.Incident, r model.Resource) []model.ProcessFigures {
	by := func(p *model.ProcessFigures) float64 { return weight(in.Kind, r, p) }
	var own, others []model.ProcessFigures
	for _, n := range f.w.window.table.nodes {
		p := f.process(n)
		switch {
		case p.CgroupID == in.Culprit.CgroupID && !p.Kernel:
			own = append(own, p)
		case by(&p) > 0:
			others = append(others, p)
		}
	}
	heaviest := func(x, y model.ProcessFigures) int {
		switch a, b := by(&x), by(&y); {
		case a > b:
			return -1
		case a < b:
			return 1
		}
		return compareIDs(x.ProcID, y.ProcID)
	}
	slices.SortFunc(own, heaviest)
	slices.SortFunc(others, heaviest)
	others = others[:min(len(others), max(triageOthers, triageProcesses-len(own)))]
	all := append(own[:min(len(own), triageProcesses-len(others))], others...)
	for i := range all {
		all[i].Cgroup = cut(all[i].Cgroup)
	}
	return append([]model.ProcessFigures{}, all...)
}

// involved are the cgroups of an incident: the culprit's, its victims', the
// contributors', and then those that others wait for most.
func (f *figures) involved(in *model.Incident, pairs []model.BlamePair) []model.CgroupFigures {
	ids := []model.CgroupID{}
	add := func(id model.CgroupID) {
		if id != 0 && len(ids) < triageCgroups && !slices.Contains(ids, id) {
			ids = append(ids, id)
		}
	}
	add(in.Culprit.CgroupID)
	for _, v := range in.Victims[:min(len(in.Victims), triageCgroups/2)] {
		add(v.CgroupID)
	}
	for _, c := range in.Contributors[:min(len(in.Contributors), triageCgroups/2)] {
		add(c.CgroupID)
	}
	for _, p := range pairs {
		add(p.OffenderID)
		add(p.VictimID)
	}
	all := make([]model.CgroupFigures, 0, len(ids))
	for _, id := range ids {
		g := *f.cgroup(id)
		g.Cgroup = cut(g.Cgroup)
		all = append(all, g)
	}
	return all
}

// lately are the last events of the window: of one cgroup, or of any where it had none.
func (w *window) lately(from *events, cgroup model.CgroupID) []model.ProcessEvent {
	pick := func(want func(model.CgroupID) bool) []model.ProcessEvent {
		all := []model.ProcessEvent{}
		for e := range from.newest {
			if age := w.now().BootNS - e.bootNS; age < 0 || age > int64(figureSpan) || len(all) >= triageEvents {
				break
			}
			if want(e.CgroupID) {
				e.Cgroup = cut(w.path(e.CgroupID))
				all = append(all, e.ProcessEvent)
			}
		}
		return all
	}
	own := pick(func(id model.CgroupID) bool { return id == cgroup })
	if len(own) > 0 {
		return own
	}
	return pick(func(model.CgroupID) bool { return true })
}

func (w *window) observation() model.Observation {
	samples, _ := w.last(hurtSpan)
	o := model.Observation{Samples: len(samples)}
	for _, s := range samples {
		o.CoveredMS += float64(s.LengthNS) / 1e6
		o.LongestTickMS = max(o.LongestTickMS, float64(s.LengthNS)/1e6)
		o.LateMS = max(o.LateMS, float64(s.Lost.LateNS)/1e6)
		o.LostEvents += s.Lost.Events
		o.LostCells += s.Lost.Cells
		o.LostCgroups += s.Lost.Cgroups
	}
	o.CoveredMS, o.LongestTickMS, o.LateMS = round(o.CoveredMS), round(o.LongestTickMS), round(o.LateMS)
	return o
}

// cause says in a few sentences who did what to whom. Names stand in quotes: whoever
// chose one cannot write a sentence of ours.
func (f *figures) cause(in *model.Incident, r model.Resource, t *model.Triage) string {
	var say []string
	c := &in.Culprit
	if c.CgroupID == 0 {
		say = append(say, "Nobody stands out as the cause.")
	} else {
		g := f.cgroup(c.CgroupID)
		say = append(say, fmt.Sprintf("The cause is %s.", who(c)))
		say = append(say, did(in.Kind, r, g, f.w.window.now().Host.CPUs))
	}
	say = append(say, harm(in, r, t)...)
	if p := t.Pressure; p != nil {
		say = append(say, fmt.Sprintf("On the whole host somebody waited for a CPU %.0f %% of the time, for memory %.0f %% and for io %.0f %%.", p.CPUSome, p.MemorySome, p.IOSome))
	}
	if c.CgroupID != 0 && len(t.Execs) > 0 && t.Execs[0].CgroupID == c.CgroupID {
		e := t.Execs[0]
		say = append(say, fmt.Sprintf("The last program started in that cgroup was %q (pid %d).", firstOf(e.Cmdline, e.Comm), e.PID))
	}
	if files := f.cgroups[c.CgroupID]; files != nil && files.Files != nil && c.CgroupID != 0 {
		say = append(say, limits(files.Files))
	}
	if o := t.Seen; o.LostEvents+o.LostCells+o.LostCgroups > 0 {
		say = append(say, fmt.Sprintf("Not all was seen: %d event records, %d waits and %d cgroup counts were lost.", o.LostEvents, o.LostCells, o.LostCgroups))
	}
	return strings.Join(slices.DeleteFunc(say, func(s string) bool { return s == "" }), " ")
}

func who(c *model.Culprit) string {
	where := "cgroup " + fmt.Sprintf("%q", firstOf(cut(c.Cgroup), fmt.Sprint(c.CgroupID)))
	if c.Workload.Container != "" {
		where = fmt.Sprintf("the container %s in %s", c.Workload.Container[:min(12, len(c.Workload.Container))], where)
	}
	if c.Scope == model.ScopeCgroup || c.Root.IsZero() {
		return fmt.Sprintf("%s as a whole, with %d processes", where, c.Processes)
	}
	return fmt.Sprintf("the tree of %q (pid %d, uid %d, %d processes) in %s: it accounts for %.0f %% of what that cgroup did",
		firstOf(cut(c.Root.Cmdline), cut(c.Root.Comm)), c.Root.PID, c.UID, c.Processes, where, 100*c.Share)
}

func did(kind model.Kind, r model.Resource, g *model.CgroupFigures, cpus int) string {
	switch {
	case kind == model.ForkStorm || kind == model.ShortLivedJobs:
		return fmt.Sprintf("The cgroup made %.0f processes a second while %.0f ended, %d live in it, and it used %.0f %% of one CPU.",
			g.ForksPerSecond, g.ExitsPerSecond, g.Processes, g.CPUPercent)
	case r == model.Memory:
		memory := fmt.Sprintf("its %d processes have %s resident", g.Processes, bytes(g.RSSBytes))
		if g.Files != nil && g.Files.MemoryBytes > 0 {
			memory = fmt.Sprintf("it holds %s of memory, and %s", bytes(g.Files.MemoryBytes), memory)
		}
		return strings.ToUpper(memory[:1]) + memory[1:] + "."
	case r == model.IO:
		return fmt.Sprintf("Its requests were at the block devices for %.0f ms in each second and moved %s a second.", g.IOHeldMSPerSecond, bytes(uint64(max(0, g.IOBytesPerSecond))))
	}
	return fmt.Sprintf("The cgroup used %.0f %% of one CPU on a machine with %d, and others waited for it %.0f ms in each second.", g.CPUPercent, cpus, g.StallCausedMSPerSecond)
}

// harm says who was made to wait, by the pairs that were seen.
func harm(in *model.Incident, r model.Resource, t *model.Triage) []string {
	var say []string
	for _, p := range t.Blame {
		if p.Resource != r || p.OffenderID != in.Culprit.CgroupID || !slices.ContainsFunc(in.Victims, func(v model.Victim) bool { return v.CgroupID == p.VictimID }) {
			continue
		}
		how := "measured"
		if p.Estimated {
			how = "estimated"
		}
		say = append(say, fmt.Sprintf("%q waited %.0f ms in each second because of it (%s, %s).", firstOf(p.Victim, fmt.Sprint(p.VictimID)), p.MSPerSecond, p.Resource, how))
		if len(say) == 3 {
			break
		}
	}
	if len(say) == 0 && len(in.Victims) == 0 && in.Culprit.CgroupID != 0 {
		say = append(say, "Nobody else was kept waiting by it when this opened.")
	}
	return say
}

func limits(c *model.CgroupFiles) string {
	var has []string
	if c.CPUMaxPercent > 0 {
		has = append(has, fmt.Sprintf("CPU %.0f %% of one", c.CPUMaxPercent))
	}
	if c.MemoryMaxBytes > 0 {
		has = append(has, "memory "+bytes(c.MemoryMaxBytes))
	}
	if c.PIDsMax > 0 {
		has = append(has, fmt.Sprintf("%d tasks", c.PIDsMax))
	}
	if len(has) == 0 {
		return "No limit of CPU, memory or tasks was found on it."
	}
	return "Its limits: " + strings.Join(has, ", ") + "."
}

func bytes(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%.0f GiB", float64(n)/(1<<30))
	case n >= 1<<30:
		return fmt.Sprintf("%.1f GiB", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%d MiB", n>>20)
	}
	return fmt.Sprintf("%d KiB", n>>10)
}

func firstOf(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}
