package main

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/model"
)

// leak is the form of the leaks: so many MB a second that the machine's memory would be
// full within three minutes. A leak is called one when it was seen for a sixth of the
// time that is left (docs/incidents.md), so that it is seen within half a minute.
func leak(name, tell string, mode string) scenario {
	const leastRate = 20 // MB a second
	rate := max(leastRate, availableMB()/180)
	upto := min(rate*40, availableMB()*6/10, mostMB)
	return scenario{
		name: name, tell: fmt.Sprintf(tell, rate), kinds: []model.Kind{model.MemoryLeak}, also: []model.Kind{model.MemoryPressure},
		culprits: []string{"leak"}, root: "leak",
		actors: []actor{
			start("cache", "cache", "grow", "-rate", "200", "-upto", "150"), // grew, and does so no more
			offend("leak", "leak", "grow", "-mode", mode, "-rate", fmt.Sprint(rate), "-upto", fmt.Sprint(upto)),
		},
		warm: 2 * time.Second, within: 38 * time.Second,
	}
}

func memoryTrouble() []scenario {
	// The 64 MB that a leak must have grown by it has after 16 s.
	near := leak("leak-near-its-limit", "4 MB a second, in a cgroup whose limit is 160 MB (of the machine's memory %d MB a second are a leak).", "plain")
	near.tell = "4 MB a second, in a cgroup whose limit is 160 MB."
	near.needs = []need{needMemory}
	near.limits = []limit{{"leak", "memory.max", fmt.Sprint(160 * mebibyte)}}
	near.actors[1].args = []string{"-rate", "4", "-upto", "150"}

	// Whoever takes memory until there is none may be called a leak as well; and it is reclaimed
	// on a CPU and read from a disk again, and what others wait for those is measured.
	also := []model.Kind{model.MemoryLeak, model.IOPressure, model.NoisyNeighbour, model.CPUContention}

	return []scenario{
		leak("leak-steady", "%d MB a second, without a limit.", "plain"),
		leak("leak-steps", "%d MB a second, taken once in each second.", "steps"),
		leak("leak-shared", "%d MB a second of shared memory.", "shared"),
		near,
		{
			name: "memory-at-its-limit", tell: "A job takes 40 MB a second, of which its memory.high leaves it 48 MB.",
			kinds: []model.Kind{model.MemoryPressure}, also: also, culprits: []string{"job"}, root: "job",
			needs: []need{needPSI, needMemory}, stalls: model.Memory,
			limits: []limit{{"job", "memory.high", fmt.Sprint(48 * mebibyte)}},
			actors: []actor{
				start("web", "web", "serve", "-work", "1ms", "-every", "50ms"),
				offend("job", "job", "grow", "-rate", "40", "-upto", "600"),
			},
			within: 12 * time.Second,
		},
		{
			name: "memory-without-limit", tell: "A job takes all the memory that there is, and a service finds its files evicted.",
			kinds: []model.Kind{model.MemoryPressure}, also: also, culprits: []string{"job"}, root: "job",
			victims: []string{"db"},
			needs:   []need{needPSI, needMemory, needSmall, needDisk}, stalls: model.Memory, file: 160,
			actors: []actor{
				start("db", "db", "thrash", "-file", dataFile, "-mb", "160", "-every", "100ms"),
				offend("job", "job", "grow", "-rate", "120", "-upto", fmt.Sprint(min(mostMB, availableMB()))),
			},
			warm: 3 * time.Second, within: 20 * time.Second,
		},
	}
}

// disk is the form of the fights for the disk: the victim needs each of its small writes
// to be on the disk before the next.
func disk(name, tell string, hog ...string) scenario {
	return scenario{
		name: name, tell: tell, // Who copies megabytes uses a CPU, too, and what the victim waits for that is measured.
		kinds: []model.Kind{model.IOPressure}, also: []model.Kind{model.PSISaturation, model.NoisyNeighbour, model.CPUContention},
		culprits: []string{"hog"}, root: "hog", victims: []string{"db"},
		needs: []need{needPSI, needDisk}, stalls: model.IO, file: 256,
		actors: []actor{
			start("db", "db", "append", "-mode", "sync", "-block", "4096", "-every", "5ms", "-upto", "16"),
			offend("hog", "hog", hog[0], hog[1:]...),
		},
		warm: time.Second, within: 11 * time.Second,
	}
}

func ioTrouble() []scenario {
	among := disk("disk-among-innocents", "Random reads among five cgroups that read a little each.", "read", "-file", dataFile, "-mb", "256", "-mode", "random", "-block", "131072", "-threads", "32")
	for i := range 5 {
		name := fmt.Sprintf("reader%d", i)
		among.actors = append(among.actors, start(name, name, "read", "-file", dataFile, "-mb", "256", "-mode", "random", "-block", "4096", "-every", "100ms"))
	}
	return []scenario{
		disk("disk-sequential", "Eight threads read a file of 256 MB past the page cache, 1 MB at a time.", "read", "-file", dataFile, "-mb", "256", "-mode", "sequential", "-block", "1048576", "-threads", "8"),
		disk("disk-random", "32 threads read 128 kB at a time at random, past the page cache.", "read", "-file", dataFile, "-mb", "256", "-mode", "random", "-block", "131072", "-threads", "32"),
		disk("disk-writer", "Four threads write 2 MB at a time and wait until it is on the disk.", "append", "-mode", "sync", "-block", "2097152", "-threads", "4", "-upto", "64"),
		among,
	}
}
