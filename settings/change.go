package settings

import (
	"slices"

	"github.com/breakerd/breakerd/config"
)

// Changes lists the keys in which two settings differ.
func Changes(was, is Settings) []config.Change { return config.Changes(was, is) }

// fixed are the keys that a running breakerd cannot change: the mode decides who carries
// decisions out, and the folders where others find it, and where what happened is kept.
var fixed = []string{"mode", "runtime_dir", "history.enabled", "history.dir"}

// NeedsRestart says that the change of a key has no effect until breakerd is restarted.
func NeedsRestart(key string) bool { return slices.Contains(fixed, key) }

// Applied is what holds after a reload: the new settings, but for what needs a restart.
func Applied(was, is Settings) Settings {
	is.Mode, is.RuntimeDir = was.Mode, was.RuntimeDir
	is.History.Enabled, is.History.Dir = was.History.Enabled, was.History.Dir
	return is
}
