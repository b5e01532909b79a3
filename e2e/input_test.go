package e2e

import (
	"context"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

func TestBadInputIsOneClearMessageAndNothingIsStarted(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF)
	dir := filepath.Dir(bin(t, "breakerd"))
	packaging, err := filepath.Abs("../packaging")
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir: "testdata/script",
		Setup: func(env *testscript.Env) error {
			env.Setenv("PATH", dir+string(os.PathListSeparator)+os.Getenv("PATH"))
			env.Setenv("PACKAGING", packaging)
			return nil
		},
	})
}

func TestASecondBreakerdIsRefusedAndTheFirstGoesOn(t *testing.T) {
	h := newHouse(t)
	h.breakerd("monitor")
	h.ready()
	second := h.breakerd("monitor")
	<-second.ended
	if second.cmd.ProcessState.ExitCode() != 1 || !strings.Contains(second.said(), "a running breakerd already answers there") {
		t.Errorf("the second one ended with %v and said:\n%s", second.cmd.ProcessState, second.said())
	}
	h.ready()
}

func TestASocketThatADeadBreakerdLeftIsReplaced(t *testing.T) {
	h := newHouse(t)
	first := h.breakerd("monitor")
	h.ready()
	first.cmd.Process.Kill()
	<-first.ended
	h.breakerd("monitor")
	h.ready()
}

func TestABadPolicySetAtTheStartMeansThatBreakerdRunsAndActsOnNothing(t *testing.T) {
	h := newHouse(t)
	scratch := kerneltest.ScratchCgroup(t)
	h.file("rules/good.rego", freezeAll)
	h.file("rules/typo.rego", `package breaker.typo

import rego.v1

action contains {"kind": "freeze", "scope": "tree", "for": "2s", "reason": "x"} if input.incident.sevrity > 0
`)
	h.enforcer()
	d := h.breakerd("enforce")
	h.ready()
	if !regexp.MustCompile(`typo\.rego:5:\d+.*sevrity.*severity`).MatchString(d.said()) {
		t.Errorf("the slip is not told with file, line, column and the right name:\n%s", d.said())
	}
	scratch.Start("sh", "-c", storm)
	h.eventually(10*time.Second, "the storm is seen", func(ctx context.Context) bool {
		all, err := h.client.Incidents(ctx)
		return err == nil && len(all) > 0
	})
	time.Sleep(time.Second) // in which a policy in force would have acted
	if scratch.Read("cgroup.freeze") != "0" {
		t.Error("the cgroup was frozen by a set with an error in it")
	}
	s, err := h.client.Status(context.Background())
	if err != nil || len(s.Policies.Packages) != 0 || s.Policies.Error == "" {
		t.Errorf("status says %+v, %v", s.Policies, err)
	}
}

func TestABadPolicySetAtAReloadLeavesTheOldOneInForce(t *testing.T) {
	h := newHouse(t)
	h.file("rules/good.rego", freezeAll)
	d := h.breakerd("dry-run")
	h.ready()
	before, err := h.client.Status(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	h.file("rules/bad.rego", "package breaker.bad\n\naction contains if {\n")
	d.cmd.Process.Signal(hangUp)
	h.eventually(5*time.Second, "the new set is refused and the old one in force", func(ctx context.Context) bool {
		s, err := h.client.Status(ctx)
		return err == nil && strings.Contains(s.Policies.Error, "bad.rego:3") && s.Policies.Hash == before.Policies.Hash
	})
	h.file("rules/bad.rego", "package breaker.bad\n\nimport rego.v1\n\ndeny contains \"no\" if true\n")
	d.cmd.Process.Signal(hangUp)
	h.eventually(5*time.Second, "the mended set is on trial", func(ctx context.Context) bool {
		s, err := h.client.Status(ctx)
		return err == nil && s.Policies.Error == "" && s.Policies.Trial != nil && s.Policies.Hash == before.Policies.Hash
	})
	if out, err := h.ctl("policy", "promote"); err != nil || !strings.HasPrefix(out, "in force: sha256:") {
		t.Errorf("promoted: %s, %v", out, err)
	}
	after, err := h.client.Status(context.Background())
	if err != nil || after.Policies.Hash == before.Policies.Hash || after.Policies.Trial != nil {
		t.Errorf("after it was promoted: %+v, %v", after.Policies, err)
	}
}

// A process chooses its own name: tables show it escaped, JSON quotes it.
func TestAProcessNamedInTerminalEscapesCannotReachTheTerminal(t *testing.T) {
	h := newHouse(t)
	scratch := kerneltest.ScratchCgroup(t)
	h.breakerd("monitor")
	h.ready()
	evil := h.file("evil\x1b[2J\nx", "#!/bin/sh\n"+storm)
	if err := os.Chmod(evil, 0o755); err != nil {
		t.Fatal(err)
	}
	scratch.Start(evil)
	var table string
	h.eventually(10*time.Second, "the storm is seen", func(context.Context) bool {
		var err error
		table, err = h.ctl("incidents")
		return err == nil && strings.Contains(table, "fork_storm")
	})
	if !strings.Contains(table, `evil\x1b[2J\x0a`) || strings.ContainsAny(table, "\x1b") {
		t.Errorf("the table is:\n%q", table)
	}
}
