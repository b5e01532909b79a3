package unit

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"math"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// manager is pid 1 with one unit, as far as it is asked here.
type manager struct {
	mu         sync.Mutex
	properties map[string]any
	failReload bool
	asked      []string
}

const aService = dbus.ObjectPath("/a")

func (m *manager) answer(call *dbus.Message) (body []any, fails string) {
	m.mu.Lock()
	defer m.mu.Unlock()
	method := call.Headers[dbus.FieldMember].Value().(string)
	switch method {
	case "GetUnit":
		if call.Body[0] != "a.service" {
			return nil, noSuchUnit
		}
		return []any{aService}, ""
	case "Get":
		v, ok := m.properties[call.Body[1].(string)]
		if !ok {
			return nil, "org.freedesktop.DBus.Error.UnknownProperty"
		}
		return []any{dbus.MakeVariant(v)}, ""
	case "Reload":
		if m.failReload {
			fails = "org.freedesktop.DBus.Error.LimitsExceeded"
		}
	}
	m.asked = append(m.asked, method)
	return nil, fails
}

// serve speaks as much of D-Bus as a client needs.
func (m *manager) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return
		}
		said := "REJECTED EXTERNAL\r\n"
		if strings.HasPrefix(line, "BEGIN") {
			break
		}
		if strings.HasPrefix(line, "AUTH EXTERNAL") {
			said = "OK 0123456789abcdef0123456789abcdef\r\n"
		}
		if _, err := conn.Write([]byte(said)); err != nil {
			return
		}
	}
	for {
		call, err := dbus.DecodeMessage(r)
		if err != nil {
			return
		}
		reply := &dbus.Message{Type: dbus.TypeMethodReply, Headers: map[dbus.HeaderField]dbus.Variant{
			dbus.FieldReplySerial: dbus.MakeVariant(call.Serial()),
		}}
		body, fails := m.answer(call)
		if fails != "" {
			reply.Type = dbus.TypeError
			reply.Headers[dbus.FieldErrorName] = dbus.MakeVariant(fails)
		}
		if reply.Body = body; len(body) > 0 {
			reply.Headers[dbus.FieldSignature] = dbus.MakeVariant(dbus.SignatureOf(body...))
		}
		var out bytes.Buffer
		if reply.EncodeTo(&out, binary.LittleEndian) != nil {
			return
		}
		if _, err := conn.Write(out.Bytes()); err != nil {
			return
		}
	}
}

func (m *manager) client(t *testing.T) *Manager {
	c := &Manager{dial: func() (*dbus.Conn, error) {
		ours, theirs := net.Pipe()
		go m.serve(theirs)
		conn, err := dbus.NewConn(ours)
		if err == nil {
			err = conn.Auth([]dbus.Auth{dbus.AuthExternal("0")})
		}
		return conn, err
	}}
	t.Cleanup(func() { c.Close() })
	return c
}

// dropIn makes a file of a limit of a.service below a directory.
func dropIn(t *testing.T, dir, name string) string {
	t.Helper()
	file := filepath.Join(dir, "a.service.d", name)
	if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	return file
}

// control has limits lie below directories of the test's own.
func control(t *testing.T) (run, etc string) {
	run, etc = t.TempDir(), t.TempDir()
	dirs, persistent := controlDirs, persistentDir
	controlDirs, persistentDir = []string{run}, etc
	t.Cleanup(func() { controlDirs, persistentDir = dirs, persistent })
	return run, etc
}

func is(file string) bool {
	_, err := os.Lstat(file)
	return err == nil
}

var unlimited = []model.UnitLimit{{Property: cgroupctl.CPUQuota, Value: math.MaxUint64}}

// Files are removed first, so that systemd is told until it has heard it.
func TestSystemdIsToldUntilItHasReadItsUnitsAgain(t *testing.T) {
	run, _ := control(t)
	file := dropIn(t, run, "50-CPUQuota.conf")
	pid1 := &manager{failReload: true, properties: map[string]any{
		cgroupctl.CPUQuota: uint64(math.MaxUint64), "DropInPaths": []string{"/etc/other.conf", file},
	}}
	m := pid1.client(t)
	for range 2 {
		if err := m.ResetLimits(t.Context(), "a.service", unlimited, nil); err == nil || is(file) {
			t.Errorf("got %v, the file is there: %v", err, is(file))
		}
	}
	pid1.failReload = false
	if err := m.ResetLimits(t.Context(), "a.service", unlimited, nil); err != nil {
		t.Error(err)
	}
	pid1.properties["DropInPaths"] = []string{"/etc/other.conf"}
	if err := m.ResetLimits(t.Context(), "a.service", unlimited, nil); err != nil {
		t.Error(err)
	}
	if want := []string{"Reload", "Reload", "Reload"}; !slices.Equal(pid1.asked, want) {
		t.Errorf("asked %q, want %q", pid1.asked, want)
	}
	if err := m.ResetLimits(t.Context(), "gone.service", unlimited, nil); err != nil {
		t.Errorf("of one that is gone: %v", err)
	}
}

// An operator sets a limit while ours is held: what is his stays, and ours does not lie
// beneath it for whoever takes his away.
func TestAnOperatorsLimitLeavesNoFileOfOurs(t *testing.T) {
	for _, tt := range []struct {
		name          string
		forGood, ours bool // ours: it is there afterwards
	}{
		{"set for good", true, false},
		{"set at run time, in the same file", false, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			run, etc := control(t)
			file, his := dropIn(t, run, "50-CPUQuota.conf"), filepath.Join(etc, "a.service.d", "50-CPUQuota.conf")
			if tt.forGood {
				dropIn(t, etc, "50-CPUQuota.conf")
			}
			pid1 := &manager{properties: map[string]any{cgroupctl.CPUQuota: uint64(400_000), "DropInPaths": []string{file}}}
			if err := pid1.client(t).ResetLimits(t.Context(), "a.service", nil, unlimited); err != nil {
				t.Error(err)
			}
			if is(file) != tt.ours || is(his) != tt.forGood || slices.Contains(pid1.asked, "SetUnitProperties") || slices.Contains(pid1.asked, "Reload") == tt.ours {
				t.Errorf("ours is there: %v, his: %v; asked %q", is(file), is(his), pid1.asked)
			}
		})
	}
}

func TestWhatSystemdSaysOfSystemdOOMD(t *testing.T) {
	pid1 := &manager{properties: map[string]any{}}
	m := pid1.client(t)
	kills := func(name string, want bool) {
		t.Helper()
		if got, err := m.OOMKills(t.Context(), name); err != nil || got != want {
			t.Errorf("%s: %v, %v", name, got, err)
		}
	}
	kills("a.service", false) // before 247
	for says, want := range map[string]bool{"auto": false, "kill": true} {
		pid1.properties["ManagedOOMMemoryPressure"] = says
		kills("a.service", want)
	}
	kills("gone.service", false)
}

// job is none.
type job struct {
	ID   uint32
	Path dbus.ObjectPath
}

func TestHowLongAServiceMayTake(t *testing.T) {
	pid1 := &manager{properties: map[string]any{
		"ControlGroup": "/a.service", "Delegate": false, "ActiveState": "activating", "Job": job{Path: "/"},
		"WatchdogUSec": uint64(math.MaxUint64), "TimeoutStartUSec": uint64(90_000_000),
	}}
	u, err := pid1.client(t).Look(t.Context(), "a.service")
	if err != nil || u.Watchdog != 0 || u.StartTimeout != 90*time.Second {
		t.Errorf("%+v, %v", u, err)
	}
}
