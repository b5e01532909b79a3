package policy

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestConstantsAreWhatTheyWereBeforeTheyWerePutInPlace(t *testing.T) {
	s := mustLoad(t, "x.rego", policyHead+`oncall := {1000, 1001}

limits := {"severity": 0.5}

often := true

default seldom := false

twice := 1

deny contains "on call" if input.incident.culprit.uid in oncall

deny contains "severe" if input.incident.severity > limits.severity

deny contains "all of them" if count(oncall) == 2

deny contains "often" if often

deny contains "seldom" if seldom

deny contains sprintf("%d", [x]) if some x in oncall

deny contains "elsewhere" if data.breaker.x.twice == 1
`)
	want := []string{"breaker.x: 1000", "breaker.x: 1001", "breaker.x: all of them", "breaker.x: elsewhere", "breaker.x: often", "breaker.x: on call", "breaker.x: severe"}
	v := s.Decide(t.Context(), stormInput())
	if d := cmp.Diff(want, v.Reasons()); d != "" || v.Error != "" {
		t.Errorf("%s %s", d, v.Error)
	}
}

func TestAConstantThatIsReplacedForAMomentIsNotPutInPlace(t *testing.T) {
	s := mustLoad(t, "x.rego", policyHead+`limit := 5

over if input.host.cpus > limit

deny contains "over" if over with data.breaker.x.limit as 1
`)
	if v := s.Decide(t.Context(), stormInput()); len(v.Denied) != 1 || v.Error != "" {
		t.Errorf("got %+v", v)
	}
}
