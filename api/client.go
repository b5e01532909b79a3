package api

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/report"
)

// Client asks a running breakerd.
type Client struct {
	socket string
	http   *http.Client
}

// NewClient is a client of the breakerd that has its sockets in a directory.
func NewClient(runtimeDir string) *Client {
	socket := filepath.Join(runtimeDir, SocketName)
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		var d net.Dialer
		return d.DialContext(ctx, "unix", socket)
	}
	return &Client{socket: socket, http: &http.Client{Transport: &http.Transport{DialContext: dial}}}
}

// Status asks how breakerd is doing.
func (c *Client) Status(ctx context.Context) (Status, error) { return get[Status](ctx, c, "/status") }

// Ready asks whether breakerd sees.
func (c *Client) Ready(ctx context.Context) error {
	body, err := c.do(ctx, http.MethodGet, "/readyz")
	if err != nil {
		return err
	}
	return body.Close()
}

// Past asks for those that are kept, too, the newest first.
func (c *Client) Past(ctx context.Context, f model.IncidentFilter) ([]model.Incident, error) {
	q := stretch(f.Since, f.Until)
	for name, value := range map[string]string{"kind": string(f.Kind), "cgroup": f.Cgroup, "unit": f.Unit} {
		if value != "" {
			q.Set(name, value)
		}
	}
	q.Set("most", strconv.Itoa(cmp.Or(f.Most, MaxIncidents)))
	return get[[]model.Incident](ctx, c, "/incidents?"+q.Encode())
}

// Report asks what was decided since a time, and what came of it.
func (c *Client) Report(ctx context.Context, since, until time.Time) (report.Report, error) {
	return get[report.Report](ctx, c, "/report?"+stretch(since, until).Encode())
}

func stretch(since, until time.Time) url.Values {
	q := url.Values{}
	if !since.IsZero() {
		q.Set("since", since.Format(time.RFC3339Nano))
	}
	if !until.IsZero() {
		q.Set("until", until.Format(time.RFC3339Nano))
	}
	return q
}

// Incidents asks for all that are remembered, the newest first.
func (c *Client) Incidents(ctx context.Context) ([]model.Incident, error) {
	return get[[]model.Incident](ctx, c, "/incidents")
}

// Blame asks who made whom wait; a window of 0 is since breakerd started.
func (c *Client) Blame(ctx context.Context, window time.Duration) (Blame, error) {
	path := "/blame"
	if window != 0 {
		path += "?window=" + url.QueryEscape(window.String())
	}
	return get[Blame](ctx, c, path)
}

// Story asks for all that is known of one incident.
func (c *Client) Story(ctx context.Context, id string) (model.Story, error) {
	return get[model.Story](ctx, c, "/incidents/"+url.PathEscape(id))
}

// Processes asks for the processes that weigh most.
func (c *Client) Processes(ctx context.Context, r Ranking) ([]model.ProcessFigures, error) {
	return get[[]model.ProcessFigures](ctx, c, "/processes?"+r.query())
}

// Cgroups asks for the cgroups that weigh most.
func (c *Client) Cgroups(ctx context.Context, r Ranking) ([]model.CgroupFigures, error) {
	return get[[]model.CgroupFigures](ctx, c, "/cgroups?"+r.query())
}

func (r Ranking) query() string {
	q := url.Values{}
	if r.By != "" {
		q.Set("sort", string(r.By))
	}
	if r.Most != 0 {
		q.Set("most", strconv.Itoa(r.Most))
	}
	return q.Encode()
}

// WhyNot asks what was seen of a process or a cgroup, and how far it is from an incident.
func (c *Client) WhyNot(ctx context.Context, s Subject) (model.WhyNot, error) {
	q := url.Values{"cgroup": {s.Cgroup}}
	if s.PID != 0 {
		q = url.Values{"pid": {strconv.Itoa(int(s.PID))}}
	}
	return get[model.WhyNot](ctx, c, "/whynot?"+q.Encode())
}

// Breakers asks what is known of holding culprits.
func (c *Client) Breakers(ctx context.Context) ([]model.Breaker, error) {
	return get[[]model.Breaker](ctx, c, "/breakers")
}

// Leases asks what is held.
func (c *Client) Leases(ctx context.Context) ([]model.Lease, error) {
	return get[[]model.Lease](ctx, c, "/leases")
}

// Release ends one lease, or all of them where the ID is "".
func (c *Client) Release(ctx context.Context, id string) error {
	path := "/leases/release"
	if id != "" {
		path = "/leases/" + url.PathEscape(id) + "/release"
	}
	body, err := c.do(ctx, http.MethodPost, path)
	if err != nil {
		return err
	}
	return body.Close()
}

// Promote puts the policies in force that are on trial. Where a hash is given they must be
// those, so that nobody says yes to another set than he has looked at.
func (c *Client) Promote(ctx context.Context, hash string) (p Promoted, err error) {
	path := "/policies/promote"
	if hash != "" {
		path += "?" + url.Values{"hash": {hash}}.Encode()
	}
	body, err := c.do(ctx, http.MethodPost, path)
	if err != nil {
		return p, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&p); err != nil {
		return p, fmt.Errorf("read what was promoted: %w", err)
	}
	return p, nil
}

// Record streams a recording until the context ends.
func (c *Client) Record(ctx context.Context) (io.ReadCloser, error) {
	return c.do(ctx, http.MethodGet, "/recording")
}

func get[T any](ctx context.Context, c *Client, path string) (v T, err error) {
	body, err := c.do(ctx, http.MethodGet, path)
	if err != nil {
		return v, err
	}
	defer body.Close()
	if err := json.NewDecoder(body).Decode(&v); err != nil {
		return v, fmt.Errorf("read the answer to %s: %w", path, err)
	}
	return v, nil
}

func (c *Client) do(ctx context.Context, method, path string) (io.ReadCloser, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://breakerd"+path, nil)
	if err != nil {
		return nil, err
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return nil, c.explain(err)
	}
	if v, err := strconv.Atoi(resp.Header.Get(versionHeader)); err == nil && v > Version {
		resp.Body.Close()
		return nil, fmt.Errorf("breakerd on %s answers in version %d of the API, and this program knows %d: use the one of the same package", c.socket, v, Version)
	}
	if resp.StatusCode == http.StatusOK {
		return resp.Body, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, 64<<10))
	var said Error
	if json.Unmarshal(text, &said) != nil {
		said.Message = strings.TrimSpace(string(text))
	}
	if said.Message == "" {
		said.Message = fmt.Sprintf("breakerd answered %s %s with %s and said nothing", method, path, resp.Status)
	}
	if resp.StatusCode == http.StatusNotFound {
		return nil, missing(said.Message)
	}
	return nil, errors.New(said.Message)
}

// missing is what the server says of a thing that is not there.
type missing string

func (m missing) Error() string        { return string(m) }
func (m missing) Is(target error) bool { return target == ErrNotFound }

// explain says what a person can do about a breakerd that does not answer.
func (c *Client) explain(err error) error {
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("breakerd does not answer on %s: is it running? Start it, or say where it is with --runtime-dir", c.socket)
	case errors.Is(err, os.ErrPermission):
		return fmt.Errorf("may not talk to breakerd on %s: run as root, or as a member of the socket's group", c.socket)
	}
	var op *url.Error
	if errors.As(err, &op) {
		err = op.Err
	}
	return fmt.Errorf("talk to breakerd on %s: %w", c.socket, err)
}
