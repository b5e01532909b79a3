package enforce

import "github.com/breakerd/breakerd/model"

const stopping = "the enforcer is stopping: nothing new is begun"

// guardMode protects a machine whose operator only wants to watch, and everybody from a rule
// that is only tried out.
func guardMode(d *model.Decision, f *facts) string {
	switch {
	case f.stopping:
		return stopping
	case f.paused != "":
		return f.paused
	case f.mode == model.Monitor:
		return "the mode is monitor: breakerd watches and does nothing"
	case f.mode == model.Enforce && d.DryRun:
		return "the author of the rule holds it to a dry run"
	}
	return ""
}
