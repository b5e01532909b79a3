package daemon

import (
	"os"
	"runtime"
	"runtime/debug"
)

const (
	// mostThreads run Go code at a time. Samples are taken one after another, and the more
	// there are, the more of them wake up to find nothing to do.
	mostThreads = 2
	// gcPercent is by how much the heap may grow before it is looked through again: a third
	// of Go's default. At 20,000 processes and 2,000 cgroups that wait for each other, 20 MB
	// less for a little more CPU time; see bench/README.md.
	gcPercent = 33
)

// beFrugal sets what the Go runtime may take, unless the environment says so.
func beFrugal() {
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(min(mostThreads, runtime.GOMAXPROCS(0)))
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
}
