package judge

import (
	"slices"

	"github.com/breakerd/breakerd/model"
)

// Processes are those that weigh most by a key, the heaviest first.
func (j *Judge) Processes(by model.SortKey, most int) []model.ProcessFigures {
	return j.watch.Processes(by.OfProcess, most)
}

// Cgroups are those that weigh most by a key, the heaviest first.
func (j *Judge) Cgroups(by model.SortKey, most int) []model.CgroupFigures {
	return j.watch.Cgroups(by.OfCgroup, most)
}

// Process finds a process by its number; false where there is none any more.
func (j *Judge) Process(pid int32) (model.ProcessFigures, bool) { return j.watch.Process(pid) }

// WhyNot says what was seen of a cgroup, and what every detector measures of it.
func (j *Judge) WhyNot(cgroup model.CgroupID) model.WhyNot {
	out := j.watch.WhyNot(cgroup)
	out.Kinds = j.watch.Measures(cgroup)
	for _, in := range j.Open() {
		if in.Culprit.CgroupID == cgroup {
			out.Culprit = append(out.Culprit, in.ID)
		}
		if slices.ContainsFunc(in.Victims, func(v model.Victim) bool { return v.CgroupID == cgroup }) {
			out.Victim = append(out.Victim, in.ID)
		}
	}
	return out
}
