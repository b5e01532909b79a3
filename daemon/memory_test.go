package daemon

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/systemd"
)

func TestWhatWasLearnedOutlivesARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "state", memoryDir)
	m := memory{dir: dir}
	set := breaker.New(breaker.DefaultConfig())
	set.Advance(time.Now(), 0)
	d := &model.Decision{ID: "d-1", At: time.Now(), Action: model.Action{ForMS: 10_000}, Target: model.Target{Cgroup: "/a"}}
	set.Wanted(d, model.CPU, nil, model.Toll{})
	set.Outcome(model.Outcome{DecisionID: "d-1", LeaseID: "d-1"})
	text, err := set.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if err := m.keep(text); err != nil {
		t.Fatal(err)
	}
	again := memory{dir: dir}
	b := again.recall(breaker.DefaultConfig()).Of("/a")
	if again.err != nil || b.State != model.BreakerHalfOpen || b.Opened != 1 {
		t.Errorf("it is %+v, %v", b, again.err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*")); len(left) != 1 {
		t.Errorf("files %v", left)
	}
}

func TestWhatCannotBeReadIsToldAndEverybodyBeginsAnew(t *testing.T) {
	for _, text := range []string{"", "nonsense", `{"version":9}`, strings.Repeat("x", 1<<20)} {
		m := memory{dir: t.TempDir()}
		if err := os.WriteFile(filepath.Join(m.dir, breakersFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if set := m.recall(breaker.DefaultConfig()); m.err == nil || len(set.All()) != 0 {
			t.Errorf("%.20q is read as %+v", text, set.All())
		}
	}
	m := memory{dir: filepath.Join(t.TempDir(), "none")}
	if m.recall(breaker.DefaultConfig()); m.err != nil {
		t.Errorf("nothing was ever kept: %v", m.err)
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (&memory{dir: filepath.Join(file, memoryDir)}).keep([]byte("x")); err == nil {
		t.Error("kept where nothing can be kept")
	}
}

func TestALeaseThatDoesNotHelpIsUndoneAndHowItEndedIsLearned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, freezeTree)
		s.doer.answer = func(_ context.Context, d model.Decision) model.Outcome {
			return model.Outcome{DecisionID: d.ID, LeaseID: d.ID}
		}
		var kept []string
		s.pipeline.keep = func(text []byte) { kept = append(kept, string(text)) }
		s.run(t)
		s.storm(30) // it goes on though its tree is held
		asked := s.doer.asked()
		s.doer.mu.Lock()
		undone := slices.Clone(s.doer.undone)
		s.doer.ended = map[string]model.EndReason{asked[0].ID: model.EndNoRelief}
		s.doer.mu.Unlock()
		if len(asked) != 1 || !slices.Equal(undone, []string{asked[0].ID}) {
			t.Fatalf("asked %d times, undone %v", len(asked), undone)
		}
		time.Sleep(time.Second)
		s.storm(60)
		if n := len(s.doer.asked()); n != 1 {
			t.Errorf("asked %d times, and it is refuted", n)
		}
		var all []model.Breaker
		if err := s.pipeline.ask(t.Context(), func(j *judge.Judge) { all = j.Breakers() }); err != nil {
			t.Fatal(err)
		}
		if len(all) != 1 || all[0].LastEnd != model.EndNoRelief || all[0].LastEffect != model.EffectNone || all[0].State != model.BreakerClosed {
			t.Errorf("breakers %+v", all)
		}
		if !slices.Contains(s.diary.ids(), systemd.MsgBreakerMeasured) || len(kept) < 3 || !strings.Contains(kept[len(kept)-1], "no_relief") {
			t.Errorf("told %v, kept %d times", s.diary.ids(), len(kept))
		}
	})
}
