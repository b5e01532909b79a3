package unit

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"time"

	"github.com/godbus/dbus/v5"
)

func TestVersionsAsDistributionsHaveThem(t *testing.T) {
	for text, want := range map[string]int{
		"257.13-1~deb13u1": 257, "v256.4-1.fc41": 256, "247.3-7+deb11u6": 247, "252": 252, "258~rc1": 258,
	} {
		if got, err := parseVersion(text); err != nil || got != want {
			t.Errorf("%q: %d, %v", text, got, err)
		}
	}
	for _, text := range []string{"", "v", "devel", "~257"} {
		if got, err := parseVersion(text); err == nil {
			t.Errorf("%q: %d", text, got)
		}
	}
}

func TestAManagerThatHangsIsNotWaitedFor(t *testing.T) {
	hang := make(chan struct{})
	defer close(hang)
	var dials atomic.Int32
	m := &Manager{dial: func() (*dbus.Conn, error) {
		dials.Add(1)
		<-hang
		return nil, errors.New("too late")
	}}
	for range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		began := time.Now()
		if _, err := m.Look(ctx, "a.service"); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got %v", err)
		}
		if took := time.Since(began); took > time.Second {
			t.Errorf("it took %s", took)
		}
		cancel()
	}
	if n := dials.Load(); n != 1 {
		t.Errorf("dialled %d times at once", n)
	}
}

func TestAManagerThatIsNotThereIsAnError(t *testing.T) {
	no := errors.New("no such file")
	m := &Manager{dial: func() (*dbus.Conn, error) { return nil, no }}
	if _, err := m.Version(t.Context()); !errors.Is(err, no) {
		t.Errorf("got %v", err)
	}
	if err := m.Close(); err != nil {
		t.Error(err)
	}
}
