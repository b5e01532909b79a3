package main

import (
	"slices"
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

const ourPath = "/breakerd-accuracy-1/x-1"

var startedAt = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

// accused is an incident a second after the start.
func accused(kind model.Kind, cgroup string, root int32, severity float64, victims ...string) model.Incident {
	in := model.Incident{Kind: kind, OpenedAt: startedAt.Add(time.Second), Severity: severity, Level: model.LevelOf(severity)}
	in.Culprit.Cgroup, in.Culprit.Root.PID = cgroup, root
	in.Contributors = []model.Contributor{{Cgroup: "/else"}, {Cgroup: cgroup}}
	for _, v := range victims {
		in.Victims = append(in.Victims, model.Victim{Cgroup: v})
	}
	return in
}

func TestVerdicts(t *testing.T) {
	trouble := scenario{kinds: []model.Kind{model.NoisyNeighbour}, also: []model.Kind{model.ForkStorm}, culprits: []string{"hog"}, root: "hog", victims: []string{"web"}, hurts: "web"}
	harmless := scenario{}
	const hog, web, other = ourPath + "/hog", ourPath + "/web", ourPath + "/other"
	hit := accused(model.NoisyNeighbour, hog, 7, 0.9, web)
	late := hit
	late.OpenedAt = startedAt.Add(time.Hour)
	nobody := accused(model.NoisyNeighbour, "", 0, 0.9, web)
	second := hit.Clone()
	second.Contributors[0].Cgroup = other

	tests := []struct {
		name      string
		s         scenario
		disturbed bool
		said      []model.Incident
		want      outcome
		wrongs    int
	}{
		{"nothing said of trouble is a miss", trouble, false, nil, missed, 0},
		{"the right one is right", trouble, false, []model.Incident{hit}, right, 0},
		{"but not where an innocent is ranked above it", trouble, false, []model.Incident{second}, wrong, 1},
		{"another kind that may open besides is right, and alone a miss", trouble, false, []model.Incident{accused(model.ForkStorm, hog, 7, 0.9)}, missed, 0},
		{"an innocent beside the right one is wrong", trouble, false, []model.Incident{hit, accused(model.NoisyNeighbour, other, 9, 0.9)}, wrong, 1},
		{"the victim itself is innocent", trouble, false, []model.Incident{accused(model.NoisyNeighbour, web, 9, 0.9)}, wrong, 1},
		{"an innocent is not to be named in passing", trouble, false, []model.Incident{accused(model.NoisyNeighbour, other, 9, 0.1)}, wrong, 1},
		{"what is informational and of another kind is no accusation", trouble, false, []model.Incident{hit, accused(model.ForkStorm, other, 9, 0.1)}, right, 0},
		{"the right one of the wrong thing is wrong", trouble, false, []model.Incident{accused(model.MemoryLeak, hog, 7, 0.9)}, wrong, 1},
		{"another process of the right cgroup is wrong", trouble, false, []model.Incident{accused(model.NoisyNeighbour, hog, 8, 0.9, web)}, wrong, 1},
		{"a parent cgroup is wrong", trouble, false, []model.Incident{accused(model.NoisyNeighbour, ourPath, 7, 0.9, web)}, wrong, 1},
		{"a victim that is not named is wrong", trouble, false, []model.Incident{accused(model.NoisyNeighbour, hog, 7, 0.9)}, wrong, 1},
		{"seen and nobody accused is unknown", trouble, false, []model.Incident{nobody}, unknown, 0},
		{"a stranger with our victim is wrong", trouble, false, []model.Incident{accused(model.NoisyNeighbour, "/else", 3, 0.9, web)}, wrong, 1},
		{"but not where strangers were busy", trouble, true, []model.Incident{hit, accused(model.NoisyNeighbour, "/else", 3, 0.9, web)}, right, 0},
		{"and with a victim of their own they are not our matter", trouble, false, []model.Incident{hit, accused(model.NoisyNeighbour, "/else", 3, 0.9, "/too")}, right, 0},
		{"where strangers were busy a miss says nothing", trouble, true, nil, noPremise, 0},
		{"but a wrong accusation does", trouble, true, []model.Incident{accused(model.NoisyNeighbour, other, 9, 0.9)}, wrong, 1},
		{"what opens late of our own counts", trouble, false, []model.Incident{late}, right, 0},
		{"silence", harmless, false, nil, silent, 0},
		{"information is silence", harmless, false, []model.Incident{accused(model.ForkStorm, other, 9, 0.1)}, silent, 0},
		{"a warning is not", harmless, false, []model.Incident{accused(model.ForkStorm, other, 9, 0.3)}, broken, 1},
		{"nor is one with a stranger for a victim, where none was there", harmless, false, []model.Incident{accused(model.NoisyNeighbour, other, 9, 0.3, "/else")}, broken, 1},
		{"nor is one of unknown cause", harmless, false, []model.Incident{nobody}, broken, 1},
	}
	t.Run("where strangers were there and are the only victims, the label was not true", func(t *testing.T) {
		sc := scene{path: ourPath, roots: map[string]int32{"hog": 7}, started: startedAt, ended: startedAt.Add(5 * time.Second), watched: true}
		if v := judge(harmless, sc, []model.Incident{accused(model.NoisyNeighbour, other, 9, 0.3, "/else")}); v.outcome != noPremise {
			t.Errorf("got %s", v.outcome)
		}
		if v := judge(harmless, sc, []model.Incident{accused(model.NoisyNeighbour, other, 9, 0.3, "/else", web)}); v.outcome != broken {
			t.Errorf("with a victim of the scenario: got %s", v.outcome)
		}
		if v := judge(trouble, sc, []model.Incident{hit, accused(model.MemoryPressure, other, 9, 0.3, "/else")}); v.outcome != right {
			t.Errorf("beside the right accusation: got %s %v", v.outcome, v.wrongs)
		}
		if v := judge(trouble, sc, []model.Incident{hit, accused(model.NoisyNeighbour, other, 9, 0.3, web)}); v.outcome != wrong {
			t.Errorf("an innocent, of hurting a member of the scenario: got %s", v.outcome)
		}
	})
	t.Run("where the kernel says that a stranger waited, it was there", func(t *testing.T) {
		sc := scene{path: ourPath, started: startedAt, ended: startedAt.Add(5 * time.Second)}
		sc.strangers = hurt(map[string]time.Duration{"/": time.Hour, "/else": 0}, map[string]time.Duration{"/": time.Hour + time.Second, "/else": 400 * time.Millisecond}, 5*time.Second)
		for _, tt := range []struct {
			victims []string
			want    outcome
		}{
			{[]string{"/"}, noPremise},
			{[]string{"/else"}, broken},
			{[]string{"/", "/else"}, broken},
			{[]string{"/", web}, broken},
			{nil, broken},
		} {
			if v := judge(harmless, sc, []model.Incident{accused(model.CPUContention, other, 9, 0.3, tt.victims...)}); v.outcome != tt.want {
				t.Errorf("victims %q: got %s, want %s", tt.victims, v.outcome, tt.want)
			}
		}
	})
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			sc := scene{path: ourPath, roots: map[string]int32{"hog": 7}, started: startedAt, ended: startedAt.Add(5 * time.Second), disturbed: tt.disturbed, watched: tt.disturbed}
			v := judge(tt.s, sc, tt.said)
			if wrongs := slices.Concat(v.wrongs, v.unnamed); v.outcome != tt.want || len(wrongs) != tt.wrongs {
				t.Errorf("%s %q, want %s with %d wrong", v.outcome, wrongs, tt.want, tt.wrongs)
			}
			if tt.want == right && v.rank != 2 {
				t.Errorf("the culprit has rank %d, want 2", v.rank)
			}
		})
	}
}

// Who was not hurt need not be named; an innocent who is accused is innocent all the same.
func TestALabelThatWasNotTrueExcusesAVictimThatIsNotNamed(t *testing.T) {
	for _, tt := range []struct {
		premise string
		v       verdict
		want    outcome
		wrongs  int
	}{
		{"", verdict{outcome: wrong, unnamed: []string{"db"}}, wrong, 1},
		{"db hardly waited", verdict{outcome: wrong, unnamed: []string{"db"}}, noPremise, 0},
		{"db hardly waited", verdict{outcome: wrong, unnamed: []string{"db"}, wrongs: []string{"web"}}, wrong, 1},
		{"db hardly waited", verdict{outcome: missed}, noPremise, 0},
	} {
		r := Result{Why: tt.premise}
		r.take(tt.v, scene{})
		if r.Outcome != tt.want || len(r.Wrong) != tt.wrongs {
			t.Errorf("%q, %+v: %s with %q, want %s with %d", tt.premise, tt.v, r.Outcome, r.Wrong, tt.want, tt.wrongs)
		}
	}
}

func TestARunPassesOnlyWithoutWrongAccusationsMissesAndFalseAlarms(t *testing.T) {
	many := func(n int, o outcome) []Result {
		var all []Result
		for range n {
			all = append(all, Result{Outcome: o, right: map[bool]int{true: 1}[o == right], Wrong: map[bool][]string{true: {"x"}}[o == wrong || o == broken]})
		}
		return all
	}
	tests := []struct {
		name  string
		taken [][]Result
		want  bool
	}{
		{"nothing taken proves nothing", nil, false},
		{"all right", [][]Result{many(20, right), many(16, silent)}, true},
		{"one of twenty missed", [][]Result{many(19, right), many(1, missed)}, true},
		{"one of nineteen missed", [][]Result{many(18, right), many(1, missed)}, false},
		{"unknown is no hit", [][]Result{many(18, right), many(1, unknown)}, false},
		{"one wrong accusation of a hundred", [][]Result{many(99, right), many(1, wrong)}, false},
		{"one broken silence", [][]Result{many(20, right), many(15, silent), many(1, broken)}, false},
		{"what is not possible counts neither way", [][]Result{many(20, right), many(9, notPossible)}, true},
		{"a few whose label was not true", [][]Result{many(20, right), many(2, noPremise)}, true},
		{"too many whose label was not true", [][]Result{many(20, right), many(3, noPremise)}, false},
		{"only the impossible", [][]Result{many(20, notPossible)}, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var all []Result
			for _, r := range tt.taken {
				all = append(all, r...)
			}
			if s := summarize(all); s.Passed != tt.want {
				t.Errorf("passed %v, want %v: %+v", s.Passed, tt.want, s)
			}
		})
	}
}

func TestAnAccusationWithoutANameIsOne(t *testing.T) {
	in := accused(model.CPUContention, "", 7, 0.9, "")
	in.Culprit.CgroupID, in.Victims[0].CgroupID = 5, 6
	all := withNames([]model.Incident{in}, map[model.CgroupID]string{5: ourPath + "/other", 6: ourPath + "/web"})
	if v := judge(scenario{}, scene{path: ourPath, started: startedAt, ended: startedAt.Add(time.Second)}, all); v.outcome != broken {
		t.Errorf("got %s", v.outcome)
	}
	if in.Victims[0].Cgroup != "" {
		t.Error("what breakerd said was changed")
	}
}
