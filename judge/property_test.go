package judge

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

// run plays random storms and random answers, and writes down all incidents as they
// change. Unanswered decisions, foreign and repeated outcomes are among them.
func run(t *testing.T, seed uint64) (text string, decisions []string) {
	rng := rand.New(rand.NewPCG(seed, 3))
	s := newScene(policies(t, freezeTree))
	var out strings.Builder
	var pending []string
	take := func(events []Event) {
		for _, e := range events {
			line, err := json.Marshal(e.Incident)
			if err != nil {
				t.Fatalf("seed %d: %v", seed, err)
			}
			fmt.Fprintf(&out, "%s %s\n", e.Type, line)
			if e.Type == Wanted {
				decisions = append(decisions, e.Decision.ID)
				pending = append(pending, e.Decision.ID)
			}
			if n := len(e.Incident.Decisions); n > keptRecords {
				t.Fatalf("seed %d: an incident holds %d decisions", seed, n)
			}
		}
	}
	parents := []model.ProcID{bomb, peer, {PID: 9999, StartTime: 1}}
	var parent model.ProcID
	forks := 0
	for i := range 400 {
		if i%30 == 0 {
			parent, forks = parents[rng.IntN(len(parents))], rng.IntN(3)*10
		}
		sample := s.sample(parent, []model.CgroupID{job, system}[rng.IntN(8)/7], forks)
		take(s.judge.Sample(t.Context(), sample))
		for _, in := range s.judge.Open() {
			line, _ := json.Marshal(in)
			fmt.Fprintf(&out, "%s\n", line)
		}
		if len(pending) > 0 && rng.IntN(3) == 0 {
			o := model.Outcome{DecisionID: pending[rng.IntN(len(pending))], DryRun: rng.IntN(2) == 0}
			switch rng.IntN(4) {
			case 0:
				o.RefusedBy = "rate"
			case 1:
				o.Error = "failed"
			case 2:
				o.DecisionID = "unknown"
			}
			take(s.judge.Outcome(o))
		}
	}
	return out.String(), decisions
}

func TestTheSameSamplesAndOutcomesGiveTheSameByteForByteAndEveryDecisionItsOwnID(t *testing.T) {
	asked := 0
	for seed := range uint64(10) {
		text, decisions := run(t, seed)
		if again, _ := run(t, seed); text != again {
			t.Fatalf("seed %d: %s", seed, cmp.Diff(text, again))
		}
		seen := map[string]bool{}
		for _, id := range decisions {
			if seen[id] {
				t.Fatalf("seed %d: two decisions have the ID %s", seed, id)
			}
			seen[id] = true
		}
		asked += len(decisions)
	}
	if asked < 20 {
		t.Errorf("only %d decisions in all runs: the samples are too tame", asked)
	}
}
