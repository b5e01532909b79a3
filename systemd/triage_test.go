package systemd

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestTheJournalDoesNotCarryTheTriage(t *testing.T) {
	in := model.Incident{ID: "a", Kind: model.ForkStorm, Summary: "a storm"}
	without := IncidentOpened(in)
	in.Triage = &model.Triage{Cause: "a long story"}
	if diff := cmp.Diff(without, IncidentOpened(in)); diff != "" {
		t.Error(diff)
	}
}
