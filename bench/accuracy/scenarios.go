package main

import "slices"

// scenarios is the whole list, for a machine with so many CPUs.
func scenarios(cpus int) []scenario {
	return slices.Concat(cpuTrouble(cpus), forkTrouble(), memoryTrouble(), ioTrouble(), harmless(cpus))
}
