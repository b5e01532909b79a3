package enforce

import (
	"fmt"
	"slices"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// A guard protects something from a decision. It judges facts that were read right
// before and does nothing else; what it returns is the reason to refuse, or "".
type guard struct {
	name  string
	judge func(*model.Decision, *facts) string
}

// guards is the order in which they are asked. The first that refuses is the answer.
var guards = []guard{
	{"mode", guardMode},
	{"feasibility", guardFeasibility},
	{"observation", guardObservation},
	{"confidence", guardConfidence},
	{"protected", guardProtected},
	{"identity", guardIdentity},
	{"bystanders", guardBystanders},
	{"grace", guardGrace},
	{"cooldown", guardCooldown},
	{"rate", guardRate},
	{"reach", guardReach},
	{"approval", guardApproval},
}

// counted is the first of them for which every process of the machine has to be counted.
var counted = slices.IndexFunc(guards, func(g guard) bool { return g.name == "reach" })

// atOnce are the first of them, as far as they can be judged without a look at the machine:
// who sends what can be nothing shall not have us walk through thousands of processes for it.
var atOnce = []guard{
	{"mode", whyNotNow},
	{"feasibility", whyNotAsAsked},
}

// secondLook are the guards that are asked again right before the write, and once
// more when everything stands still: what they judge can change at any moment.
var secondLook = []guard{
	{"owner", guardOwner},
	{"protected", guardProtected},
	{"identity", guardIdentity},
	{"bystanders", guardBystanders},
	{"reach", guardReach},
}

// whileHeld are the guards that are asked as long as something is held. The reach is
// not among them: whoever stands still grows old all the same.
var whileHeld = []guard{
	{"owner", guardOwner},
	{"protected", guardProtected},
	{"identity", guardIdentity},
	{"bystanders", guardBystanders},
}

// judge asks guards in their order.
func judge(order []guard, d *model.Decision, f *facts) (by, why string) {
	for _, g := range order {
		if why := g.judge(d, f); why != "" {
			return g.name, why
		}
	}
	return "", ""
}

// scopeOf is how much of the cgroup a decision means. The action's word counts; a
// target that says tree is never widened where the action says nothing.
func scopeOf(d *model.Decision) model.Scope {
	if d.Action.Scope != "" {
		return d.Action.Scope
	}
	return d.Target.Scope
}

// list names the first few.
func list(names []string) string {
	const most = 3
	if len(names) <= most {
		return strings.Join(names, ", ")
	}
	return fmt.Sprintf("%s and %d more", strings.Join(names[:most], ", "), len(names)-most)
}
