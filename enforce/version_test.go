package enforce

import (
	"bufio"
	"net"
	"path/filepath"
	"strings"
	"testing"
)

// Of a later version only that is understood: the rest may be anything.
func TestALaterVersionIsToldAsSuchWhateverElseItSays(t *testing.T) {
	for _, text := range []string{`{"version":5}`, `{"version":5,"writes":"none","new":1}`, `{"version":9,"id":[1,2]}`} {
		if _, err := parseRecord("x", []byte(text)); err == nil || !strings.Contains(err.Error(), "and this enforcer knows 4: a later breaker-enforcer wrote it") {
			t.Errorf("record %s: %v", text, err)
		}
	}
	dir := t.TempDir()
	l, err := net.Listen("unix", filepath.Join(dir, SocketName))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			bufio.NewReader(conn).ReadString('\n')
			conn.Write([]byte(`{"v":3,"leases":{"a":"another form"}}` + "\n"))
			conn.Close()
		}
	}()
	c := NewClient(dir)
	defer c.Close()
	if _, err := c.Leases(t.Context()); err == nil || !strings.Contains(err.Error(), "version 3 of the protocol, not 2: restart what is older") {
		t.Errorf("answer: %v", err)
	}
}
