package enforce

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/internal/kerneltest"
)

func parseConfig(file string, text []byte) (Config, error) {
	c := fileConfig{DefaultConfig()}
	_, err := config.Parse(file, text, &c)
	return c.Config, err
}

func TestConfigErrorsNameTheFileAndLine(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an unknown key", "max_lease: 1m\nmax_leese: 2m\n", `f.yaml:2:1: unknown key "max_leese"; did you mean "max_lease"?`},
		{"an unknown key further in", "reach:\n  leases: 2\n  processes: 5\n", `f.yaml:3:3: unknown key "processes"`},
		{"no duration", "max_lease: 1 hour\n", `f.yaml:1:12: "1 hour" is no duration`},
		{"a number for a duration", "max_lease: 60\n", "f.yaml:1:12: 60 has no unit"},
		{"a word for a number", "\nreach:\n  leases: many\n", "f.yaml:3:11: "},
		{"broken YAML", "rate: {", "f.yaml:"},
		{"a lease beyond what any configuration allows", "reach: {leases: 1}\nmax_lease: 11m\n", "f.yaml:2:12: max_lease: 11m is not between 1s and 10m"},
		{"no heartbeat", "heartbeat_timeout: 0s\n", "f.yaml:1:20: heartbeat_timeout: it cannot be 0"},
		{"a bucket without tokens", "rate:\n  overall:\n    burst: 0\n", "f.yaml:3:12: rate.overall.burst: 0 is not between 1 and 1000"},
		{"more than all processes", "reach:\n  processes_percent: 101\n", "f.yaml:2:22: reach.processes_percent: 101"},
		{"no number at all", "reach:\n  processes_percent: .nan\n", "f.yaml:2:22: reach.processes_percent: NaN"},
		{"a unit without its suffix", "protected:\n  units: [sshd]\n", `f.yaml:2:10: protected.units: "sshd"`},
		{"a program without its path", "protected:\n  exes:\n  - sshd\n", `f.yaml:3:3: protected.exes: "sshd"`},
		{"the root cgroup", "protected:\n  cgroups: [/]\n", `f.yaml:2:12: protected.cgroups: "/"`},
		{"two documents", "max_lease: 1m\n---\nmax_lease: 2m\n", "f.yaml:2:1: a second document begins here"},
		{"a list", "- a\n", "f.yaml:1:1: "},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := parseConfig("f.yaml", []byte(c.text))
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") || strings.Contains(err.Error(), "!!") {
				t.Errorf("got %v, want %s", err, c.want)
			}
		})
	}
}

func TestConfigKeepsTheDefaultsOfWhatItDoesNotSay(t *testing.T) {
	want := DefaultConfig()
	for _, text := range []string{"", "# nothing\n", "{}\n"} {
		if got, err := parseConfig("f.yaml", []byte(text)); err != nil || !cmp.Equal(got, want) {
			t.Errorf("%q: %v, %s", text, err, cmp.Diff(want, got))
		}
	}
	want.MaxLease = config.Duration(2 * time.Minute)
	want.Rate.PerTarget.Burst = 5
	want.Protected.Units = []string{"a@*.service"}
	got, err := parseConfig("f.yaml", []byte("max_lease: 2m\nrate: {per_target: {burst: 5}}\nprotected: {units: ['a@*.service']}\n"))
	if err != nil || !cmp.Equal(got, want) {
		t.Errorf("%v, %s", err, cmp.Diff(want, got))
	}
}

func TestLoadConfig(t *testing.T) {
	file := filepath.Join(t.TempDir(), "enforcer.yaml")
	if _, err := LoadConfig(file); err == nil {
		t.Error("a missing file that was named is accepted")
	}
	if err := os.WriteFile(file, []byte("max_lease: 1m\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if c, err := LoadConfig(file); err != nil || c.MaxLease.D() != time.Minute {
		t.Errorf("got %+v, %v", c, err)
	}
	kerneltest.Require(t, kerneltest.Root) // who may write the file matters only for root
	os.Chmod(file, 0o666)
	if _, err := LoadConfig(file); err == nil || !strings.Contains(err.Error(), "chmod") {
		t.Errorf("writable by all: %v", err)
	}
	os.Chmod(file, 0o644)
	os.Chown(file, 65534, 0)
	if _, err := LoadConfig(file); err == nil || !strings.Contains(err.Error(), "must belong to root") {
		t.Errorf("somebody else's: %v", err)
	}
	if _, err := LoadConfig(filepath.Dir(file)); err == nil {
		t.Error("a directory is accepted")
	}
}
