package enforce

import (
	"fmt"

	"github.com/breakerd/breakerd/model"
)

// guardConfidence protects from a verdict that is not sure of the culprit.
func guardConfidence(d *model.Decision, f *facts) string {
	// Written so that a number that is none does not pass.
	if !(d.Confidence >= f.config.MinConfidence) {
		return fmt.Sprintf("the verdict on the culprit is sure to %.0f %%, and %.0f %% is the least (min_confidence)", 100*d.Confidence, 100*f.config.MinConfidence)
	}
	return ""
}
