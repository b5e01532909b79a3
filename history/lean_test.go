package history

import (
	"encoding/json"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestWhatIsLeftOutIsPutBack(t *testing.T) {
	at := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		var part []model.Verdict
		for range 1 + rng.IntN(12) {
			v := model.Verdict{IncidentID: "abc", Times: 1 + rng.IntN(3)*rng.IntN(5), EvalUS: int64(rng.IntN(3)), InputHash: []string{"", "sha256:5f"}[rng.IntN(2)], DecisionRecord: model.DecisionRecord{At: at, Reason: "x"}}
			v.LastAt = v.At.Add(time.Duration(rng.IntN(2)) * time.Minute)
			if rng.IntN(4) > 0 { // else it was never proposed
				v.ID = []string{"abc-1", "abc-2", "other", "abc"}[rng.IntN(4)]
				v.LeaseID = []string{"", v.ID}[rng.IntN(2)]
				v.PolicyHash = []string{"one", "two"}[rng.IntN(2)]
				v.Target = &model.Target{Cgroup: []string{"/a", "/b"}[rng.IntN(2)]}
			}
			part = append(part, v)
		}
		text, err := json.Marshal(lean("abc", part))
		if err != nil {
			t.Fatal(err)
		}
		var back []leanVerdict
		if err := json.Unmarshal(text, &back); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(part, whole("abc", back)); diff != "" {
			t.Fatalf("seed %d: %s", seed, diff)
		}
	}
	in := incident(3)
	h := model.Hold{Lease: lease(&in, 3, model.LeaseEnded)}
	v := verdict(&in, 3)
	h.Decision.PolicyHash = v.PolicyHash
	if diff := cmp.Diff(h, wholeHold(in.ID, leanHold(h), []model.Verdict{v})); diff != "" {
		t.Error(diff)
	}
}
