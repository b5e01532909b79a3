package systemd

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// confining matches what bounds a service: what it may do, and how much it may take.
var confining = regexp.MustCompile(`^(Protect|Private|Restrict|Capability|Ambient|NoNew|SystemCall|Lock|MemoryDeny|Keyring|` +
	`RemoveIPC|UMask|DevicePolicy|IPAddress|ProcSubset|ReadWrite|OOMScore|Memory(Min|Max)|Tasks|Slice|Limit|StartLimit)`)

// A reason stands right above a line, or above the lines that it is the reason of.
func TestEveryConfiningLineOfAUnitHasItsReason(t *testing.T) {
	units, err := filepath.Glob("units/*.service")
	if err != nil || len(units) != 2 {
		t.Fatal(units, err)
	}
	for _, unit := range units {
		text, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		seen, alike, reason := 0, 0, false
		for i, line := range strings.Split(string(text), "\n") {
			switch {
			case line == "" || strings.HasPrefix(line, "["):
				reason = false
			case strings.HasPrefix(line, "#"):
				reason, alike = true, 0
			case confining.MatchString(line):
				seen, alike = seen+1, alike+1
				if !reason {
					t.Errorf("%s:%d: %s: nobody says why", unit, i+1, line)
				}
				if alike > 4 {
					t.Errorf("%s:%d: %s: is the reason above still its own?", unit, i+1, line)
				}
			}
		}
		if seen < 30 {
			t.Errorf("%s: %d confining lines, want them all", unit, seen)
		}
		for _, must := range []string{"Slice=breaker.slice", "MemoryMin=", "MemoryMax=", "OOMScoreAdjust=", "WatchdogSec=", "Restart=always", "StartLimitBurst=", "NoNewPrivileges=yes", "Type=notify"} {
			if !strings.Contains(string(text), "\n"+must) {
				t.Errorf("%s: no %s", unit, must)
			}
		}
	}
}

// What sees to it that nothing stays held where the enforcer does not let go itself. That each is
// enough alone is tried under systemd, in e2e/owner.
func TestTheUnitsOfTheEnforcerUndoWhatItDoesNot(t *testing.T) {
	for unit, must := range map[string][]string{
		"breaker-enforcer.service": {"ExecStopPost=/usr/libexec/breakerd/breaker-enforcer --undo", "Restart=always", "WatchdogSec=15s", "Requires=breaker-enforcer.socket"},
		"breaker-enforcer.socket":  {"Wants=breaker-enforcer.service", "PartOf=breaker-enforcer.service", "WantedBy=sockets.target"},
	} {
		text, err := os.ReadFile("units/" + unit)
		if err != nil {
			t.Fatal(err)
		}
		for _, line := range must {
			if !strings.Contains(string(text), "\n"+line+"\n") {
				t.Errorf("%s: no %s", unit, line)
			}
		}
	}
}

// The kernel's figures of what breakerd may be given are those of its comment.
func TestBreakerdMayLoadKernelProgramsAndNothingElse(t *testing.T) {
	text, err := os.ReadFile("units/breakerd.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"User=breakerd", "CapabilityBoundingSet=CAP_BPF CAP_PERFMON", "AmbientCapabilities=CAP_BPF CAP_PERFMON", "ProtectControlGroups=yes", "ProtectSystem=strict", "RestrictAddressFamilies=AF_UNIX"} {
		if !strings.Contains(string(text), "\n"+line+"\n") {
			t.Errorf("no %s", line)
		}
	}
}

// The drop-in opens what it is for, and what denies everybody else stays.
func TestTheDropInForANetworkOpensThatAlone(t *testing.T) {
	text, err := os.ReadFile("units/network.conf")
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for line := range strings.Lines(string(text)) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "#") {
			got = append(got, line)
		}
	}
	want := []string{"[Service]", "PrivateNetwork=no", "RestrictAddressFamilies=AF_INET AF_INET6", "IPAddressAllow=192.0.2.10 127.0.0.53"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}
