package main

import (
	"fmt"
	"time"
)

// calm is the form of what must not be called trouble.
func calm(name, tell string, watch time.Duration, actors ...actor) scenario {
	return scenario{name: name, tell: tell, watch: watch, actors: actors}
}

func harmless(cpus int) []scenario {
	// With the short-lived jobs' 10 s in it.
	const long, short = 12 * time.Second, 7 * time.Second

	nice := calm("nice-19-beside-a-service", "One loop a CPU at nice 19 beside a service.", short, web("web"), offend("batch", "batch", "spin", hogs(cpus, "-nice", "19")...))
	nice.spares = "web"

	return []scenario{
		calm("parallel-build", "One short job after the other in as many places as there are CPUs, as make -j does.", long,
			offend("build", "build", "jobs", "-n", fmt.Sprint(cpus), "-work", "60ms")),
		calm("shell-loop", "A shell that starts one small program after the other.", long,
			offend("loop", "loop", "shell", "while :; do /bin/true; done")),
		calm("batch-alone", "Three loops a CPU, and nobody else wants one.", short, offend("batch", "batch", "spin", hogs(3*cpus)...)),
		calm("equals", "Two jobs with one loop a CPU each: a fight of equals.", short,
			offend("one", "one", "spin", hogs(cpus)...), offend("other", "other", "spin", hogs(cpus)...)),
		nice,
		calm("cron-burst", "Ten short jobs start at once.", short, offend("cron", "cron", "jobs", "-n", "10", "-most", "10", "-work", "100ms")),
		calm("idle-processes", "300 processes that do nothing.", short, offend("idle", "idle", "idle", "-n", "300")),
		calm("thread-pool", "A process starts 200 threads, each of which works for a moment.", short, offend("pool", "pool", "pool", "-threads", "200", "-work", "2ms")),
	}
}
