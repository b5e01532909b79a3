package api

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestMetricsSayWhichPoliciesAreInForceSinceWhenAndWhetherNewerOnesAreNot(t *testing.T) {
	refused := time.Unix(1800000100, 500e6)
	for _, tt := range []struct {
		name string
		is   Policies
		want string
	}{
		{"none", Policies{}, `# HELP breakerd_policies_info The set of policies in force; 1, or 0 where there is none.
# TYPE breakerd_policies_info gauge
breakerd_policies_info{hash=""} 0
# HELP breakerd_policies_refused Whether a newer set of policies was refused, and why stands in the status.
# TYPE breakerd_policies_refused gauge
breakerd_policies_refused 0
`},
		{"one, and a newer one refused", Policies{Hash: `sha256:"5f`, LoadedAt: time.Unix(1800000000, 0), Error: "x", RefusedAt: &refused}, `# HELP breakerd_policies_active_timestamp_seconds When the set of policies came into force.
# TYPE breakerd_policies_active_timestamp_seconds gauge
breakerd_policies_active_timestamp_seconds 1.8e+09
# HELP breakerd_policies_info The set of policies in force; 1, or 0 where there is none.
# TYPE breakerd_policies_info gauge
breakerd_policies_info{hash="sha256:\"5f"} 1
# HELP breakerd_policies_refused Whether a newer set of policies was refused, and why stands in the status.
# TYPE breakerd_policies_refused gauge
breakerd_policies_refused 1
# HELP breakerd_policies_refused_timestamp_seconds When a newer set of policies was refused.
# TYPE breakerd_policies_refused_timestamp_seconds gauge
breakerd_policies_refused_timestamp_seconds 1.8000001005e+09
`},
		{"a decision log that is not taken", Policies{DecisionLog: &DecisionLog{Dropped: 3, Error: "gone"}}, `# HELP breakerd_decision_log_dropped_total Entries of the decision log since the start that found no room while the server did not take them.
# TYPE breakerd_decision_log_dropped_total counter
breakerd_decision_log_dropped_total 3
# HELP breakerd_decision_log_failed Whether nothing is logged, or the last entries were not taken.
# TYPE breakerd_decision_log_failed gauge
breakerd_decision_log_failed 1
# HELP breakerd_policies_info The set of policies in force; 1, or 0 where there is none.
# TYPE breakerd_policies_info gauge
breakerd_policies_info{hash=""} 0
# HELP breakerd_policies_refused Whether a newer set of policies was refused, and why stands in the status.
# TYPE breakerd_policies_refused gauge
breakerd_policies_refused 0
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			w := httptest.NewRecorder()
			writeMetrics(w, httptest.NewRequest(http.MethodGet, "/metrics", nil), Status{Policies: tt.is})
			if diff := cmp.Diff(tt.want, w.Body.String()); w.Code != http.StatusOK || diff != "" {
				t.Errorf("answered %d: %s", w.Code, diff)
			}
		})
	}
}

// A label that is no text must not take breakerd down.
func TestMetricsThatCannotBeWrittenAreAnError(t *testing.T) {
	w := httptest.NewRecorder()
	writeMetrics(w, httptest.NewRequest(http.MethodGet, "/metrics", nil), Status{Policies: Policies{Hash: "\xff"}})
	if w.Code != http.StatusInternalServerError {
		t.Errorf("answered %d: %s", w.Code, w.Body)
	}
}
