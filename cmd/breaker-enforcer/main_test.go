package main

import (
	"runtime"
	"testing"
)

// On a machine with more CPUs than the unit may have threads, Go would end the program.
func TestAMachineOfManyCPUsGivesTheEnforcerFourThreadsAtATime(t *testing.T) {
	was := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(was)
	for _, c := range []struct {
		environment string
		cpus, want  int
	}{{"", 512, mostThreads}, {"", 2, 2}, {"512", 512, 512}} {
		t.Setenv("GOMAXPROCS", c.environment)
		runtime.GOMAXPROCS(c.cpus)
		if boundThreads(); runtime.GOMAXPROCS(0) != c.want {
			t.Errorf("%d CPUs, GOMAXPROCS=%q: %d threads, want %d", c.cpus, c.environment, runtime.GOMAXPROCS(0), c.want)
		}
	}
}
