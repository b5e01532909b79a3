package api

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/model"
)

// ErrNotFound says that there is no such incident or lease.
var ErrNotFound = errors.New("not found")

// ErrBadRequest says that a request makes no sense; the text says why.
var ErrBadRequest = errors.New("bad request")

// ErrForbidden says that the one who asks may not.
var ErrForbidden = errors.New("may not")

// Listen opens the socket. One that a dead process left is replaced; one that somebody
// answers on is not, and neither is anything that is no socket.
func Listen(path string) (net.Listener, error) {
	// sun_path holds 108 bytes with its zero (unix(7)).
	if len(path) > 107 {
		return nil, fmt.Errorf("listen on %s: the path is longer than a socket's can be (107 bytes): choose another --runtime-dir", path)
	}
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
	case err != nil:
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	case info.Mode().Type() != fs.ModeSocket:
		return nil, fmt.Errorf("listen on %s: something else than a socket is there: remove it, or choose another --runtime-dir", path)
	default:
		if err := removeStale(path); err != nil {
			return nil, err
		}
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, err
	}
	if err := os.Chmod(path, 0o660); err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// removeStale removes a socket that nobody answers on.
func removeStale(path string) error {
	conn, err := net.DialTimeout("unix", path, time.Second)
	switch {
	case err == nil:
		conn.Close()
		return fmt.Errorf("listen on %s: a running breakerd already answers there: stop it, or choose another --runtime-dir", path)
	case !errors.Is(err, fs.ErrNotExist) && !errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("listen on %s: %w", path, err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove the socket that a dead breakerd left: %w", err)
	}
	return nil
}

// Serve answers until the context ends, and waits a moment for the answers under way: a
// recording that ends with breakerd is to have its end.
func Serve(ctx context.Context, l net.Listener, src Source) error {
	srv := &http.Server{
		Handler:           versioned(Handler(src)),
		ReadHeaderTimeout: 5 * time.Second,
		IdleTimeout:       time.Minute,
		MaxHeaderBytes:    16 << 10,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ConnContext:       withConn,
	}
	down := make(chan struct{})
	stop := context.AfterFunc(ctx, func() {
		defer close(down)
		// Streams end with ctx; whatever else is under way gets a moment.
		bounded, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		if srv.Shutdown(bounded) != nil {
			srv.Close()
		}
	})
	err := srv.Serve(l) // which returns as soon as the shutdown begins
	if !stop() {
		<-down
	}
	if !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}

// versioned says with every answer which version it is of.
func versioned(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set(versionHeader, strconv.Itoa(Version))
		h.ServeHTTP(w, r)
	})
}

// Handler is every route of the server.
func Handler(src Source) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := src.Ready(); err != nil {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
			return
		}
		fmt.Fprintln(w, "ok")
	})
	mux.HandleFunc("GET /metrics", func(w http.ResponseWriter, r *http.Request) { writeMetrics(w, r, src.Status(r.Context())) })
	mux.HandleFunc("GET /status", answer(func(r *http.Request) (any, error) { return src.Status(r.Context()), nil }))
	mux.HandleFunc("GET /incidents", answer(func(r *http.Request) (any, error) {
		if r.URL.RawQuery == "" {
			return brief(src.Incidents()), nil
		}
		filter, err := filterOf(r)
		if err != nil {
			return nil, err
		}
		all, err := src.Past(r.Context(), filter)
		return brief(all), err
	}))
	mux.HandleFunc("GET /incidents/{id}", answer(func(r *http.Request) (any, error) { return src.Story(r.Context(), r.PathValue("id")) }))
	mux.HandleFunc("GET /report", answer(func(r *http.Request) (any, error) {
		since, until, err := stretchOf(r)
		if err != nil {
			return nil, err
		}
		return src.Report(r.Context(), since, until)
	}))
	mux.HandleFunc("GET /blame", answer(func(r *http.Request) (any, error) {
		window, err := windowOf(r)
		if err != nil {
			return nil, err
		}
		return src.Blame(window)
	}))
	mux.HandleFunc("GET /processes", answer(func(r *http.Request) (any, error) {
		ranking, err := rankingOf(r)
		if err != nil {
			return nil, err
		}
		return src.Processes(r.Context(), ranking)
	}))
	mux.HandleFunc("GET /cgroups", answer(func(r *http.Request) (any, error) {
		ranking, err := rankingOf(r)
		if err != nil {
			return nil, err
		}
		return src.Cgroups(r.Context(), ranking)
	}))
	mux.HandleFunc("GET /whynot", answer(func(r *http.Request) (any, error) {
		subject, err := subjectOf(r)
		if err != nil {
			return nil, err
		}
		return src.WhyNot(r.Context(), subject)
	}))
	mux.HandleFunc("GET /leases", answer(func(r *http.Request) (any, error) { return src.Leases(r.Context()) }))
	mux.HandleFunc("GET /breakers", answer(func(r *http.Request) (any, error) { return src.Breakers(r.Context()) }))
	mux.HandleFunc("POST /leases/release", answer(func(r *http.Request) (any, error) { return nil, src.Release(r.Context(), "") }))
	mux.HandleFunc("POST /leases/{id}/release", answer(func(r *http.Request) (any, error) {
		return nil, src.Release(r.Context(), r.PathValue("id"))
	}))
	mux.HandleFunc("POST /policies/promote", answer(func(r *http.Request) (any, error) {
		who, err := caller(r)
		if err != nil {
			return nil, err
		}
		hash, err := src.Promote(r.Context(), who, r.URL.Query().Get("hash"))
		return Promoted{hash}, err
	}))
	mux.HandleFunc("GET /recording", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/jsonl")
		// An error in the middle has no other way to be told than a recording without an end.
		if err := src.Record(r.Context(), flushed{w}); err != nil && r.Context().Err() == nil {
			panic(http.ErrAbortHandler)
		}
	})
	return mux
}

// brief leaves the triage to the answer about one incident: a list would be megabytes.
func brief(all []model.Incident) []model.Incident {
	for i := range all {
		all[i].Triage = nil
	}
	return slices.Concat([]model.Incident{}, all) // [] and not null where there is none
}

func filterOf(r *http.Request) (f model.IncidentFilter, err error) {
	q := r.URL.Query()
	f = model.IncidentFilter{Kind: model.Kind(q.Get("kind")), Cgroup: q.Get("cgroup"), Unit: q.Get("unit"), Most: MaxIncidents}
	if f.Kind != "" && !slices.Contains(model.Kinds, f.Kind) {
		return f, fmt.Errorf("%w: kind %q is none of %v", ErrBadRequest, f.Kind, model.Kinds)
	}
	if text := q.Get("most"); text != "" {
		if f.Most, err = strconv.Atoi(text); err != nil || f.Most < 1 || f.Most > MaxIncidents {
			return f, fmt.Errorf("%w: most %q is not between 1 and %d", ErrBadRequest, text, MaxIncidents)
		}
	}
	f.Since, f.Until, err = stretchOf(r)
	return f, err
}

// stretchOf reads since and until, each a time; until is now where it is not said.
func stretchOf(r *http.Request) (since, until time.Time, err error) {
	until = time.Now()
	for _, of := range []struct {
		name string
		at   *time.Time
	}{{"since", &since}, {"until", &until}} {
		text := r.URL.Query().Get(of.name)
		if text == "" {
			continue
		}
		if *of.at, err = time.Parse(time.RFC3339Nano, text); err != nil {
			return since, until, fmt.Errorf("%w: %s %q is no time: write one such as 2026-01-02T03:04:05Z", ErrBadRequest, of.name, text)
		}
	}
	if !since.Before(until) {
		return since, until, fmt.Errorf("%w: since is not before until", ErrBadRequest)
	}
	return since, until, nil
}

func rankingOf(r *http.Request) (Ranking, error) {
	out := Ranking{By: model.SortCPU, Most: 100}
	if by := r.URL.Query().Get("sort"); by != "" {
		out.By = model.SortKey(by)
		if !slices.Contains(model.SortKeys, out.By) {
			return out, fmt.Errorf("%w: sort %q is none of %v", ErrBadRequest, by, model.SortKeys)
		}
	}
	if text := r.URL.Query().Get("most"); text != "" {
		most, err := strconv.Atoi(text)
		if err != nil || most < 1 || most > MaxRanked {
			return out, fmt.Errorf("%w: most %q is not between 1 and %d", ErrBadRequest, text, MaxRanked)
		}
		out.Most = most
	}
	return out, nil
}

func subjectOf(r *http.Request) (Subject, error) {
	cgroup, pid := r.URL.Query().Get("cgroup"), r.URL.Query().Get("pid")
	switch {
	case (cgroup == "") == (pid == ""):
		return Subject{}, fmt.Errorf("%w: name one of cgroup and pid", ErrBadRequest)
	case cgroup != "":
		return Subject{Cgroup: cgroup}, nil
	}
	n, err := strconv.ParseInt(pid, 10, 32)
	if err != nil || n < 1 {
		return Subject{}, fmt.Errorf("%w: pid %q is no process id", ErrBadRequest, pid)
	}
	return Subject{PID: int32(n)}, nil
}

func windowOf(r *http.Request) (time.Duration, error) {
	text := r.URL.Query().Get("window")
	if text == "" {
		return 0, nil
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		return 0, fmt.Errorf("%w: window %q is no duration: write one such as 30s or 5m", ErrBadRequest, text)
	}
	return d, nil
}

// answer writes what a function returns as JSON.
func answer(f func(*http.Request) (any, error)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		v, err := f(r)
		if err == nil && v == nil {
			v = struct{}{}
		}
		var text []byte
		if err == nil {
			text, err = encode(v)
		}
		status := http.StatusOK
		if err != nil {
			status = statusOf(err)
			text, _ = encode(Error{strings.TrimPrefix(err.Error(), ErrBadRequest.Error()+": ")}) // a text always can
		}
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(status)
		_, _ = w.Write(text) // where the client has gone there is nobody to tell
	}
}

// encode makes the whole text before any of it is sent, so that what cannot be written
// is an error and not an answer that breaks off.
func encode(v any) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	err := enc.Encode(v)
	return b.Bytes(), err
}

func statusOf(err error) int {
	switch {
	case errors.Is(err, ErrNotFound):
		return http.StatusNotFound
	case errors.Is(err, ErrBadRequest):
		return http.StatusBadRequest
	case errors.Is(err, ErrForbidden):
		return http.StatusForbidden
	}
	return http.StatusInternalServerError
}

// flushed sends each write at once: whoever records wants to see each sample come.
type flushed struct{ http.ResponseWriter }

func (f flushed) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	if err == nil {
		err = http.NewResponseController(f.ResponseWriter).Flush()
	}
	return n, err
}
