package policy

import (
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestAPolicysInputDoesNotGrowByTheTriage(t *testing.T) {
	at := time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC)
	in := model.Incident{ID: "a", Kind: model.ForkStorm, OpenedAt: at}
	without := InputOf(&in, model.Breaker{}, model.Host{}, at)
	in.Triage = &model.Triage{Cause: "a long story"}
	if diff := cmp.Diff(without, InputOf(&in, model.Breaker{}, model.Host{}, at)); diff != "" {
		t.Error(diff)
	}
}
