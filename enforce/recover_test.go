package enforce

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// points are the labelled moments of a lease's life.
var points = []string{
	"before record", "after record", "after write", "after confirm", "after held",
	"before restore", "after restore", "after end record", "after put away",
}

type killed struct{}

// A kill at each labelled moment is recovered from: nothing stays frozen and the
// record is put away once. (TestKill does this with real processes and SIGKILL.)
func TestAKillAtEachMomentIsRecoveredFrom(t *testing.T) {
	for _, point := range points {
		t.Run(point, func(t *testing.T) {
			w := newWorld(t)
			w.open(func(o *Options) {
				o.at = func(p string) {
					if p == point {
						panic(killed{})
					}
				}
			})
			d := w.decide(w.tree("/a", 100), 100, time.Minute)
			func() {
				defer func() {
					if r := recover(); r != nil && r != (killed{}) {
						panic(r)
					}
				}()
				w.e.Propose(t.Context(), d)
				l := w.e.active[d.ID]
				l.claimed, l.EndReason = true, model.EndExpired
				w.e.undo(l)
			}()
			w.crash()
			w.open()
			if _, err := w.e.Recover(t.Context()); err != nil {
				t.Error(err)
			}
			w.wantHeld("/a", false)
			switch point {
			case "before record":
				w.wantFiled(d.ID)
			default:
				w.wantFiled(d.ID, endedDir)
			}
			writes := len(w.fake.Writes())
			again := w.e.Propose(t.Context(), d)
			if point != "before record" && (len(w.fake.Writes()) != writes || again.LeaseID != d.ID) {
				t.Errorf("done twice: %+v, %q", again, w.fake.Writes())
			}
			w.close()
		})
	}
}

func TestRecordsThatCannotBeRead(t *testing.T) {
	w := newWorld(t)
	w.open()
	ref := w.fake.Make("/a b\"c", 100)
	d := w.decide(ref, 100, time.Minute)
	whole, err := json.MarshalIndent(model.Lease{
		Version: 1, ID: d.ID, State: model.LeaseHeld, Decision: d, Writes: []model.FileWrite{cgroupctl.FreezeWrite()},
	}, "", "\t")
	if err != nil {
		t.Fatal(err)
	}
	w.crash()
	text := string(whole)
	for _, c := range []struct {
		name, text string
		thawed     bool
	}{
		{"cut off in the middle", text[:strings.Index(text, `"root"`)], true},
		{"cut off before the cgroup", text[:strings.Index(text, `"target"`)], false},
		{"empty", "", false},
		{"zeros", strings.Repeat("\x00", 4096), false},
		{"of another version", strings.Replace(text, `"version": 1`, `"version": 2`, 1), true},
		{"with a field that nobody knows", strings.Replace(text, `"state"`, `"more": 1, "state"`, 1), true},
		{"of another lease", strings.Replace(text, `"id": "`+d.ID, `"id": "other`, 1), true},
		{"with a write that we never make", strings.Replace(text, `cgroup.freeze`, `cgroup.kill`, 1), true},
		{"with an undo that would freeze", strings.Replace(strings.Replace(text, `"was": "0"`, `"was": "1"`, 1), `"wrote": "1"`, `"wrote": "0"`, 1), true},
		{"of another cgroup under this path", strings.Replace(text, `"cgroup_id": `, `"cgroup_id": 9`, 1), false},
		{"with something behind it", text + text, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			w.t = t
			os.RemoveAll(filepath.Join(w.state, "leases", unreadableDir))
			name := filepath.Join(w.state, "leases", activeDir, d.ID+suffix)
			if err := os.WriteFile(name, []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			w.fake.SetFreeze(ref.Path, "1")
			w.open()
			_, err := w.e.Recover(t.Context())
			whole := c.name == "of another cgroup under this path"
			if (err == nil) != whole {
				t.Errorf("got error %v", err)
			}
			w.wantHeld(ref.Path, !c.thawed)
			if !whole {
				w.wantFiled(d.ID, unreadableDir)
				if out := w.e.Propose(t.Context(), d); out.Error == "" {
					t.Errorf("carried out again: %+v", out)
				}
			}
			w.close()
			os.Remove(filepath.Join(w.state, "leases", endedDir, d.ID+suffix))
		})
	}
}

func TestTheRateOutlivesARestart(t *testing.T) {
	w := newWorld(t)
	w.open()
	ref := w.tree("/a", 100)
	for range 3 {
		d := w.decide(ref, 100, time.Minute)
		w.mustHold(d)
		w.crash()
		w.open()
		if _, err := w.e.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if out := w.e.Propose(t.Context(), w.decide(ref, 100, time.Minute)); out.RefusedBy != "rate" {
		t.Errorf("got %+v", out)
	}
	w.close()
}

func TestEndedRecordsArePruned(t *testing.T) {
	w := newWorld(t)
	w.open()
	now := time.Now()
	r := w.e.records
	for i := range maxEnded {
		r.kept = append(r.kept, keptRecord{"old", now.Add(-time.Hour + time.Duration(i))})
	}
	d := w.decide(w.tree("/a", 100), 100, time.Minute)
	w.mustHold(d)
	w.release(d.ID)
	if len(r.kept) != maxEnded {
		t.Errorf("%d are kept, want %d", len(r.kept), maxEnded)
	}
	w.wantFiled(d.ID, endedDir)
	w.close()
}

func TestLeaseRecordsThatSomebodyElseCanWriteAreRefused(t *testing.T) {
	w := newWorld(t)
	leases := filepath.Join(w.state, "leases")
	if err := os.Mkdir(leases, 0o777); err != nil {
		t.Fatal(err)
	}
	os.Chmod(leases, 0o777)
	if _, err := Open(w.options()); err == nil || !strings.Contains(err.Error(), "nobody else can write") {
		t.Errorf("got %v", err)
	}
	os.RemoveAll(leases)
	os.Symlink(t.TempDir(), leases)
	if _, err := Open(w.options()); err == nil {
		t.Error("a symlink was followed")
	}
}

func FuzzRecord(f *testing.F) {
	f.Add([]byte(`{"version":1,"id":"x","decision":{"id":"x","target":{"cgroup":"/a","cgroup_id":5}},"writes":[{"file":"cgroup.freeze","was":"0","wrote":"1"}]}`))
	f.Add([]byte(`"target": {"cgroup": "/a\u0000", "cgroup_id": 18446744073709551616`))
	f.Add([]byte(`{}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		if l, err := parseRecord("x", b); err == nil {
			if l.ID != "x" || cgroupctl.CheckPath(l.Decision.Target.Cgroup) != nil || cgroupctl.CheckWrite(l.Writes[0]) != nil {
				t.Errorf("accepted %+v", l)
			}
		}
		if r, ok := salvage(b); ok && (r.ID == 0 || cgroupctl.CheckPath(r.Path) != nil) {
			t.Errorf("salvaged %+v", r)
		}
	})
}
