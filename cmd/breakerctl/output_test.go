package main

import (
	"testing"
	"time"
)

func TestADurationIsSaidAsShortlyAsAPersonWould(t *testing.T) {
	for d, want := range map[time.Duration]string{
		3 * time.Millisecond:          "3ms",
		1500 * time.Millisecond:       "1.5s",
		time.Minute:                   "1m",
		70 * time.Second:              "1m10s",
		90 * time.Second:              "1m30s",
		10 * time.Minute:              "10m",
		time.Hour:                     "1h",
		time.Hour + 10*time.Minute:    "1h10m",
		time.Hour + 30*time.Second:    "1h0m30s",
		20*time.Hour + 20*time.Second: "20h0m20s",
	} {
		if got := span(d); got != want {
			t.Errorf("%v is said as %s, want %s", d, got, want)
		}
	}
}
