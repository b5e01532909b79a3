package enforce

import (
	"fmt"

	"github.com/breakerd/breakerd/model"
)

const stopping = "the enforcer is stopping: nothing new is begun"

// guardMode protects a machine whose operator only wants to watch, and everybody from a rule
// that is only tried out. It says as well what would keep the action from being carried out,
// so that nobody has to arm it to learn that.
func guardMode(d *model.Decision, f *facts) string {
	if why := whyNotNow(d, f); why != "" || f.mode != model.Monitor {
		return why
	}
	const watches = "the mode is monitor: breakerd watches and does nothing"
	if by, why := judge(couldBeDone, d, f); by != "" {
		return fmt.Sprintf("%s; and %s would refuse it: %s", watches, by, why)
	}
	return watches
}

// whyNotNow is why nothing is begun, whatever the target is like.
func whyNotNow(d *model.Decision, f *facts) string {
	switch {
	case f.stopping:
		return stopping
	case f.paused != "":
		return f.paused
	case f.mode == model.Enforce && d.DryRun:
		return "the author of the rule holds it to a dry run"
	}
	return ""
}

// couldBeDone are the guards that say what an action would come up against.
var couldBeDone = []guard{
	{"feasibility", guardFeasibility},
	{"protected", guardProtected},
	{"identity", guardIdentity},
	{"bystanders", guardBystanders},
}
