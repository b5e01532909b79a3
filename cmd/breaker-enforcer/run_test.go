package main

import (
	"testing"
	"time"

	"github.com/breakerd/breakerd/enforce"
)

func TestTheStatusLineSaysWhoIsHeardOfAndWhatIsHeld(t *testing.T) {
	now := time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	ago := func(d time.Duration) *time.Time { at := now.Add(-d); return &at }
	for want, tt := range map[string]struct {
		is      enforce.Status
		refused bool
	}{
		"waiting for breakerd; 0 leases":                                                     {is: enforce.Status{}},
		"breakerd is connected; 2 leases":                                                    {is: enforce.Status{LastHeartbeat: ago(time.Second), Leases: 2}},
		"breakerd was last heard of 8s ago; 1 leases":                                        {is: enforce.Status{LastHeartbeat: ago(8 * time.Second), Leases: 1}},
		"paused by uid 0 until somebody resumes; 0 leases":                                   {is: enforce.Status{LastHeartbeat: ago(0), Paused: "paused by uid 0 until somebody resumes"}},
		"waiting for breakerd; 0 leases; configuration refused: see breakerctl config check": {refused: true},
	} {
		if got := statusLine(tt.is, tt.refused, now); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}
