package main

import (
	"fmt"
	"time"
)

// calm is the form of what must not be called trouble.
func calm(name, tell string, watch time.Duration, actors ...actor) scenario {
	return scenario{name: name, tell: tell, watch: watch, actors: actors}
}

// sparing is calm, with a service that must not have been hurt for it to be true.
func sparing(name, tell string, watch time.Duration, actors ...actor) scenario {
	s := calm(name, tell, watch, append([]actor{web("web")}, actors...)...)
	s.spares = "web"
	return s
}

func harmless(cpus int) []scenario {
	// With the short-lived jobs' 10 s in it.
	const long, short = 12 * time.Second, 7 * time.Second

	goBuild := calm("go-build", "The go command builds a part of its standard library from nothing.", long,
		offend("build", "build", "shell", `GOCACHE="$PWD/cache" GOFLAGS= CGO_ENABLED=0 go build net/http text/template >/dev/null 2>&1; sleep 60`))
	goBuild.needs = []need{needGo}

	cache := calm("cache-filling", "A job reads a file of 200 MB into the page cache.", short,
		offend("job", "job", "read", "-file", dataFile, "-mb", "200", "-mode", "cached", "-block", "1048576"))
	cache.file = 200

	backup := sparing("backup-when-idle", "A backup at nice 19, SCHED_IDLE and idle io priority beside a service.", short,
		offend("reader", "backup", "read", "-nice", "19", "-sched", "idle", "-io-idle", "-file", dataFile, "-mb", "200", "-mode", "cached", "-block", "1048576"),
		offend("packer", "backup", "spin", hogs(cpus, "-nice", "19", "-sched", "idle", "-io-idle")...))
	backup.file = 200

	quota := calm("own-quota", "A service that needs most of a CPU is held to a fifth by its own quota, beside a busy neighbour.", short,
		busyWeb("capped"), offend("neighbour", "neighbour", "spin", hogs(cpus)...))
	quota.needs = []need{needCPU}
	quota.limits = []limit{{"capped", "cpu.max", "20000 100000"}}

	weights := calm("less-by-weight", "A batch job with a tenth of a busy neighbour's weight gets a tenth of the CPUs beside it.", short,
		offend("batch", "batch", "spin", hogs(cpus)...), offend("neighbour", "neighbour", "spin", hogs(cpus)...))
	weights.needs = []need{needCPU}
	weights.limits = []limit{{"batch", "cpu.weight", "10"}}

	resume := calm("machine-resume", "The machine sleeps for 30 s, while somebody waits for a CPU, and many things start when it wakes (a recording, with the sleep put into it, replayed).", short,
		web("web"), offend("cron", "cron", "jobs", "-n", "10", "-most", "10", "-work", "30ms"))
	resume.replay, resume.spares = true, "web"
	resume.needs = []need{needCtl}

	return []scenario{
		calm("parallel-build", "One short job after the other in as many places as there are CPUs, as make -j does.", long,
			offend("build", "build", "jobs", "-n", fmt.Sprint(cpus), "-work", "60ms")),
		goBuild,
		calm("package-install", "Archives of 300 small files are unpacked, with a short program for each package.", long,
			offend("dpkg", "dpkg", "shell", `mkdir a; i=0; while [ $i -lt 300 ]; do echo "$i" >a/$i; i=$((i+1)); done; tar cf a.tar a
				while :; do mkdir b; tar xf a.tar -C b; sh -c 'cat b/a/1 b/a/2 >/dev/null; mv b c'; rm -r c; done`)),
		calm("find-xargs", "find, with xargs that starts a program for each file.", long,
			offend("find", "find", "shell", "--", `while :; do find /usr/bin /etc -type f | xargs -n 1 -P "$1" test -e; done`, fmt.Sprint(cpus))),
		backup,
		calm("jvm-warm-up", "A service takes 300 MB and a CPU while it starts, and then keeps what it has.", 14*time.Second,
			offend("heap", "jvm", "grow", "-rate", "75", "-upto", "300"), offend("jit", "jvm", "once", "-work", "4s")),
		cache,
		calm("thread-pool", "A process starts 200 threads, each of which works for a moment.", short, offend("pool", "pool", "pool", "-threads", "200", "-work", "2ms")),
		calm("cron-burst", "Ten short jobs start at once.", short, offend("cron", "cron", "jobs", "-n", "10", "-most", "10", "-work", "100ms")),
		quota, weights, resume,
		calm("batch-alone", "Three loops a CPU, and nobody else wants one.", short, offend("batch", "batch", "spin", hogs(3*cpus)...)),
		calm("equals", "Two jobs with one loop a CPU each: a fight of equals.", short,
			offend("one", "one", "spin", hogs(cpus)...), offend("other", "other", "spin", hogs(cpus)...)),
		sparing("nice-19-beside-a-service", "One loop a CPU at nice 19 beside a service.", short,
			offend("batch", "batch", "spin", hogs(cpus, "-nice", "19")...)),
		calm("idle-processes", "300 processes that do nothing, or as many as can be started in a second.", short, offend("idle", "idle", "idle", "-n", "300")),
		calm("burst-of-a-second", "A service uses all the CPUs for a second, beside another one.", short,
			web("web"), offend("burst", "burst", "spin", "-threads", fmt.Sprint(cpus), "-on", "1s", "-off", "20s")),
		calm("slow-log", "A log grows by 4 kB, fifty times a second.", short,
			offend("log", "log", "append", "-block", "4096", "-every", "20ms", "-upto", "64")),
		calm("shell-loop", "A shell that starts one small program after the other.", long,
			offend("loop", "loop", "shell", "while :; do /bin/true; done")),
	}
}
