package api

import (
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
		{"one, and a newer one refused", Policies{Hash: `sha256:"5f`, LoadedAt: time.Unix(1800000000, 0), Error: "x", RefusedAt: &refused}, `# HELP breakerd_policies_info The set of policies in force; 1, or 0 where there is none.
# TYPE breakerd_policies_info gauge
breakerd_policies_info{hash="sha256:\"5f"} 1
# HELP breakerd_policies_active_timestamp_seconds When the set of policies came into force.
# TYPE breakerd_policies_active_timestamp_seconds gauge
breakerd_policies_active_timestamp_seconds 1.8e+09
# HELP breakerd_policies_refused Whether a newer set of policies was refused, and why stands in the status.
# TYPE breakerd_policies_refused gauge
breakerd_policies_refused 1
# HELP breakerd_policies_refused_timestamp_seconds When a newer set of policies was refused.
# TYPE breakerd_policies_refused_timestamp_seconds gauge
breakerd_policies_refused_timestamp_seconds 1.8000001005e+09
`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, string(metricsOf(Status{Policies: tt.is}))); diff != "" {
				t.Error(diff)
			}
		})
	}
}
