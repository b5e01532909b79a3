package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

func TestAStormCanBeLookedAtWithEveryCommand(t *testing.T) {
	h := newHouse(t)
	h.breakerd("monitor")
	h.ready()
	load := exec.Command("sh", "-c", storm)
	if err := load.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { load.Process.Kill(); load.Wait() })

	var id string
	h.eventually(15*time.Second, "a fork storm of the shell", func(ctx context.Context) bool {
		all, _ := h.client.Incidents(ctx)
		for _, in := range all {
			if in.Triage != nil {
				t.Error("the list of incidents carries the triage")
			}
			if in.Kind == model.ForkStorm && in.Culprit.Root.PID == int32(load.Process.Pid) {
				id = in.ID
			}
		}
		return id != ""
	})
	for _, look := range []struct {
		args []string
		says string
	}{
		{[]string{"why", id}, fmt.Sprintf("pid %d", load.Process.Pid)},
		{[]string{"why-not", fmt.Sprint(load.Process.Pid)}, "fork_storm"},
		{[]string{"why-not", "/"}, "cgroup / (id 1)"},
		{[]string{"ps", "--sort", "forks"}, fmt.Sprint(load.Process.Pid)},
		{[]string{"top", "-n", "1"}, id},
		{[]string{"blame", "--by", "unit", "--window", "10s"}, "from "},
	} {
		out, err := h.ctl(look.args...)
		if err != nil || !strings.Contains(out, look.says) {
			t.Errorf("breakerctl %s does not say %q, error %v:\n%s", strings.Join(look.args, " "), look.says, err, out)
		}
	}
	out, err := h.ctl("why", id, "-o", "json")
	if in := decode[model.Incident](t, out); err != nil || in.Triage == nil || in.Triage.Cause == "" || len(in.Triage.Processes) == 0 {
		t.Errorf("why -o json says %s, error %v", out, err)
	}
	for _, gone := range [][]string{{"why", "zz"}, {"why-not", "/gone"}, {"why-not", fmt.Sprint(1 << 30)}} {
		cmd := exec.Command(bin(t, "breakerctl"), append(gone, "--runtime-dir", h.run)...)
		cmd.Env = os.Environ()
		said, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || exit.ExitCode() != 2 {
			t.Errorf("breakerctl %s ends with %v, want exit code 2: %s", strings.Join(gone, " "), err, said)
		}
	}
}
