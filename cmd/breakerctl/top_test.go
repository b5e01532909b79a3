package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

// evil is a name that would take the terminal over.
const evil = "\x1b[2J\x1b]0;owned\x07\r\nroot\u202e# 日本語日本語日本語日本語日本語日本語日本語"

// answers are what a breakerd would say.
type answers struct {
	err error
	by  []model.SortKey
}

func (m *answers) Status(context.Context) (api.Status, error) {
	return api.Status{Version: "1.0", Mode: model.DryRun, OpenIncidents: 1, LastSampleAt: time.Unix(100, 0)}, m.err
}

func (m *answers) Processes(_ context.Context, r api.Ranking) ([]model.ProcessFigures, error) {
	m.by = append(m.by, r.By)
	all := []model.ProcessFigures{{ProcID: model.ProcID{PID: 4194303}, Comm: evil, Cmdline: evil, Cgroup: "/" + evil, CPUPercent: 99.9, CPUKnown: true, RSSBytes: 5 << 30}}
	for i := range 99 {
		all = append(all, model.ProcessFigures{ProcID: model.ProcID{PID: int32(i + 1)}, Comm: "p", Cgroup: "/a"})
	}
	return all, m.err
}

func (m *answers) Cgroups(context.Context, api.Ranking) ([]model.CgroupFigures, error) {
	return []model.CgroupFigures{{Cgroup: "/system.slice/" + evil, Processes: 20000, CPUPercent: 6400, StallCausedMSPerSecond: 123456}}, m.err
}

func (m *answers) Incidents(context.Context) ([]model.Incident, error) {
	return []model.Incident{{ID: "0e2be6b39bc1", Kind: model.CPUContention, Level: model.Critical, Culprit: model.Culprit{Cgroup: "/" + evil, Scope: model.ScopeTree, Root: model.CulpritRoot{Comm: evil}}}}, m.err
}

func press(key string) tea.KeyPressMsg {
	switch key {
	case "tab":
		return tea.KeyPressMsg{Code: tea.KeyTab}
	case "space":
		return tea.KeyPressMsg{Code: tea.KeySpace, Text: " "}
	}
	return tea.KeyPressMsg{Code: rune(key[0]), Text: key}
}

func TestTopKeepsToTheScreenWhateverTheNamesAre(t *testing.T) {
	for _, size := range []struct{ width, height int }{{80, 24}, {132, 50}, {40, 10}, {10, 3}, {1, 1}} {
		s := newScreen(t.Context(), &answers{}, model.SortCPU, time.Second)
		s.Update(tea.WindowSizeMsg{Width: size.width, Height: size.height})
		s.Update(s.look())
		for range tabs {
			lines := strings.Split(s.View().Content, "\n")
			if len(lines) > size.height {
				t.Errorf("%dx%d, %s: %d lines", size.width, size.height, s.tab, len(lines))
			}
			for _, line := range lines {
				if ansi.StringWidth(line) > size.width || strings.ContainsAny(line, "\x1b\x07\r\u202e") {
					t.Errorf("%dx%d, %s: %q", size.width, size.height, s.tab, line)
				}
			}
			s.Update(press("tab"))
		}
	}
}

func TestTopDoesWhatTheKeysSay(t *testing.T) {
	m := &answers{}
	s := newScreen(t.Context(), m, model.SortStallCaused, time.Second)
	s.Update(s.look())
	if !strings.Contains(s.View().Content, "[cgroups]") || !strings.Contains(s.View().Content, "dry-run, 1 incidents open") {
		t.Errorf("the first view is\n%s", s.View().Content)
	}
	s.Update(press("tab"))
	if !strings.Contains(s.View().Content, "[processes]") || !strings.Contains(s.View().Content, "4194303") {
		t.Errorf("after tab\n%s", s.View().Content)
	}
	_, cmd := s.Update(press("r"))
	if s.by != model.SortRSS || cmd == nil {
		t.Fatal("r does not sort by RSS and ask again")
	}
	s.Update(cmd())
	if last := m.by[len(m.by)-1]; last != model.SortRSS {
		t.Errorf("breakerd was asked for %s", last)
	}
	s.Update(press("space"))
	before := s.View().Content
	changed := s.look()
	changed.status.OpenIncidents = 7
	s.Update(changed)
	if s.View().Content != before || !strings.Contains(before, "PAUSED") {
		t.Error("a paused view changes, or does not say that it is paused")
	}
	if _, cmd := s.Update(press("q")); cmd == nil || cmd() != tea.Quit() {
		t.Error("q does not quit")
	}
}

func TestTopAsksOneQuestionAtATime(t *testing.T) {
	s := newScreen(t.Context(), &answers{}, model.SortCPU, time.Second)
	if first := s.again(); first == nil || s.again() != nil {
		t.Error("a second question is asked while the first is under way")
	}
	s.Update(look{})
	if s.again() == nil {
		t.Error("nothing is asked after the answer came")
	}
}

func TestTopSaysThatBreakerdDoesNotAnswerAndKeepsWhatItSaid(t *testing.T) {
	m := &answers{}
	s := newScreen(t.Context(), m, model.SortCPU, time.Second)
	s.Update(s.look())
	m.err = errors.New("gone \x1b[1m")
	s.Update(s.look())
	if text := s.View().Content; !strings.Contains(text, `! gone \x1b[1m`) || !strings.Contains(text, "20000") {
		t.Errorf("the view is\n%s", text)
	}
	var out bytes.Buffer
	if err := s.print(&out, 1); err == nil {
		t.Error("a snapshot of nothing is no error")
	}
}

func TestWithoutATerminalTopPrintsEveryViewAndEnds(t *testing.T) {
	var out bytes.Buffer
	s := newScreen(t.Context(), &answers{}, model.SortCPU, time.Millisecond)
	if err := s.print(&out, 2); err != nil {
		t.Fatal(err)
	}
	text := out.String()
	if strings.Count(text, "SUFFERED") != 4 || strings.Count(text, "0e2be6b39bc1") != 2 || strings.Contains(text, "\x1b") {
		t.Errorf("printed\n%s", text)
	}
	for line := range strings.Lines(text) {
		if ansi.StringWidth(strings.TrimRight(line, "\n")) > page {
			t.Errorf("wider than the page: %q", line)
		}
	}
}

func TestWhyKeepsToThePageWhateverTheNamesAre(t *testing.T) {
	p, _ := (&answers{}).Processes(t.Context(), api.Ranking{})
	g, _ := (&answers{}).Cgroups(t.Context(), api.Ranking{})
	g[0].Files = &model.CgroupFiles{MemoryMaxBytes: 1 << 40, Pressure: &model.PressurePercent{CPUSome: 100}}
	pairs := []model.BlamePair{{Offender: "/" + evil, Victim: evil, Resource: model.Memory, Estimated: true, MSPerSecond: 99999}}
	events := []model.ProcessEvent{{PID: 1, Comm: evil, Cmdline: evil, Cgroup: evil}}
	in := model.Incident{ID: evil, Kind: model.ForkStorm, Summary: evil + strings.Repeat(evil, 30), Triage: &model.Triage{
		Cause: strings.Repeat("because of "+evil+" ", 20), Processes: p[:3], Cgroups: g, Pressure: &model.PressurePercent{}, Blame: pairs, Forks: events, Execs: events,
	}, Decisions: []model.DecisionRecord{{Action: model.Freeze, Reason: evil}}}
	var out bytes.Buffer
	writeWhy(&out, in)
	writeWhyNot(&out, model.WhyNot{Process: &p[0], Cgroup: g[0], Shares: model.WaitShares{WaitMS: 1e6, NeighbourMS: 1e6}, WaitedFor: pairs, WaitedForIt: pairs,
		Kinds: []model.KindMeasures{{Kind: model.ForkStorm, Measures: []model.Measure{{Name: evil, Value: 1, Threshold: 2}}, Missing: evil}}, Culprit: []string{evil}, Victim: []string{"a"}})
	for line := range strings.Lines(out.String()) {
		line = strings.TrimRight(line, "\n")
		if ansi.StringWidth(line) > page && !strings.Contains(line, "fork_storm, ") || strings.ContainsAny(line, "\x1b\x07\r\u202e") {
			t.Errorf("%d wide: %q", ansi.StringWidth(line), line)
		}
	}
	if !strings.Contains(out.String(), "estimated") {
		t.Error("an estimate is not called one")
	}
}

func TestGroupedBlameAddsUpAndKeepsASiblingsWaitAsOnesOwn(t *testing.T) {
	unit := func(path, unit, manager string) api.Cgroup {
		return api.Cgroup{Cgroup: path, Workload: model.Workload{Unit: unit, Manager: manager}}
	}
	a1, a2 := unit("/a/1", "a.service", ""), unit("/a/2", "a.service", "")
	b, fake := unit("/b", "b.service", ""), unit("/u/a", "a.service", "user@1000.service")
	in := api.Blame{
		Pairs:   []api.Pair{{Offender: a1, Victim: b, StallMS: 10}, {Offender: a2, Victim: b, StallMS: 5}, {Offender: a1, Victim: a2, StallMS: 7}, {Offender: fake, Victim: b, StallMS: 1}},
		Victims: []api.VictimShares{{Cgroup: b, WaitMS: 20, NeighbourMS: 16, UnknownMS: 4}, {Cgroup: a2, WaitMS: 9, NeighbourMS: 7, SelfMS: 2}},
	}
	out := grouped(in, groupings["unit"])
	sortPairs(out.Pairs, "stall")
	var got []string
	for _, p := range out.Pairs {
		got = append(got, fmt.Sprint(name(p.Offender), ">", name(p.Victim), "=", p.StallMS))
	}
	for _, v := range out.Victims {
		got = append(got, fmt.Sprint(name(v.Cgroup), " others ", v.NeighbourMS, " self ", v.SelfMS, " of ", v.WaitMS))
	}
	want := "a.service>b.service=15, user@1000.service/a.service>b.service=1, b.service others 16 self 0 of 20, a.service others 0 self 9 of 9"
	if strings.Join(got, ", ") != want {
		t.Errorf("got  %s\nwant %s", strings.Join(got, ", "), want)
	}
}

// Who stalls for memory or io stalls in each cgroup above it, too.
func TestGroupedBlameCountsAStallOnceWhereACgroupAndOneBelowItHaveOneName(t *testing.T) {
	of := func(path string) api.Cgroup {
		return api.Cgroup{Cgroup: path, Workload: model.Workload{Unit: "a.service"}}
	}
	other := api.Cgroup{Cgroup: "/b", Workload: model.Workload{Unit: "b.service"}}
	var in api.Blame
	for _, r := range []model.Resource{model.CPU, model.Memory, model.IO} {
		for _, path := range []string{"/a", "/a/x", "/a/x/y", "/ab"} {
			in.Pairs = append(in.Pairs, api.Pair{Offender: other, Victim: of(path), Resource: r, StallMS: 10})
			in.Victims = append(in.Victims, api.VictimShares{Cgroup: of(path), Resource: r, WaitMS: 10, NeighbourMS: 10})
		}
	}
	out := grouped(in, groupings["unit"])
	for i, want := range map[model.Resource]float64{model.CPU: 40, model.Memory: 20, model.IO: 20} {
		for _, p := range out.Pairs {
			if p.Resource == i && p.StallMS != want {
				t.Errorf("%s: %v ms, want %v", i, p.StallMS, want)
			}
		}
		for _, v := range out.Victims {
			if v.Resource == i && v.WaitMS != want {
				t.Errorf("%s: waited %v ms, want %v", i, v.WaitMS, want)
			}
		}
	}
	if len(out.Pairs) != 3 || len(out.Victims) != 3 {
		t.Errorf("%d pairs and %d victims, want 3 and 3", len(out.Pairs), len(out.Victims))
	}
}
