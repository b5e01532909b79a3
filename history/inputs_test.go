package history

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// texts are inputs as text.
func texts(all []json.RawMessage) (out []string) {
	for _, in := range all {
		out = append(out, string(in))
	}
	return out
}

func TestWhatThePoliciesWereAskedFirstAndLastIsKept(t *testing.T) {
	dir := t.TempDir()
	r := run(t, dir)
	in := incident(0)
	r.Incident(in)
	r.Asked(in.ID, []byte(`{"time_ns":1}`))
	r.written()
	for _, text := range []string{`{"time_ns":2}`, `{"text":"` + strings.Repeat("x", maxInput) + `"}`, `{"time_ns":3}`} {
		r.Asked(in.ID, []byte(text))
	}
	want := []string{`{"time_ns":1}`, `{"time_ns":3}`}
	if diff := cmp.Diff(want, texts(r.story(in.ID).Inputs)); diff != "" {
		t.Errorf("while it is open (-want +got):\n%s", diff)
	}
	r.Incident(closed(in, time.Second))
	r.stop()
	again := run(t, dir)
	if diff := cmp.Diff(want, texts(again.story(in.ID).Inputs)); diff != "" {
		t.Errorf("after a restart (-want +got):\n%s", diff)
	}
}

func TestAHistoryOfVersion1IsBroughtUpToOurs(t *testing.T) {
	dir := t.TempDir()
	r := run(t, dir)
	old := incident(0)
	r.Incident(old)
	r.Verdict(verdict(&old, 1))
	r.Incident(closed(old, time.Second))
	r.stop()
	alter(t, r.file(), "DROP TABLE inputs; PRAGMA user_version = 1")

	again := run(t, dir)
	in := incident(1)
	again.Incident(in)
	again.Asked(in.ID, []byte(`{"time_ns":1}`))
	if got := again.story(in.ID).Inputs; len(got) != 1 {
		t.Errorf("inputs %s, want the one that was told", got)
	}
	if s := again.story(old.ID); len(s.Verdicts) != 1 || s.Inputs != nil {
		t.Errorf("the story from before is %+v", s)
	}
}
