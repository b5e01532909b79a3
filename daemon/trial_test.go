package daemon

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/bundle"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/systemd"
)

const denyNever = "package breaker.test\n\ndeny contains \"no\" if input.host.cpus > 100\n"

// theatre is a stage in a dry run whose policies are a file, and reloaded when a test says so.
type theatre struct {
	*stage
	t      *testing.T
	file   string
	reload func()
}

// newTheatre begins with a set in force. A new one is tried for ten seconds.
func newTheatre(t *testing.T, inForce string) *theatre {
	s := &theatre{stage: newStage(t, ""), t: t, file: filepath.Join(t.TempDir(), "test.rego")}
	s.conf.now.Mode = model.DryRun
	s.conf.now.Policies.Paths = []string{s.file}
	s.conf.now.Policies.Shadow = config.Duration(10 * time.Second)
	s.memory.dir = t.TempDir()
	s.write(inForce)
	if !s.loadPolicies() {
		t.Fatal("nothing was loaded")
	}
	s.pipeline.judge.SetPolicies(s.shelf.inForce())
	// The samples' clock is not that of the test; it begins with it here.
	s.boot = time.Since(time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC))
	return s
}

func (s *theatre) write(text string) {
	s.t.Helper()
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// again is breakerd after a restart: the files and what is kept are the same.
func (s *theatre) again() *theatre {
	next := newTheatre(s.t, denyNever)
	next.file, next.conf.now.Policies.Paths, next.memory.dir = s.file, []string{s.file}, s.memory.dir
	next.shelf = shelf{}
	next.loadPolicies()
	next.pipeline.judge.SetPolicies(next.shelf.inForce())
	next.pipeline.judge.Try(next.shelf.trial)
	return next
}

func (s *theatre) begin() {
	s.run(s.t)
	next, bad := s.conf.get(), error(nil)
	s.reload = reloading(s.t, s.stage, &next, &bad)
	s.feed(s.keyframe())
}

// keyframe is the first sample, with the processes.
func (s *theatre) keyframe() *model.Sample {
	sample := s.sample(0)
	sample.Keyframe = true
	sample.Procs.Forked = []model.Proc{
		{ProcID: pid1, Cgroup: 1, Comm: "init", Found: true},
		{ProcID: bomb, Parent: pid1, Cgroup: job, Comm: "bomb", Found: true},
	}
	return sample
}

func (s *theatre) is() api.Policies { return (*view)(s.Daemon).policies() }

func (s *theatre) told(id systemd.MessageID) (n int) {
	for _, told := range s.diary.ids() {
		if told == id {
			n++
		}
	}
	return n
}

func TestANewSetIsTriedBeforeItComesIntoForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTheatre(t, freezeTree)
		s.begin()
		before := s.is()
		s.write(denyNever + "action contains {\"kind\": \"freeze\", \"scope\": \"tree\", \"for\": \"5s\", \"reason\": \"x\"} if input.incident.kind == \"memory_leak\"\n")
		s.reload()
		on := s.is()
		if on.Hash != before.Hash || on.Trial == nil || on.Trial.Hash == before.Hash || on.Error != "" || s.told(systemd.MsgPoliciesTried) != 1 {
			t.Fatalf("after the reload: %+v", on)
		}
		s.storm(20)
		if n := len(s.doer.asked()); n != 1 {
			t.Errorf("%d decisions while another set is tried, want 1", n)
		}
		s.reload() // which changes nothing about the trial
		s.storm(18)
		if is := s.is(); is.Trial == nil || is.Trial.Fewer == 0 || !is.Trial.Since.Equal(on.Trial.Since) {
			t.Errorf("shortly before the end: %+v", is.Trial)
		}
		s.storm(4)
		is := s.is()
		if is.Hash != on.Trial.Hash || is.Trial != nil || is.Error != "" {
			t.Errorf("after its time: %+v", is)
		}
		if e := s.diary.last(systemd.MsgPoliciesLoaded); e.Fields[systemd.FieldBy] != "its trial" {
			t.Errorf("told %+v", e)
		}
		if _, err := os.Stat(filepath.Join(s.memory.dir, trialFile)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the trial is kept still: %v", err)
		}
	})
}

func TestASetThatWouldHoldSomebodyProtectedWaitsForAPerson(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTheatre(t, denyNever)
		s.protected = map[string]string{"/job": "it is sshd's"}
		s.board.incident(model.Incident{ID: "before", Culprit: model.Culprit{Cgroup: "/job"}})
		s.begin()
		before := s.is()
		s.write(freezeTree)
		s.reload()
		s.storm(60)
		is := s.is()
		const why = "it would freeze /job: it is protected: it is sshd's"
		if is.Hash != before.Hash || is.Trial == nil || is.Trial.Withheld != why || s.told(systemd.MsgPoliciesWithheld) != 1 || len(s.doer.asked()) != 0 {
			t.Fatalf("after its time: %+v", is)
		}
		v := (*view)(s.Daemon)
		if _, err := v.Promote(t.Context(), api.Caller{UID: 12345, PID: 7}, ""); !errors.Is(err, api.ErrForbidden) || !strings.Contains(err.Error(), "uid 12345 (pid 7) may not put policies in force") {
			t.Errorf("somebody else: %v", err)
		}
		if _, err := v.Promote(t.Context(), api.Caller{UID: 0, PID: 7}, "sha256:another"); !errors.Is(err, api.ErrBadRequest) || !strings.Contains(err.Error(), is.Trial.Hash+" is on trial, and not sha256:another") {
			t.Errorf("another set: %v", err)
		}
		if hash, err := v.Promote(t.Context(), api.Caller{UID: 0, PID: 7}, is.Trial.Hash); err != nil || hash != is.Trial.Hash {
			t.Errorf("promoted %s, %v", hash, err)
		}
		s.storm(8)
		if now := s.is(); now.Hash != is.Trial.Hash || now.Trial != nil || len(s.doer.asked()) != 1 {
			t.Errorf("after it was promoted: %+v, %d decisions", now, len(s.doer.asked()))
		}
		if e := s.diary.last(systemd.MsgPoliciesLoaded); e.Fields[systemd.FieldBy] != "uid 0 (pid 7)" {
			t.Errorf("told %+v", e)
		}
		if _, err := v.Promote(t.Context(), api.Caller{}, ""); !errors.Is(err, api.ErrBadRequest) {
			t.Errorf("where nothing is on trial: %v", err)
		}
	})
}

func TestATrialEndsWhereTheFilesSaySomethingElse(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		error      bool
		trial      bool
	}{
		{"the set in force again", freezeTree, false, false},
		{"another", freezeTree + "\n# another\n", false, true},
		{"a bad one", "package breaker.test\n\ndeny contains 5\n", true, false},
		{"one that asks for nothing, and is in force", denyNever, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTheatre(t, freezeTree)
				s.begin()
				s.write(freezeTree + "\n# tried\n")
				s.reload()
				tried := s.is().Trial
				s.write(tt.text)
				s.reload()
				if is := s.is(); (is.Error != "") != tt.error || (is.Trial != nil) != tt.trial || is.Trial != nil && is.Trial.Hash == tried.Hash {
					t.Errorf("%+v", is)
				}
				if tt.text == denyNever && s.shelf.inForce().Acts() {
					t.Error("a set that asks for nothing is waited for")
				}
			})
		})
	}
}

func TestWhereNothingCanBeDoneANewSetIsNotTried(t *testing.T) {
	for _, tt := range []struct {
		name   string
		before string
		change func(*theatre)
	}{
		{"monitor", freezeTree, func(s *theatre) { s.conf.now.Mode = model.Monitor }},
		{"shadow: 0s", freezeTree, func(s *theatre) { s.conf.now.Policies.Shadow = 0 }},
		{"nothing in force", "package breaker.test\n\nx := 1\n", func(*theatre) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			s := newTheatre(t, tt.before)
			tt.change(s)
			s.write(freezeTree + "\n# another\n")
			if !s.loadPolicies() || s.shelf.tried != nil || s.shelf.inForce().Sources()["test.rego"] != freezeTree+"\n# another\n" {
				t.Errorf("in force: %+v", s.is())
			}
		})
	}
}

func TestARestartDoesNotPutASetInForceThatIsOnTrial(t *testing.T) {
	s := newTheatre(t, freezeTree)
	inForce := s.shelf.inForce().Hash()
	s.write(freezeTree + "\n# tried\n")
	s.loadPolicies()
	tried := s.shelf.tried.Hash()

	next := s.again()
	if next.shelf.inForce().Hash() != inForce || next.shelf.tried == nil || next.shelf.tried.Hash() != tried {
		t.Errorf("after a restart: %+v", next.is())
	}
	s.write(freezeTree + "\n# changed while it did not run\n")
	next = s.again()
	if next.shelf.tried != nil || next.shelf.inForce().Hash() == inForce {
		t.Errorf("after a restart with other files: %+v", next.is())
	}
	if err := os.WriteFile(filepath.Join(s.memory.dir, trialFile), []byte(`{"version": 2}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, _, err := s.memory.recallTrial(tried); err == nil || !strings.Contains(err.Error(), "is of version 2, and this breakerd knows 1: use the one that wrote it, or remove the file") {
		t.Errorf("a file of a later version: %v", err)
	}
	if diff := cmp.Diff([]string{trialFile}, names(t, s.memory.dir)); diff != "" {
		t.Error(diff)
	}
	next = s.again()
	if next.shelf.tried == nil || !next.shelf.inForce().Empty() {
		t.Errorf("where it is not known what was in force: %+v", next.is())
	}
}

func TestARestartDoesNotForgetWhatATrialHasSeen(t *testing.T) {
	for _, tt := range []struct {
		name      string
		protected string
		ticks     int // of a storm before the restart
		want      string
	}{
		{"withheld, because of somebody protected", "it is sshd's", 60, "it would freeze /job: it is protected: it is sshd's"},
		{"withheld, because of somebody unseen", "", 60, "it would freeze /job: there was no incident of it before the trial, by which anybody could have seen what the new set does to it"},
		{"under way still", "it is sshd's", 20, "it would freeze /job: it is protected: it is sshd's"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newTheatre(t, denyNever)
				s.protected = map[string]string{"/job": tt.protected}
				s.begin()
				before := s.is()
				s.write(freezeTree)
				s.reload()
				s.storm(tt.ticks)
				tried := s.is().Trial
				if tried == nil || len(tried.More) != 1 || (tried.Withheld != "") != (tt.ticks == 60) {
					t.Fatalf("before the restart: %+v", tried)
				}
				next := s.again()
				next.board.incident(model.Incident{ID: "before", Culprit: model.Culprit{Cgroup: "/job"}}) // as the history has it now
				next.begin()
				if tt.ticks == 60 && (next.told(systemd.MsgPoliciesWithheld) != 1 || next.shelf.trial.Is().Withheld != tt.want) {
					t.Errorf("after the restart: %+v", next.shelf.trial.Is())
				}
				for range 48 { // nothing happens, until its time is up
					next.feed(next.sample(0))
				}
				if is := next.is(); is.Hash != before.Hash || is.Trial == nil || is.Trial.Withheld != tt.want || len(is.Trial.More) != 1 {
					t.Errorf("after its time: %+v, %+v", is, is.Trial)
				}
			})
		})
	}
}

func TestFilesThatCannotBeReadForAMomentDoNotPutInForceWhatWasWithheld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTheatre(t, denyNever)
		s.begin()
		s.write(freezeTree)
		s.reload()
		s.storm(60)
		withheld := s.is().Trial
		s.write("package breaker.test\n\ndeny contains 5\n")
		s.reload()
		s.write(freezeTree)
		s.reload()
		s.storm(60)
		if is := s.is(); withheld.Withheld == "" || is.Trial == nil || is.Trial.Withheld != withheld.Withheld {
			t.Errorf("once they can be read again: %+v", is)
		}
	})
}

func TestASetIsJudgedAlsoWhereItIsNotKnownWhatWasInForce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTheatre(t, freezeTree)
		if err := os.WriteFile(filepath.Join(s.memory.dir, trialFile), []byte("{"), 0o600); err != nil {
			t.Fatal(err)
		}
		s = s.again()
		s.protected = map[string]string{"/job": "it is sshd's"}
		s.board.incident(model.Incident{ID: "before", Culprit: model.Culprit{Cgroup: "/job"}})
		s.begin()
		s.storm(60)
		const why = "it would freeze /job: it is protected: it is sshd's"
		if is := s.is(); !s.shelf.inForce().Empty() || is.Trial == nil || is.Trial.Asked == 0 || is.Trial.Withheld != why {
			t.Errorf("after its time: %+v", is.Trial)
		}
	})
}

func names(t *testing.T, dir string) (all []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		all = append(all, e.Name())
	}
	return all
}

func TestFilesThatCannotBeLoadedDoNotPutInForceWhatWasOnTrialOnceTheyAreMended(t *testing.T) {
	tried := freezeTree + "\n# tried\n"
	for name, bad := range map[string]func(s *theatre){
		"before the restart": func(s *theatre) {
			s.write("package breaker.test\n\ndeny contains 5\n")
			s.loadPolicies()
			s.write(tried)
		},
		"after it": func(*theatre) {},
	} {
		t.Run(name, func(t *testing.T) {
			s := newTheatre(t, freezeTree)
			inForce := s.shelf.inForce().Hash()
			s.write(tried)
			s.loadPolicies()
			bad(s)
			next := newTheatre(t, freezeTree)
			next.conf.now.Policies.Paths, next.memory.dir = s.conf.now.Policies.Paths, s.memory.dir
			next.shelf = shelf{}
			if name == "after it" {
				s.write("package breaker.test\n\ndeny contains 5\n")
				next.loadPolicies()
				s.write(tried)
			}
			next.loadPolicies()
			if next.shelf.inForce().Hash() != inForce || next.shelf.tried == nil {
				t.Errorf("after a restart: %+v", next.is())
			}
		})
	}
}

func TestAnEndWhileABundleIsKeptPutsNothingInForceThatIsOnTrial(t *testing.T) {
	s := newTrier(t, t.TempDir())
	var ends []string // what was on the disk, had it ended then
	end := func() {
		dir := t.TempDir()
		if err := os.CopyFS(dir, os.DirFS(s.memory.dir)); err != nil {
			t.Fatal(err)
		}
		ends = append(ends, dir)
	}
	keep := s.bundled.keep
	for _, rego := range []string{"", "\n# second\n", "\n# third\n", ""} {
		s.bundled.fetched(s.bundled.of, bundle.Fetched{Archive: archiveOf(t, "r", freezeTree+rego)}, nil)
		s.loadPolicies()
		end()
		s.bundled.keep = func(name string, text []byte) error {
			end()
			defer end()
			return keep(name, text)
		}
	}
	if len(ends) != 16 {
		t.Errorf("it could end %d times, want 16", len(ends))
	}
	for i, dir := range ends {
		again := newTrier(t, dir)
		again.loadPolicies()
		if set := again.shelf.inForce(); set != nil && set.Hash() != s.shelf.inForce().Hash() {
			t.Errorf("after end %d: %+v", i, again.is())
		}
	}
}
