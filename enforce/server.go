package enforce

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// Bounds of the server. Those who may propose have connections of their own, so that
// nobody else can crowd out a heartbeat.
const (
	maxConns     = 16               // of those who may propose, and of all others
	idleTimeout  = time.Minute      // between two requests
	writeTimeout = 5 * time.Second  // for an answer
	undoTimeout  = 10 * time.Second // for the wait on a release; the undo itself goes on
)

// Server answers on the enforcer's socket.
type Server struct {
	engine  *Engine
	access  access
	version string
	log     *slog.Logger
	started time.Time
	trusted chan struct{} // tokens, one a connection
	others  chan struct{}
}

// NewServer makes a server for an engine.
func NewServer(e *Engine, allow AllowConfig, version string, log *slog.Logger) *Server {
	return &Server{
		engine: e, access: newAccess(allow), version: version, log: log, started: e.now(),
		trusted: make(chan struct{}, maxConns), others: make(chan struct{}, maxConns),
	}
}

// Listen opens the socket in the runtime directory. A socket that another enforcer
// listens on is an error; one that was left behind is replaced.
func (s *Server) Listen(runtimeDir string) (*net.UnixListener, error) {
	name := filepath.Join(runtimeDir, SocketName)
	// sun_path holds 108 bytes with its zero, and the name before the rename is longer.
	if len(name)+len(".new") > 107 {
		return nil, fmt.Errorf("listen on %s: the path is longer than a socket's can be (103 bytes)", name)
	}
	if info, err := os.Lstat(name); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return nil, fmt.Errorf("listen on %s: something else than a socket is there; remove it", name)
		}
		if c, err := net.Dial("unix", name); err == nil {
			c.Close()
			return nil, fmt.Errorf("listen on %s: another breaker-enforcer answers there", name)
		}
	}
	// It gets its name when its rights are set, so nobody meets it half made.
	temp := name + ".new"
	if err := os.Remove(temp); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	ln, err := net.ListenUnix("unix", &net.UnixAddr{Name: temp, Net: "unix"})
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	ln.SetUnlinkOnClose(false)
	err = os.Chmod(temp, 0o660)
	if err == nil && s.access.named {
		err = os.Chown(temp, -1, int(s.access.group))
		if errors.Is(err, unix.EPERM) && os.Geteuid() != 0 {
			err = nil // only root can give it to a group it is not in
		}
	}
	if err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		ln.Close()
		os.Remove(temp)
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	return ln, nil
}

// Serve answers until ctx ends; then it closes the listener and every connection.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	var conns sync.WaitGroup
	defer conns.Wait()
	stop := context.AfterFunc(ctx, func() { ln.Close() })
	defer stop()
	for {
		c, err := ln.AcceptUnix()
		switch {
		case ctx.Err() != nil:
			return nil
		case err != nil:
			// Out of files, for instance: leases go on, and end, without us.
			s.log.Error("accept failed", keyError, err)
			select {
			case <-ctx.Done():
				return nil
			case <-time.After(100 * time.Millisecond):
			}
			continue
		}
		conns.Go(func() { s.serve(ctx, c) })
	}
}

func (s *Server) serve(ctx context.Context, c *net.UnixConn) {
	defer c.Close()
	stop := context.AfterFunc(ctx, func() { c.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	p, err := peerOf(c)
	if err != nil {
		s.log.Warn("connection refused", keyError, err)
		return
	}
	room := s.others
	if s.access.mayPropose(p) {
		room = s.trusted
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	default:
		s.answer(c, response{Error: fmt.Sprintf("more than %d connections", maxConns)})
		return
	}
	if s.access.mayPropose(p) && p.pid != 0 {
		defer s.engine.Protect(p.pid)()
	}
	in := bufio.NewReaderSize(c, maxLine)
	for {
		c.SetReadDeadline(time.Now().Add(idleTimeout))
		if ctx.Err() != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.answer(c, response{Error: fmt.Sprintf("read request: longer than %d bytes", maxLine)})
			return
		}
		if err != nil {
			return // gone, idle for too long, or we stop
		}
		r, err := parseRequest(line)
		var out response
		if err != nil {
			out.Error = err.Error()
		} else {
			out = s.do(ctx, p, r)
		}
		if s.answer(c, out) != nil {
			return
		}
	}
}

func (s *Server) answer(c *net.UnixConn, out response) error {
	out.V = protocolVersion
	b, err := json.Marshal(out)
	if err != nil {
		b = fmt.Appendf(nil, `{"v":%d,"error":"the answer cannot be written as JSON"}`, protocolVersion)
	}
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	_, err = c.Write(append(b, '\n'))
	return err
}

func (s *Server) do(ctx context.Context, p peer, r request) (out response) {
	switch r.Op {
	case opPropose, opHeartbeat:
		if !s.access.mayPropose(p) {
			return response{Error: fmt.Sprintf("%s: %s may not; only root and breakerd's user may", r.Op, p)}
		}
	case opRelease, opReleaseAll:
		if !s.access.mayRelease(p) {
			return response{Error: fmt.Sprintf("%s: %s may not; only root, breakerd's user and its group may", r.Op, p)}
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, undoTimeout)
		defer cancel()
	}
	switch r.Op {
	case opPropose:
		s.engine.Heartbeat()
		o := s.engine.Propose(ctx, *r.Decision)
		out.Outcome = &o
	case opHeartbeat:
		s.engine.Heartbeat()
	case opLeases:
		out.Leases = s.engine.Leases()
	case opRelease:
		l, err := s.engine.Release(ctx, r.Lease, p.String())
		if err != nil {
			return response{Error: err.Error()}
		}
		out.Lease = &l
	case opReleaseAll:
		out.Leases = s.engine.Leases()
		if err := s.engine.ReleaseAll(ctx, model.EndReleased); err != nil {
			return response{Error: err.Error()}
		}
	case opStatus:
		st := s.engine.Status()
		st.Version, st.StartedAt = s.version, s.started
		out.Status = &st
	}
	return out
}

// Status is what the engine says about itself.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Status{
		PID: os.Getpid(), Mode: e.mode, Leases: len(e.active), Recovered: e.recovered,
		HeartbeatTimeoutMS: e.config.HeartbeatTimeout.D().Milliseconds(),
		MaxLeaseMS:         e.config.MaxLease.D().Milliseconds(),
	}
	if !e.lastBeat.IsZero() {
		beat := e.lastBeat
		st.LastHeartbeat = &beat
	}
	return st
}
