package blame

import (
	"math/rand/v2"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestEntitled(t *testing.T) {
	type ns = map[model.CgroupID]uint64
	tests := []struct {
		name   string
		wanted ns
		given  uint64
		want   ns
	}{
		{"a crowd leaves a service what it wants", ns{1: 12000, 2: 850}, 2000, ns{1: 1150, 2: 850}},
		{"equals get equal shares", ns{1: 4000, 2: 4000}, 2000, ns{1: 1000, 2: 1000}},
		{"who wants little leaves the rest to the others", ns{1: 100, 2: 500, 3: 9000, 4: 9000}, 3000, ns{1: 100, 2: 500, 3: 1200, 4: 1200}},
		{"nobody gets more than it wants", ns{1: 100, 2: 200}, 2000, ns{1: 100, 2: 200}},
		{"nothing is given", ns{1: 100}, 0, ns{1: 0}},
		{"nobody wants anything", ns{}, 100, ns{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Entitled(tt.wanted, tt.given)); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestNobodyIsEntitledToMoreThanItWantsAndAllTogetherToWhatWasGiven(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		wanted := make(map[model.CgroupID]uint64)
		var all uint64
		for id := range model.CgroupID(1 + rng.IntN(20)) {
			wanted[id] = rng.Uint64N(1_000_000)
			all += wanted[id]
		}
		given := rng.Uint64N(3_000_000)
		var sum uint64
		for id, got := range Entitled(wanted, given) {
			if got > wanted[id] {
				t.Fatalf("entitled to %d and wanted %d", got, wanted[id])
			}
			sum += got
		}
		if want := min(given, all); sum != want {
			t.Fatalf("entitled to %d together, want %d", sum, want)
		}
	}
}
