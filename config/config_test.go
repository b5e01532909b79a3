package config

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"gopkg.in/yaml.v3"
)

type settings struct {
	Mode      string           `yaml:"mode"`
	Tick      Duration         `yaml:"tick"`
	ForkStorm storm            `yaml:"fork_storm"`
	Protected []string         `yaml:"protected"`
	Limits    map[string]storm `yaml:"limits"`
	Enabled   bool             `yaml:"enabled"`
	Kinds     []kind           `yaml:"kinds"`
	Secret    string           `yaml:"-"`
}

type kind string

type storm struct {
	Rate      float64  `yaml:"rate"`
	For       Duration `yaml:"for"`
	Processes int      `yaml:"processes"`
	Leases    uint     `yaml:"leases"`
}

func defaults() settings {
	return settings{Mode: "monitor", Tick: Duration(250 * time.Millisecond), ForkStorm: storm{Rate: 10}}
}

func TestLoad(t *testing.T) {
	tests := []struct {
		name, text string
		want       func(*settings)
	}{
		{"an empty file keeps the defaults", "", func(*settings) {}},
		{"so does one of comments", "# mode: enforce\n", func(*settings) {}},
		{"and an empty document", "---\n", func(*settings) {}},
		{"what is named is changed, the rest is kept", "fork_storm:\n  for: 2s\n", func(s *settings) { s.ForkStorm.For = Duration(2 * time.Second) }},
		{"a key without a value keeps its default", "tick:\nmode: dry-run\n", func(s *settings) { s.Mode = "dry-run" }},
		{"one document with its marks", "---\nmode: dry-run\n...\n", func(s *settings) { s.Mode = "dry-run" }},
		{"a list", "protected: [sshd.service, \"a b\"]\n", func(s *settings) { s.Protected = []string{"sshd.service", "a b"} }},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "breakerd.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			want, got := defaults(), defaults()
			tt.want(&want)
			if _, err := Load(path, &got); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestMistakesAreToldWithTheirLine(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"a slip in a key", "tick: 1s\nmdoe: enforce\n", `c.yaml:2:1: unknown key "mdoe"; did you mean "mode"?`},
		{"a slip further in", "fork_storm:\n  proceses: 3\n", `c.yaml:2:3: unknown key "proceses"; did you mean "processes"?`},
		{"a slip within a map", "limits:\n  a:\n    Rate: 3\n", `c.yaml:3:5: unknown key "Rate"; did you mean "rate"?`},
		{"a key like no other", "fork_storm:\n  telemetry: 1\n", `c.yaml:2:3: unknown key "telemetry"; known here: for, leases, processes, rate`},
		{"a key of another group", "rate: 1\n", `c.yaml:1:1: unknown key "rate"; `},
		{"a field that is not for files", "secret: x\n", `c.yaml:1:1: unknown key "secret"; `},
		{"text for a number", "fork_storm:\n  processes: many\n", `c.yaml:2:14: this is text ("many"), and should be a whole number`},
		{"a negative count", "fork_storm:\n  leases: -1\n", `c.yaml:2:11: this is a number ("-1"), and should be a whole number, 0 or more`},
		{"text for yes or no", "enabled: maybe\n", `c.yaml:1:10: this is text ("maybe"), and should be true or false`},
		{"a list for a group", "fork_storm: [1]\n", `c.yaml:1:13: this is a list, and should be a group of keys`},
		{"a group for a word", "kinds:\n  - {a: 1}\n", `c.yaml:2:5: this is a group of keys, and should be text`},
		{"a word for a list", "protected: sshd\n", `c.yaml:1:12: this is text ("sshd"), and should be a list`},
		{"a word for a file", "enforce\n", `c.yaml:1:1: this is text ("enforce"), and should be a group of keys`},
		{"a duration without unit", "tick: 250\n", `c.yaml:1:7: 250 has no unit: write 250s or 250ms`},
		{"nought without unit", "tick: 0\n", `c.yaml:1:7: 0 has no unit`},
		{"a fraction without unit", "tick: \"1.5\"\n", `c.yaml:1:7: 1.5 has no unit`},
		{"a duration that is none", "tick: soon\n", `c.yaml:1:7: "soon" is no duration: write a number and its unit`},
		{"a negative duration", "tick: -1s\n", `c.yaml:1:7: duration -1s is negative`},
		{"a list for a duration", "tick: [1s]\n", `c.yaml:1:7: a duration is a number and its unit`},
		{"a key twice", "mode: monitor\nmode: enforce\n", `c.yaml:2:1: key "mode" is already set in line 1; keep one of them`},
		{"no YAML", "mode: [\n", `c.yaml:1: this is no YAML: `},
		{"a tab", "fork_storm:\n\trate: 1\n", `c.yaml:2: this is no YAML: `},
		{"a second document", "mode: monitor\n---\nmode: enforce\n", `c.yaml:2:1: a second document begins here`},
		{"an empty second document", "mode: monitor\n---\n", `a second document begins here`},
		{"a first document that is empty", "---\n---\nmode: enforce\n", `c.yaml:2:1: a second document begins here`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := defaults()
			_, err := Parse("c.yaml", []byte(tt.text), &got)
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant %s", err, tt.want)
			}
		})
	}
}

func TestAllMistakesAreToldAtOnce(t *testing.T) {
	got := defaults()
	_, err := Parse("c.yaml", []byte("mdoe: enforce\ntick: 10\nenabled: 3\n"), &got)
	var all Errors
	if !errors.As(err, &all) || len(all) != 3 {
		t.Fatalf("got %v", err)
	}
	if lines := strings.Split(err.Error(), "\n"); len(lines) != 3 {
		t.Errorf("got %d lines: %v", len(lines), err)
	}
}

func TestLoadOfAMissingFileSaysWhatToDo(t *testing.T) {
	path := filepath.Join(t.TempDir(), "none.yaml")
	_, err := Load(path, &settings{})
	want := "read configuration " + path + ": no such file or directory; make it, or leave --config out for the defaults"
	if !errors.Is(err, fs.ErrNotExist) || err.Error() != want {
		t.Errorf("got  %v\nwant %s", err, want)
	}
	if _, err := Load(t.TempDir(), &settings{}); err == nil || !strings.Contains(err.Error(), "is a directory") {
		t.Errorf("a directory: %v", err)
	}
}

func TestLoadOfAHugeFileIsRefused(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.img")
	if err := os.WriteFile(path, make([]byte, maxSize+1), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(path, &settings{}); err == nil || !strings.Contains(err.Error(), "is this the right file?") {
		t.Errorf("got %v", err)
	}
}

func TestDurationsAreWrittenAsTheyAreRead(t *testing.T) {
	d := Duration(90 * time.Minute)
	asYAML, err := yaml.Marshal(map[string]Duration{"for": d})
	if err != nil || string(asYAML) != "for: 1h30m\n" {
		t.Errorf("YAML: %q, %v", asYAML, err)
	}
	asJSON, err := json.Marshal(map[string]Duration{"for": d})
	if err != nil || string(asJSON) != `{"for":"1h30m"}` {
		t.Errorf("JSON: %q, %v", asJSON, err)
	}
	var back map[string]Duration
	if err := json.Unmarshal(asJSON, &back); err != nil || back["for"] != d {
		t.Errorf("back: %v, %v", back, err)
	}
	for _, bad := range []string{`{"for":10}`, `{"for":"10"}`, `{"for":"-1s"}`} {
		if err := json.Unmarshal([]byte(bad), &back); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, text := range []string{
		"", "mode: monitor\n", "tick: 250ms\nfork_storm: {rate: 10, for: 2s}\n", "mdoe: x\n",
		"a: &a [*a]\n", "---\n---\n", "limits: {a: {rate: 1}}\n", "tick: 1\n",
	} {
		f.Add([]byte(text))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		got := defaults()
		if _, err := Parse("c.yaml", text, &got); err != nil {
			if !strings.HasPrefix(err.Error(), "c.yaml:") {
				t.Errorf("the error does not name the file: %v", err)
			}
			return
		}
		if got.Tick < 0 {
			t.Errorf("a negative duration: %v", got.Tick)
		}
	})
}

func FuzzDuration(f *testing.F) {
	for _, s := range []string{"250ms", "10s", "10", "-1s", "1h30m", "", "1e9s", "."} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		d, err := ParseDuration(s)
		if err != nil {
			return
		}
		if again, err := ParseDuration(d.String()); err != nil || again != d {
			t.Errorf("%q is %v, which reads as %v, %v", s, d, again, err)
		}
	})
}
