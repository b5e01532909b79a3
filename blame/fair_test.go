package blame

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestEntitled(t *testing.T) {
	type ns = map[string]uint64
	tests := []struct {
		name   string
		wanted ns
		given  uint64
		want   ns
	}{
		{"a crowd leaves a service what it wants", ns{"/a": 12000, "/b": 850}, 2000, ns{"/a": 1150, "/b": 850}},
		{"equals get equal shares", ns{"/a": 4000, "/b": 4000}, 2000, ns{"/a": 1000, "/b": 1000}},
		{"who wants little leaves the rest to the others", ns{"/a": 100, "/b": 500, "/c": 9000, "/d": 9000}, 3000, ns{"/a": 100, "/b": 500, "/c": 1200, "/d": 1200}},
		{"nobody gets more than it wants", ns{"/a": 100, "/b": 200}, 2000, ns{"/a": 100, "/b": 200}},
		{"nothing is given", ns{"/a": 100}, 0, ns{"/a": 0}},
		{"nobody wants anything", ns{}, 100, ns{}},
		{"to be many is no advantage", ns{"/u/1": 900, "/u/2": 900, "/u/3": 900, "/s/web": 900}, 1200, ns{"/u/1": 200, "/u/2": 200, "/u/3": 200, "/s/web": 600}},
		{"what a branch does not want the other may have", ns{"/u/1": 900, "/u/2": 900, "/s/web": 300}, 1200, ns{"/u/1": 450, "/u/2": 450, "/s/web": 300}},
		{"what it has itself is one of its children", ns{"/u": 900, "/u/1": 900, "/u/1/x": 900, "/u-2": 100}, 1000, ns{"/u": 450, "/u/1": 225, "/u/1/x": 225, "/u-2": 100}},
		{"the root's own are one beside its children", ns{"/": 900, "/a": 900, "/b": 900}, 900, ns{"/": 300, "/a": 300, "/b": 300}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			paths := slices.Sorted(maps.Keys(tt.wanted))
			var claims []Claim
			for i, path := range paths {
				claims = append(claims, Claim{ID: model.CgroupID(i), Path: path, Wanted: tt.wanted[path]})
			}
			if len(claims) > 0 {
				claims[0].Ran = tt.given // who got it makes no difference
			}
			got := ns{}
			for id, n := range NewClaims(claims).Entitled() {
				got[paths[id]] = n.Share
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestWeightsDivideAtEachLevel(t *testing.T) {
	const pods = "/kubepods"
	claims := NewClaims([]Claim{
		{ID: 1, Path: pods + "/besteffort/a", Ran: 2000, Wanted: 2000, Weights: []uint32{300, 1, 100}},
		{ID: 2, Path: pods + "/besteffort/b", Wanted: 2000, Weights: []uint32{300, 1, 100}},
		{ID: 3, Path: pods + "/web", Wanted: 2000, Weights: []uint32{300, 19}},
		{ID: 4, Path: pods + "/db", Wanted: 100, Weights: []uint32{300, 20}},
		{ID: 5, Path: "/system/x", Wanted: 2000}, // all are 100
		{ID: 6, Path: "/idle", Wanted: 2000, Weights: []uint32{0}},
		{ID: 7, Path: "/", Wanted: 1}, // its own processes are beside its children
	})
	// Of 2000 the root's own want 1. Of the rest system gets 1024 of 1024 + 3072 + 3 parts, the pods
	// all but 3 of what is left, and who is idle the 2 that remain. Of the pods' 1498 db wants 100, and
	// of what is left web gets 195 of 205 parts, and besteffort 10.
	want := map[model.CgroupID]uint64{7: 1, 6: 2, 5: 499, 4: 100, 3: 1329, 1: 34, 2: 35}
	got := map[model.CgroupID]uint64{}
	for id, e := range claims.Entitled() {
		got[id] = e.Share
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

func TestAPairDividesByTheWeightsWhereItParts(t *testing.T) {
	const pods = "/kubepods"
	weights := map[string][]uint32{
		pods + "/besteffort/a": {300, 1, 100}, pods + "/besteffort/b": {300, 1, 200}, pods + "/web": {300, 19}, "/idle": {0},
	}
	for _, tt := range []struct {
		x, y   string
		px, py float64
	}{
		{pods + "/besteffort/a", pods + "/besteffort/b", 1024, 2048},
		{pods + "/besteffort/a", pods + "/web", 10, 195},
		{pods + "/web", "/system/x", 3072, 1024},
		{"/system/x", "/idle", 1024, 3},
		{"/", "/idle", 1024, 3},
		{pods, pods + "/web", 1024, 195},
		{pods + "/web", pods + "/web", 1, 1},
		{"", "/idle", 1024, 3},
	} {
		want := tt.px / (tt.px + tt.py)
		if got := Right(tt.x, tt.y, weights[tt.x], weights[tt.y]); got != want {
			t.Errorf("%s beside %s: %v, want %v", tt.x, tt.y, got, want)
		}
	}
}

func TestABranchThatGotMoreThanItsShareDividesWhatItGot(t *testing.T) {
	claims := NewClaims([]Claim{
		{ID: 1, Path: "/b/crowd", Ran: 1100, Wanted: 6000},
		{ID: 2, Path: "/b/web", Ran: 400, Wanted: 1500},
		{ID: 3, Path: "/x", Ran: 200, Wanted: 900},
		{ID: 4, Path: "/y/deep/down", Ran: 100, Wanted: 900},
	})
	greedy := Branch{0, 2}
	want := map[model.CgroupID]Entitlement{1: {300, 750, greedy}, 2: {300, 750, greedy}, 3: {Share: 600, Within: 600}, 4: {Share: 600, Within: 600}}
	if diff := cmp.Diff(want, claims.Entitled()); diff != "" {
		t.Error(diff)
	}
}

// randomClaims are those of some cgroups, a few of which have the same path, or none.
func randomClaims(rng *rand.Rand) []Claim {
	var claims []Claim
	for id := range model.CgroupID(1 + rng.IntN(30)) {
		path := ""
		var weights []uint32
		for range rng.IntN(5) {
			path += "/" + []string{"a", "a-b", "a.b", "b", "c"}[rng.IntN(5)]
			weights = append(weights, []uint32{0, 1, 100, 100, 10_000}[rng.IntN(5)])
		}
		claims = append(claims, Claim{ID: id, Path: path, Ran: rng.Uint64N(100_000), Wanted: rng.Uint64N(1_000_000), Weights: weights[:min(len(weights), rng.IntN(6))]})
	}
	return claims
}

func TestNobodyIsEntitledToMoreThanItWantsAndAllTogetherToWhatWasGiven(t *testing.T) {
	rng := rand.New(rand.NewPCG(3, 4))
	for range 2000 {
		claims := randomClaims(rng)
		var given, all uint64
		wanted := make(map[model.CgroupID]uint64)
		for _, c := range claims {
			given, all, wanted[c.ID] = given+c.Ran, all+c.Wanted, c.Wanted
		}
		var sum uint64
		entitled := NewClaims(claims).Entitled()
		for id, got := range entitled {
			if got.Share > got.Within || got.Within > wanted[id] {
				t.Fatalf("entitled to %+v and wanted %d", got, wanted[id])
			}
			sum += got.Share
		}
		// Nothing is lost but by the rounding of each division.
		if want := min(given, all); len(entitled) != len(claims) || sum > want || sum+uint64(len(claims)*len(claims)) < want {
			t.Fatalf("%d of %d entitled to %d together, want %d", len(entitled), len(claims), sum, want)
		}
	}
}

func TestBranches(t *testing.T) {
	rng := rand.New(rand.NewPCG(5, 6))
	under := func(path, cgroup string) bool { return path == cgroup || strings.HasPrefix(path, cgroup+"/") }
	for range 500 {
		claims := randomClaims(rng)
		all := NewClaims(slices.Clone(claims))
		for _, x := range claims {
			for _, y := range claims {
				if x.Path == "" || y.Path == "" {
					continue
				}
				// The longest path that both are below, name by name.
				xs, ys := strings.Split(x.Path, "/"), strings.Split(y.Path, "/")
				n := 0
				for n < len(xs) && n < len(ys) && xs[n] == ys[n] {
					n++
				}
				of := func(names []string) (ids []model.CgroupID) {
					own := n == len(names)
					branch := strings.Join(names[:min(n+1, len(names))], "/")
					for _, c := range claims {
						if c.Path == branch || !own && under(c.Path, branch) {
							ids = append(ids, c.ID)
						}
					}
					return ids
				}
				in := func(b Branch) (ids []model.CgroupID) {
					for i := b.First; i < b.End; i++ {
						ids = append(ids, all.At(i).ID)
						if all.Index(all.At(i).ID) != i {
							t.Fatalf("index %d", i)
						}
					}
					slices.Sort(ids)
					return ids
				}
				a, b := all.Branches(x.Path, y.Path)
				if !slices.Equal(in(a), of(xs)) || !slices.Equal(in(b), of(ys)) {
					t.Fatalf("%s and %s: got %d and %d, want %d and %d", x.Path, y.Path, in(a), in(b), of(xs), of(ys))
				}
			}
		}
	}
}
