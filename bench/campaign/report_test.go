package main

import (
	"errors"
	"strings"
	"testing"
	"time"
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
	for name, c := range map[string]struct {
		fill func(*tally)
		want bool
	}{
		"undone":         {func(t *tally) { t.add(at, time.Millisecond, true, nil) }, true},
		"left behind":    {func(t *tally) { t.add(at, 0, true, errors.New("frozen")) }, false},
		"late":           {func(t *tally) { t.add(at, undoneWithin+time.Millisecond, true, nil) }, false},
		"a lane failed":  {func(t *tally) { t.fail(errors.New("no answer")) }, false},
		"nothing to see": {func(t *tally) { t.add(at, 0, false, nil) }, true},
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
