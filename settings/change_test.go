package settings

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

func TestChangesAreTheKeysThatDiffer(t *testing.T) {
	is := Default()
	is.Mode, is.Policies.Paths = model.Enforce, []string{"/a"}
	is.Detect.MemoryLeak.MinGrowth = 1 << 30
	want := []config.Change{
		{Key: "mode", Was: "monitor", Is: "enforce"},
		{Key: "policies.paths", Was: "[/etc/breakerd/policies]", Is: "[/a]"},
		{Key: "detect.memory_leak.min_growth", Was: "64MiB", Is: "1GiB"},
	}
	if diff := cmp.Diff(want, Changes(Default(), is)); diff != "" {
		t.Error(diff)
	}
	if got := Changes(is, is); got != nil {
		t.Errorf("of the same: %v", got)
	}
}

func TestWhatNeedsARestartStaysAsItWasAndNothingElse(t *testing.T) {
	is := Default()
	is.Mode, is.RuntimeDir, is.Tick = model.Enforce, "/elsewhere", config.Duration(time.Second)
	applied := Applied(Default(), is)
	for _, c := range Changes(applied, is) {
		if !NeedsRestart(c.Key) {
			t.Errorf("%s was not applied", c.Key)
		}
	}
	for _, c := range Changes(Default(), applied) {
		if NeedsRestart(c.Key) {
			t.Errorf("%s was applied", c.Key)
		}
	}
	if applied.Tick != is.Tick {
		t.Error("the tick was not applied")
	}
}
