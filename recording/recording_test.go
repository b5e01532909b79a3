package recording

import (
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func header() Header {
	return Header{Detect: json.RawMessage(`{"fork_storm":{}}`), Policies: map[string]string{"a.rego": "package breaker.a\n"}}
}

func records() []Record {
	at := time.Date(2026, 3, 1, 12, 0, 0, 250_000_000, time.UTC)
	held := at.Add(time.Millisecond)
	return []Record{
		{Sample: &model.Sample{
			Time: at, BootNS: 1e9, LengthNS: 250e6, Keyframe: true,
			Host: model.Host{BootID: "5f0c", CPUs: 2, Pressure: model.Pressure{CPU: model.Stall{SomeUS: 7}}},
			Procs: model.ProcChanges{Forked: []model.Proc{{
				ProcID: model.ProcID{PID: 7, StartTime: 1 << 62}, Cgroup: 1<<64 - 1, Comm: "a\nb\x1b[31m\"é", Found: true,
			}}},
		}},
		{Outcome: &model.Outcome{DecisionID: "d-1", RefusedBy: "rate", Reason: "too many", WrittenAt: &held}},
		{Sample: &model.Sample{
			Time: at.Add(time.Second), BootNS: 2e9, LengthNS: 1e9,
			Cgroups: []model.CgroupSample{{ID: 5, Path: "/a b", Forks: 3, Detail: &model.CgroupDetail{ThrottledNS: 9}}},
			Waits:   []model.Wait{{Resource: model.CPU, By: model.ByCgroup, Offender: 5, Victim: 6, NS: 1 << 63}},
			Lost:    model.Lost{Events: 2},
		}},
	}
}

// encoded is a whole recording.
func encoded(t testing.TB) []byte {
	t.Helper()
	var b bytes.Buffer
	enc, err := NewEncoder(&b, header())
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range records() {
		if err := enc.Encode(r); err != nil {
			t.Fatal(err)
		}
	}
	if err := enc.End(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func compressed(t testing.TB, text []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	if _, err := z.Write(text); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func file(t testing.TB, name string, text []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, text, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// readAll gives the records up to the end, or to the error.
func readAll(d *Decoder) (all []Record, err error) {
	for {
		r, err := d.Next()
		if errors.Is(err, io.EOF) {
			return all, nil
		}
		if err != nil {
			return all, err
		}
		all = append(all, r)
	}
}

func readFile(path string) ([]Record, error) {
	d, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	return readAll(d)
}

func TestWhatIsWrittenIsReadAgain(t *testing.T) {
	text := encoded(t)
	for _, tt := range []struct {
		name string
		text []byte
	}{
		{"plain.jsonl", text},
		{"compressed.jsonl.gz", compressed(t, text)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d, err := Open(file(t, tt.name, tt.text))
			if err != nil {
				t.Fatal(err)
			}
			want := header()
			want.Version = Version
			if diff := cmp.Diff(want, d.Header()); diff != "" {
				t.Error(diff)
			}
			got, err := readAll(d)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(records(), got); diff != "" {
				t.Error(diff)
			}
			if _, err := d.Next(); !errors.Is(err, io.EOF) {
				t.Errorf("after the end: %v, want EOF again", err)
			}
			if err := d.Close(); err != nil {
				t.Error(err)
			}
		})
	}
}

// A recording that was cut off must never be taken for a whole one, and what is given
// of it must be right.
func TestEveryCutIsNoticed(t *testing.T) {
	text := encoded(t)
	for _, tt := range []struct {
		name string
		text []byte
	}{
		{"plain.jsonl", text},
		{"compressed.jsonl.gz", compressed(t, text)},
	} {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t, tt.name, nil)
			whole := records()
			for cut := range tt.text {
				if err := os.WriteFile(path, tt.text[:cut], 0o600); err != nil {
					t.Fatal(err)
				}
				got, err := readFile(path)
				if err == nil {
					t.Fatalf("cut at %d of %d bytes: taken for a whole recording", cut, len(tt.text))
				}
				if !strings.HasPrefix(err.Error(), path+":") {
					t.Fatalf("cut at %d: %q does not begin with the file", cut, err)
				}
				inGzipHeader := strings.HasSuffix(path, ".gz") && cut < 10
				if cut > 0 && !inGzipHeader && !errors.Is(err, ErrTruncated) {
					t.Fatalf("cut at %d: %v, want ErrTruncated", cut, err)
				}
				if diff := cmp.Diff(whole[:len(got)], got, cmp.Comparer(func(x, y []Record) bool { return len(x) == 0 && len(y) == 0 || cmp.Equal(&x, &y) })); diff != "" {
					t.Fatalf("cut at %d: %s", cut, diff)
				}
			}
		})
	}
}

func TestALineThatBreaksOffIsACutAlsoWhereAnEditorEndedIt(t *testing.T) {
	lines := strings.SplitAfter(string(encoded(t)), "\n")
	got, err := readFile(file(t, "edited.jsonl", []byte(lines[0]+lines[1]+lines[2][:20]+"\n")))
	if !errors.Is(err, ErrTruncated) || len(got) != 1 {
		t.Errorf("%d records, error %v, want one and ErrTruncated", len(got), err)
	}
}

func TestWhatIsNoWholeRecordingIsRefused(t *testing.T) {
	lines := strings.SplitAfter(string(encoded(t)), "\n")
	whole := strings.Join(lines, "")
	broken := compressed(t, []byte(whole))
	broken[len(broken)-6] ^= 0xff // of the checksum
	tests := []struct {
		name, text, want string
	}{
		{"empty", "", "FILE: the file is empty: not a recording"},
		{"another text", "hello, world", "FILE:1: invalid character 'h'"},
		{"another JSON", "{}\n", "FILE:1: not a recording of breakerd: its first line has no header"},
		{"no header", whole[len(lines[0]):], "FILE:1: not a recording of breakerd"},
		{"a foreign version", `{"header":{"version":99,"detect":{}}}` + "\n", "FILE:1: the recording has version 99, and this program reads versions up to 2: use the breakerctl that recorded it"},
		{"a later version whose header has another form", `{"header":{"version":3,"detect":{},"policies":["a.rego"]}}` + "\n", "FILE:1: the recording has version 3, and this program reads versions up to 2"},
		{"a later version with other lines", `{"header":{"version":3},"sample":7}` + "\n", "FILE:1: the recording has version 3"},
		{"no version", `{"header":{}}` + "\n", "FILE:1: the recording has version 0"},
		{"a gap", lines[0] + lines[1] + lines[3] + lines[4], "FILE:4: 1 records are missing: the recording says 3 and has 2"},
		{"one too many", lines[0] + lines[1] + lines[1] + lines[2] + lines[3] + lines[4], "FILE:6: there are too many records: the recording says 3 and has 4"},
		{"a header in the middle", lines[0] + lines[0], "FILE:2: neither a sample nor an outcome"},
		{"both at once", lines[0] + `{"sample":{},"outcome":{}}` + "\n", "FILE:2: neither a sample nor an outcome"},
		{"a wrong type", lines[0] + `{"sample":{"boot_ns":"soon"}}` + "\n", "FILE:2: json: cannot unmarshal string"},
		{"a number out of range", lines[0] + `{"sample":{"boot_ns":1e30}}` + "\n", "FILE:2: json: cannot unmarshal number"},
		{"an empty line", lines[0] + "\n" + lines[1], "FILE:2: unexpected end of JSON input"},
		{"something behind the end", whole + lines[1], "FILE:6: something follows the end"},
		{"an unfinished line behind the end", whole + "{", "FILE:6: something follows the end"},
		{"not compressed though so named.gz", whole, "FILE: not a gzip file: gzip: invalid header"},
		{"empty.gz", "", "FILE: the file is empty"},
		{"a wrong checksum.gz", string(broken), "FILE:6: gzip: invalid checksum"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := file(t, tt.name, []byte(tt.text))
			_, err := readFile(path)
			if err == nil {
				t.Fatal("it was accepted")
			}
			if want := strings.ReplaceAll(tt.want, "FILE", path); !strings.HasPrefix(err.Error(), want) {
				t.Errorf("got  %v\nwant %v…", err, want)
			}
			if errors.Is(err, ErrTruncated) {
				t.Error("it is called truncated")
			}
		})
	}
}

func TestAMissingFileIsAnErrorThatSaysSo(t *testing.T) {
	if _, err := Open(filepath.Join(t.TempDir(), "none")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%v, want that the file does not exist", err)
	}
}

// endless is a line without an end.
type endless struct{}

func (endless) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = 'a'
	}
	return len(p), nil
}

func TestAKeyframeOfManyProcessesIsOneLineAndALineWithoutEndIsRefused(t *testing.T) {
	var b bytes.Buffer
	enc, err := NewEncoder(&b, Header{})
	if err != nil {
		t.Fatal(err)
	}
	begin := bytes.Clone(b.Bytes())
	want := Record{Sample: &model.Sample{Procs: model.ProcChanges{Forked: make([]model.Proc, 20_000)}}}
	for i := range want.Sample.Procs.Forked {
		want.Sample.Procs.Forked[i] = model.Proc{ProcID: model.ProcID{PID: int32(i)}, Cmdline: strings.Repeat("x", 300)}
	}
	if err := errors.Join(enc.Encode(want), enc.End()); err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(&b, "big")
	if err != nil {
		t.Fatal(err)
	}
	got, err := readAll(d)
	if err != nil || len(got) != 1 || !cmp.Equal(want, got[0]) {
		t.Errorf("%d records, error %v, want the one that was written", len(got), err)
	}

	d, err = NewDecoder(io.MultiReader(bytes.NewReader(begin), endless{}), "endless")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Next(); err == nil || err.Error() != "endless:2: the line is longer than 64 MB: not a recording of breakerd" {
		t.Errorf("got %v", err)
	}
}

func TestARecordThatCannotBeWrittenIsNotCounted(t *testing.T) {
	var b bytes.Buffer
	enc, err := NewEncoder(&b, Header{})
	if err != nil {
		t.Fatal(err)
	}
	never := &model.Sample{Time: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)} // JSON has no such year
	if err := enc.Encode(Record{Sample: never}); err == nil {
		t.Fatal("a year of five digits was written")
	}
	if err := enc.End(); err != nil {
		t.Fatal(err)
	}
	d, err := NewDecoder(&b, "r")
	if err != nil {
		t.Fatal(err)
	}
	if got, err := readAll(d); err != nil || len(got) != 0 {
		t.Errorf("%d records, error %v, want none and none", len(got), err)
	}
}
