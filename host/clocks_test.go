package host

import (
	"testing"
	"time"
)

func TestClocks(t *testing.T) {
	const s, ms = int64(time.Second), int64(time.Millisecond)
	prev := Clocks{Wall: 1_000_000 * s, Boot: 500 * s, Mono: 400 * s} // slept 100 s before
	tests := []struct {
		name             string
		wall, boot, mono int64 // growth
		want             Elapsed
	}{
		{"an ordinary tick", 250 * ms, 250 * ms, 250 * ms, Elapsed{Length: 250 * time.Millisecond}},
		{"the reader lost its CPU between two clocks", 252 * ms, 251 * ms, 250 * ms, Elapsed{Length: 251 * time.Millisecond}},
		{"the machine slept: its clock was not set", 3601 * s, 3601 * s, 1 * s, Elapsed{Length: 3601 * time.Second, Suspended: time.Hour}},
		{"the clock was set forward", 61 * s, 1 * s, 1 * s, Elapsed{Length: time.Second, Jump: time.Minute}},
		{"the clock was set back", -59 * s, 1 * s, 1 * s, Elapsed{Length: time.Second, Jump: -time.Minute}},
		{"it slept, and the clock was corrected after", 3602 * s, 3601 * s, 1 * s, Elapsed{Length: 3601 * time.Second, Suspended: time.Hour, Jump: time.Second}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := Clocks{Wall: prev.Wall + tt.wall, Boot: prev.Boot + tt.boot, Mono: prev.Mono + tt.mono}
			if got := now.Since(prev); got != tt.want {
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
		})
	}
}

func TestReadClocks(t *testing.T) {
	before, err := ReadClocks()
	if err != nil {
		t.Fatal(err)
	}
	after, err := ReadClocks()
	if err != nil {
		t.Fatal(err)
	}
	if e := after.Since(before); e.Length < 0 || e.Suspended != 0 || e.Jump != 0 {
		t.Errorf("between two readings: %+v", e)
	}
	if d := time.Since(after.Time()); d < 0 || d > time.Minute {
		t.Errorf("the wall clock is %v off", d)
	}
}
