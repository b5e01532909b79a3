package systemd

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// journald stands in for the real one: a datagram socket.
func journald(t *testing.T) (path string, conn *net.UnixConn) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "socket")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return path, conn
}

func receive(t *testing.T, conn *net.UnixConn) string {
	t.Helper()
	buf := make([]byte, 256<<10)
	if err := conn.SetReadDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	n, err := conn.Read(buf)
	if err != nil {
		t.Fatal(err)
	}
	return string(buf[:n])
}

func closeJournal(t *testing.T, j *Journal) {
	t.Helper()
	if err := j.Close(); err != nil {
		t.Error(err)
	}
}

func TestJournaldReceivesALineForEachField(t *testing.T) {
	path, conn := journald(t)
	j := openJournal(path, "breakerd", nil)
	defer closeJournal(t, j)
	if !j.Native() {
		t.Error("not native")
	}
	if err := j.Write(everyEntry()["refused"]); err != nil {
		t.Fatal(err)
	}
	want := `PRIORITY=6
SYSLOG_IDENTIFIER=breakerd
MESSAGE_ID=52c2cd59a1cc42c09c3b82fd05378691
MESSAGE=freeze of /user.slice/user-1000.slice/session-3.scope refused by protected: sshd.service is protected
BREAKER_ACTION=freeze
BREAKER_CGROUP=/user.slice/user-1000.slice/session-3.scope
BREAKER_COMM=bash
BREAKER_DECISION=i-1/1
BREAKER_DRY_RUN=false
BREAKER_FOR_MS=60000
BREAKER_GUARD=protected
BREAKER_INCIDENT=i-1
BREAKER_KIND=fork_storm
BREAKER_LEASE=i-1/1
BREAKER_LEVEL=critical
BREAKER_PID=4242
BREAKER_POLICY=breaker.forkstorms
BREAKER_PROCESSES=300
BREAKER_REASON=sshd.service is protected
BREAKER_SCOPE=tree
BREAKER_SEVERITY=0.82
BREAKER_UNIT=session-3.scope
`
	if diff := cmp.Diff(want, receive(t, conn)); diff != "" {
		t.Error(diff)
	}
}

const hostile = "x\nMESSAGE_ID=forged\nBREAKER_UNIT=sshd.service\n\x1b]0;owned\a\xff\u202e\""

func TestHostileTextCannotForgeAField(t *testing.T) {
	path, conn := journald(t)
	j := openJournal(path, "breakerd", nil)
	defer closeJournal(t, j)
	i := incident()
	i.Summary, i.Culprit.Root.Comm, i.Culprit.Cgroup = hostile, hostile, "/"+hostile
	if err := j.Write(IncidentOpened(i)); err != nil {
		t.Fatal(err)
	}
	seen := map[string]string{}
	for line := range strings.Lines(receive(t, conn)) {
		name, value, _ := strings.Cut(strings.TrimSuffix(line, "\n"), "=")
		if seen[name] != "" {
			t.Errorf("two of %s", name)
		}
		seen[name] = value
	}
	if seen["MESSAGE_ID"] != string(MsgIncidentOpened) || seen["BREAKER_UNIT"] != "session-3.scope" {
		t.Errorf("forged: %v", seen)
	}
	if want := `x\x0aMESSAGE_ID=forged\x0aBREAKER_UNIT=sshd.service\x0a\x1b]0;owned\x07\xff\u202e"`; seen["BREAKER_COMM"] != want {
		t.Errorf("got %s", seen["BREAKER_COMM"])
	}
}

func TestWithoutJournaldEntriesAreJSONLines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // time begins in the year 2000
		var out bytes.Buffer
		j := openJournal(filepath.Join(t.TempDir(), "none"), "breakerd", &out)
		if j.Native() {
			t.Error("native")
		}
		for _, e := range []Entry{Started("breakerd", "0.1.0", "dry-run"), ObservationDegraded(`a "quoted" <b>` + "\n\x1b[2J")} {
			if err := j.Write(e); err != nil {
				t.Fatal(err)
			}
		}
		closeJournal(t, j)
		want := `{"time":"2000-01-01T00:00:00Z","priority":6,"message_id":"f545b0cfbfff4fd583e2b479eef00864","message":"breakerd 0.1.0 started in mode dry-run","BREAKER_MODE":"dry-run","BREAKER_PROGRAM":"breakerd","BREAKER_VERSION":"0.1.0"}
{"time":"2000-01-01T00:00:00Z","priority":4,"message_id":"78db2b03ae064acfb65b2ebffe018de0","message":"observation degraded: a \"quoted\" \u003cb\u003e\\x0a\\x1b[2J","BREAKER_REASON":"a \"quoted\" \u003cb\u003e\\x0a\\x1b[2J"}
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Error(diff)
		}
	})
}

func TestEveryEntryIsOneJSONObject(t *testing.T) {
	for name, e := range everyEntry() {
		var fields map[string]any
		line := e.jsonLine(opened)
		if err := json.Unmarshal(line, &fields); err != nil || bytes.Count(line, []byte("\n")) != 1 {
			t.Errorf("%s: %v in %s", name, err, line)
		}
		if len(fields) != 4+len(e.Fields) {
			t.Errorf("%s: %d fields", name, len(fields))
		}
	}
}

func TestEntriesFallBackWhileJournaldIsAwayAndReturnToIt(t *testing.T) {
	path, conn := journald(t)
	var out bytes.Buffer
	j := openJournal(path, "breakerd", &out)
	_ = conn.Close()
	if err := j.Write(Stopped("breakerd", "journald is away")); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	back, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	if err := j.Write(Stopped("breakerd", "journald is back")); err != nil {
		t.Fatal(err)
	}
	if got := receive(t, back); !strings.Contains(got, "journald is back") {
		t.Errorf("journald got %q", got)
	}
	closeJournal(t, j)
	if got := out.String(); !strings.Contains(got, "journald is away") || strings.Contains(got, "journald is back") {
		t.Errorf("the fallback got %q", got)
	}
}

// stuck is a standard error that nobody reads.
type stuck struct{ release chan struct{} }

func (s stuck) Write(p []byte) (int, error) { <-s.release; return len(p), nil }

func TestWriteNeverWaits(t *testing.T) {
	path, _ := journald(t) // never reads
	synctest.Test(t, func(t *testing.T) {
		nobody := stuck{make(chan struct{})}
		j := openJournal(path, "breakerd", nobody)
		start, lost := time.Now(), 0
		for i := range 2 * queued {
			e := Stopped("breakerd", fmt.Sprint(i))
			e.MessageID = MessageID(fmt.Sprint(i % 8)) // or most would be left out as too many of one kind
			switch err := j.Write(e); {
			case errors.Is(err, ErrEntryLost):
				lost++
			case err != nil:
				t.Fatal(err)
			}
		}
		if lost == 0 || j.Lost() != uint64(lost) {
			t.Errorf("%d lost, %d counted", lost, j.Lost())
		}
		if err := j.Close(); !errors.Is(err, ErrEntryLost) || time.Since(start) != time.Second {
			t.Errorf("close: %v after %v", err, time.Since(start))
		}
		if err := j.Write(Stopped("breakerd", "too late")); !errors.Is(err, os.ErrClosed) {
			t.Errorf("after close: %v", err)
		}
		close(nobody.release)
	})
}

func TestTheLargestEntryFitsADatagram(t *testing.T) {
	path, conn := journald(t)
	j := openJournal(path, "breakerd", nil)
	defer closeJournal(t, j)
	e := Entry{Message: strings.Repeat("é\x00", 1<<20), Fields: map[Field]string{}}
	for i := range maxFields - 1 {
		e.Fields[Field(fmt.Sprint("BREAKER_F", i))] = strings.Repeat("é", 1<<20)
	}
	decision := strings.Repeat("x", MaxLog)
	e.Fields[FieldLog] = decision
	if err := j.Write(e); err != nil {
		t.Fatal(err)
	}
	whole := false
	for line := range strings.Lines(receive(t, conn)) {
		if line == string(FieldLog)+"="+decision+"\n" {
			whole = true
			continue
		}
		if len(line) > maxValue+64 || strings.Contains(line, "\uFFFD") {
			t.Errorf("%d bytes: %.60q", len(line), line)
		}
	}
	if !whole {
		t.Error("an entry of the decision log is cut")
	}
}

func TestWhatIsNoFieldOfOursIsRefused(t *testing.T) {
	j := openJournal(filepath.Join(t.TempDir(), "none"), "breakerd", &bytes.Buffer{})
	defer closeJournal(t, j)
	for _, field := range []Field{"", "BREAKER_", "breaker_kind", "MESSAGE", "_PID", "BREAKER_X=1\nY", "BREAKER_É"} {
		if err := j.Write(Entry{Message: "x", Fields: map[Field]string{field: "x"}}); err == nil {
			t.Errorf("%q is accepted", field)
		}
	}
}

func FuzzEntry(f *testing.F) {
	f.Add("bash", "/a.slice")
	f.Add(hostile, "\x00")
	f.Add(strings.Repeat("\xff", 5000), strings.Repeat("é", 3000))
	f.Fuzz(func(t *testing.T, message, value string) {
		e := Entry{MessageID: MsgStarted, Message: message, Fields: map[Field]string{FieldComm: value}}
		if lines := strings.Count(string(e.native("breakerd")), "\n"); lines != 5 {
			t.Errorf("%d lines", lines)
		}
		var fields map[string]any
		if err := json.Unmarshal(e.jsonLine(opened), &fields); err != nil || len(fields) != 5 {
			t.Errorf("%v, %d fields", err, len(fields))
		}
	})
}

func TestTooManyEntriesOfOneKindAreLeftOutAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		j := openJournal(filepath.Join(t.TempDir(), "none"), "breakerd", &out)
		entries := func() (opened, leftOut []string) {
			synctest.Wait()
			for line := range strings.Lines(out.String()) {
				var e map[string]any
				if err := json.Unmarshal([]byte(line), &e); err != nil {
					t.Fatal(err)
				}
				switch MessageID(e["message_id"].(string)) {
				case MsgIncidentOpened:
					opened = append(opened, line)
				case MsgEntriesLeftOut:
					leftOut = append(leftOut, e["BREAKER_LEFT_OUT"].(string)+" of "+e["BREAKER_LEFT_OUT_ID"].(string))
				}
			}
			return opened, leftOut
		}
		flap := func(n int) {
			for range n {
				if err := j.Write(IncidentOpened(incident())); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // whoever reads the lines keeps up
			}
		}
		flap(3 * entryBurst)
		if opened, told := entries(); len(opened) != entryBurst || len(told) != 0 {
			t.Errorf("%d entries, %q", len(opened), told)
		}
		err := j.Write(EnforcerBack())
		synctest.Wait()
		if err != nil || !strings.Contains(out.String(), string(MsgEnforcerBack)) {
			t.Errorf("another kind has no room either: %v", err)
		}
		time.Sleep(2*entryEvery + time.Second)
		flap(5)
		if opened, told := entries(); len(opened) != entryBurst+2 || len(told) != 1 || told[0] != fmt.Sprintf("%d of %s", 2*entryBurst, MsgIncidentOpened) {
			t.Errorf("%d entries, left out %q", len(opened), told)
		}
		closeJournal(t, j)
		if _, told := entries(); len(told) != 2 || told[1] != fmt.Sprintf("3 of %s", MsgIncidentOpened) {
			t.Errorf("at the end: left out %q", told)
		}
	})
}
