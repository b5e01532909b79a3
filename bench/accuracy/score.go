package main

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Outcome is what became of a scenario, in a word.
type outcome string

// The outcomes. Only right and silent pass.
const (
	right       outcome = "right"
	silent      outcome = "silent"
	wrong       outcome = "wrong"        // somebody was accused who, or of what, was not so
	missed      outcome = "missed"       // nobody was accused
	unknown     outcome = "unknown"      // it was seen, and nobody was accused
	broken      outcome = "not silent"   // harmless load was called trouble
	noPremise   outcome = "no premise"   // the load did not do what its label says
	notPossible outcome = "not possible" // here
)

// verdict is what may be concluded from the incidents of one scenario.
type verdict struct {
	outcome outcome
	found   *model.Incident // the right one that opened first
	rank    int             // of the culprit among that incident's contributors, from 1; 0 if it is not among them
	right   int             // accusations that are so
	wrongs  []string        // accusations that are not
	unnamed []string        // victims that the right one does not name
	others  []string        // what was said of those who are not of the scenario
}

// scene is what a verdict needs to know of a stage.
type scene struct {
	path           string // of the scenario's cgroup
	roots          map[string]int32
	ids            map[model.CgroupID]string // paths of the scenario's cgroups
	started, ended time.Time
	disturbed      bool // others used the CPUs meanwhile, and may really be to blame
	// watched says that others, or breakerd and this program, used enough of the CPUs to
	// have been made to wait themselves, or to make the scenario's wait.
	watched bool
	// strangers are the cgroups that are none of the scenario's and waited for a CPU as long as
	// a victim must, by the kernel's own figures.
	strangers map[string]bool
}

// settleTime is how long after the end an incident may open because of a scenario:
// detectors look back over some seconds.
const settleTime = 2 * time.Second

// judge holds the incidents against a scenario's labels.
func judge(s scenario, sc scene, all []model.Incident) verdict {
	var v verdict
	seenUnknown, strangers := false, false
	named := make(map[string]bool)
	for i := range all {
		in := &all[i]
		own := in.Culprit.Cgroup == sc.path || strings.HasPrefix(in.Culprit.Cgroup, sc.path+"/")
		during := !in.OpenedAt.Before(sc.started) && in.OpenedAt.Before(sc.ended.Add(settleTime))
		switch {
		case own:
		case !during:
			continue
		case nobody(in):
			switch {
			case s.silent() && in.Level != model.Info:
				v.wrongs = append(v.wrongs, describe(in, sc)+" opened, and there is no trouble")
			case slices.Contains(s.kinds, in.Kind):
				seenUnknown = true
			}
			continue
		case slices.ContainsFunc(in.Victims, func(x model.Victim) bool { return strings.HasPrefix(x.Cgroup, sc.path+"/") }) && in.Level != model.Info && !sc.watched:
			v.wrongs = append(v.wrongs, describe(in, sc)+" is not of the scenario, and its victim is")
			continue
		default:
			v.others = append(v.others, describe(in, sc))
			continue
		}
		what := mistake(s, sc, in)
		switch {
		case what != "" && onlyStrangersHurt(sc, in):
			// The label says that nobody else is there, and somebody was.
			v.others = append(v.others, describe(in, sc)+" made only others wait, who were there")
			strangers = true
			continue
		case what != "":
			v.wrongs = append(v.wrongs, describe(in, sc)+" "+what)
			continue
		case s.silent() || !slices.Contains(s.kinds, in.Kind) && in.Level == model.Info:
			continue
		}
		v.right++
		for _, x := range in.Victims {
			named[strings.TrimPrefix(x.Cgroup, sc.path+"/")] = true
		}
		if slices.Contains(s.kinds, in.Kind) && (v.found == nil || in.OpenedAt.Before(v.found.OpenedAt)) {
			v.found = in
			v.rank = 1 + slices.IndexFunc(in.Contributors, func(c model.Contributor) bool { return c.Cgroup == in.Culprit.Cgroup })
		}
	}
	if v.found != nil {
		above := v.found.Contributors // all, where it is not among them
		if v.rank > 0 {
			above = above[:v.rank-1]
		}
		innocent := func(c model.Contributor) bool {
			name, own := strings.CutPrefix(c.Cgroup, sc.path+"/")
			return own && !slices.Contains(s.culprits, name)
		}
		if i := slices.IndexFunc(above, innocent); i >= 0 {
			v.wrongs = append(v.wrongs, fmt.Sprintf("%s is right, and %s is ranked above it", describe(v.found, sc), above[i].Cgroup))
		}
		for _, name := range s.victims {
			if !named[name] {
				v.unnamed = append(v.unnamed, fmt.Sprintf("%s is a victim and is not named", name))
			}
		}
	}
	switch {
	case len(v.wrongs) > 0 && s.silent():
		v.outcome = broken
	case len(v.wrongs)+len(v.unnamed) > 0:
		v.outcome = wrong
	case s.silent():
		v.outcome = silent
	case v.found != nil:
		v.outcome = right
	case seenUnknown:
		v.outcome = unknown
	default:
		v.outcome = missed
	}
	if strangers && v.outcome == silent {
		v.outcome = noPremise
	}
	// Others on the CPUs can hide who waits for whom, and can themselves be made to wait
	// by what is harmless otherwise. They hide no fork and no leak.
	aboutCPUs := s.silent() || s.hurts != ""
	if sc.disturbed && aboutCPUs && (v.outcome == missed || v.outcome == unknown || v.outcome == broken) {
		v.outcome = noPremise
	}
	return v
}

// withNames fills in the paths of cgroups that breakerd knew by their id alone: an
// accusation without a name is one all the same.
func withNames(all []model.Incident, paths map[model.CgroupID]string) []model.Incident {
	named := make([]model.Incident, len(all))
	for i := range all {
		in := all[i].Clone()
		name := func(path *string, id model.CgroupID) {
			if *path == "" {
				*path = paths[id]
			}
		}
		name(&in.Culprit.Cgroup, in.Culprit.CgroupID)
		for j := range in.Victims {
			name(&in.Victims[j].Cgroup, in.Victims[j].CgroupID)
		}
		for j := range in.Contributors {
			name(&in.Contributors[j].Cgroup, in.Contributors[j].CgroupID)
		}
		named[i] = in
	}
	return named
}

// nobody reports whether an incident names no culprit.
func nobody(in *model.Incident) bool { return in.Culprit.Cgroup == "" && in.Culprit.Root.PID == 0 }

// mistake says what is wrong with an accusation of somebody in the scenario; "" if
// nothing is. What is informational is no accusation, but of the expected kind it must
// name the right one all the same.
func mistake(s scenario, sc scene, in *model.Incident) string {
	if s.silent() {
		if in.Level == model.Info {
			return ""
		}
		return "opened, and there is no trouble"
	}
	expected := slices.Contains(s.kinds, in.Kind)
	if !expected && in.Level == model.Info {
		return ""
	}
	if !slices.ContainsFunc(s.culprits, func(c string) bool { return in.Culprit.Cgroup == sc.path+"/"+c }) {
		return "is innocent; to blame is " + strings.Join(s.culprits, " or ")
	}
	// With others on the rest of the machine it is busy as a whole, too.
	busyAsWhole := sc.disturbed && in.Kind == model.CPUContention && slices.Contains(s.kinds, model.NoisyNeighbour)
	if !expected && !busyAsWhole && !slices.Contains(s.also, in.Kind) {
		return "is to blame, but not of that"
	}
	if want := sc.roots[s.root]; s.root != "" && in.Culprit.Root.PID != want {
		return fmt.Sprintf("has the right cgroup and not the root of the tree, which is pid %d", want)
	}
	return ""
}

// onlyStrangersHurt reports whether an incident has victims, none of the scenario, who may really
// have waited.
func onlyStrangersHurt(sc scene, in *model.Incident) bool {
	for _, v := range in.Victims {
		if strings.HasPrefix(v.Cgroup, sc.path+"/") || !sc.watched && !sc.strangers[v.Cgroup] {
			return false
		}
	}
	return len(in.Victims) > 0
}

func describe(in *model.Incident, sc scene) string {
	var victims strings.Builder
	for _, v := range in.Victims {
		fmt.Fprintf(&victims, ", %s waited %.0f ms", strings.TrimPrefix(v.Cgroup, sc.path+"/"), v.StallMS)
	}
	who := strings.TrimPrefix(in.Culprit.Cgroup, sc.path+"/")
	if nobody(in) {
		return fmt.Sprintf("%s (%s) of unknown cause", in.Kind, in.Level)
	}
	var evidence []string
	for _, name := range slices.Sorted(maps.Keys(in.Evidence)) {
		evidence = append(evidence, fmt.Sprintf("%s %.4g", name, in.Evidence[name]))
	}
	return fmt.Sprintf("%s (%s), %.1f s after the start: %s, pid %d %q%s (%s)", in.Kind, in.Level, in.OpenedAt.Sub(sc.started).Seconds(),
		who, in.Culprit.Root.PID, in.Culprit.Root.Comm, victims.String(), strings.Join(evidence, ", "))
}
