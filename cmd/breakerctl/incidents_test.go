package main

import (
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Where nobody stands out every place says so, and none says that it was cgroup 0.
func TestAnIncidentWithoutACulpritSaysThatNobodyStandsOut(t *testing.T) {
	at := time.Now()
	in := model.Incident{
		ID: "0e2be6b39bc1", Kind: model.PSISaturation, Level: model.Info, State: model.Closed, OpenedAt: at, ClosedAt: &at,
		Summary: "Nobody stands out as the one who makes it, and nobody is accused.",
		Triage:  &model.Triage{Cause: "Nobody stands out as the cause.", Processes: []model.ProcessFigures{{Comm: "busy"}}},
	}
	var list, one, why, top strings.Builder
	a := &app{}
	if err := a.writeIncidents(&list, []model.Incident{in}); err != nil {
		t.Fatal(err)
	}
	if err := a.writeIncident(&one, in); err != nil {
		t.Fatal(err)
	}
	writeWhy(&why, in)
	incidentGrid([]model.Incident{in}).write(&top, "")
	for place, text := range map[string]string{"the list": list.String(), "incidents ID": one.String(), "top": top.String()} {
		if !strings.Contains(text, "nobody stands out") {
			t.Errorf("%s does not say that nobody stands out:\n%s", place, text)
		}
	}
	for place, text := range map[string]string{"the list": list.String(), "incidents ID": one.String(), "why": why.String(), "top": top.String()} {
		for _, wrong := range []string{"[0]", "in 0", "uid 0", "0 processes", "the culprit's cgroup"} {
			if strings.Contains(text, wrong) {
				t.Errorf("%s says %q:\n%s", place, wrong, text)
			}
		}
	}
}

func TestACulpritOfWhichOnlyTheIDIsKnownIsStillOne(t *testing.T) {
	if got := culprit(model.Culprit{CgroupID: 77, Scope: model.ScopeCgroup}); got != "77" {
		t.Errorf("said %q", got)
	}
}
