package main

import (
	"context"
	"encoding/json"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/model"
)

// roleVar makes this program something else than the campaign.
const roleVar = "BREAKERD_CAMPAIGN_ROLE"

// The roles.
const (
	asBreakerd = "breakerd" // RUNTIME_DIR DECISION: its part of the protocol
	asHog      = "hog"      // takes a CPU
)

// hogged is what a hog computes.
var hogged atomic.Uint64

// play plays a role for as long as this process lives; what it returns is why it cannot.
func play(role string, args []string) error {
	switch {
	case role == asBreakerd && len(args) == 2:
		return breakerd(args[0], args[1])
	case role == asHog:
		// Busy, and not so that breakerd sees nothing of the storm that is meant.
		if err := unix.Setpriority(unix.PRIO_PROCESS, 0, 5); err != nil {
			return err
		}
		for hogged.Add(1) != 0 { // for as long as anybody could wait
		}
	}
	return fmt.Errorf("no such role, or not with %q", args)
}

// breakerd is what breakerd is to the enforcer: a connection over which a decision and
// heartbeats come. What it is told is for whoever killed it.
func breakerd(runtimeDir, decision string) error {
	var d model.Decision
	if err := json.Unmarshal([]byte(decision), &d); err != nil {
		return err
	}
	c := enforce.NewClient(runtimeDir)
	go func() {
		for id, n := d.ID, 1; ; n++ {
			out, err := c.Propose(context.Background(), d)
			fmt.Printf("%+v, %v\n", out, err)
			if err != nil || out.RefusedBy == "" || out.LeaseID != "" {
				return // one that was begun is what is looked at
			}
			// In doubt, where systemd is too slow to say whose a cgroup is. It decides anew.
			time.Sleep(beatEvery)
			d.ID, d.At = fmt.Sprintf("%s-%d", id, n), time.Now()
			d.OpenedAt = d.At
		}
	}()
	for {
		if err := c.Heartbeat(context.Background()); err != nil {
			fmt.Println(err)
		}
		time.Sleep(beatEvery)
	}
}
