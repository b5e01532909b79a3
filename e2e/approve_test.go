package e2e

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

const freezeApproved = `package breaker.approved

import rego.v1

action contains {"kind": "freeze", "scope": "tree", "for": "1m", "reason": "test", "approval": "5m"} if {
	input.incident.kind == "fork_storm"
	not input.breaker.refuted
}
`

func TestAStormIsFrozenOnceAPersonHasSaidYes(t *testing.T) {
	h := newHouse(t)
	h.file("rules/approved.rego", freezeApproved)
	h.enforcer()
	h.breakerd("enforce")
	h.ready()
	scratch := kerneltest.ScratchCgroup(t)
	scratch.Start("sh", "-c", endless)
	id := ""
	h.eventually(20*time.Second, "a person is asked", func(ctx context.Context) bool {
		s, err := h.client.Status(ctx)
		if err != nil || len(s.Enforcer.Approvals) == 0 {
			return false
		}
		id = s.Enforcer.Approvals[0].ID
		return true
	})
	if scratch.Frozen() || scratch.Read("cgroup.freeze") != "0" {
		t.Fatal("frozen before anybody said yes")
	}
	if out, err := h.ctl("leases"); err != nil || !strings.Contains(out, id) || !strings.Contains(out, "waits for a yes") {
		t.Errorf("leases: %v\n%s", err, out)
	}
	if out, err := h.ctl("approve", id); err != nil || !strings.Contains(out, "approved: freeze") {
		t.Fatalf("approve: %v\n%s", err, out)
	}
	h.eventually(10*time.Second, "it is frozen", func(context.Context) bool { return scratch.Frozen() })
	h.eventually(10*time.Second, "its breaker is open", func(context.Context) bool {
		out, err := h.ctl("breakers")
		return err == nil && strings.Contains(out, "open")
	})
	if out, err := h.ctl("release", "--all"); err != nil {
		t.Fatalf("release: %v\n%s", err, out)
	}
	h.eventually(10*time.Second, "who was let go by an operator rests", func(context.Context) bool {
		out, err := h.ctl("breakers", "-o", "json")
		return err == nil && strings.Contains(out, `"refuted": false`)
	})
	if scratch.Frozen() {
		t.Error("still frozen")
	}
}
