package enforce

import (
	"bufio"
	"context"
	"encoding/json"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// serve runs a server for the world's engine.
func serve(t *testing.T, w *world) (client *Client, dir string, stop func()) {
	t.Helper()
	dir = t.TempDir()
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	ln, err := s.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var work sync.WaitGroup
	work.Go(func() { w.e.Run(ctx) })
	work.Go(func() {
		if err := s.Serve(ctx, ln); err != nil {
			t.Error(err)
		}
	})
	client = NewClient(dir)
	return client, dir, func() { cancel(); work.Wait(); client.Close() }
}

func TestClientAndServer(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	c, _, stop := serve(t, w)
	defer stop()
	ctx := t.Context()
	if err := c.Heartbeat(ctx); err != nil {
		t.Fatal(err)
	}
	d := w.decide(w.tree("/a", 100), 100, time.Minute)
	out, err := c.Propose(ctx, d)
	if err != nil || out.LeaseID != d.ID || out.ConfirmedAt == nil {
		t.Fatalf("propose: %+v, %v", out, err)
	}
	if l, err := c.Leases(ctx); err != nil || len(l) != 1 || l[0].State != model.LeaseHeld {
		t.Errorf("leases: %+v, %v", l, err)
	}
	if st, err := c.Status(ctx); err != nil || st.Leases != 1 || st.Mode != model.Enforce || st.LastHeartbeat == nil || st.Version != "test" {
		t.Errorf("status: %+v, %v", st, err)
	}
	if _, err := c.Release(ctx, "other"); err == nil || !strings.Contains(err.Error(), "no such lease") {
		t.Errorf("release of another: %v", err)
	}
	if l, err := c.Release(ctx, d.ID); err != nil || l.EndReason != model.EndReleased || !strings.Contains(l.Note, "uid ") {
		t.Errorf("release: %+v, %v", l, err)
	}
	w.wantHeld("/a", false)
	d = w.decide(w.tree("/b", 200), 200, time.Minute)
	if _, err := c.Propose(ctx, d); err != nil {
		t.Fatal(err)
	}
	if l, err := c.ReleaseAll(ctx); err != nil || len(l) != 1 {
		t.Errorf("release all: %+v, %v", l, err)
	}
	w.wantHeld("/b", false)
	if l, err := c.Leases(ctx); err != nil || len(l) != 0 {
		t.Errorf("leases: %+v, %v", l, err)
	}
}

func TestAClientFindsTheEnforcerThatWasRestarted(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	c, dir, stop := serve(t, w)
	if err := c.Heartbeat(t.Context()); err != nil {
		t.Fatal(err)
	}
	stop()
	c = &Client{socket: c.socket, idle: c.idle}
	if err := c.Heartbeat(t.Context()); err == nil {
		t.Error("nobody is there and the heartbeat was heard")
	}
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	ln, err := s.Listen(dir) // over the socket that was left behind
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	go s.Serve(ctx, ln)
	if err := c.Heartbeat(t.Context()); err != nil {
		t.Error(err)
	}
	if _, err := s.Listen(dir); err == nil || !strings.Contains(err.Error(), "another breaker-enforcer answers") {
		t.Errorf("a second one listens: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, SocketName)); err != nil || info.Mode().Perm() != 0o660 {
		t.Errorf("the socket is %v, %v", info.Mode(), err)
	}
}

func TestWhatTheServerRefuses(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	_, dir, stop := serve(t, w)
	defer stop()
	for _, c := range []struct{ name, line, want string }{
		{"no JSON", "hello", "read request"},
		{"nothing", "", "read request"},
		{"an unknown operation", `{"v":2,"op":"kill"}`, `op "kill" is none of`},
		{"no operation", `{"v":2}`, `op "" is none of`},
		{"an unknown field", `{"v":2,"op":"leases","x":1}`, `unknown field "x"`},
		{"an unknown field in a decision", `{"v":2,"op":"propose","decision":{"x":1}}`, `unknown field "x"`},
		{"another version", `{"v":3,"op":"leases"}`, "version 3"},
		{"a later version with keys that nobody knows", `{"v":3,"op":"leases","since":7}`, "version 3, and this enforcer speaks 2: restart breaker-enforcer"},
		{"a later version whose keys are of another type", `{"v":3,"op":["leases"]}`, "version 3"},
		{"no version", `{"op":"leases"}`, "version 0"},
		{"a proposal without a decision", `{"v":2,"op":"propose"}`, "needs a decision"},
		{"a release for a reason of somebody else", `{"v":2,"op":"release","lease":"a","reason":"expired"}`, "no_relief is the only one"},
		{"a question about no lease", `{"v":2,"op":"lease"}`, "needs a lease"},
		{"a question about a lease that never was", `{"v":2,"op":"lease","lease":"fs-9"}`, "no such lease"},
		{"a question about a file", `{"v":2,"op":"lease","lease":"../../version"}`, "no such lease"},
		{"a yes to nothing", `{"v":2,"op":"approve"}`, "needs an approval"},
		{"a yes to what nobody asked", `{"v":2,"op":"approve","approval":"fs-9"}`, "no such question"},
		{"a release without a lease", `{"v":2,"op":"release"}`, "needs a lease"},
		{"two requests on a line", `{"v":2,"op":"leases"} {"v":2,"op":"leases"}`, "follows it"},
		{"a line without an end", strings.Repeat("x", maxLine+1), "longer than 65536"},
		{"deep nesting", `{"v":2,"op":"propose","decision":` + strings.Repeat("[", 30000), "read request"},
	} {
		t.Run(c.name, func(t *testing.T) {
			conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			go conn.Write([]byte(c.line + "\n"))
			line, err := bufio.NewReader(conn).ReadBytes('\n')
			var out response
			if err != nil || json.Unmarshal(line, &out) != nil || !strings.Contains(out.Error, c.want) || out.V != protocolVersion {
				t.Errorf("got %s, %v, want %s", line, err, c.want)
			}
		})
	}
}

func TestTheServerHasRoomForSoManyConnections(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	c, dir, stop := serve(t, w)
	defer stop()
	var conns []net.Conn
	for range maxConns {
		conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
		if err != nil {
			t.Fatal(err)
		}
		conns = append(conns, conn)
		// An answer says that the connection has its place.
		conn.Write([]byte("{\"v\":2,\"op\":\"leases\"}\n"))
		bufio.NewReader(conn).ReadBytes('\n')
	}
	if err := c.Heartbeat(t.Context()); err == nil || !strings.Contains(err.Error(), "connections") {
		t.Errorf("got %v", err)
	}
	for _, conn := range conns {
		conn.Close()
	}
	eventually(t, "room again", func() bool { return c.Heartbeat(t.Context()) == nil })
}

// One user of the group cannot keep the others from letting go of everything. Another user than
// root connects only where the test is root, and is of no group.
func TestAUserAmongTheOthersHasPlacesOfHisOwn(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	w := newWorld(t)
	w.open()
	defer w.close()
	c, dir, stop := serve(t, w)
	defer stop()
	for name := dir; name != "/tmp" && name != "/"; name = filepath.Dir(name) {
		if err := os.Chmod(name, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Chmod(filepath.Join(dir, SocketName), 0o666); err != nil {
		t.Fatal(err)
	}
	// connect has a user ask for the status.
	connect := func(uid int) (net.Conn, string) {
		t.Helper()
		connected := make(chan net.Conn)
		go func() {
			// The kernel keeps who connected. The thread is never used again.
			runtime.LockOSThread()
			defer close(connected)
			fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
			if err != nil {
				return
			}
			f := os.NewFile(uintptr(fd), "")
			defer f.Close()
			if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid)); errno != 0 {
				return
			}
			if unix.Connect(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, SocketName)}) != nil {
				return
			}
			if conn, err := net.FileConn(f); err == nil {
				connected <- conn
			}
		}()
		conn := <-connected
		if conn == nil {
			t.Fatalf("uid %d cannot connect", uid)
		}
		t.Cleanup(func() { conn.Close() })
		conn.Write([]byte("{\"v\":2,\"op\":\"leases\"}\n"))
		answer, _ := bufio.NewReader(conn).ReadString('\n')
		return conn, answer
	}
	for i := range maxConns {
		if _, answer := connect(1234); strings.Contains(answer, "connections of one user") != (i >= maxOther) {
			t.Errorf("connection %d: %s", i, answer)
		}
	}
	if _, answer := connect(1235); strings.Contains(answer, "error") {
		t.Errorf("another user: %s", answer)
	}
	if err := c.Heartbeat(t.Context()); err != nil {
		t.Errorf("root: %v", err)
	}
}

// Whoever may propose, and whoever may only release, cannot crowd out root.
func TestRootAndBreakerdAndOthersHaveRoomOfTheirOwn(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	s.access = access{self: 0, user: 990, users: true, group: 991, named: true}
	rooms := map[chan struct{}]string{}
	for _, p := range []peer{{uid: 0}, {uid: 990}, {uid: 1000, groups: []uint32{991}}} {
		room, _ := s.room(p)
		if who := rooms[room]; who != "" {
			t.Errorf("%s shares the room of %s", p, who)
		}
		rooms[room] = p.String()
		if cap(room) != maxConns {
			t.Errorf("%s has room for %d connections", p, cap(room))
		}
	}
}

// breakerd owns the runtime directory, and can put a socket of its own there.
func TestWhoIsNotRootIsNoEnforcer(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir()
	listening := make(chan error)
	go func() {
		// The kernel keeps who listened. The thread is never used again.
		runtime.LockOSThread()
		fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err == nil {
			err = unix.Bind(fd, &unix.SockaddrUnix{Name: filepath.Join(dir, SocketName)})
		}
		const nobody = 65534
		if _, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, nobody, nobody, nobody); err == nil && errno != 0 {
			err = errno
		}
		if err == nil {
			err = unix.Listen(fd, 1)
		}
		listening <- err
	}()
	if err := <-listening; err != nil {
		t.Fatal(err)
	}
	c := NewClient(dir)
	if _, err := c.ReleaseAll(t.Context()); err == nil || !strings.Contains(err.Error(), "uid 65534") {
		t.Errorf("got %v", err)
	}
}

func TestAccess(t *testing.T) {
	a := access{self: 50, user: 100, group: 200, users: true, named: true}
	for _, c := range []struct {
		name             string
		p                peer
		propose, release bool
	}{
		{"root", peer{uid: 0}, true, true},
		{"the enforcer's own user", peer{uid: 50}, true, true},
		{"breakerd", peer{uid: 100}, true, true},
		{"a member of the group", peer{uid: 1000, groups: []uint32{1000, 200}}, false, true},
		{"somebody else", peer{uid: 1000, groups: []uint32{1000, 0}}, false, false},
	} {
		if a.mayPropose(c.p) != c.propose || a.mayRelease(c.p) != c.release {
			t.Errorf("%s: propose %v, release %v", c.name, a.mayPropose(c.p), a.mayRelease(c.p))
		}
	}
	// A user or group that the machine does not have lets nobody in, not even uid 0's group.
	none := newAccess(AllowConfig{User: "no-such-user", Group: "no-such-group"})
	if p := (peer{uid: 4242, groups: []uint32{0}}); none.mayPropose(p) || none.mayRelease(p) {
		t.Error("somebody else may, where no user and no group is known")
	}
}

func TestListenRefusesWhatIsNoSocket(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	dir := t.TempDir()
	os.WriteFile(filepath.Join(dir, SocketName), nil, 0o600)
	if _, err := s.Listen(dir); err == nil || !strings.Contains(err.Error(), "something else") {
		t.Errorf("got %v", err)
	}
	if _, err := s.Listen("/" + strings.Repeat("x", 120)); err == nil || !strings.Contains(err.Error(), "longer") {
		t.Errorf("got %v", err)
	}
}

func FuzzRequest(f *testing.F) {
	f.Add([]byte(`{"v":2,"op":"heartbeat"}`))
	f.Add([]byte(`{"v":2,"op":"propose","decision":{"id":"a","action":{"kind":"freeze","for_ms":1e99}}}`))
	f.Add([]byte(`{"v":2,"op":"release","lease":"\ud800"}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if r, err := parseRequest(b); err == nil && (r.V != protocolVersion || r.Op == "" || r.Op == opPropose && r.Decision == nil) {
			t.Errorf("accepted %+v", r)
		}
	})
}

// stuck is a world whose next proposal waits for its record, as on a disk that hangs.
func stuck(t *testing.T) (w *world, reached, let chan struct{}) {
	reached, let = make(chan struct{}), make(chan struct{})
	w = newWorld(t)
	n := 0
	w.open(func(o *Options) {
		o.at = func(point string) {
			if point != "after record" {
				return
			}
			if n++; n == 2 {
				close(reached)
				<-let
			}
		}
	})
	return w, reached, let
}

func TestWhoHangsUpHasNothingCarriedOut(t *testing.T) {
	w, reached, let := stuck(t)
	c, dir, stop := serve(t, w)
	first := w.decide(w.tree("/a", 100), 100, time.Minute)
	if _, err := c.Propose(t.Context(), first); err != nil {
		t.Fatal(err)
	}
	d := w.decide(w.tree("/b", 200), 200, time.Minute)
	line, err := json.Marshal(request{V: protocolVersion, Op: opPropose, Decision: &d})
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	// More that waits to be read does not hide the end.
	conn.Write(append(line, "\n{\"v\":2,\"op\":\"leases\"}\n"...))
	<-reached
	conn.Close()
	time.Sleep(3 * hangUpEvery)
	close(let)
	eventually(t, "given up", func() bool { return len(w.e.Leases()) == 1 })
	w.wantHeld("/b", false)
	if l := last(w.log); l.ID != d.ID || !strings.Contains(l.Note, "hung up") {
		t.Errorf("got %+v", l)
	}
	for _, line := range w.fake.Writes() {
		if strings.HasPrefix(line, "/b ") {
			t.Errorf("written: %s", line)
		}
	}
	stop()
	w.close()
}

// Who has only nothing more to ask still hears the answer.
func TestWhoStopsToWriteIsStillAnswered(t *testing.T) {
	w, reached, let := stuck(t)
	c, dir, stop := serve(t, w)
	if _, err := c.Propose(t.Context(), w.decide(w.tree("/a", 100), 100, time.Minute)); err != nil {
		t.Fatal(err)
	}
	d := w.decide(w.tree("/b", 200), 200, time.Minute)
	line, _ := json.Marshal(request{V: protocolVersion, Op: opPropose, Decision: &d})
	conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(append(line, '\n'))
	conn.(*net.UnixConn).CloseWrite()
	<-reached
	time.Sleep(3 * hangUpEvery)
	close(let)
	answer, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || !strings.Contains(answer, "confirmed_at") {
		t.Errorf("got %s, %v", answer, err)
	}
	w.wantHeld("/b", true)
	stop()
	w.close()
}

// The end waits neither for a peer that asks and never reads, nor for a proposal that
// waits for a disk.
func TestTheEndDoesNotWaitForPeers(t *testing.T) {
	w, reached, let := stuck(t)
	dir := t.TempDir()
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	ln, err := s.Listen(dir)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	served := make(chan struct{})
	go func() {
		defer close(served)
		s.Serve(ctx, ln)
	}()
	defer context.AfterFunc(ctx, w.e.Stop)()
	c := NewClient(dir)
	defer c.Close()
	if _, err := c.Propose(t.Context(), w.decide(w.tree("/a", 100), 100, time.Minute)); err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetWriteDeadline(time.Now().Add(500 * time.Millisecond))
	for err = nil; err == nil; {
		_, err = conn.Write([]byte(strings.Repeat("{\"v\":2,\"op\":\"leases\"}\n", 1000)))
	}
	go c.Propose(t.Context(), w.decide(w.tree("/b", 200), 200, time.Minute))
	<-reached
	began := time.Now()
	cancel()
	eventually(t, "the lease that is held is let go", func() bool { return !w.held("/a") })
	if took := time.Since(began); took > 500*time.Millisecond {
		t.Errorf("it was let go after %s", took)
	}
	select {
	case <-served:
	case <-time.After(serveBound + 2*time.Second):
		t.Error("the server waits")
	}
	close(let)
	w.close()
	w.wantHeld("/b", false)
}

// Whoever owns the runtime directory can put something else where the socket was made.
func TestNoRightsAreGivenToWhatTakesTheSocketsPlace(t *testing.T) {
	w := newWorld(t)
	w.open()
	defer w.close()
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	dir := t.TempDir()
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Symlink(victim, link); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{victim, link} {
		if err := s.open(name); err == nil || !strings.Contains(err.Error(), "something else in its place") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if info, err := os.Stat(victim); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it is %v, %v", info.Mode(), err)
	}
	ln, err := listen(filepath.Join(dir, "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	if info, err := os.Stat(filepath.Join(dir, "s")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("before it is opened, the socket is %v, %v", info.Mode(), err)
	}
}

func TestARuntimeDirectoryThatSomebodyElseCanWriteIsRefused(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	w := newWorld(t)
	w.open()
	defer w.close()
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	s.access.user, s.access.users = 4242, true
	for _, c := range []struct {
		name string
		uid  int
		mode os.FileMode
		ok   bool
	}{
		{"root's", 0, 0o755, true},
		{"breakerd's", 4242, 0o750, true},
		{"somebody else's", 4243, 0o755, false},
		{"one that the group can write", 0, 0o775, false},
		{"one that all can write", 0, 0o1777, false},
	} {
		dir := t.TempDir()
		os.Chown(dir, c.uid, 0)
		os.Chmod(dir, c.mode)
		ln, err := s.Listen(dir)
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "nobody else may write it") {
			t.Errorf("%s: %v", c.name, err)
		}
		if err == nil {
			ln.Close()
		}
		os.Chown(dir, 0, 0)
		os.Chmod(dir, 0o700)
	}
}
