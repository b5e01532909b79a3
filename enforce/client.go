package enforce

import (
	"bufio"
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Client talks to breaker-enforcer. It may be used by many at once; it connects when
// it has to, and again when the enforcer was restarted.
type Client struct {
	socket string
	idle   chan *clientConn
}

type clientConn struct {
	net.Conn
	in *bufio.Reader
}

// clientTimeout bounds a request whose context has no deadline: a confirmation and
// an undo, both at their default bounds, and time to spare.
const clientTimeout = 15 * time.Second

// NewClient makes a client for the enforcer of a runtime directory. It connects with
// the first request.
func NewClient(runtimeDir string) *Client {
	return &Client{socket: filepath.Join(runtimeDir, SocketName), idle: make(chan *clientConn, 2)}
}

// Propose asks for a decision to be carried out. The error says that the enforcer
// did not answer; the decision may be proposed again, and is carried out once.
func (c *Client) Propose(ctx context.Context, d model.Decision) (model.Outcome, error) {
	out, err := c.do(ctx, request{Op: opPropose, Decision: &d})
	if err == nil && out.Outcome == nil {
		err = errors.New("propose: the enforcer answered without an outcome")
	}
	if err != nil {
		return model.Outcome{}, err
	}
	return *out.Outcome, nil
}

// Heartbeat tells the enforcer that breakerd lives.
func (c *Client) Heartbeat(ctx context.Context) error {
	_, err := c.do(ctx, request{Op: opHeartbeat})
	return err
}

// Leases are the leases that have not ended.
func (c *Client) Leases(ctx context.Context) ([]model.Lease, error) {
	out, err := c.do(ctx, request{Op: opLeases})
	return out.Leases, err
}

// Release ends a lease and waits until it is undone.
func (c *Client) Release(ctx context.Context, id string) (model.Lease, error) {
	out, err := c.do(ctx, request{Op: opRelease, Lease: id})
	if err != nil || out.Lease == nil {
		return model.Lease{}, err
	}
	return *out.Lease, nil
}

// Undo ends a lease because it did not help, and waits until it is undone.
func (c *Client) Undo(ctx context.Context, id string) error {
	_, err := c.do(ctx, request{Op: opRelease, Lease: id, Reason: model.EndNoRelief})
	return err
}

// Lease is a lease, also one that has ended of late.
func (c *Client) Lease(ctx context.Context, id string) (model.Lease, error) {
	out, err := c.do(ctx, request{Op: opLease, Lease: id})
	if err != nil || out.Lease == nil {
		return model.Lease{}, err
	}
	return *out.Lease, nil
}

// Approve says yes to what a policy wants approved. Only root may, and whom the enforcer's
// configuration names.
func (c *Client) Approve(ctx context.Context, id string) (model.Approval, error) {
	out, err := c.do(ctx, request{Op: opApprove, Approval: id})
	if err != nil || out.Approval == nil {
		return model.Approval{}, err
	}
	return *out.Approval, nil
}

// ReleaseAll ends every lease, waits until all are undone, and returns them as they
// were before.
func (c *Client) ReleaseAll(ctx context.Context) ([]model.Lease, error) {
	out, err := c.do(ctx, request{Op: opReleaseAll})
	return out.Leases, err
}

// Status is what the enforcer says about itself.
func (c *Client) Status(ctx context.Context) (Status, error) {
	return c.status(ctx, request{Op: opStatus})
}

func (c *Client) status(ctx context.Context, r request) (Status, error) {
	out, err := c.do(ctx, r)
	if err != nil || out.Status == nil {
		return Status{}, err
	}
	return *out.Status, nil
}

// Pause has nothing new begun for so long, or until Resume where it is 0.
func (c *Client) Pause(ctx context.Context, long time.Duration) (Status, error) {
	return c.status(ctx, request{Op: opPause, ForMS: long.Milliseconds()})
}

// Resume ends a pause. Only root may.
func (c *Client) Resume(ctx context.Context) (Status, error) {
	return c.status(ctx, request{Op: opResume})
}

// Close closes the connections that are not in use.
func (c *Client) Close() error {
	for {
		select {
		case conn := <-c.idle:
			conn.Close()
		default:
			return nil
		}
	}
}

func (c *Client) do(ctx context.Context, r request) (response, error) {
	if _, bounded := ctx.Deadline(); !bounded {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, clientTimeout)
		defer cancel()
	}
	r.V = protocolVersion
	line, err := json.Marshal(r)
	if err != nil {
		return response{}, fmt.Errorf("%s: %w", r.Op, err)
	}
	line = append(line, '\n')
	if len(line) > maxLine {
		return response{}, fmt.Errorf("%s: the request of %d bytes is longer than %d", r.Op, len(line), maxLine)
	}
	// Connections that were idle may have died with an enforcer. Every operation can be
	// asked twice, so it is, on a new connection.
	for {
		conn, fresh, err := c.conn(ctx)
		if err != nil {
			return response{}, fmt.Errorf("%s: connect to breaker-enforcer: %w", r.Op, err)
		}
		out, err := conn.ask(ctx, line)
		if err != nil {
			conn.Close()
			if !fresh && ctx.Err() == nil {
				continue
			}
			return response{}, fmt.Errorf("%s: ask breaker-enforcer at %s: %w", r.Op, c.socket, err)
		}
		select {
		case c.idle <- conn:
		default:
			conn.Close()
		}
		if out.Error != "" {
			return response{}, errors.New(out.Error)
		}
		if out.V != protocolVersion {
			return response{}, fmt.Errorf("%s: the enforcer answers in version %d of the protocol, not %d: restart what is older, so that both are of one package", r.Op, out.V, protocolVersion)
		}
		return out, nil
	}
}

func (c *Client) conn(ctx context.Context) (conn *clientConn, fresh bool, err error) {
	select {
	case conn := <-c.idle:
		return conn, false, nil
	default:
	}
	var d net.Dialer
	raw, err := d.DialContext(ctx, "unix", c.socket)
	if err != nil {
		return nil, false, err
	}
	if err := isEnforcer(raw); err != nil {
		raw.Close()
		return nil, false, err
	}
	return &clientConn{raw, bufio.NewReader(raw)}, true, nil
}

// isEnforcer refuses an answer of anybody else than root: the runtime directory is breakerd's,
// who could put a socket of its own there, and tell an operator that everything is let go. The
// kernel tells who listens, which is systemd where it opened the socket.
func isEnforcer(c net.Conn) error {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return errors.New("it is no Unix socket")
	}
	p, err := peerOf(u)
	if err != nil {
		return err
	}
	if p.uid != 0 && int(p.uid) != os.Geteuid() { // the latter only in tests
		return fmt.Errorf("whoever listens there has uid %d and is no breaker-enforcer: have somebody look how it came there, and use systemctl stop breaker-enforcer to let go of everything", p.uid)
	}
	return nil
}

func (c *clientConn) ask(ctx context.Context, line []byte) (response, error) {
	deadline, _ := ctx.Deadline()
	if err := c.SetDeadline(deadline); err != nil {
		return response{}, err
	}
	stop := context.AfterFunc(ctx, func() { c.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// One that has no room for us answers at once and closes: what it said can be read still.
	_, werr := c.Write(line)
	b, err := readLine(c.in)
	if err != nil {
		err = cmp.Or(werr, err)
		if ctx.Err() != nil {
			err = context.Cause(ctx)
		}
		return response{}, err
	}
	// Unlike a request, an answer may have fields that this client does not know.
	var only struct {
		V int `json:"v"`
	}
	if json.Unmarshal(b, &only) == nil && only.V > protocolVersion {
		return response{V: only.V}, nil // which do refuses
	}
	var out response
	if err := json.Unmarshal(b, &out); err != nil {
		return response{}, fmt.Errorf("read answer: %w", err)
	}
	return out, nil
}

func readLine(in *bufio.Reader) ([]byte, error) {
	var line []byte
	for {
		part, err := in.ReadSlice('\n')
		line = append(line, part...)
		switch {
		case err == nil:
			return bytes.TrimSuffix(line, []byte("\n")), nil
		case !errors.Is(err, bufio.ErrBufferFull):
			return nil, err
		case len(line) > maxAnswer:
			return nil, fmt.Errorf("read answer: longer than %d bytes", maxAnswer)
		}
	}
}
