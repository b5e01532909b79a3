package config

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

// files makes a folder of files, with their folders.
func files(t *testing.T, texts map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range texts {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestDropInsChangeWhatTheyName(t *testing.T) {
	dir := files(t, map[string]string{
		"c.yaml":                  "mode: dry-run\ntick: 1s\nprotected: [a, b]\nfork_storm:\n  for: 2s\n  rate: 20\n",
		"c.yaml.d/20-later.yaml":  "tick: 3s\nfork_storm: {for: 9s}\n",
		"c.yaml.d/10-sooner.yaml": "# only this\ntick: 2s\nprotected: [c]\nfork_storm:\n  processes: 7\n",
		"c.yaml.d/.hidden.yaml":   "nonsense",
		"c.yaml.d/notes.txt":      "nonsense",
		"c.yaml.d/30.yaml.bak":    "nonsense",
		"c.yaml.d/99-empty.yaml":  "",
	})
	base, d := filepath.Join(dir, "c.yaml"), filepath.Join(dir, "c.yaml.d")
	got := defaults()
	origins, err := LoadWithDropIns(base, false, &got)
	if err != nil {
		t.Fatal(err)
	}
	want := defaults()
	want.Mode, want.Tick, want.Protected = "dry-run", Duration(3*time.Second), []string{"c"}
	want.ForkStorm = storm{Rate: 20, For: Duration(9 * time.Second), Processes: 7}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	if diff := cmp.Diff(Origins{
		"mode":                 {base, 1, 7},
		"tick":                 {d + "/20-later.yaml", 1, 7},
		"protected":            {d + "/10-sooner.yaml", 3, 12},
		"fork_storm.rate":      {base, 6, 9},
		"fork_storm.for":       {d + "/20-later.yaml", 2, 19},
		"fork_storm.processes": {d + "/10-sooner.yaml", 5, 14},
	}, origins); diff != "" {
		t.Error(diff)
	}
}

func TestAMistakeInADropInIsToldWithItsOwnPlace(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"a slip", "fork_storm:\n  rat: 1\n", "10.yaml:2:3: unknown key \"rat\"; did you mean \"rate\"?"},
		{"no YAML", "mode: [\n", "10.yaml:1: this is no YAML"},
		{"a value that stands elsewhere", "mode: &m x\nsecret: *m\n", "10.yaml:2:9: a value that stands elsewhere (m)"},
		{"merged keys", "fork_storm: &f {rate: 1}\nlimits: {a: {<<: *f}}\n", "10.yaml:2:18: a value that stands elsewhere"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := files(t, map[string]string{"c.yaml": "", "c.yaml.d/10.yaml": tt.text})
			got := defaults()
			if _, err := LoadWithDropIns(filepath.Join(dir, "c.yaml"), false, &got); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %s", err, tt.want)
			}
		})
	}
}

func TestDropInsCountAlsoWhereTheFileMayBeMissing(t *testing.T) {
	dir := files(t, map[string]string{"c.yaml.d/10.yaml": "mode: dry-run\n", "folder.yaml": "", "folder.yaml.d/10.yaml/x": ""})
	got := defaults()
	if _, err := LoadWithDropIns(filepath.Join(dir, "c.yaml"), true, &got); err != nil || got.Mode != "dry-run" {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := LoadWithDropIns(filepath.Join(dir, "c.yaml"), false, &got); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that had to be there: %v", err)
	}
	if _, err := LoadWithDropIns(filepath.Join(dir, "folder.yaml"), true, &got); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a folder among the drop-ins: %v", err)
	}
	got = defaults()
	if origins, err := LoadWithDropIns(filepath.Join(dir, "none.yaml"), true, &got); err != nil || len(origins) != 0 || !cmp.Equal(got, defaults()) {
		t.Errorf("nothing at all: %+v, %v, %v", got, origins, err)
	}
}

func TestTooManyDropInsAreRefused(t *testing.T) {
	texts := map[string]string{}
	for i := range maxDropIns + 1 {
		texts["c.yaml.d/"+strings.Repeat("a", i+1)+".yaml"] = ""
	}
	got := defaults()
	if _, err := LoadWithDropIns(filepath.Join(files(t, texts), "c.yaml"), true, &got); err == nil || !strings.Contains(err.Error(), "100 is the most") {
		t.Errorf("got %v", err)
	}
}

// ranged is a struct as ours are.
type ranged struct {
	Length Duration `yaml:"length" doc:"How long." range:"50ms..2s"`
	Group  struct {
		Memory Size    `yaml:"memory" range:"1MiB..1TiB"`
		Part   float64 `yaml:"part" range:"0..1"`
		Count  int     `yaml:"count" range:"1..10"`
	} `yaml:"group" doc:"A group."`
	Free  string   `yaml:"free"`
	Names []string `yaml:"names"`
}

func (r *ranged) Check() error { return CheckRanges("", r) }

func whole() ranged {
	r := ranged{Length: Duration(time.Second), Free: "a b", Names: []string{"x", "y: z"}}
	r.Group.Memory, r.Group.Part, r.Group.Count = 64<<20, 0.5, 2
	return r
}

func TestRangesOfTheTagsRefuseAndNameTheirPlace(t *testing.T) {
	for _, tt := range []struct{ text, want string }{
		{"length: 49ms\n", "c.yaml:1:9: length: 49ms is not between 50ms and 2s"},
		{"\nlength: 1m\n", "c.yaml:2:9: length: 1m is not between"},
		{"group:\n  memory: 2TiB\n", "c.yaml:2:11: group.memory: 2TiB is not between 1MiB and 1TiB"},
		{"group: {part: .nan}\n", "c.yaml:1:15: group.part: NaN is not between 0 and 1"},
		{"group: {part: 1.01}\n", "1.01 is not between"},
		{"group: {count: 0}\n", "group.count: 0 is not between 1 and 10"},
	} {
		got := whole()
		if _, err := Parse("c.yaml", []byte(tt.text), &got); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%q: got %v, want %s", tt.text, err, tt.want)
		}
	}
	for _, text := range []string{"length: 50ms\n", "length: 2s\n", "group: {memory: 1TiB, part: 0, count: 10}\n"} {
		got := whole()
		if _, err := Parse("c.yaml", []byte(text), &got); err != nil {
			t.Errorf("%q: %v", text, err)
		}
	}
}

func TestKeysTellAllOfAStruct(t *testing.T) {
	want := []Key{
		{Name: "length", Type: "duration", Doc: "How long.", Least: "50ms", Most: "2s", Value: "1s"},
		{Name: "group", Type: "group", Doc: "A group."},
		{Name: "group.memory", Type: "size", Least: "1MiB", Most: "1TiB", Value: "64MiB"},
		{Name: "group.part", Type: "number", Least: "0", Most: "1", Value: "0.5"},
		{Name: "group.count", Type: "whole number", Least: "1", Most: "10", Value: "2"},
		{Name: "free", Type: "text", Value: "a b"},
		{Name: "names", Type: "list", Value: `[x, 'y: z']`},
	}
	if diff := cmp.Diff(want, Keys(new(whole()))); diff != "" {
		t.Error(diff)
	}
}

func TestSizesAreWrittenAsTheyAreRead(t *testing.T) {
	for text, want := range map[string]Size{"64MiB": 64 << 20, "2GB": 2e9, "1.5GiB": 3 << 29, "0B": 0, "17B": 17, "1000kB": 1e6, "3TiB": 3 << 40} {
		got, err := ParseSize(text)
		if err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", text, got, err, want)
		}
		if again, err := ParseSize(got.String()); err != nil || again != got {
			t.Errorf("%s is written as %s, which reads as %d, %v", text, got, again, err)
		}
	}
	for _, text := range []string{"", "64", "64M", "64mb", "-1MiB", "MiB", "1e3MiB", "99999999999TiB", "NaNB", "1 MiB"} {
		if got, err := ParseSize(text); err == nil {
			t.Errorf("%q is read as %d", text, got)
		}
	}
	if _, err := ParseSize("64M"); err == nil || !strings.Contains(err.Error(), "64M has no unit: write 64MiB, 64MB") {
		t.Errorf("got %v", err)
	}
}

func FuzzSize(f *testing.F) {
	for _, s := range []string{"64MiB", "1.5GB", "7", "KiB", "18446744073709551615B"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := ParseSize(text)
		if err != nil {
			return
		}
		if again, err := ParseSize(s.String()); err != nil || again != s {
			t.Errorf("%q is %d, written as %s, which reads as %d, %v", text, s, s, again, err)
		}
	})
}

func TestATrustedFileMayNotBeExchangeable(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root) // who may write a file matters only for root
	dir := files(t, map[string]string{"etc/c.yaml": "mode: x\n"})
	path := filepath.Join(dir, "etc/c.yaml")
	load := func() error {
		got := defaults()
		_, err := LoadTrusted(path, &got)
		return err
	}
	if err := load(); err != nil {
		t.Fatal(err)
	}
	for _, spoil := range []struct {
		name, want string
		do, undo   func() error
	}{
		{"a folder that all can write", "others than root can write " + dir + "/etc", func() error { return os.Chmod(dir+"/etc", 0o777) }, func() error { return os.Chmod(dir+"/etc", 0o755) }},
		{"somebody else's folder", dir + "/etc belongs to uid 65534", func() error { return os.Chown(dir+"/etc", 65534, 0) }, func() error { return os.Chown(dir+"/etc", 0, 0) }},
		{"a folder further up", "others than root can write " + dir, func() error { return os.Chmod(dir, 0o777) }, func() error { return os.Chmod(dir, 0o755) }},
		{"the file itself", "others than root can write " + path, func() error { return os.Chmod(path, 0o666) }, func() error { return os.Chmod(path, 0o644) }},
	} {
		if err := spoil.do(); err != nil {
			t.Fatal(err)
		}
		if err := load(); err == nil || !strings.Contains(err.Error(), spoil.want) {
			t.Errorf("%s: got %v, want %s", spoil.name, err, spoil.want)
		}
		if err := spoil.undo(); err != nil {
			t.Fatal(err)
		}
	}
}
