package daemon

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/observe"
	"github.com/breakerd/breakerd/systemd"
)

func isBadRequest(err error) bool { return errors.Is(err, api.ErrBadRequest) }

func TestProblems(t *testing.T) {
	healthy := func() api.Status {
		return api.Status{Mode: model.Enforce, Policies: api.Policies{Packages: []string{"breaker.a"}}, Enforcer: api.Enforcer{State: "connected"}}
	}
	tests := []struct {
		name  string
		spoil func(*api.Status)
		want  []string // how each begins
	}{
		{"none", func(*api.Status) {}, nil},
		{"configuration refused", func(s *api.Status) { s.Config.Error = "c.yaml:3:1: no" }, []string{"the configuration was refused at a reload, and the one before is in force: c.yaml:3:1: no"}},
		{"a key needs a restart", func(s *api.Status) { s.Config.NeedsRestart = []string{"mode"} }, []string{"the configuration has another mode, which needs a restart"}},
		{"policies refused, and none in force", func(s *api.Status) { s.Policies = api.Policies{Error: "a.rego:3: no"} }, []string{"policies refused: a.rego:3: no"}},
		{"policies refused, and older ones in force", func(s *api.Status) { s.Policies.Error = "a.rego:3: no" }, []string{"policies refused: a.rego:3: no"}},
		{"policies withheld", func(s *api.Status) {
			s.Policies.Trial = &model.PolicyTrial{Withheld: "it would freeze /a: it is protected"}
		}, []string{"the policies on trial are not put in force: it would freeze /a: it is protected. Change them, or"}},
		{"no bundle", func(s *api.Status) {
			s.Policies.Bundle = &api.Bundle{Source: "https://h/b", Error: "answered 404 Not Found"}
		}, []string{"the bundle https://h/b: answered 404 Not Found. What was had before stays"}},
		{"no decision log", func(s *api.Status) { s.Policies.DecisionLog = &api.DecisionLog{Error: "answered 503"} }, []string{"the decision log: answered 503"}},
		{"policies on trial", func(s *api.Status) { s.Policies.Trial = &model.PolicyTrial{} }, nil},
		{"no policies", func(s *api.Status) { s.Policies = api.Policies{} }, []string{"mode is enforce and there are no policies: nothing will ever be done"}},
		{"no policies in a dry run", func(s *api.Status) { s.Mode, s.Policies = model.DryRun, api.Policies{} }, []string{"mode is dry-run and there are no policies"}},
		{"no policies, and nobody wants any", func(s *api.Status) { s.Mode, s.Policies = model.Monitor, api.Policies{} }, nil},
		{"no enforcer", func(s *api.Status) { s.Enforcer = api.Enforcer{State: "unreachable", Error: "refused"} }, []string{"the enforcer does not answer, so that nothing can be done: refused"}},
		{"kernel tables full", func(s *api.Status) { s.LostSinceBoot = model.Lost{Cells: 2, Cgroups: 1} }, []string{"kernel tables were full: 2 waits and 1 cgroup counts"}},
		{"records lost, counts not", func(s *api.Status) { s.LostSinceBoot = model.Lost{Events: 5, LateNS: 5} }, nil},
		{"it costs too much", func(s *api.Status) {
			s.Host.CPUs, s.Cost.CPUPercent, s.LastSampleAt = 2, 1.25, s.StartedAt.Add(6*time.Minute)
		}, []string{"breakerd itself has taken 1.25 % of one CPU since the start, and 1.00 % is the most"}},
		{"as much on more CPUs", func(s *api.Status) {
			s.Host.CPUs, s.Cost.CPUPercent, s.LastSampleAt = 4, 1.25, s.StartedAt.Add(6*time.Minute)
		}, nil},
		{"as much, and what the start took counts still", func(s *api.Status) {
			s.Host.CPUs, s.Cost.CPUPercent, s.LastSampleAt = 2, 1.25, s.StartedAt.Add(time.Minute)
		}, nil},
		{"it takes too much memory", func(s *api.Status) { s.Cost.RSSBytes = 75 << 20 }, []string{"breakerd itself takes 75 MB of memory, and 60 MB is the most"}},
		{"all at once", func(s *api.Status) {
			s.Config.Error, s.Policies, s.Enforcer.State, s.LostSinceBoot.Cells = "x", api.Policies{Error: "x"}, "unreachable", 1
		}, []string{"the configuration", "policies refused", "the enforcer", "kernel tables"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := healthy()
			tt.spoil(&s)
			got := problems(&s)
			if len(got) != len(tt.want) {
				t.Fatalf("got %q, want %q", got, tt.want)
			}
			for i := range got {
				if !strings.HasPrefix(got[i], tt.want[i]) {
					t.Errorf("got %q, want %q…", got[i], tt.want[i])
				}
			}
		})
	}
}

func TestReadyIsThatSamplesAreTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		s.boot = 0
		s.run(t)
		v := (*view)(s.Daemon)
		if err := v.Ready(); err == nil || err.Error() != "no sample has been taken yet" {
			t.Errorf("before the first sample: %v", err)
		}
		time.Sleep(tickLength)
		s.feed(s.sample(0))
		if err := v.Ready(); err != nil {
			t.Errorf("after a sample: %v", err)
		}
		time.Sleep(2*observe.Longest + tickLength + time.Millisecond)
		if err := v.Ready(); err == nil || err.Error() != "the last sample is 4.251s old" {
			t.Errorf("long after the last one: %v", err)
		}
	})
}

func TestLeasesAreAListAlsoWhereThereAreNone(t *testing.T) {
	s := newStage(t, "")
	if got, err := (*view)(s.Daemon).Leases(t.Context()); err != nil || got == nil {
		t.Errorf("leases %v, error %v", got, err)
	}
}

func TestAReloadPutsNewPoliciesInForceAndKeepsTheOldOnesWhereTheNewAreBad(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStage(t, "")
		file := filepath.Join(t.TempDir(), "a.rego")
		write := func(text string) {
			if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
		s.conf.now.Policies.Paths = []string{file}
		s.doer.answer = func(_ context.Context, d model.Decision) model.Outcome {
			return model.Outcome{DecisionID: d.ID, DryRun: true}
		}
		reload := make(chan os.Signal)
		s.run(t)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.reloads(ctx, reload); close(ended) }()

		s.storm(20)
		if n := len(s.doer.asked()); n != 0 {
			t.Fatalf("%d decisions without policies", n)
		}
		write(freezeTree)
		reload <- os.Interrupt
		synctest.Wait()
		s.storm(2)
		if n := len(s.doer.asked()); n != 1 {
			t.Errorf("%d decisions after the policies were loaded, want 1", n)
		}
		in := (*view)(s.Daemon).policies()
		if in.Error != "" || !cmp.Equal(in.Packages, []string{"breaker.test"}) {
			t.Errorf("policies %+v", in)
		}

		write("package breaker.test\n\nimport rego.v1\n\nactoin contains 1\n deny")
		reload <- os.Interrupt
		synctest.Wait()
		bad := (*view)(s.Daemon).policies()
		if bad.Hash != in.Hash || !strings.Contains(bad.Error, "a.rego:") {
			t.Errorf("policies %+v, want the old ones and what is wrong with the new", bad)
		}
		s.feed(s.sample(20))
		for range 52 { // until its time is up, and it was seen to begin again
			s.storm(1)
		}
		if n := len(s.doer.asked()); n != 2 {
			t.Errorf("%d decisions, want 2: the old policies stay in force", n)
		}
		var told []systemd.MessageID
		for _, id := range s.diary.ids() {
			if id == systemd.MsgPoliciesLoaded || id == systemd.MsgPoliciesRefused {
				told = append(told, id)
			}
		}
		if diff := cmp.Diff([]systemd.MessageID{systemd.MsgPoliciesLoaded, systemd.MsgPoliciesRefused}, told); diff != "" {
			t.Error(diff)
		}
		cancel()
		<-ended
	})
}

func TestAnEnforcerThatDoesNotAnswerIsAnOutcomeAndAProblem(t *testing.T) {
	var told []error
	r := newRemote(t.TempDir(), func(err error) { told = append(told, err) }, noHistory{})
	defer r.close()
	o := r.propose(t.Context(), model.Decision{ID: "d-1"})
	if o.DecisionID != "d-1" || !strings.Contains(o.Error, "connect to breaker-enforcer") || o.LeaseID != "" {
		t.Errorf("outcome %+v, want an error", o)
	}
	if got := r.state(); got.State != "unreachable" {
		t.Errorf("state before the first heartbeat: %+v", got)
	}
	for range 3 {
		r.heartbeat(t.Context())
	}
	if len(told) != 1 || told[0] == nil {
		t.Errorf("told %v, want it once", told)
	}
	s := api.Status{Mode: model.Enforce, Policies: api.Policies{Packages: []string{"breaker.a"}}, Enforcer: r.state()}
	if p := problems(&s); len(p) != 1 || !strings.Contains(p[0], "is breaker-enforcer running, with the same --runtime-dir?") {
		t.Errorf("problems %q, want what to do", p)
	}
	if _, err := r.leases(t.Context()); err == nil {
		t.Error("leases of nobody")
	}
	if err := r.release(t.Context(), ""); err == nil {
		t.Error("released by nobody")
	}
}
