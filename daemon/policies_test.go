package daemon

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/systemd"
)

// onDisk is a stage with a folder of policies that is watched for real.
type onDisk struct {
	*stage
	t       *testing.T
	dir     string
	signals chan os.Signal
}

func newOnDisk(t *testing.T) *onDisk {
	s := &onDisk{newStage(t, ""), t, t.TempDir(), make(chan os.Signal)}
	s.conf.now.Policies.Paths = []string{s.dir}
	s.conf.now.Policies.Settle = config.Duration(20 * time.Millisecond)
	return s
}

func (s *onDisk) start() {
	ctx, cancel := context.WithCancel(s.t.Context())
	ended := make(chan struct{}, 2)
	go func() { _ = s.pipeline.run(ctx); ended <- struct{}{} }()
	go func() { s.reloads(ctx, s.signals); ended <- struct{}{} }()
	s.t.Cleanup(func() { cancel(); <-ended; <-ended })
}

// reload does as systemctl reload.
func (s *onDisk) reload() { s.signals <- os.Interrupt }

func (s *onDisk) write(name, text string) {
	s.t.Helper()
	if err := os.WriteFile(filepath.Join(s.dir, name), []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// until waits for the status to say something about the policies.
func (s *onDisk) until(what string, is func(api.Policies) bool) (p api.Policies) {
	s.t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(time.Millisecond) {
		if p = (*view)(s.Daemon).policies(); is(p) {
			return p
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("%s: %+v", what, p)
		}
	}
}

func TestAChangeOfTheFilesIsLoadedByItselfAndABadOneIsNot(t *testing.T) {
	s := newOnDisk(t)
	s.write("a.rego", freezeTree)
	s.start()
	in := s.until("the first set", func(p api.Policies) bool { return cmp.Equal(p.Packages, []string{"breaker.test"}) })

	s.write("b.rego", "package breaker.test\n\ndeny contains 5\n")
	bad := s.until("the bad one is refused", func(p api.Policies) bool { return p.Error != "" })
	if bad.Hash != in.Hash || !bad.LoadedAt.Equal(in.LoadedAt) || bad.RefusedAt == nil || !strings.Contains(bad.Error, "b.rego:3:15: deny: is a number, not a string") {
		t.Errorf("after a bad change: %+v, and before: %+v", bad, in)
	}
	s.write("b.rego", "package breaker.b\n\ndeny contains \"no\"\n")
	better := s.until("mended", func(p api.Policies) bool { return p.Error == "" })
	if better.Hash == in.Hash || !cmp.Equal(better.Packages, []string{"breaker.b", "breaker.test"}) {
		t.Errorf("after it was mended: %+v", better)
	}
	want := []systemd.MessageID{systemd.MsgPoliciesLoaded, systemd.MsgPoliciesRefused, systemd.MsgPoliciesLoaded}
	if diff := cmp.Diff(want, s.diary.ids()); diff != "" {
		t.Errorf("told: %s", diff)
	}
}

func TestHalfAFileIsNeverInForce(t *testing.T) {
	s := newOnDisk(t)
	s.write("a.rego", freezeTree)
	s.loadPolicies()
	before := (*view)(s.Daemon).policies()
	s.start()
	// Each half of this file would be a set by itself.
	f, err := os.Create(filepath.Join(s.dir, "b.rego"))
	if err != nil {
		t.Fatal(err)
	}
	half := "package breaker.b\n\ndeny contains \"a\" if input.host.cpus > 100\n\n"
	// What is written before anything is watched is not known to go on.
	for len((*view)(s.Daemon).policies().Writing) == 0 {
		if _, err := f.WriteString("# one\n"); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Millisecond)
	}
	if _, err := f.WriteString(half); err != nil {
		t.Fatal(err)
	}
	if s.loadPolicies() { // as at systemctl reload
		t.Error("half a file is in force")
	}
	now := (*view)(s.Daemon).policies()
	if now.Hash != before.Hash || now.Error != f.Name()+": is being written; what is there is loaded once it is closed" {
		t.Errorf("while it is written: %+v", now)
	}
	if _, err := f.WriteString("deny contains \"b\" if input.host.cpus > 200\n"); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	s.until("the whole file is in force", func(p api.Policies) bool { return p.Hash != before.Hash && p.Error == "" })
	if n := len(s.shelf.inForce().Rules()); n != 3 {
		t.Errorf("%d rules are in force, want all 3", n)
	}
}

func TestHalfASetInANewFolderIsNeverInForce(t *testing.T) {
	s := newOnDisk(t)
	s.conf.now.Policies.Settle = config.Duration(200 * time.Millisecond)
	s.start()
	s.until("it is watched", func(api.Policies) bool { return s.watched.get() != nil && s.shelf.inForce() != nil })
	if err := os.MkdirAll(filepath.Join(s.dir, "new", "deep"), 0o700); err != nil {
		t.Fatal(err)
	}
	s.write("new/a.rego", freezeTree)
	s.until("it is heard", func(api.Policies) bool { return s.watched.restless() })
	for range 8 { // more comes within each time in which it has to be left alone
		time.Sleep(50 * time.Millisecond)
		s.watched.changed <- struct{}{} // as where a bundle is another
		s.write("new/deep/data.yaml", "x: 1\n")
		if s.shelf.inForce().Acts() {
			t.Fatal("half of it is in force")
		}
	}
	s.write("new/deep/b.rego", "package breaker.b\n\ndeny contains \"no\"\n")
	s.until("all of it is in force", func(p api.Policies) bool { return len(p.Packages) > 0 })
	if got := s.is().Packages; !cmp.Equal(got, []string{"breaker.b", "breaker.test"}) {
		t.Errorf("in force: %v", got)
	}
}

func TestTheSameFilesAgainAreNoNews(t *testing.T) {
	s := newOnDisk(t)
	s.write("a.rego", freezeTree)
	if !s.loadPolicies() {
		t.Fatal("nothing was loaded")
	}
	before := (*view)(s.Daemon).policies()
	s.write("a.rego", freezeTree)
	if s.loadPolicies() {
		t.Error("the same set is told as another")
	}
	if diff := cmp.Diff(before, (*view)(s.Daemon).policies()); diff != "" {
		t.Error(diff)
	}
	if n := len(s.diary.ids()); n != 1 {
		t.Errorf("told %d times", n)
	}
}
