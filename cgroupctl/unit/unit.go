// Package unit asks systemd's manager, pid 1, about its units over D-Bus, and has it
// freeze and thaw them. It goes by pid 1's own socket where it may (root), which needs
// no dbus-daemon, and by the system bus otherwise. Every call is bounded.
package unit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/breakerd/breakerd/cgroupctl"
)

const (
	// privateSocket is pid 1's own; only root may use it.
	privateSocket = "unix:path=/run/systemd/private"
	systemBus     = "unix:path=/run/dbus/system_bus_socket"
	booted        = "/run/systemd/system" // sd_booted(3)

	service     = "org.freedesktop.systemd1"
	managerPath = "/org/freedesktop/systemd1"
	managerFace = "org.freedesktop.systemd1.Manager"
	unitFace    = "org.freedesktop.systemd1.Unit"
	jobFace     = "org.freedesktop.systemd1.Job"
)

// bound is how long a call may take where the caller says nothing. Pid 1 answers within
// a millisecond, but not while it reloads its units: 1 to 5 s on an emulated machine.
const bound = time.Second

// Manager is a connection to systemd, made when it is needed and again when it broke.
// It may be used by many at once.
type Manager struct {
	dial func() (*dbus.Conn, error)

	mu      sync.Mutex
	conn    *dbus.Conn
	dialing chan struct{} // closed when the dial that is under way has ended
	err     error         // of the last dial
	late    int           // questions in a row that were not answered in time
}

// Open returns systemd's manager, or nil where pid 1 is not systemd. It connects with
// the first question.
func Open() *Manager {
	if _, err := os.Stat(booted); err != nil {
		return nil
	}
	return &Manager{dial: dial}
}

func dial() (*dbus.Conn, error) {
	conn, err := connect(privateSocket, false)
	if err == nil {
		return conn, nil
	}
	conn, also := connect(systemBus, true)
	if also != nil {
		return nil, errors.Join(err, also)
	}
	return conn, nil
}

func connect(address string, bus bool) (*dbus.Conn, error) {
	conn, err := dbus.Dial(address)
	if err != nil {
		return nil, fmt.Errorf("connect to systemd at %s: %w", address, err)
	}
	err = conn.Auth([]dbus.Auth{dbus.AuthExternal(strconv.Itoa(os.Geteuid()))})
	if err == nil && bus {
		err = conn.Hello()
	}
	if err != nil {
		conn.Close()
		return nil, fmt.Errorf("connect to systemd at %s: %w", address, err)
	}
	return conn, nil
}

// Close ends the connection, if there is one.
func (m *Manager) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == nil {
		return nil
	}
	err := m.conn.Close()
	m.conn = nil
	return err
}

// connection is the one that is there, or a new one. A dial cannot be ended, so it goes
// on alone when ctx ends, one at a time.
func (m *Manager) connection(ctx context.Context) (*dbus.Conn, error) {
	m.mu.Lock()
	if m.conn != nil && m.conn.Connected() {
		defer m.mu.Unlock()
		return m.conn, nil
	}
	if m.dialing == nil {
		done := make(chan struct{})
		m.dialing = done
		go func() {
			conn, err := m.dial()
			m.mu.Lock()
			m.conn, m.err, m.dialing = conn, err, nil
			m.mu.Unlock()
			close(done)
		}()
	}
	done := m.dialing
	m.mu.Unlock()
	select {
	case <-done:
	case <-ctx.Done():
		return nil, fmt.Errorf("connect to systemd: %w", context.Cause(ctx))
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.conn == nil && m.err == nil {
		return nil, errors.New("connect to systemd: closed meanwhile")
	}
	return m.conn, m.err
}

// mostLate bounds how many questions are left unanswered on a connection, far below what
// the socket holds: one that is full would block whoever writes to it. It is more than are
// asked at once.
const mostLate = 32

// unanswered ends a connection that broke, as pid 1 was started again (daemon-reexec), or
// on which no answer has come for too long. One that is only late is kept.
func (m *Manager) unanswered(conn *dbus.Conn) {
	m.mu.Lock()
	m.late++
	drop := m.conn == conn && (!conn.Connected() || m.late >= mostLate)
	if drop {
		m.conn, m.late = nil, 0
	}
	m.mu.Unlock()
	if drop {
		conn.Close()
	}
}

// call makes one call. Where the connection broke it is made once more: everything that
// is asked for here can be asked for twice.
func (m *Manager) call(ctx context.Context, path dbus.ObjectPath, method string, out any, args ...any) error {
	ctx, cancel := bounded(ctx)
	defer cancel()
	for try := 0; ; try++ {
		conn, err := m.connection(ctx)
		if err != nil {
			return err
		}
		call := conn.Object(service, path).CallWithContext(ctx, method, 0, args...)
		var said dbus.Error
		answered := call.Err == nil || errors.As(call.Err, &said) && !strings.HasPrefix(said.Name, "org.freedesktop.DBus.Error.NoReply")
		if answered {
			m.mu.Lock()
			m.late = 0
			m.mu.Unlock()
		}
		if call.Err == nil {
			if out == nil {
				return nil
			}
			return call.Store(out)
		}
		if answered {
			return call.Err
		}
		m.unanswered(conn)
		if try == 1 || ctx.Err() != nil {
			return fmt.Errorf("systemd does not answer: %w", call.Err)
		}
	}
}

func bounded(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, ok := ctx.Deadline(); ok {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, bound)
}

func get[T any](m *Manager, ctx context.Context, path dbus.ObjectPath, face, name string) (T, error) {
	var v dbus.Variant
	var out T
	if err := m.call(ctx, path, "org.freedesktop.DBus.Properties.Get", &v, face, name); err != nil {
		return out, fmt.Errorf("read %s.%s: %w", face, name, err)
	}
	if err := v.Store(&out); err != nil {
		return out, fmt.Errorf("read %s.%s: %w", face, name, err)
	}
	return out, nil
}

// Version is that of the running systemd, such as 257.
func (m *Manager) Version(ctx context.Context) (int, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	text, err := get[string](m, ctx, managerPath, managerFace, "Version")
	if err != nil {
		return 0, err
	}
	return parseVersion(text)
}

// parseVersion reads systemd's version as distributions have it:
//
//	257.13-1~deb13u1
//	v256.4-1.fc41
//	247.3-7+deb11u6
func parseVersion(text string) (int, error) {
	digits := strings.TrimPrefix(text, "v")
	end := strings.IndexFunc(digits, func(r rune) bool { return r < '0' || r > '9' })
	if end >= 0 {
		digits = digits[:end]
	}
	n, err := strconv.Atoi(digits)
	if err != nil {
		return 0, fmt.Errorf("%q is no version of systemd", text)
	}
	return n, nil
}

// Look tells about a unit. A unit that systemd does not know is cgroupctl.ErrNoUnit.
func (m *Manager) Look(ctx context.Context, name string) (cgroupctl.Unit, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	u := cgroupctl.Unit{Name: name}
	path, face, err := m.object(ctx, name)
	if err != nil {
		return u, fmt.Errorf("look at unit %s: %w", name, err)
	}
	var job []any // its number, 0 if there is none, and its path
	// All at once: each answer takes as long as pid 1 is busy with something else.
	questions := []func() error{
		func() (err error) { u.ControlGroup, err = get[string](m, ctx, path, face, "ControlGroup"); return },
		func() (err error) { u.Delegate, err = get[bool](m, ctx, path, face, "Delegate"); return },
		func() (err error) { u.ActiveState, err = get[string](m, ctx, path, unitFace, "ActiveState"); return },
		func() (err error) { job, err = get[[]any](m, ctx, path, unitFace, "Job"); return },
		func() (err error) {
			// Since 246; an older systemd knows no frozen units, and says so.
			var said dbus.Error
			if u.FreezerState, err = get[string](m, ctx, path, unitFace, "FreezerState"); errors.As(err, &said) {
				err = nil
			}
			return err
		},
	}
	if strings.HasSuffix(name, ".service") {
		within := func(to *time.Duration, property string) func() error {
			return func() error {
				usec, err := get[uint64](m, ctx, path, face, property)
				if err == nil && usec < 1<<53 { // infinity is all bits
					*to = time.Duration(usec) * time.Microsecond
				}
				return err
			}
		}
		questions = append(questions, within(&u.Watchdog, "WatchdogUSec"), within(&u.StartTimeout, "TimeoutStartUSec"))
	}
	answers := make(chan error, len(questions))
	for _, ask := range questions {
		go func() { answers <- ask() }()
	}
	for range questions {
		if also := <-answers; err == nil {
			err = also
		}
	}
	if err != nil {
		return u, fmt.Errorf("look at unit %s: %w", name, err)
	}
	if len(job) == 2 && job[0] != uint32(0) {
		// A job that has just ended has no type any more.
		if p, ok := job[1].(dbus.ObjectPath); ok {
			u.Job, _ = get[string](m, ctx, p, jobFace, "JobType")
		}
	}
	return u, nil
}

// noSuchUnit is what systemd answers about a unit that it does not know.
const noSuchUnit = "org.freedesktop.systemd1.NoSuchUnit"

// object finds a unit, and the interface that it has as a unit with a cgroup.
func (m *Manager) object(ctx context.Context, name string) (path dbus.ObjectPath, face string, err error) {
	face, ok := faces[name[strings.LastIndexByte(name, '.')+1:]]
	if !ok {
		return "", "", errors.New("a unit of that kind has no cgroup")
	}
	if err := m.call(ctx, managerPath, managerFace+".GetUnit", &path, name); err != nil {
		var said dbus.Error
		if errors.As(err, &said) && said.Name == noSuchUnit {
			return "", "", cgroupctl.ErrNoUnit
		}
		return "", "", err
	}
	return path, face, nil
}

// faces are the interfaces of the kinds of units that have cgroups.
var faces = map[string]string{
	"service": service + ".Service",
	"scope":   service + ".Scope",
	"slice":   service + ".Slice",
	"socket":  service + ".Socket",
	"mount":   service + ".Mount",
	"swap":    service + ".Swap",
}

// Freeze has systemd freeze a unit, and waits until it is frozen (FreezeUnit, since 246).
func (m *Manager) Freeze(ctx context.Context, name string) error {
	if err := m.call(ctx, managerPath, managerFace+".FreezeUnit", nil, name); err != nil {
		return fmt.Errorf("freeze unit %s: %w", name, err)
	}
	return nil
}

// Thaw has systemd thaw a unit. While a job waits for the unit, systemd refuses.
func (m *Manager) Thaw(ctx context.Context, name string) error {
	if err := m.call(ctx, managerPath, managerFace+".ThawUnit", nil, name); err != nil {
		return fmt.Errorf("thaw unit %s: %w", name, err)
	}
	return nil
}
