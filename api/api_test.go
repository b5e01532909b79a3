package api

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/report"
)

// source is a breakerd that says what it is told to say.
type source struct {
	mu       sync.Mutex
	released []string
	notReady error
	severity float64
	promoted bool
	// recorded is closed when a recording has ended.
	recorded chan struct{}
	record   func(context.Context, io.Writer) error
}

func newSource() *source { return &source{recorded: make(chan struct{})} }

var at = time.Date(2026, 3, 1, 12, 0, 0, 0, time.UTC)

func (s *source) Status(context.Context) Status {
	return Status{Version: "1.0 <b>", Mode: model.DryRun, StartedAt: at, Problems: []string{}}
}

func (s *source) Incidents() []model.Incident {
	return []model.Incident{{ID: "b2", Kind: model.ForkStorm, OpenedAt: at, Severity: s.severity}, {ID: "a1", Kind: model.CPUContention, OpenedAt: at}}
}

func (s *source) Past(_ context.Context, f model.IncidentFilter) ([]model.Incident, error) {
	return []model.Incident{{ID: fmt.Sprintf("%s %s %s %d %s", f.Kind, f.Cgroup, f.Unit, f.Most, f.Since.Format(time.RFC3339)), Triage: &model.Triage{}}}, nil
}

func (s *source) Story(_ context.Context, id string) (model.Story, error) {
	for _, in := range s.Incidents() {
		if in.ID == id {
			return model.Story{Incident: in, Verdicts: []model.Verdict{{Times: 7}}}, nil
		}
	}
	return model.Story{}, fmt.Errorf("incident %q: %w", id, ErrNotFound)
}

func (s *source) Report(_ context.Context, since, until time.Time) (*report.Report, error) {
	if since.Year() < 2000 {
		return nil, fmt.Errorf("%w: history.enabled is false", model.ErrNoHistory)
	}
	return report.New(since, until).Report(at), nil
}

func (s *source) Blame(window time.Duration) (Blame, error) {
	if window > time.Minute {
		return Blame{}, fmt.Errorf("%w: a minute is remembered", ErrBadRequest)
	}
	return Blame{Since: at.Add(-window), Until: at, Pairs: []Pair{{StallMS: window.Seconds()}}, Victims: []VictimShares{}}, nil
}

func (s *source) Processes(_ context.Context, r Ranking) ([]model.ProcessFigures, error) {
	return []model.ProcessFigures{{Comm: string(r.By), ForksPerSecond: float64(r.Most)}}, nil
}

func (s *source) Cgroups(_ context.Context, r Ranking) ([]model.CgroupFigures, error) {
	return []model.CgroupFigures{{Cgroup: "/" + string(r.By)}}, nil
}

func (s *source) WhyNot(_ context.Context, subject Subject) (model.WhyNot, error) {
	if subject.PID == 7 {
		return model.WhyNot{}, fmt.Errorf("process 7: %w", ErrNotFound)
	}
	return model.WhyNot{Cgroup: model.CgroupFigures{Cgroup: subject.Cgroup, Processes: int(subject.PID)}}, nil
}

func (s *source) Breakers(context.Context) ([]model.Breaker, error) {
	return []model.Breaker{{Cgroup: "/a", State: model.BreakerHalfOpen, LastEffect: model.EffectNone}}, nil
}
func (s *source) Leases(context.Context) ([]model.Lease, error) {
	return []model.Lease{{ID: "a1-1", State: model.LeaseHeld}}, nil
}

func (s *source) Release(_ context.Context, id string) error {
	switch id {
	case "unknown":
		return fmt.Errorf("release %q: %w", id, ErrNotFound)
	case "stuck":
		return errors.New("release stuck: not thawed yet")
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.released = append(s.released, id)
	return nil
}

func (s *source) Promote(_ context.Context, who Caller, hash string) (string, error) {
	if who.UID != uint32(os.Getuid()) || who.PID != int32(os.Getpid()) {
		return "", fmt.Errorf("%w: %v is another", ErrForbidden, who)
	}
	if s.promoted || hash != "" && hash != "sha256:5f" {
		return "", fmt.Errorf("%w: no set is on trial", ErrBadRequest)
	}
	s.promoted = true
	return "sha256:5f", nil
}

func (s *source) Record(ctx context.Context, w io.Writer) error {
	defer close(s.recorded)
	return s.record(ctx, w)
}

func (s *source) Ready() error { return s.notReady }

// serve runs the real server on a real socket. stop ends it and gives what it returned.
func serve(t *testing.T, src Source) (dir string, stop func() error) {
	t.Helper()
	dir = t.TempDir()
	l, err := Listen(filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- Serve(ctx, l, src) }()
	var once sync.Once
	stop = func() (err error) {
		once.Do(func() {
			cancel()
			select {
			case err = <-served:
			case <-time.After(10 * time.Second):
				err = errors.New("the server did not end within 10 s")
			}
		})
		return err
	}
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return dir, stop
}

// ask is an HTTP client that knows nothing of package api.
func ask(t *testing.T, dir, method, path string) (status int, kind, body string) {
	t.Helper()
	c := &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(dir, SocketName))
		},
	}}
	req, err := http.NewRequestWithContext(t.Context(), method, "http://breakerd"+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, resp.Header.Get("Content-Type"), string(text)
}

func TestRoutes(t *testing.T) {
	const jsonText, plain = "application/json", "text/plain; charset=utf-8"
	tests := []struct {
		name, method, path string
		status             int
		kind               string
		want               string // within the body
	}{
		{"alive", "GET", "/healthz", 200, plain, "ok\n"},
		{"ready", "GET", "/readyz", 200, plain, "ok\n"},
		{"status, with < and > as they are", "GET", "/status", 200, jsonText, `{"version":"1.0 <b>","pid":0,"mode":"dry-run",`},
		{"incidents", "GET", "/incidents", 200, jsonText, `[{"id":"b2","kind":"fork_storm"`},
		{"one incident", "GET", "/incidents/a1", 200, jsonText, `{"id":"a1","kind":"cpu_contention"`},
		{"no such incident", "GET", "/incidents/zz", 404, jsonText, `{"error":"incident \"zz\": not found"}` + "\n"},
		{"an odd incident", "GET", "/incidents/%2e%2e%2f%00", 404, jsonText, `not found`},
		{"blame since the start", "GET", "/blame", 200, jsonText, `"stall_ms":0}`},
		{"blame of the last 30 s", "GET", "/blame?window=30s", 200, jsonText, `"stall_ms":30}`},
		{"a window that is no duration", "GET", "/blame?window=soon", 400, jsonText, `{"error":"window \"soon\" is no duration: write one such as 30s or 5m"}` + "\n"},
		{"a window without a unit", "GET", "/blame?window=30", 400, jsonText, `is no duration`},
		{"a negative window", "GET", "/blame?window=-30s", 400, jsonText, `is no duration`},
		{"a window of nothing", "GET", "/blame?window=0s", 400, jsonText, `is no duration`},
		{"a window that overflows", "GET", "/blame?window=999999999h", 400, jsonText, `is no duration`},
		{"a window that is not remembered", "GET", "/blame?window=1h", 400, jsonText, `{"error":"a minute is remembered"}` + "\n"},
		{"processes", "GET", "/processes", 200, jsonText, `"comm":"cpu"`},
		{"a few processes", "GET", "/processes?sort=rss&most=3", 200, jsonText, `"comm":"rss"`},
		{"a sort key that is none", "GET", "/processes?sort=nice", 400, jsonText, `{"error":"sort \"nice\" is none of [stall_caused stall_suffered cpu rss forks]"}`},
		{"more than there may be", "GET", "/cgroups?most=1001", 400, jsonText, `is not between 1 and 1000`},
		{"none", "GET", "/cgroups?most=0", 400, jsonText, `is not between 1 and 1000`},
		{"cgroups", "GET", "/cgroups?sort=forks", 200, jsonText, `"cgroup":"/forks"`},
		{"why not, of a cgroup", "GET", "/whynot?cgroup=/a%20b", 200, jsonText, `"cgroup":"/a b"`},
		{"why not, of a process", "GET", "/whynot?pid=12", 200, jsonText, `"processes":12`},
		{"why not, of one that has gone", "GET", "/whynot?pid=7", 404, jsonText, `{"error":"process 7: not found"}`},
		{"why not, of nobody", "GET", "/whynot", 400, jsonText, `name one of cgroup and pid`},
		{"why not, of two", "GET", "/whynot?pid=1&cgroup=/a", 400, jsonText, `name one of cgroup and pid`},
		{"why not, of no number", "GET", "/whynot?pid=-1", 400, jsonText, `is no process id`},
		{"why not, of too large a number", "GET", "/whynot?pid=4294967296", 400, jsonText, `is no process id`},
		{"leases", "GET", "/leases", 200, jsonText, `[{"version":0,"id":"a1-1","state":"held"`},
		{"release one", "POST", "/leases/a1-1/release", 200, jsonText, "{}\n"},
		{"what is kept", "GET", "/incidents?since=2026-01-02T03:04:05Z&kind=fork_storm&cgroup=/a&unit=b.service&most=5", 200, jsonText, `[{"id":"fork_storm /a b.service 5 2026-01-02T03:04:05Z"`},
		{"a kind that there is not", "GET", "/incidents?kind=x", 400, jsonText, `kind \"x\" is none of`},
		{"a time that is none", "GET", "/incidents?since=yesterday", 400, jsonText, `since \"yesterday\" is no time: write one such as`},
		{"too many", "GET", "/incidents?most=1001", 400, jsonText, "is not between 1 and 1000"},
		{"the wrong way round", "GET", "/report?since=2026-01-02T03:04:05Z&until=2025-01-02T03:04:05Z", 400, jsonText, "since is not before until"},
		{"a story", "GET", "/incidents/a1", 200, jsonText, `"times":7`},
		{"a report", "GET", "/report?since=2026-01-02T03:04:05Z", 200, jsonText, `{"since":"2026-01-02T03:04:05Z","until":`},
		{"a report without a history", "GET", "/report", 500, jsonText, "there is no history: history.enabled is false"},
		{"release all", "POST", "/leases/release", 200, jsonText, "{}\n"},
		{"release what there is not", "POST", "/leases/unknown/release", 404, jsonText, `{"error":"release \"unknown\": not found"}` + "\n"},
		{"release what does not go", "POST", "/leases/stuck/release", 500, jsonText, `{"error":"release stuck: not thawed yet"}` + "\n"},
		{"release by looking", "GET", "/leases/a1-1/release", 405, plain, "Method Not Allowed"},
		{"an unknown route", "GET", "/secrets", 404, plain, "404 page not found"},
		{"the root", "GET", "/", 404, plain, "404 page not found"},
	}
	src := newSource()
	dir, _ := serve(t, src)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			status, kind, body := ask(t, dir, tt.method, tt.path)
			if status != tt.status || kind != tt.kind || !strings.Contains(body, tt.want) {
				t.Errorf("got %d %s %s\nwant %d %s %s", status, kind, body, tt.status, tt.kind, tt.want)
			}
		})
	}
	if diff := cmp.Diff([]string{"a1-1", ""}, src.released); diff != "" {
		t.Error(diff)
	}
}

func TestNotReadyIs503WithTheReason(t *testing.T) {
	src := newSource()
	src.notReady = errors.New("no sample has been taken yet")
	dir, _ := serve(t, src)
	if status, _, body := ask(t, dir, "GET", "/readyz"); status != 503 || body != "no sample has been taken yet\n" {
		t.Errorf("got %d %q", status, body)
	}
	if err := NewClient(dir).Ready(t.Context()); err == nil || err.Error() != "no sample has been taken yet" {
		t.Errorf("the client says %q", err)
	}
}

func TestWhatJSONCannotSayIsAnErrorAndNotAnEmptyAnswer(t *testing.T) {
	src := newSource()
	src.severity = math.NaN()
	dir, _ := serve(t, src)
	if status, _, body := ask(t, dir, "GET", "/incidents"); status != 500 || !strings.Contains(body, "NaN") {
		t.Errorf("got %d %q, want 500 and what is wrong", status, body)
	}
}

func TestTheClientReadsWhatTheServerSays(t *testing.T) {
	src := newSource()
	dir, _ := serve(t, src)
	c, ctx := NewClient(dir), t.Context()
	if got, err := c.Status(ctx); err != nil || !cmp.Equal(got, src.Status(ctx)) {
		t.Errorf("status %+v, error %v", got, err)
	}
	if got, err := c.Incidents(ctx); err != nil || !cmp.Equal(got, src.Incidents()) {
		t.Errorf("incidents %+v, error %v", got, err)
	}
	if got, err := c.Breakers(ctx); err != nil || len(got) != 1 || got[0].LastEffect != model.EffectNone {
		t.Errorf("breakers %+v, %v", got, err)
	}
	if got, err := c.Past(ctx, model.IncidentFilter{Since: at, Kind: model.ForkStorm, Unit: "u"}); err != nil || got[0].ID != "fork_storm  u 1000 2026-03-01T12:00:00Z" || got[0].Triage != nil {
		t.Errorf("past %+v, error %v", got, err)
	}
	if got, err := c.Story(ctx, "b2"); err != nil || got.ID != "b2" || len(got.Verdicts) != 1 {
		t.Errorf("story %+v, error %v", got, err)
	}
	if got, err := c.Report(ctx, at, at.Add(time.Hour)); err != nil || !got.Until.Equal(at.Add(time.Hour)) {
		t.Errorf("report %+v, error %v", got, err)
	}
	if _, err := c.Promote(ctx, "sha256:6&a"); err == nil || err.Error() != "no set is on trial" {
		t.Errorf("another: error %v", err)
	}
	if got, err := c.Promote(ctx, "sha256:5f"); err != nil || got.Hash != "sha256:5f" {
		t.Errorf("promoted %+v, error %v", got, err)
	}
	if _, err := c.Promote(ctx, ""); err == nil || err.Error() != "no set is on trial" {
		t.Errorf("error %v", err)
	}
	if got, err := c.Leases(ctx); err != nil || len(got) != 1 || got[0].ID != "a1-1" {
		t.Errorf("leases %+v, error %v", got, err)
	}
	for _, window := range []time.Duration{0, 1500 * time.Millisecond} {
		want, _ := src.Blame(window)
		if got, err := c.Blame(ctx, window); err != nil || !cmp.Equal(got, want) {
			t.Errorf("blame %+v, error %v, want %+v", got, err, want)
		}
	}
	if _, err := c.Blame(ctx, time.Hour); err == nil || err.Error() != "a minute is remembered" {
		t.Errorf("error %v", err)
	}
	if err := c.Ready(ctx); err != nil {
		t.Error(err)
	}
	if err := c.Release(ctx, "../a b"); err != nil {
		t.Error(err)
	}
	if err := c.Release(ctx, ""); err != nil {
		t.Error(err)
	}
	if diff := cmp.Diff([]string{"../a b", ""}, src.released); diff != "" {
		t.Error(diff)
	}
}
