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
	"strconv"
	"sync"
	"syscall"
	"time"

	"github.com/breakerd/breakerd/model"
	"golang.org/x/sys/unix"
)

// Bounds of the server. Root, breakerd and all others have connections of their own, so that
// nobody else can crowd out a heartbeat, and breakerd not whoever lets go of everything.
const (
	maxConns     = 16                     // of each of them
	maxOther     = 4                      // of these, those of one user among all others
	idleTimeout  = time.Minute            // between two requests
	writeTimeout = 5 * time.Second        // for an answer
	undoTimeout  = 10 * time.Second       // for the wait on a release; the undo itself goes on
	lastWords    = 200 * time.Millisecond // for an answer once we stop
	serveBound   = 2 * time.Second        // for all connections to end: an undo and its confirmation
	hangUpEvery  = 100 * time.Millisecond // to look whether who proposed is still there
)

// Server answers on the enforcer's socket.
type Server struct {
	engine  *Engine
	access  access
	version string
	log     *slog.Logger
	started time.Time
	root    chan struct{} // tokens, one a connection
	trusted chan struct{}
	others  chan struct{}
	paces   paces
}

// NewServer makes a server for an engine.
func NewServer(e *Engine, allow AllowConfig, version string, log *slog.Logger) *Server {
	return &Server{
		engine: e, access: newAccess(allow), version: version, log: log, started: e.now(),
		root: make(chan struct{}, maxConns), trusted: make(chan struct{}, maxConns), others: make(chan struct{}, maxConns),
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
	if err := s.checkRuntimeDir(runtimeDir); err != nil {
		return nil, err
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
	ln, err := listen(temp)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	if err = s.open(temp); err == nil {
		err = os.Rename(temp, name)
	}
	if err != nil {
		ln.Close()
		os.Remove(temp)
		return nil, fmt.Errorf("listen on %s: %w", name, err)
	}
	return ln, nil
}

// listen opens a socket that nobody but its owner can connect to yet.
func listen(name string) (*net.UnixListener, error) {
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) error {
		// A socket is bound with the rights of its inode, less the umask (unix(7)).
		var err error
		if cerr := raw.Control(func(fd uintptr) { err = unix.Fchmod(int(fd), 0o600) }); cerr != nil {
			return cerr
		}
		return err
	}}
	ln, err := c.Listen(context.Background(), "unix", name)
	if err != nil {
		return nil, err
	}
	u := ln.(*net.UnixListener)
	u.SetUnlinkOnClose(false)
	return u, nil
}

// open lets the group connect to a new socket. It is held open meanwhile: whoever owns
// the directory can put a symlink in its place, and must not have us give rights to
// what that leads to.
func (s *Server) open(name string) error {
	fd, err := unix.Open(name, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("open socket: %w", err)
	}
	defer unix.Close(fd)
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return fmt.Errorf("stat socket: %w", err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK || int(st.Uid) != os.Geteuid() {
		return errors.New("open socket: somebody has put something else in its place")
	}
	if s.access.named {
		err := unix.Fchownat(fd, "", -1, int(s.access.group), unix.AT_EMPTY_PATH)
		// Only root can give it to a group it is not in.
		if err != nil && !(errors.Is(err, unix.EPERM) && os.Geteuid() != 0) {
			return fmt.Errorf("give socket to group %d: %w", s.access.group, err)
		}
	}
	// An O_PATH descriptor cannot be changed itself before 6.6 (fchmodat2), but through
	// its link in proc, which leads to the socket and nowhere else.
	if err := unix.Chmod("/proc/self/fd/"+strconv.Itoa(fd), 0o660); err != nil {
		return fmt.Errorf("let the group use the socket: %w", err)
	}
	return nil
}

// checkRuntimeDir refuses a directory where somebody else than root and breakerd's user
// could put a socket of his own in the place of ours.
func (s *Server) checkRuntimeDir(dir string) error {
	if os.Geteuid() != 0 {
		return nil // only in tests, whose directories are theirs
	}
	var st unix.Stat_t
	if err := unix.Stat(dir, &st); err != nil {
		return fmt.Errorf("stat runtime directory %s: %w", dir, err)
	}
	if owned := st.Uid == 0 || s.access.users && st.Uid == s.access.user; !owned || st.Mode&0o022 != 0 {
		return fmt.Errorf("open runtime directory %s: it must belong to root or to breakerd's user, and nobody else may write it", dir)
	}
	return nil
}

// Serve answers until ctx ends; then it closes the listener and every connection. It
// does not wait for a proposal whose disk does not come back.
func (s *Server) Serve(ctx context.Context, ln *net.UnixListener) error {
	var conns sync.WaitGroup
	defer func() {
		over := make(chan struct{})
		go func() {
			defer close(over)
			conns.Wait()
		}()
		select {
		case <-over:
		case <-time.After(serveBound):
			s.log.Warn("connections are left at the end")
		}
	}()
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
	stop := context.AfterFunc(ctx, func() {
		c.SetReadDeadline(time.Unix(1, 0))
		c.SetWriteDeadline(time.Now().Add(lastWords))
	})
	defer stop()
	p, err := peerOf(c)
	if err != nil {
		s.log.Warn("connection refused", keyError, err)
		return
	}
	pace, mine, leave := s.paces.of(p.uid, s.access.mayPropose(p))
	defer leave()
	room, most := s.room(p)
	if mine > most {
		s.answer(ctx, c, response{Error: fmt.Sprintf("more than %d connections of one user", most)})
		return
	}
	select {
	case room <- struct{}{}:
		defer func() { <-room }()
	default:
		s.answer(ctx, c, response{Error: fmt.Sprintf("more than %d connections", maxConns)})
		return
	}
	if s.access.mayPropose(p) && p.pid != 0 {
		defer s.engine.Protect(p.pid)()
	}
	in := bufio.NewReaderSize(c, maxLine)
	for {
		if pace.Wait(ctx) != nil {
			return // we stop
		}
		c.SetReadDeadline(time.Now().Add(idleTimeout))
		if ctx.Err() != nil {
			return
		}
		line, err := in.ReadSlice('\n')
		if errors.Is(err, bufio.ErrBufferFull) {
			s.answer(ctx, c, response{Error: fmt.Sprintf("read request: longer than %d bytes", maxLine)})
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
			out = s.do(ctx, c, p, r)
		}
		if s.answer(ctx, c, out) != nil {
			return
		}
	}
}

// room is where a connection has its place, and how many a user may have there.
func (s *Server) room(p peer) (room chan struct{}, most int) {
	switch {
	case p.uid == 0:
		return s.root, maxConns
	case s.access.mayPropose(p):
		return s.trusted, maxConns
	}
	return s.others, maxOther
}

func (s *Server) answer(ctx context.Context, c *net.UnixConn, out response) error {
	out.V = protocolVersion
	b, err := json.Marshal(out)
	if err != nil {
		b = fmt.Appendf(nil, `{"v":%d,"error":"the answer cannot be written as JSON"}`, protocolVersion)
	}
	c.SetWriteDeadline(time.Now().Add(writeTimeout))
	if ctx.Err() != nil {
		c.SetWriteDeadline(time.Now().Add(lastWords)) // it is the last answer
	}
	_, err = c.Write(append(b, '\n'))
	return err
}

// untilHangUp is ctx, and ends when the peer closes the connection. Who only stops to
// write still reads the answer.
func untilHangUp(ctx context.Context, c *net.UnixConn) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancelCause(ctx)
	raw, err := c.SyscallConn()
	if err != nil {
		return ctx, func() { cancel(nil) }
	}
	go func() {
		tick := time.NewTicker(hangUpEvery)
		defer tick.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-tick.C:
			}
			gone := false
			// POLLHUP needs not be asked for. It is not hidden by bytes that wait to be read.
			err := raw.Control(func(fd uintptr) {
				fds := []unix.PollFd{{Fd: int32(fd)}}
				n, err := unix.Poll(fds, 0)
				gone = err == nil && n == 1 && fds[0].Revents&unix.POLLHUP != 0
			})
			if err != nil || gone {
				cancel(errors.New("who proposed it has hung up"))
				return
			}
		}
	}()
	return ctx, func() { cancel(nil) }
}

func (s *Server) do(ctx context.Context, c *net.UnixConn, p peer, r request) (out response) {
	switch r.Op {
	case opPropose, opHeartbeat:
		if !s.access.mayPropose(p) {
			return response{Error: fmt.Sprintf("%s: %s may not; only root and breakerd's user may", r.Op, p)}
		}
	case opResume:
		// It arms, and breakerd shall not overrule whoever paused.
		if p.uid != 0 {
			return response{Error: fmt.Sprintf("%s: %s may not; only root may", r.Op, p)}
		}
	case opApprove:
		if !s.access.mayApprove(p) {
			return response{Error: fmt.Sprintf("%s: %s may not; only root may, and whom allow.approvers names in enforcer.yaml", r.Op, p)}
		}
	case opPause:
		if !s.access.mayRelease(p) {
			return response{Error: fmt.Sprintf("%s: %s may not; only root, breakerd's user and its group may", r.Op, p)}
		}
	case opRelease, opReleaseAll:
		if r.Reason != "" && !s.access.mayPropose(p) {
			return response{Error: fmt.Sprintf("%s for the reason %s: %s may not; only root and breakerd's user may", r.Op, r.Reason, p)}
		}
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
		present, cancel := untilHangUp(ctx, c)
		defer cancel()
		o := s.engine.Propose(present, *r.Decision)
		out.Outcome = &o
	case opHeartbeat:
		s.engine.Heartbeat()
	case opPause:
		if _, err := s.engine.Pause(time.Duration(r.ForMS)*time.Millisecond, p.String()); err != nil {
			return response{Error: err.Error()}
		}
		s.log.Warn("paused", keyPeer, p.String())
		out.Status = s.status()
	case opResume:
		if err := s.engine.Resume(); err != nil {
			return response{Error: err.Error()}
		}
		s.log.Warn("resumed", keyPeer, p.String())
		out.Status = s.status()
	case opLeases:
		out.Leases = s.engine.Leases()
	case opRelease:
		reason, who := r.Reason, ""
		if reason == "" {
			reason, who = model.EndReleased, p.String()
		}
		l, err := s.engine.release(ctx, r.Lease, reason, who)
		if err != nil {
			return response{Error: err.Error()}
		}
		out.Lease = &l
	case opLease:
		l, err := s.engine.Lease(r.Lease)
		if err != nil {
			return response{Error: err.Error()}
		}
		out.Lease = &l
	case opApprove:
		a, err := s.engine.Approve(r.Approval, p.String())
		if err != nil {
			return response{Error: err.Error()}
		}
		out.Approval = &a
	case opReleaseAll:
		out.Leases = s.engine.Leases()
		if err := s.engine.ReleaseAll(ctx, model.EndReleased); err != nil {
			return response{Error: err.Error()}
		}
	case opStatus:
		out.Status = s.status()
	}
	return out
}

func (s *Server) status() *Status {
	st := s.engine.Status()
	st.Version, st.StartedAt = s.version, s.started
	return &st
}

// Status is what the engine says about itself.
func (e *Engine) Status() Status {
	e.mu.Lock()
	defer e.mu.Unlock()
	st := Status{
		PID: os.Getpid(), Mode: e.mode, Leases: len(e.active), Recovered: e.recovered,
		HeartbeatTimeoutMS: e.config.Load().HeartbeatTimeout.D().Milliseconds(),
		MaxLeaseMS:         e.config.Load().MaxLease.D().Milliseconds(),
		Paused:             e.pauseLocked(e.now()),
		Approvals:          e.approvalsLocked(),
	}
	if !e.lastBeat.IsZero() {
		beat := e.lastBeat
		st.LastHeartbeat = &beat
	}
	return st
}
