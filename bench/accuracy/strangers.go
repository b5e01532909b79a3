package main

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// strangers is how long the tasks of each cgroup that is none of the scenarios' waited for a
// CPU since they began, by the kernel's own account. Who ends takes his figures with him.
func (g *ground) strangers() map[string]time.Duration {
	waited := make(map[string]time.Duration)
	all, _ := filepath.Glob("/proc/[0-9]*/cgroup")
	for _, file := range all {
		text, _ := os.ReadFile(file) // a process may have ended
		for line := range strings.Lines(string(text)) {
			cgroup, found := strings.CutPrefix(strings.TrimSuffix(line, "\n"), "0::")
			if found && !strings.HasPrefix(cgroup, g.path+"/") {
				waited[cgroup] += runDelay(filepath.Dir(file))
			}
		}
	}
	return waited
}

// runDelay is how long the tasks of a process waited for a CPU since they began: the second
// number of /proc/PID/task/TID/schedstat, in ns.
func runDelay(process string) time.Duration {
	var sum time.Duration
	tasks, _ := filepath.Glob(process + "/task/*/schedstat")
	for _, path := range tasks {
		line, _ := os.ReadFile(path) // a thread may have ended
		if f := strings.Fields(string(line)); len(f) >= 2 {
			ns, _ := strconv.ParseInt(f[1], 10, 64)
			sum += time.Duration(ns)
		}
	}
	return sum
}

// hurt names the strangers that waited as long as a victim must.
func hurt(before, after map[string]time.Duration, took time.Duration) map[string]bool {
	waited := make(map[string]bool)
	for cgroup, d := range after {
		if 1000*(d-before[cgroup]).Seconds() >= hurtMSPerSecond*took.Seconds() {
			waited[cgroup] = true
		}
	}
	return waited
}
