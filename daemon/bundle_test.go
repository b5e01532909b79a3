package daemon

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/bundle"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

// archiveOf packs a policy and a revision.
func archiveOf(t *testing.T, revision, rego string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	var errs []error
	for _, f := range [][2]string{{".manifest", `{"revision": "` + revision + `", "roots": ["breaker"]}`}, {"test.rego", rego}} {
		errs = append(errs, w.WriteHeader(&tar.Header{Name: f[0], Mode: 0o644, Size: int64(len(f[1]))}))
		_, err := w.Write([]byte(f[1]))
		errs = append(errs, err)
	}
	if err := errors.Join(append(errs, w.Close(), z.Close())...); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// shop serves bundles.
type shop struct {
	mu      sync.Mutex
	archive []byte
	etag    string
	down    bool
	same    int // answers that it is the same still
}

func (s *shop) set(archive []byte, etag string, down bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.archive, s.etag, s.down, s.same = archive, etag, down, 0
}

func (s *shop) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.down:
		http.Error(w, "closed", http.StatusServiceUnavailable)
	case r.Header.Get("If-None-Match") == s.etag:
		s.same++
		w.WriteHeader(http.StatusNotModified)
	default:
		w.Header().Set("ETag", s.etag)
		_, _ = w.Write(s.archive)
	}
}

func newShopper(t *testing.T, source, dir string) *onDisk {
	s := newOnDisk(t)
	s.memory.dir, s.bundled.dir = dir, dir
	s.conf.now.Policies.Settle = 0
	s.conf.now.Policies.Bundle.Source = source
	s.conf.now.Policies.Bundle.Poll = config.Duration(5 * time.Millisecond)
	return s
}

// newTrier is one that tries new sets beside the one in force, and whose server does not answer.
func newTrier(t *testing.T, dir string) *onDisk {
	s := newShopper(t, "http://bundles.invalid/b", dir)
	s.conf.now.Mode, s.conf.now.Policies.Shadow = model.DryRun, config.Duration(time.Minute)
	s.bundled.of = s.conf.now.Policies.Bundle
	s.bundled.recall()
	return s
}

func TestABundleIsFetchedAgainWhenItIsAnotherAndOutlivesAStartWithoutTheServer(t *testing.T) {
	stock := &shop{}
	stock.set(archiveOf(t, "r1", freezeTree), `"1"`, false)
	server := httptest.NewServer(stock)
	defer server.Close()
	dir := t.TempDir()
	s := newShopper(t, server.URL, dir)
	s.start()
	first := s.until("the first bundle", func(p api.Policies) bool { return p.Hash != "" })
	if first.Bundle == nil || first.Bundle.Revision != "r1" || first.Error != "" || !cmp.Equal(first.Packages, []string{"breaker.test"}) {
		t.Errorf("%+v", first)
	}
	s.until("it is asked with the ETag", func(api.Policies) bool {
		stock.mu.Lock()
		defer stock.mu.Unlock()
		return stock.same > 2
	})
	stock.set(archiveOf(t, "r2", denyNever), `"2"`, false)
	second := s.until("the second", func(p api.Policies) bool { return p.Hash != first.Hash })
	if second.Bundle.Revision != "r2" {
		t.Errorf("%+v", second.Bundle)
	}

	whole := archiveOf(t, "r3", freezeTree)
	stock.set(whole[:len(whole)/2], `"3"`, false)
	half := s.until("half a bundle", func(p api.Policies) bool { return p.Bundle.Error != "" })
	if half.Hash != second.Hash || half.Bundle.Revision != "r2" || half.Bundle.Error != "breaks off: it is half an archive" {
		t.Errorf("after half a bundle: %+v, %+v", half, half.Bundle)
	}
	stock.set(archiveOf(t, "r4", "package breaker.test\n\ndeny contains 5\n"), `"4"`, false)
	bad := s.until("one with a bad policy", func(p api.Policies) bool { return p.Error != "" })
	if bad.Hash != second.Hash || bad.Bundle.Revision != "r2" || s.answers.revision(second.Hash) != "r2" || bad.Error != server.URL+": test.rego:3:15: deny: is a number, not a string" {
		t.Errorf("after a bad bundle: %+v", bad)
	}
	stock.set(nil, "", true)
	s.until("the server is down", func(p api.Policies) bool { return p.Bundle.Error == "answered 503 Service Unavailable" })

	again := newShopper(t, server.URL, dir)
	again.bundled.begin(t.Context(), again.conf.now.Policies.Bundle)
	again.loadPolicies()
	if is := again.is(); is.Hash != second.Hash || is.Bundle.Revision != "r2" {
		t.Errorf("after a restart without the server: %+v, %+v", is, is.Bundle)
	}
	elsewhere := newShopper(t, server.URL+"/other", dir)
	elsewhere.bundled.begin(t.Context(), elsewhere.conf.now.Policies.Bundle)
	elsewhere.loadPolicies()
	if is := elsewhere.is(); is.Hash != "" || !strings.Contains(is.Error, "/other: it was not had yet, and what it denies is not known without it") {
		t.Errorf("with another source: %+v", is)
	}
}

func (s *onDisk) is() api.Policies { return (*view)(s.Daemon).policies() }

func TestTheRevisionIsThatOfTheBundleInForce(t *testing.T) {
	s := newTrier(t, t.TempDir())
	check := func(when, want string) {
		t.Helper()
		hash := s.shelf.inForce().Hash()
		if is, logged := s.is().Bundle.Revision, s.answers.revision(hash); is != want || logged != want {
			t.Errorf("%s: status says %q, and the decision log %q, want %q", when, is, logged, want)
		}
	}
	load := func(revision, rego string) {
		s.bundled.fetched(s.bundled.of, bundle.Fetched{Archive: archiveOf(t, revision, rego)}, nil)
		s.loadPolicies()
	}
	load("r1", freezeTree)
	check("in force", "r1")
	load("r2", freezeTree)
	check("the same under another revision", "r2")
	before := s.shelf.inForce().Hash()
	load("r3", freezeTree+"\n# another\n")
	check("while another is on trial", "r2")
	s = newTrier(t, s.memory.dir)
	s.loadPolicies()
	check("after a restart", "r2")
	if _, err := s.promote("", "a test"); err != nil {
		t.Fatal(err)
	}
	check("once it is in force", "r3")
	if got := s.answers.revision(before); got != "" {
		t.Errorf("of an answer of the set before: %q", got)
	}
}

func TestABundleThatIsNotSignedAsItMustBeIsRefusedAndTheOldSetStays(t *testing.T) {
	dir := t.TempDir()
	file, key := filepath.Join(dir, "b.tar.gz"), filepath.Join(dir, "key")
	if err := errors.Join(os.WriteFile(file, archiveOf(t, "r1", freezeTree), 0o600), os.WriteFile(key, []byte("secret"), 0o600)); err != nil {
		t.Fatal(err)
	}
	s := newShopper(t, file, dir)
	s.loadPolicies()
	before := s.is()
	if before.Error != "" || before.Bundle != nil && before.Bundle.Error != "" || before.Hash == "" {
		t.Fatalf("%+v", before)
	}
	s.conf.now.Policies.Bundle.PublicKey, s.conf.now.Policies.Bundle.Algorithm = key, "HS256"
	s.loadPolicies()
	if is := s.is(); is.Hash != before.Hash || is.Error != "bundle "+file+": is not signed, and policies.bundle.public_key asks for a signature" {
		t.Errorf("%+v", is)
	}
	if e := s.diary.last(systemd.MsgPoliciesRefused); e.Fields[systemd.FieldPolicyHash] != before.Hash {
		t.Errorf("told %+v", e)
	}
}

func TestABundleOnTheDiskIsWatched(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "b.tar.gz")
	s := newOnDisk(t)
	s.conf.now.Policies.Bundle.Source = file
	s.start()
	s.until("it is missing", func(p api.Policies) bool { return strings.Contains(p.Error, "no such file") })
	if err := os.WriteFile(file, archiveOf(t, "r1", freezeTree), 0o600); err != nil {
		t.Fatal(err)
	}
	if is := s.until("it is there", func(p api.Policies) bool { return p.Error == "" && p.Hash != "" }); is.Bundle.Revision != "r1" {
		t.Errorf("%+v", is.Bundle)
	}
}

func TestTheRevisionOnTheDiskIsThatOfWhatCouldBeLoaded(t *testing.T) {
	file := filepath.Join(t.TempDir(), "b.tar.gz")
	s := newShopper(t, file, t.TempDir())
	s.bundled.of = s.conf.now.Policies.Bundle
	for _, b := range [][2]string{{"r1", freezeTree}, {"r2", "package breaker.test\n\ndeny contains 5\n"}} {
		if err := os.WriteFile(file, archiveOf(t, b[0], b[1]), 0o600); err != nil {
			t.Fatal(err)
		}
		s.loadPolicies()
	}
	if is := s.is(); is.Error == "" || is.Bundle.Revision != "r1" || s.answers.revision(is.Hash) != "r1" {
		t.Errorf("after a bad one: %+v, %+v", is, is.Bundle)
	}
}

func TestAKeptBundleThatIsDamagedIsFetchedAgain(t *testing.T) {
	stock := &shop{}
	stock.set(archiveOf(t, "r1", freezeTree), `"1"`, false)
	server := httptest.NewServer(stock)
	defer server.Close()
	dir := t.TempDir()
	s := newShopper(t, server.URL, dir)
	s.start()
	s.until("the bundle", func(p api.Policies) bool { return p.Hash != "" })
	for _, tt := range []struct{ name, file, text, want string }{
		{"the archive", bundleFile, "x", ""},
		{"what is said of it", bundleInfoFile, "{", "the one that was kept: unexpected end of JSON input"},
		{"a later version", bundleInfoFile, `{"version": 2}`, "the one that was kept: it is of version 2, and this breakerd knows 1"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if err := os.WriteFile(filepath.Join(dir, tt.file), []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			again := newShopper(t, server.URL, dir)
			ctx, cancel := context.WithCancel(t.Context())
			cancel() // nothing is fetched
			again.bundled.begin(ctx, again.conf.now.Policies.Bundle)
			if is := again.bundled.state(); is.Error != tt.want || again.bundled.last != nil || again.bundled.etag != "" {
				t.Errorf("%+v", is)
			}
		})
	}
}

func TestAServerThatIsAskedMoreOftenFromNowOnIsNoReasonToRefuseItsBundle(t *testing.T) {
	stock := &shop{}
	stock.set(archiveOf(t, "r1", freezeTree), `"1"`, false)
	server := httptest.NewServer(stock)
	defer server.Close()
	s := newShopper(t, server.URL, t.TempDir())
	next := s.conf.get()
	s.conf.load = func() (settings.Settings, error) { return next, nil }
	s.start()
	first := s.until("the bundle", func(p api.Policies) bool { return p.Hash != "" })
	next.Policies.Bundle.Poll *= 2
	s.reload()
	s.until("it is asked again", func(p api.Policies) bool {
		return s.conf.get().Policies.Bundle.Poll == next.Policies.Bundle.Poll && p.Bundle.AskedAt != nil && len(s.diary.ids()) > 1
	})
	if is := s.is(); is.Error != "" || is.Hash != first.Hash {
		t.Errorf("%+v", is)
	}
	if diff := cmp.Diff([]systemd.MessageID{systemd.MsgPoliciesLoaded, systemd.MsgConfigLoaded}, s.diary.ids()); diff != "" {
		t.Errorf("told: %s", diff)
	}
}

func TestABundleOfAServerWithoutETagsIsKeptOnce(t *testing.T) {
	archive := archiveOf(t, "r1", freezeTree)
	var asked, kept atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		_, _ = w.Write(archive)
	}))
	defer server.Close()
	s := newShopper(t, server.URL, t.TempDir())
	keep := s.bundled.keep
	s.bundled.keep = func(name string, text []byte) error {
		kept.Add(1)
		return keep(name, text)
	}
	s.start()
	is := s.until("it is asked again and again", func(p api.Policies) bool { return p.Hash != "" && asked.Load() > 5 })
	if is.Error != "" || is.Bundle.Error != "" || kept.Load() != 2 {
		t.Errorf("%d files written: %+v", kept.Load(), is)
	}
}
