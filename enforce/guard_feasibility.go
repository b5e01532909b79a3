package enforce

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// maxDecisionAge bounds how old a decision may be. What was right about a process
// tree a minute ago says little about it now.
const maxDecisionAge = time.Minute

// maxWords bounds the words of a decision, in bytes. Written as JSON, a byte becomes six
// at most, so that the record of a lease stays below maxRecord.
const maxWords = 16 << 10

// maxRungs bounds the further actions of a ladder.
const maxRungs = 8

// words is the length of all in a decision that its sender can make long.
func words(d *model.Decision) int {
	n := len(d.ID) + len(d.IncidentID) + len(d.Kind) + len(d.Policy) + len(d.PolicyHash) +
		len(d.Action.Kind) + len(d.Action.Scope) + len(d.Action.Reason) + len(d.Target.Cgroup) + len(d.Target.Scope)
	n += len(d.After)
	for i := range d.Action.Then {
		n += len(d.Action.Then[i].Kind) + len(d.Action.Then[i].Scope) + len(d.Action.Then[i].Reason)
	}
	for _, denied := range d.Denied {
		n += len(denied) + len("\t\t\t\"\",\n")
	}
	return n
}

// guardFeasibility refuses what cannot be done, or could not be undone cleanly.
func guardFeasibility(d *model.Decision, f *facts) string {
	if why := whyNotAsAsked(d, f); why != "" {
		return why
	}
	a := d.Action
	switch {
	case f.state.ReadOnly:
		return fmt.Sprintf("the cgroup2 file system is mounted read-only, so that nothing of %s can be written (in a container, /sys/fs/cgroup has to be writable)", d.Target.Cgroup)
	case errors.Is(f.err, cgroupctl.ErrThreaded):
		return fmt.Sprintf("%s is a threaded cgroup: a %s would hit some threads of a process and not others", d.Target.Cgroup, a.Kind)
	case f.state.Freeze == "1":
		return fmt.Sprintf("%s was frozen by somebody else, and is theirs to thaw", d.Target.Cgroup)
	case f.state.Frozen:
		return fmt.Sprintf("%s stands still already, because a cgroup above it was frozen by somebody else", d.Target.Cgroup)
	}
	if why := whyRealTime(a, f); why != "" {
		return why
	}
	return whyNoWay(f)
}

// whyNotAsAsked is what is wrong with a decision, whatever its target is like.
func whyNotAsAsked(d *model.Decision, f *facts) string {
	if n := words(d); n > maxWords {
		return fmt.Sprintf("the decision's reason, names and denials have %d bytes, and %d is the most", n, maxWords)
	}
	a := d.Action
	switch a.Kind {
	case model.Freeze, model.Throttle:
	case model.NoAction, "":
		return "no action was asked for"
	default:
		return fmt.Sprintf("action %q is none of freeze, throttle", a.Kind)
	}
	if s := scopeOf(d); s != model.ScopeTree && s != model.ScopeCgroup {
		return fmt.Sprintf("scope %q is none of tree, cgroup", s)
	}
	// Bounded before it is multiplied: a number of milliseconds that overflows must
	// not become a short or a negative time.
	if a.ForMS <= 0 || a.ForMS > int64(365*24*time.Hour/time.Millisecond) {
		return fmt.Sprintf("a lease of %d ms cannot be given", a.ForMS)
	}
	if a.EaseMS < 0 || a.EaseMS > a.ForMS {
		return fmt.Sprintf("a lease of %d ms cannot be loosened %d ms before its end", a.ForMS, a.EaseMS)
	}
	if len(a.Then) > maxRungs || slices.ContainsFunc(a.Then, func(a model.Action) bool { return len(a.Then) > 0 }) {
		return fmt.Sprintf("the ladder has more than %d further actions, or one upon another", maxRungs)
	}
	if a.ApprovalMS < 0 || a.ApprovalMS > maxApproval.Milliseconds() {
		return fmt.Sprintf("a person's yes within %d ms cannot be waited for", a.ApprovalMS)
	}
	if err := cgroupctl.CheckPath(d.Target.Cgroup); err != nil {
		return err.Error()
	}
	if d.Target.CgroupID == 0 {
		return "the cgroup's id is missing"
	}
	if age := f.now.Sub(d.At); age > maxDecisionAge || age < -maxDecisionAge {
		return fmt.Sprintf("the decision is of %s and it is %s now: too old to be true still (at most %s)",
			d.At.Format(time.RFC3339), f.now.Format(time.RFC3339), maxDecisionAge)
	}
	if why := whyNotAfter(d, f); why != "" {
		return why
	}
	for _, l := range f.held {
		if other := l.Decision.Target.Cgroup; nested(other, d.Target.Cgroup) {
			return fmt.Sprintf("lease %s holds %s already", l.ID, other)
		}
	}
	return ""
}

// whyRealTime says why a limit of the CPU would do nothing: cpu.max bounds the tasks of the
// fair scheduler, and no others (cgroup-v2.rst). One thread is enough, as those that play sound
// are: rtkit makes them so, and not the first one of their process.
func whyRealTime(a model.Action, f *facts) string {
	if a.CPUPercent == 0 {
		return ""
	}
	for i := range f.procs {
		if p := &f.procs[i]; p.realTime {
			return fmt.Sprintf("process %s runs with a real-time policy, which cpu.max does not bound", p)
		}
	}
	return ""
}

// within reports whether path p is dir or lies below it.
func within(p, dir string) bool {
	return p == dir || dir == "/" || strings.HasPrefix(p, dir+"/")
}

// nested reports whether one of the paths is the other, or lies below it.
func nested(a, b string) bool { return within(a, b) || within(b, a) }
