package main

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/breakerd/breakerd/internal/disposable"
)

func TestEveryScenarioIsLabelled(t *testing.T) {
	speaking, quiet := 0, 0
	names := make(map[string]bool)
	for _, s := range scenarios(2) {
		if names[s.name] || s.tell == "" || len(s.actors) == 0 {
			t.Errorf("%s: its name is not its own, or it does not say or do anything", s.name)
		}
		names[s.name] = true
		var actors, cgroups []string
		for _, a := range s.actors {
			actors, cgroups = append(actors, a.name), append(cgroups, a.cgroup)
			if _, err := parseWorker(a.kind, a.args); err != nil {
				t.Errorf("%s: %s: %v", s.name, a.name, err)
			}
		}
		for _, c := range append(slices.Clone(s.victims), s.hurts, s.spares) {
			if c != "" && !slices.Contains(cgroups, c) {
				t.Errorf("%s: nobody is in %s", s.name, c)
			}
		}
		if s.silent() {
			quiet++
			if s.watch == 0 || len(s.culprits) > 0 || s.hurts != "" {
				t.Errorf("%s: silence lasts no time, or has a culprit", s.name)
			}
			continue
		}
		speaking++
		if s.within == 0 || len(s.culprits) == 0 || !slices.Contains(cgroups, s.culprits[0]) {
			t.Errorf("%s: no time to detect it, or no culprit", s.name)
		}
		if s.root != "" && !slices.Contains(actors, s.root) {
			t.Errorf("%s: there is no %s", s.name, s.root)
		}
	}
	if speaking < 24 || quiet < 16 {
		t.Errorf("%d scenarios of trouble and %d of harmless load, want 24 and 16", speaking, quiet)
	}
}

func TestTheDocumentHasEveryScenario(t *testing.T) {
	text, err := os.ReadFile("../../docs/accuracy.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range scenarios(2) {
		if !strings.Contains(string(text), "| "+s.name+" |") {
			t.Errorf("docs/accuracy.md does not have %s", s.name)
		}
	}
}

func TestWhatIsMissingIsSaid(t *testing.T) {
	p := &place{missing: map[need]string{needMemory: "there is none"}}
	if why := p.why(scenario{needs: []need{needPSI, needMemory}}); why != "needs memory controller: there is none" {
		t.Errorf("got %q", why)
	}
	if why := p.why(scenario{needs: []need{needPSI}}); why != "" {
		t.Errorf("got %q", why)
	}
}

func TestAStormHasABound(t *testing.T) {
	for _, most := range []int{0, -1, mostForks + 1} {
		if err := (&worker{most: most, mode: "plain"}).storm(); err == nil {
			t.Errorf("%d forks are accepted", most)
		}
	}
}

func TestOnlyOurOwnIsCleared(t *testing.T) {
	if err := disposable.Clear("/sys/fs/cgroup/system.slice", prefix); err == nil {
		t.Error("a cgroup of somebody else's is accepted")
	}
}
