package daemon

import (
	"context"
	"testing"

	"github.com/breakerd/breakerd/model"
)

func TestWhatIsHeldToADryRunNeverReachesWhoActs(t *testing.T) {
	said := func(by string) *doer {
		return &doer{answer: func(_ context.Context, d model.Decision) model.Outcome {
			return model.Outcome{DecisionID: d.ID, Reason: by}
		}}
	}
	d := &divided{acts: said("acts"), tries: said("tries")}
	for _, tt := range []struct {
		dry  bool
		want string
	}{{false, "acts"}, {true, "tries"}} {
		if o := d.propose(t.Context(), model.Decision{ID: "a", DryRun: tt.dry}); o.Reason != tt.want {
			t.Errorf("a decision with dry_run %v went to who %s", tt.dry, o.Reason)
		}
	}
	if n := len(d.acts.(*doer).asked()); n != 1 {
		t.Errorf("%d decisions reached who acts, want 1", n)
	}
}
