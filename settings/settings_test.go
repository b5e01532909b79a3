package settings

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

func file(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "breakerd.yaml")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func TestTheDefaultsAreValidAndOnlyWatch(t *testing.T) {
	c := Default()
	if err := c.Check(); err != nil {
		t.Error(err)
	}
	if c.Mode != model.Monitor {
		t.Errorf("mode %q, want monitor", c.Mode)
	}
}

func TestAFileChangesWhatItNames(t *testing.T) {
	tests := []struct {
		name, text string
		want       func(*Settings)
	}{
		{"nothing", "", func(*Settings) {}},
		{"the mode", "mode: dry-run\n", func(c *Settings) { c.Mode = model.DryRun }},
		{"the tick", "tick: 1s\n", func(c *Settings) { c.Tick = config.Duration(time.Second) }},
		{"policies", "policies: {paths: [/a, /b]}\n", func(c *Settings) { c.Policies.Paths = []string{"/a", "/b"} }},
		{"a signed bundle without TLS", "policies: {bundle: {source: 'http://h/b.tar.gz', public_key: /k}}\n", func(c *Settings) {
			c.Policies.Bundle.Source, c.Policies.Bundle.PublicKey = "http://h/b.tar.gz", "/k"
		}},
		{"one threshold, and its neighbours keep theirs", "detect:\n  fork_storm:\n    hold: 5s\n", func(c *Settings) { c.Detect.ForkStorm.Hold = config.Duration(5 * time.Second) }},
		{"the bounds themselves", "tick: 50ms\ndetect:\n  cpu_contention: {use_percent: 100, own_quota_part_at_most: 0}\n", func(c *Settings) {
			c.Tick = config.Duration(50 * time.Millisecond)
			c.Detect.CPUContention.UsePercent, c.Detect.CPUContention.OwnQuotaPartAtMost = 100, 0
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			want := Default()
			tt.want(&want)
			got, _, err := Load(file(t, tt.text))
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestEveryBoundRefusesAndNamesItsKey(t *testing.T) {
	detect := func(group, key, value string) string {
		return "detect:\n  " + group + ":\n    " + key + ": " + value + "\n"
	}
	type test struct{ key, text string }
	tests := []test{
		{"mode", "mode: enforced\n"},
		{"mode", "mode: Enforce\n"},
		{"mode", "mode: ''\n"},
		{"tick", "tick: 49ms\n"},
		{"tick", "tick: 2001ms\n"},
		{"tick", "tick: 0s\n"},
		{"runtime_dir", "runtime_dir: ''\n"},
		{"policies.shadow", "policies: {shadow: 169h}\n"},
		{"policies.bundle.poll", "policies: {bundle: {poll: 0s}}\n"},
		{"policies.bundle.algorithm", "policies: {bundle: {algorithm: none}}\n"},
		{"policies.bundle.source", "policies: {bundle: {source: 'http://h/b.tar.gz'}}\n"},
		{"policies.bundle.source", "policies: {bundle: {source: 'https://a:b@h/b.tar.gz', public_key: /k}}\n"},
		{"policies.bundle.source", "policies: {bundle: {source: 'ftp://h/b.tar.gz', public_key: /k}}\n"},
		{"policies.bundle.token_file", "policies: {bundle: {source: 'http://h/b.tar.gz', public_key: /k, token_file: /t}}\n"},
		{"policies.decision_log.url", "policies: {decision_log: {url: /a}}\n"},
		{"policies.decision_log.url", "policies: {decision_log: {url: 'https://a:b@h/'}}\n"},
		{"policies.decision_log.token_file", "policies: {decision_log: {url: 'http://h/', token_file: /t}}\n"},
		{"policies.settle", "policies: {settle: 61m}\n"},
	}
	for group, keys := range map[string]map[string][]string{
		"fork_storm": {
			"forks_per_second": {"0", "-1", "1000001", ".nan", ".inf"},
			"hold":             {"0s", "61m"},
		},
		"cpu_contention": {
			"some_percent":           {"0", "101", ".nan"},
			"use_percent":            {"0.5", "100.1", ".nan"},
			"victim_ms_per_second":   {"0", "1e7", ".nan"},
			"deprived_percent":       {"-1", "101", ".nan"},
			"own_quota_part_at_most": {"-0.1", "1.1", ".nan"},
			"hold":                   {"0s", "61m"},
		},
		"noisy_neighbour": {
			"victim_ms_per_second":   {"0", "1e7", ".nan"},
			"deprived_percent":       {"-1", "101", ".nan"},
			"own_quota_part_at_most": {"-0.1", "1.1", ".nan"},
			"hold":                   {"0s", "61m"},
		},
		"short_lived_jobs": {
			"exits_per_second":     {"0", "1000001", ".nan"},
			"victim_ms_per_second": {"0", "1e7", ".nan"},
			"hold":                 {"0s", "61m"},
		},
		"memory_leak": {
			"horizon":            {"0s", "61m"},
			"min_growth":         {"0B", "1023KiB", "2TiB"},
			"min_growth_percent": {"0", "1001", ".nan"},
			"rising_percent":     {"49", "101", ".nan"},
			"min_observation":    {"0s", "61m"},
		},
		"memory_pressure": {
			"full_percent":         {"0", "101", ".nan"},
			"victim_ms_per_second": {"0", "1e7", ".nan"},
			"hold":                 {"0s", "61m"},
		},
		"io_pressure": {
			"full_percent":         {"0", "101", ".nan"},
			"victim_ms_per_second": {"0", "1e7", ".nan"},
			"hold":                 {"0s", "61m"},
		},
		"psi_saturation": {
			"some_percent":         {"0", "101", ".nan"},
			"victim_ms_per_second": {"0", "1e7", ".nan"},
			"hold":                 {"0s", "61m"},
		},
		"hysteresis": {
			"close_below": {"0", "1.1", ".nan"},
			"close_after": {"0s", "61m"},
		},
	} {
		for key, values := range keys {
			for _, value := range values {
				tests = append(tests, test{"detect." + group + "." + key, detect(group, key, value)})
			}
		}
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			path := file(t, tt.text)
			got, _, err := Load(path)
			if err == nil {
				t.Fatalf("accepted as %+v", got)
			}
			if !strings.HasPrefix(err.Error(), path+":") || !strings.Contains(err.Error(), tt.key) {
				t.Errorf("%q does not name the file and %s", err, tt.key)
			}
		})
	}
}

func TestADropInIsPartOfTheConfiguration(t *testing.T) {
	path := file(t, "tick: 1s\n")
	if err := errors.Join(os.Mkdir(path+".d", 0o755), os.WriteFile(path+".d/50-mine.yaml", []byte("detect:\n  io_pressure: {hold: 7s}\n"), 0o644)); err != nil {
		t.Fatal(err)
	}
	c, origins, err := Load(path)
	if err != nil || c.Tick.D() != time.Second || c.Detect.IOPressure.Hold.D() != 7*time.Second {
		t.Fatalf("got %+v, %v", c, err)
	}
	want := config.Origins{"tick": {File: path, Line: 1, Column: 7}, "detect.io_pressure.hold": {File: path + ".d/50-mine.yaml", Line: 2, Column: 23}}
	if diff := cmp.Diff(want, origins); diff != "" {
		t.Error(diff)
	}
}

func TestEveryKeyHasAMeaningAndEveryFigureItsBounds(t *testing.T) {
	for _, k := range config.Keys(new(Default())) {
		if k.Doc == "" || !strings.HasSuffix(k.Doc, ".") {
			t.Errorf("%s: %q is no sentence", k.Name, k.Doc)
		}
		if figure := k.Type == "duration" || k.Type == "size" || strings.Contains(k.Type, "number"); figure && k.Most == "" {
			t.Errorf("%s is a %s without bounds", k.Name, k.Type)
		}
	}
}

func TestTheDefaultPolicyFolderMayBeMissingAndNoOther(t *testing.T) {
	c := Default()
	c.Policies.Paths = []string{DefaultPolicies, "/nonexistent/policies"}
	want := c.Policies.Paths[1:]
	if _, err := os.Stat(DefaultPolicies); err == nil {
		want = c.Policies.Paths
	}
	if diff := cmp.Diff(want, c.PolicyPaths()); diff != "" {
		t.Error(diff)
	}
}

func TestASlipInAFileIsRefused(t *testing.T) {
	for _, text := range []string{"mod: enforce\n", "detect:\n  fork_storms: {}\n", "tick: 250\n", "policies: [/a]\n", "policies: {paths: /a}\n", "detect: {hysteresis: {close_after: -5s}}\n", "detect: {memory_leak: {min_growth: 64}}\n", "detect: {memory_leak: {min_growth: 64M}}\n", "\tmode: monitor\n"} {
		t.Run(text, func(t *testing.T) {
			path := file(t, text)
			if got, _, err := Load(path); err == nil || !strings.Contains(err.Error(), path) {
				t.Errorf("settings %+v, error %v: want one that names the file", got, err)
			}
		})
	}
}

func TestANamedFileMustBeThere(t *testing.T) {
	if _, _, err := Load(filepath.Join(t.TempDir(), "none.yaml")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v, want that it does not exist", err)
	}
}

func TestTheDefaultFileMayBeMissing(t *testing.T) {
	if _, err := os.Stat(DefaultFile); err == nil {
		t.Skip(DefaultFile + " is on this machine")
	}
	got, _, err := Load("")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(Default(), got); diff != "" {
		t.Error(diff)
	}
}
