package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/breakerd/breakerd/internal/disposable"
)

func TestFiguresAreThoseOfTheSmallestThatSoManyDoNotExceed(t *testing.T) {
	var all []time.Duration
	for i := 100; i > 0; i-- {
		all = append(all, time.Duration(i)*time.Millisecond)
	}
	if got, want := figuresOf(all), (Figures{N: 100, P50MS: 50, P99MS: 99, MaxMS: 100}); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	if got := figuresOf(nil); got != (Figures{}) {
		t.Errorf("of nothing: %+v", got)
	}
}

func TestACampaignPassesOnlyWhereNothingFailedAndNothingWasLate(t *testing.T) {
	at := row{Kind: whole, Moment: "after write", Program: "enforcer", Act: kill}
	random := row{Kind: whole, Moment: atRandom, Program: "enforcer", Act: stopCont}
	clean := func(t *tally, r row, times int) {
		for range times {
			t.add(r, 0, false, nil)
		}
	}
	for name, c := range map[string]struct {
		fill func(*tally)
		want bool
	}{
		"undone":         {func(t *tally) { t.add(at, time.Millisecond, true, nil) }, true},
		"left behind":    {func(t *tally) { t.add(at, 0, true, errors.New("frozen")) }, false},
		"late":           {func(t *tally) { t.add(at, undoneWithin+time.Millisecond, true, nil) }, false},
		"a lane failed":  {func(t *tally) { t.fail(errors.New("no answer")) }, false},
		"nothing to see": {func(t *tally) { t.add(at, 0, false, nil) }, true},
		"seldom tried":   {func(t *tally) { clean(t, random, often-1) }, true},
		"never held":     {func(t *tally) { clean(t, random, often) }, false},
		"held once":      {func(t *tally) { clean(t, random, often); t.add(random, time.Millisecond, true, nil) }, true},
		"another was held": {func(t *tally) {
			clean(t, random, often)
			t.add(row{Kind: whole, Moment: atRandom, Program: "enforcer", Act: kill}, time.Millisecond, true, nil)
		}, false},
		"a labelled moment at which nothing is held": {func(t *tally) { clean(t, at, often) }, true},
	} {
		var counted tally
		c.fill(&counted)
		var r Report
		r.take(&counted)
		var out strings.Builder
		if err := r.write(&out); err != nil {
			t.Fatal(err)
		}
		if r.Passed != c.want || !strings.Contains(out.String(), verdict(c.want)) {
			t.Errorf("%s: passed %v\n%s", name, r.Passed, out.String())
		}
	}
}

func TestAtWhichLabelledMomentsSomethingIsHeld(t *testing.T) {
	all := labels{
		Every:    []string{"before record", "after record", "after write", "after confirm", "after held", "before restore", "after restore", "after end record", "after put away"},
		Throttle: []string{"after first write"}, Inside: []string{"after isolate", "after first move"},
		Assert: []string{"before assert"}, Ease: []string{"before ease", "after ease"},
	}
	held := []string{"after write", "after confirm", "after held", "before restore"}
	for k, want := range map[kind][]string{
		whole:    held,
		apart:    slices.Concat(held, all.Inside),
		throttle: slices.Concat(held, all.Throttle, all.Assert, all.Ease),
	} {
		var got []string
		for _, label := range all.of(k) {
			if all.holds(k, label) {
				got = append(got, label)
			}
		}
		if !slices.Equal(got, want) {
			t.Errorf("%s: got %q, want %q", k, got, want)
		}
	}
}

func TestWhoIsStoppedStandsStill(t *testing.T) {
	p, err := disposable.Start(syscall.SIGKILL, "/bin/sleep", "100")
	if err != nil {
		t.Fatal(err)
	}
	defer send(p, syscall.SIGKILL)
	l := &lane{}
	for _, a := range []act{stopCont, stopKill} {
		if err := l.hit(t.Context(), p, a); err != nil {
			t.Fatal(err)
		}
		if fields, err := stat(fmt.Sprintf("/proc/%d", p.PID())); err != nil || fields[0] != "T" {
			t.Errorf("%s: it is in state %v, %v", a, fields, err)
		}
		if _, err := afterStop(p, a, time.Millisecond); err != nil {
			t.Fatal(err)
		}
		fields, err := stat(fmt.Sprintf("/proc/%d", p.PID()))
		if goesOn := err == nil && fields[0] != "T"; goesOn != (a == stopCont) {
			t.Errorf("%s: afterwards it goes on: %v", a, goesOn)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if stopped(ctx, p) == nil {
		t.Error("who has ended stands still")
	}
}
