package e2e

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/report"
)

func TestWhatHappenedIsThereAfterBreakerdWasKilled(t *testing.T) {
	h := newHouse(t)
	scratch := kerneltest.ScratchCgroup(t)
	h.file("rules/freeze.rego", freezeAll)
	d := h.breakerd("dry-run")
	h.ready()
	scratch.Start("sh", "-c", storm)
	var id string
	h.eventually(20*time.Second, "a decision was made and is kept", func(ctx context.Context) bool {
		all, _ := h.client.Incidents(ctx)
		for _, in := range all {
			if in.Culprit.Cgroup == scratch.Path && len(in.Decisions) > 0 {
				id = in.ID
				s, err := h.client.Story(ctx, id)
				return err == nil && len(s.Verdicts) > 0
			}
		}
		return false
	})
	d.cmd.Process.Signal(syscall.SIGKILL)
	<-d.ended
	h.breakerd("monitor")
	h.ready()

	out, err := h.ctl("incidents", "--since", "1h", "--cgroup", scratch.Path, "-o", "json")
	if all := decode[[]model.Incident](t, out); err != nil || len(all) == 0 || all[len(all)-1].ID != id {
		t.Fatalf("incidents --since 1h: %s, error %v: want %s of before", out, err, id)
	}
	if out, err := h.ctl("incidents", "--since", "1h", "--kind", "memory_leak", "--cgroup", scratch.Path); err != nil || out != "no incidents\n" {
		t.Errorf("another kind: %s, error %v", out, err)
	}
	out, err = h.ctl("why", id)
	for _, want := range []string{"CAUSE", "DECISIONS", "freeze by breaker.", "at least"} {
		if err != nil || !strings.Contains(out, want) {
			t.Errorf("why does not say %q, error %v:\n%s", want, err, out)
		}
	}
	out, err = h.ctl("why", id, "-o", "json")
	if s := decode[model.Story](t, out); err != nil || s.State != model.Closed || !s.Unfinished || len(s.Verdicts) == 0 || len(s.Moments) == 0 || s.Triage == nil {
		t.Errorf("why -o json: error %v: %s", err, out)
	}
	for form, want := range map[string]string{"text": "GUARD", "markdown": "## Who refused what", "html": "<h2>Who refused what</h2>", "json": `"guards"`} {
		if out, err := h.ctl("report", "--since", "1h", "--format", form); err != nil || !strings.Contains(out, want) {
			t.Errorf("report --format %s does not say %q, error %v:\n%s", form, want, err, out)
		}
	}
	out, err = h.ctl("report", "--since", "1h", "-o", "json")
	if r := decode[report.Report](t, out); err != nil || r.Totals.Incidents == 0 || r.Totals.Refused == 0 {
		t.Errorf("report -o json: error %v: %s", err, out)
	}
	if out, err := h.ctl("status"); err != nil || !strings.Contains(out, filepath.Join(h.state, "history")) {
		t.Errorf("status does not say where it is, error %v:\n%s", err, out)
	}
}

// An enforcer refuses a folder that others can write; breakerd's own is beside its records.
func TestTheHistoryIsBesideTheEnforcersRecords(t *testing.T) {
	h := newHouse(t)
	h.enforcer()
	h.breakerd("enforce")
	h.ready()
	h.eventually(10*time.Second, "there is a history", func(context.Context) bool {
		_, err := os.Stat(filepath.Join(h.state, "history", "history.db"))
		return err == nil
	})
	info, err := os.Stat(filepath.Join(h.state, "history"))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("mode %v, error %v: what processes were called is nobody else's", info.Mode(), err)
	}
	head, err := os.ReadFile(filepath.Join(h.state, "history", "history.db"))
	if err != nil || !bytes.HasPrefix(head, []byte("SQLite format 3\x00")) {
		t.Errorf("error %v", err)
	}
}
