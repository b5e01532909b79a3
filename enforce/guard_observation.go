package enforce

import (
	"fmt"

	"github.com/breakerd/breakerd/model"
)

// guardObservation protects from a verdict on what was hardly seen: where much was lost of
// late, or the machine has slept or its clock has jumped.
func guardObservation(d *model.Decision, f *facts) string {
	// Written so that a number that is none does not pass.
	if !(d.Observed >= f.config.MinObserved) {
		return fmt.Sprintf("%.0f %% of what happened of late was seen, and %.0f %% is the least (min_observed)", 100*d.Observed, 100*f.config.MinObserved)
	}
	return ""
}
