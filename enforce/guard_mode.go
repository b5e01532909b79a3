package enforce

import "github.com/breakerd/breakerd/model"

const stopping = "the enforcer is stopping: nothing new is begun"

// guardMode protects a machine whose operator only wants to watch.
func guardMode(_ *model.Decision, f *facts) string {
	switch {
	case f.stopping:
		return stopping
	case f.paused != "":
		return f.paused
	case f.mode == model.Monitor:
		return "the mode is monitor: breakerd watches and does nothing"
	}
	return ""
}
