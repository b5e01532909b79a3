package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/recording"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"breakerctl": main})
}

func TestAPolicyFromItsFirstLineUntilItIsTried(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata/policy",
		Setup: func(env *testscript.Env) error {
			if err := serveKept(env); err != nil {
				return err
			}
			return recordStorm(filepath.Join(env.WorkDir, "storm.jsonl"))
		},
	})
}

// Each step of the walk is a step of a story.
func TestTheWalkOfTheDocumentIsThatOfTheStories(t *testing.T) {
	doc, err := os.ReadFile("../../docs/policy.md")
	if err != nil {
		t.Fatal(err)
	}
	var stories string
	for _, name := range []string{"testdata/policy/walk", "testdata/policy/diff", "testdata/policy/kept", "../../e2e/testdata/walk/walk"} {
		story, err := os.ReadFile(name + ".txtar")
		if err != nil {
			t.Fatal(err)
		}
		stories += string(story)
	}
	steps := 0
	for line := range strings.Lines(string(doc)) {
		step, ok := strings.CutPrefix(strings.TrimRight(line, "\n"), "    breakerctl ")
		if !ok {
			continue
		}
		steps++
		step, _, _ = strings.Cut(step, " >")
		if !strings.Contains(stories, "exec breakerctl "+step) {
			t.Errorf("no story has the step breakerctl %s", step)
		}
	}
	if steps < 9 {
		t.Errorf("the walk has %d steps", steps)
	}
}

// recordStorm writes a recording of a process that forks without end.
func recordStorm(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	thresholds, err := json.Marshal(detect.DefaultConfig())
	if err != nil {
		return err
	}
	enc, err := recording.NewEncoder(f, recording.Header{Detect: thresholds})
	if err != nil {
		return err
	}
	const tick = 250 * time.Millisecond
	bomb := model.ProcID{PID: 100, StartTime: 100}
	for i := range 40 {
		boot := time.Hour + time.Duration(i)*tick
		s := &model.Sample{
			Time: time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC).Add(boot), BootNS: int64(boot), LengthNS: int64(tick),
			Host: model.Host{BootID: "5f0c", CPUs: 2, PressureAbsent: true},
		}
		if i == 0 {
			s.Keyframe = true
			s.Procs.Forked = []model.Proc{
				{ProcID: model.ProcID{PID: 1, StartTime: 1}, Cgroup: 1, Comm: "init", Found: true},
				{ProcID: bomb, Parent: model.ProcID{PID: 1, StartTime: 1}, Cgroup: 60, Comm: "bomb", UID: 1000, Found: true},
			}
		}
		s.Cgroups = []model.CgroupSample{{ID: 60, Path: "/job", Forks: 25}}
		for n := range 25 {
			s.Procs.Forked = append(s.Procs.Forked, model.Proc{ProcID: model.ProcID{PID: int32(1000 + 25*i + n), StartTime: 200}, Parent: bomb, Cgroup: 60, Comm: "child"})
		}
		if err := enc.Encode(recording.Record{Sample: s}); err != nil {
			return err
		}
	}
	return enc.End()
}
