// Package systemd speaks with systemd: entries for the journal, and
// notifications to the service manager. Where there is no systemd, entries are
// JSON lines and notifications go nowhere.
package systemd

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

// Priority is syslog's.
type Priority int

// The priorities that we use.
const (
	Err     Priority = 3
	Warning Priority = 4
	Notice  Priority = 5
	Info    Priority = 6
)

// PriorityOf is the priority of an incident.
func PriorityOf(level model.Level) Priority {
	switch level {
	case model.Critical:
		return Err
	case model.Warning:
		return Warning
	}
	return Info
}

// Entry is one entry of the journal. Its texts may come from anybody: they are
// made fit to be shown as they are written.
type Entry struct {
	MessageID MessageID
	Priority  Priority
	Message   string
	Fields    map[Field]string
}

// Bounds of an entry, in bytes. Together they stay far below a datagram (208 KiB
// by default), so no entry is ever too large to be sent without waiting.
const (
	maxValue  = 4 << 10
	MaxLog    = 40 << 10 // of FieldLog, which is JSON: cut short it could not be read
	maxFields = 40
)

// bound is how long the value of a field may be, in bytes.
func bound(name string) int {
	if Field(name) == FieldLog {
		return MaxLog
	}
	return maxValue
}

// check refuses what would not be a field of ours. The names are constants, so
// this is about a mistake in the program, not about hostile input.
func (e Entry) check() error {
	if len(e.Fields) > maxFields {
		return fmt.Errorf("write journal entry: %d fields, more than %d", len(e.Fields), maxFields)
	}
	for field := range e.Fields {
		rest, ours := strings.CutPrefix(string(field), "BREAKER_")
		if !ours || rest == "" || len(field) > 64 || strings.Trim(rest, "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_") != "" {
			return fmt.Errorf("write journal entry: %q is no field of ours", field)
		}
	}
	return nil
}

// native writes the entry as journald takes it on its own socket, a line for each
// field. Values have no newlines any more, so the form with a length is not
// needed, and nobody's text can begin a field.
//
//	PRIORITY=4
//	SYSLOG_IDENTIFIER=breakerd
//	MESSAGE_ID=0e5b…
//	MESSAGE=fork storm in /user.slice/…
//	BREAKER_KIND=fork_storm
func (e Entry) native(identifier string) []byte {
	var out []byte
	add := func(name, value string) {
		out = append(out, name...)
		out = append(out, '=')
		out = append(out, shown(value, bound(name))...)
		out = append(out, '\n')
	}
	add("PRIORITY", strconv.Itoa(int(e.Priority)))
	add("SYSLOG_IDENTIFIER", identifier)
	add("MESSAGE_ID", string(e.MessageID))
	add("MESSAGE", e.Message)
	for _, field := range slices.Sorted(maps.Keys(e.Fields)) {
		add(string(field), e.Fields[field])
	}
	return out
}

// jsonLine writes the same as one JSON object.
//
//	{"time":"2026-11-23T17:44:01.25Z","priority":4,"message_id":"0e5b…","message":"…","BREAKER_KIND":"fork_storm"}
func (e Entry) jsonLine(now time.Time) []byte {
	out := append([]byte(`{"time":`), quote(now.UTC().Format(time.RFC3339Nano))...)
	out = append(out, `,"priority":`...)
	out = strconv.AppendInt(out, int64(e.Priority), 10)
	add := func(name, value string) {
		out = append(append(out, ','), quote(name)...)
		out = append(append(out, ':'), quote(shown(value, bound(name)))...)
	}
	add("message_id", string(e.MessageID))
	add("message", e.Message)
	for _, field := range slices.Sorted(maps.Keys(e.Fields)) {
		add(string(field), e.Fields[field])
	}
	return append(out, "}\n"...)
}

func quote(s string) []byte {
	quoted, _ := json.Marshal(s) // a string always has a JSON form
	return quoted
}

// shown makes a value printable and bounds it to limit bytes. Fields are treated as the message
// is, because the catalog puts them into the text that journalctl -x shows.
func shown(value string, limit int) string {
	const more = "…"
	text := safetext.Printable(cut(value, limit))
	if len(value) <= limit && len(text) <= limit {
		return text
	}
	return cut(text, limit-len(more)) + more
}

// cut shortens a text to so many bytes, not within a letter.
func cut(s string, limit int) string {
	if len(s) <= limit {
		return s
	}
	end := limit
	for end > limit-utf8.UTFMax && !utf8.RuneStart(s[end]) {
		end--
	}
	return s[:end]
}
