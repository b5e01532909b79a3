package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/breakerd/breakerd/bench/trial"
	"github.com/breakerd/breakerd/internal/kerneltest"
)

// The programs of a campaign are this one, as are the tests'.
func TestMain(m *testing.M) {
	if role := os.Getenv(roleVar); role != "" {
		fmt.Fprintf(os.Stderr, "%s: %v\n", role, play(role, os.Args[1:]))
		os.Exit(1)
	}
	os.Exit(m.Run())
}

// A campaign in short, for each change: a few labelled moments, ten random ones of each kind for
// the enforcer, and a few for breakerd. `make campaign` is the whole.
func TestAShortCampaignLeavesNothing(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	if testing.Short() {
		t.Skip("takes most of a minute")
	}
	o := options{Options: trial.Options{Only: *regexp.MustCompile("")}, rounds: 1}
	temp := t.TempDir()
	t.Chdir("../..")
	if err := o.build(t.Context(), temp); err != nil {
		t.Fatal(err)
	}
	all, err := readLabels(o.enforcerTest)
	if err != nil {
		t.Fatal(err)
	}
	g, err := newGround()
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := g.clear(); err != nil {
			t.Error(err)
		}
	}()
	const each = 10
	acts, ofBreakerd := []act{kill, stopCont, stopKill}, []act{kill, kill, stopCont} // the first before anything is held
	if g.memory != "" {
		acts, ofBreakerd = append(acts, oom), append(ofBreakerd, oom)
	}
	kinds := []kind{whole, apart}
	moments := map[kind][]string{whole: {"after held", "before assert"}, apart: {"after first move"}}
	if len(g.controllers) == 3 {
		kinds, moments[throttle] = append(kinds, throttle), []string{"after first write"}
	}
	c := &crew{options: &o, ground: g, temp: temp}
	for _, k := range kinds {
		c.start(t.Context(), "labelled "+string(k), func(l *lane) error { return l.labelled(t.Context(), &all, moments[k], &c.tally) }, k)
	}
	c.start(t.Context(), "random", func(l *lane) error { return l.enforcers(t.Context(), slices.Repeat(acts, each), &c.tally) }, kinds...)
	c.start(t.Context(), "breakerd 0", func(l *lane) error { return l.breakerds(t.Context(), ofBreakerd, &c.tally) })
	c.work.Wait()
	var r Report
	r.take(&c.tally)
	var out strings.Builder
	if err := r.write(&out); err != nil {
		t.Fatal(err)
	}
	t.Log(out.String())
	if !r.Passed || r.AtLabels == 0 || r.AtRandom != len(acts)*each+len(ofBreakerd) {
		t.Errorf("passed %v, at %d labelled moments and %d random ones", r.Passed, r.AtLabels, r.AtRandom)
	}
	for _, x := range r.Rows {
		if x.Tries == each && x.Dirty == 0 {
			t.Errorf("%s %s: nothing was held at any of %d random moments", x.Program, x.Act, each)
		}
	}
}
