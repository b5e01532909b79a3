package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Where all CPUs are busy, both kinds say the same thing of the same culprit.
var waitKinds = []model.Kind{model.CPUContention, model.NoisyNeighbour}

// cpuWithin is how long breakerd has: noisy_neighbour takes 3 s and looks back over 2.
const cpuWithin = 7 * time.Second

// web is a service with one thread, a third of a CPU's work: 3 ms for each request, one
// each 9 ms. Somebody has to take most of the CPUs before it waits for long.
func web(cgroup string, more ...string) actor {
	return start(cgroup, cgroup, "serve", append([]string{"-work", "3ms", "-every", "9ms"}, more...)...)
}

// busyWeb is one that needs most of a CPU: it waits as soon as there are more tasks than
// CPUs.
func busyWeb(cgroup string, more ...string) actor {
	return start(cgroup, cgroup, "serve", append([]string{"-work", "8ms", "-every", "10ms"}, more...)...)
}

func hogs(n int, more ...string) []string { return append([]string{"-n", fmt.Sprint(n)}, more...) }

// fight is the form of most of them: a hog and a service.
func fight(name, tell string, victim actor, hog ...string) scenario {
	return scenario{
		name: name, tell: tell, kinds: waitKinds, needs: []need{needPSI},
		culprits: []string{"hog"}, victims: []string{victim.cgroup}, hurts: victim.cgroup,
		actors: []actor{victim, offend("hog", "hog", "spin", hog...)},
		warm:   time.Second, within: cpuWithin,
	}
}

func cpuTrouble(cpus int) []scenario {
	many := fight("hogs-many", "Three endless loops a CPU, children of one process, beside a service.", web("web"), hogs(3*cpus)...)
	many.root = "hog"

	threads := fight("hogs-threads", "One process with three spinning threads a CPU beside a service.", web("web"), "-threads", fmt.Sprint(3*cpus))
	threads.root = "hog"

	negative := fight("hogs-negative-nice", "One loop a CPU at nice -10 beside a service at nice 0.", busyWeb("web"), hogs(cpus, "-nice", "-10")...)

	among := fight("hog-among-innocents", "One tree of hogs among ten busy cgroups that use a little each.", web("web"), hogs(3*cpus)...)
	among.root = "hog"
	for i := range 10 {
		name := fmt.Sprintf("busy%d", i)
		among.actors = append(among.actors, start(name, name, "serve", "-work", "1ms", "-every", "50ms"))
	}

	equal := fight("equal-use-one-hurts", "Two jobs use the same CPU time; one of them shares its CPU with a service.", web("web", "-cpu", "0"), hogs(3, "-cpu", "0")...)
	equal.needs = append(equal.needs, needTwoCPUs)
	equal.actors = append(equal.actors, offend("bystander", "bystander", "spin", "-on", "75ms", "-off", "25ms", "-cpu", "1"))

	half := fight("pinned-half-idle", "Three loops and a service are pinned to CPU 0, and the other CPUs are idle.", web("web", "-cpu", "0"), hogs(3, "-cpu", "0")...)
	half.kinds, half.also = []model.Kind{model.NoisyNeighbour}, nil
	half.needs = append(half.needs, needTwoCPUs)

	realtime := fight("hog-realtime", "A real-time (FIFO) task takes 80 of each 100 ms of CPU 0, where a service has to run.", web("web", "-cpu", "0"), "-sched", "fifo", "-cpu", "0", "-on", "80ms", "-off", "20ms")
	realtime.kinds = []model.Kind{model.NoisyNeighbour}
	realtime.needs = append(realtime.needs, needTwoCPUs, needRealtime)

	moves := fight("hog-moves", "A tree of hogs moves from one cgroup to another and back, every 3 s.", web("web"), hogs(3*cpus)...)
	moves.culprits, moves.root = []string{"hog", "elsewhere"}, "hog"
	moves.within = 10 * time.Second
	moves.during = commute

	nested := fight("hog-nested", "The hogs are four cgroups deep, beside innocents at every level.", web("web"), hogs(3*cpus)...)
	nested.culprits = []string{"a/b/c/d"}
	nested.actors[1].cgroup = "a/b/c/d"
	for _, name := range []string{"a/x", "a/b/x", "a/b/c/x"} {
		nested.actors = append(nested.actors, start(name, name, "serve", "-work", "1ms", "-every", "50ms"))
	}

	beside := fight("hog-beside-innocents", "In one cgroup, a tree of hogs beside five processes that use a little each.", web("web"), hogs(3*cpus)...)
	beside.root = "hog"
	for i := range 5 {
		beside.actors = append(beside.actors, start(fmt.Sprintf("innocent%d", i), "hog", "serve", "-work", "1ms", "-every", "50ms"))
	}

	victims := fight("two-victims", "Hogs beside two services: both are hurt.", web("web"), hogs(4*cpus)...)
	victims.victims = []string{"web", "db"}
	victims.actors = append(victims.actors, web("db"))

	saturation := fight("saturation", "Hogs keep somebody waiting for a CPU all of the time, for 20 s.", web("web"), hogs(3*cpus)...)
	saturation.kinds, saturation.also = []model.Kind{model.PSISaturation}, waitKinds
	saturation.victims = nil
	saturation.within = 22 * time.Second

	return []scenario{
		fight("hogs-one-per-cpu", "One endless loop a CPU beside a service that needs most of a CPU.", busyWeb("web"), hogs(cpus)...),
		many, threads,
		fight("hogs-bursty", "Three loops a CPU that work 50 of each 100 ms, beside a service.", web("web"), hogs(3*cpus, "-on", "50ms", "-off", "50ms")...),
		fight("hogs-nice-5", "Four loops a CPU at nice 5 beside a service at nice 0 that needs most of a CPU.", busyWeb("web"), hogs(4*cpus, "-nice", "5")...),
		negative, among, equal, half, realtime, moves, nested, beside,
		fight("many-threaded-victim", "Hogs beside a service with four threads that need a little each.", start("web", "web", "serve", "-threads", "4", "-work", "1ms", "-every", "10ms"), hogs(4*cpus)...),
		victims, saturation,
	}
}

// commute moves a tree between two cgroups. The workers move one by one, as with systemd
// and every container runtime.
func commute(ctx context.Context, st *stage) {
	homes := st.scenario.culprits
	for i := 1; sleep(ctx, 3*time.Second) == nil; i++ {
		from, to := homes[(i+1)%2], homes[i%2]
		pids, _ := os.ReadFile(filepath.Join(st.dir(from), "cgroup.procs"))
		for _, pid := range fields(pids) {
			// It may have ended.
			_ = os.WriteFile(filepath.Join(st.dir(to), "cgroup.procs"), []byte(strconv.Itoa(pid)), 0)
		}
	}
}
