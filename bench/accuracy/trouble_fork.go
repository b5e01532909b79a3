package main

import (
	"time"

	"github.com/breakerd/breakerd/model"
)

// storm is the form of the fork storms.
func storm(name, tell string, args ...string) scenario {
	return scenario{
		name: name, tell: tell, kinds: []model.Kind{model.ForkStorm}, also: append([]model.Kind{model.ShortLivedJobs}, waitKinds...),
		culprits: []string{"storm"}, root: "storm",
		actors: []actor{offend("storm", "storm", "storm", args...)},
		within: 6 * time.Second,
	}
}

// crashes is the form of the jobs that end as soon as they begin: the threshold is 20
// ends a second held for 10 s.
func crashes(name, tell string, args ...string) scenario {
	return scenario{
		name: name, tell: tell, kinds: []model.Kind{model.ShortLivedJobs}, also: append([]model.Kind{model.ForkStorm}, waitKinds...),
		culprits: []string{"supervisor"}, root: "supervisor",
		actors: []actor{offend("supervisor", "supervisor", "jobs", args...)},
		within: 14 * time.Second,
	}
}

func forkTrouble() []scenario {
	beside := storm("storm-beside-innocents", "A fork storm in the same cgroup as three services.", "-every", "20ms", "-most", "400", "-stay", "30s")
	for _, name := range []string{"web", "db", "mail"} {
		a := start(name, "storm", "serve", "-work", "1ms", "-every", "20ms")
		beside.actors = append(beside.actors, a)
	}
	return []scenario{
		storm("storm-slow", "15 processes a second that stay.", "-every", "66ms", "-most", "150", "-stay", "30s"),
		storm("storm-fast", "250 processes a second that stay for a second.", "-every", "4ms", "-most", "2500", "-stay", "1s"),
		storm("storm-recursive", "Every child forks on as its parent does, up to 500 processes in all.", "-mode", "recursive", "-every", "400ms", "-most", "500", "-stay", "20s"),
		storm("storm-daemons", "30 processes a second that fork twice and are adopted by somebody else.", "-mode", "daemon", "-every", "33ms", "-most", "300", "-stay", "20s"),
		storm("storm-setsid", "40 processes a second, each the leader of a session of its own.", "-mode", "setsid", "-every", "25ms", "-most", "400", "-stay", "20s"),
		beside,
		crashes("crash-loop", "A supervisor starts the same program 35 times a second, and it fails at once.", "-every", "28ms", "-n", "8", "--", "/bin/false"),
		crashes("crash-loop-shell", "A supervisor starts 35 shells a second for a program that is not there.", "-every", "28ms", "-n", "8", "--", "/bin/sh", "-c", "exec /nonexistent/service 2>/dev/null"),
	}
}
