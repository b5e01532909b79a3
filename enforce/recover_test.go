package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// The labelled moments of a lease's life: of every one, of a throttle with several limits,
// of a tree that is moved into a cgroup of its own, of what somebody else writes over, and of a
// throttle that is loosened.
var (
	points = []string{
		"before record", "after record", "after write", "after confirm", "after held",
		"before restore", "after restore", "after end record", "after put away",
	}
	pointsThrottle = []string{"after first write"}
	pointsInside   = []string{"after isolate", "after first move"}
	pointsAssert   = []string{"before assert"}
	pointsEase     = []string{"before ease", "after ease"}
)

// Whoever labels a moment has it killed at.
func TestEveryLabelledMomentIsKilledAt(t *testing.T) {
	label := regexp.MustCompile(`\.at\("([^"]+)"\)`)
	files, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	known := slices.Concat(points, pointsThrottle, pointsInside, pointsAssert, pointsEase)
	seen := map[string]bool{}
	for _, file := range files {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range label.FindAllStringSubmatch(string(text), -1) {
			seen[m[1]] = true
			if !slices.Contains(known, m[1]) {
				t.Errorf("%s labels the moment %q, at which nobody kills", file, m[1])
			}
		}
	}
	for _, point := range known {
		if !seen[point] {
			t.Errorf("no code comes to the moment %q", point)
		}
	}
}

type killed struct{}

// A kill at each labelled moment is recovered from: nothing stays frozen and the
// record is put away once. (TestKill does this with real processes and SIGKILL.)
func TestAKillAtEachMomentIsRecoveredFrom(t *testing.T) {
	for _, kind := range []model.ActionKind{model.Freeze, model.Throttle} {
		for _, point := range slices.Concat(points, pointsThrottle, pointsEase) {
			if kind == model.Freeze && slices.Contains(pointsEase, point) {
				continue
			}
			t.Run(fmt.Sprintf("%s %s", kind, point), func(t *testing.T) { killedAt(t, kind, point) })
		}
	}
}

func killedAt(t *testing.T, kind model.ActionKind, point string) {
	w := newWorld(t)
	w.open(func(o *Options) {
		o.at = func(p string) {
			if p == point {
				panic(killed{})
			}
		}
	})
	_, d := w.limited("/a", 100)
	d.Action.ForMS, d.Action.EaseMS = time.Minute.Milliseconds(), 10_000
	if kind == model.Freeze {
		d.Action = w.decide(cgroupctl.Ref{}, 0, time.Minute).Action
	}
	func() {
		defer func() {
			if r := recover(); r != nil && r != (killed{}) {
				panic(r)
			}
		}()
		w.e.Propose(t.Context(), d)
		l := w.e.active[d.ID]
		if l.EasesAt != nil { // its time has come
			l.EasesAt = &l.CreatedAt
			w.e.ease(l)
		}
		l.claimed, l.EndReason = true, model.EndExpired
		w.e.undo(l)
	}()
	w.crash()
	w.open()
	if _, err := w.e.Recover(t.Context()); err != nil {
		t.Error(err)
	}
	w.wantHeld("/a", false)
	w.wantLimits("/a", "max 100000", "4915")
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
		{"of another version", strings.Replace(text, `"version": 1`, fmt.Sprintf(`"version": %d`, model.LeaseVersion+1), 1), true},
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

// Whatever lies among the records keeps nobody from undoing the others.
func TestAFIFOAmongTheRecordsHoldsNothingUp(t *testing.T) {
	w := newWorld(t)
	w.open()
	held := w.decide(w.tree("/a", 100), 100, time.Minute)
	w.mustHold(held)
	w.crash()
	if err := unix.Mkfifo(filepath.Join(w.state, "leases", activeDir, "0"+suffix), 0o600); err != nil {
		t.Fatal(err)
	}
	w.open()
	if _, err := w.e.Recover(t.Context()); err == nil {
		t.Error("nothing was said of it")
	}
	w.wantHeld("/a", false)
	w.wantFiled("0", unreadableDir)
	w.close()
}

// A record that was written by whoever did not bound it is undone like any other, and
// salvaged like any other if it is spoilt.
func TestALongRecordIsUndone(t *testing.T) {
	for version := 1; version <= model.LeaseVersion+1; version++ {
		w := newWorld(t)
		w.open()
		ref := w.fake.Make("/a", 100)
		d := w.decide(ref, 100, time.Minute)
		d.Action.Reason = strings.Repeat("<", 63000)
		text, err := json.MarshalIndent(model.Lease{
			Version: version, ID: d.ID, State: model.LeaseHeld, Decision: d, Writes: []model.FileWrite{cgroupctl.FreezeWrite()},
		}, "", "\t")
		if err != nil || len(text) < maxRecord {
			t.Fatalf("%d bytes, %v", len(text), err)
		}
		w.crash()
		if err := os.WriteFile(filepath.Join(w.state, "leases", activeDir, d.ID+suffix), text, 0o600); err != nil {
			t.Fatal(err)
		}
		w.fake.SetFreeze(ref.Path, "1")
		w.open()
		if _, err := w.e.Recover(t.Context()); (err == nil) != (version <= model.LeaseVersion) {
			t.Errorf("version %d: %v", version, err)
		}
		w.wantHeld(ref.Path, false)
		w.close()
	}
}

// What could not be read again covers nothing.
func TestARecordThatIsTooLongIsNotWritten(t *testing.T) {
	w := newWorld(t)
	w.open()
	d := w.decide(w.fake.Make("/a", 100), 100, time.Minute)
	l := model.Lease{Version: 1, ID: d.ID, State: model.LeaseIntended, Decision: d, Writes: []model.FileWrite{cgroupctl.FreezeWrite()}}
	for _, c := range []struct {
		reason string
		ok     bool
	}{
		{strings.Repeat("\x01", maxWords) + strings.Repeat("<", 1000), true}, // beyond what the guard lets through
		{strings.Repeat("\x01", maxRecord/6), false},
	} {
		l.Decision.Action.Reason = c.reason
		l.Note = strings.Repeat("\x01", maxNote)
		err := w.e.records.write(l, durable)
		if (err == nil) != c.ok || err != nil && !strings.Contains(err.Error(), "is the most") {
			t.Errorf("a reason of %d bytes: %v", len(c.reason), err)
		}
		if got, err := w.e.records.read(activeDir, l.ID); c.ok && (err != nil || got.Decision.Action.Reason != c.reason) {
			t.Errorf("read again: %v", err)
		}
		w.e.records.forget(l.ID)
	}
	w.wantFiled(d.ID)
	w.close()
}

// A record that cannot be read now may say something a moment later: it is not set
// aside, it is tried again, and nothing new is begun before.
func TestARecordThatCannotBeReadNowIsTriedAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		w.open()
		held := w.decide(w.tree("/a", 100), 100, time.Minute)
		w.mustHold(held)
		w.crash()
		name := filepath.Join(w.state, "leases", activeDir, held.ID+suffix)
		if err := os.Rename(name, name+".away"); err != nil {
			t.Fatal(err)
		}
		away := filepath.Join(w.state, "away")
		os.Rename(name+".away", away)
		os.Mkdir(name, 0o700) // its read fails, with EISDIR
		w.open()
		if _, err := w.e.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "is a directory") {
			t.Errorf("got %v", err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		go w.e.Run(ctx)
		d := w.decide(w.tree("/b", 200), 200, time.Minute)
		time.Sleep(10 * time.Second)
		synctest.Wait()
		if out := w.e.Propose(t.Context(), d); out.RefusedBy != "mode" || !strings.Contains(out.Reason, "not recovered yet") || !strings.Contains(out.Reason, held.ID) {
			t.Errorf("got %+v", out)
		}
		w.wantHeld("/a", true)
		w.wantFiled(held.ID, activeDir)
		os.Remove(name)
		if err := os.Rename(away, name); err != nil {
			t.Fatal(err)
		}
		time.Sleep(lastRetry)
		synctest.Wait()
		w.wantHeld("/a", false)
		w.wantFiled(held.ID, endedDir)
		if n := w.e.Status().Recovered; n != 1 {
			t.Errorf("%d recovered", n)
		}
		w.mustHold(d)
		cancel()
		synctest.Wait()
		w.close()
	})
}

// An enforcer that must end tries for the last time.
func TestAnEnforcerThatEndsReadsItsRecordsOnceMore(t *testing.T) {
	w := newWorld(t)
	w.open()
	held := w.decide(w.tree("/a", 100), 100, time.Minute)
	w.mustHold(held)
	w.crash()
	name, away := filepath.Join(w.state, "leases", activeDir, held.ID+suffix), filepath.Join(w.state, "away")
	if err := errors.Join(os.Rename(name, away), os.Mkdir(name, 0o700)); err != nil {
		t.Fatal(err)
	}
	w.open()
	if _, err := w.e.Recover(t.Context()); err == nil {
		t.Error("a directory was read")
	}
	if err := errors.Join(os.Remove(name), os.Rename(away, name)); err != nil {
		t.Fatal(err)
	}
	if err := (Program{}).close(w.e); err != nil {
		t.Error(err)
	}
	w.wantHeld("/a", false)
	w.wantFiled(held.ID, endedDir)
}

// A spoilt record whose cgroup cannot be thawed at once is tried again as well.
func TestASpoiltRecordIsThawedWhenItCanBe(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		ref := w.tree("/a", 100)
		w.fake.SetFreeze("/a", "1")
		text := fmt.Sprintf(`{"target": {"cgroup": "/a", "cgroup_id": %d`, ref.ID)
		if err := os.WriteFile(filepath.Join(w.state, "leases", activeDir, "x"+suffix), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		w.fake.SetFault(func(op string, _ cgroupctl.Ref) error {
			if op == "restore" {
				return errors.New("no memory")
			}
			return nil
		})
		if _, err := w.e.Recover(t.Context()); err == nil || !strings.Contains(err.Error(), "no memory") {
			t.Errorf("got %v", err)
		}
		w.fake.SetFault(nil)
		time.Sleep(lastRetry)
		synctest.Wait()
		w.wantHeld("/a", false)
		w.wantFiled("x", unreadableDir)
	})
}

// A spoilt record of what has gone is set aside, also where systemd knows no such unit any more; of
// what is there still it is tried again until systemd says what it takes it for.
func TestASpoiltRecordWhoseUnitNobodyKnows(t *testing.T) {
	for _, gone := range []bool{true, false} {
		run(t, func(t *testing.T, w *world) {
			ref := w.tree("/a", 100)
			if gone {
				ref.ID += 9
			}
			w.fake.SetOwner("/a", cgroupctl.Owner{}, errors.New("no such unit"))
			text := fmt.Sprintf(`{"target": {"cgroup": "/a", "cgroup_id": %d`, ref.ID)
			if err := os.WriteFile(filepath.Join(w.state, "leases", activeDir, "x"+suffix), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
			if _, err := w.e.Recover(t.Context()); err == nil {
				t.Error("nothing is said of it")
			}
			want := activeDir
			if gone {
				want = unreadableDir
			}
			w.wantFiled("x", want)
			if gone {
				d := w.decide(w.tree("/b", 200), 200, time.Minute)
				if out := w.e.Propose(t.Context(), d); out.RefusedBy != "" || out.Error != "" {
					t.Errorf("nothing can be held any more: %+v", out)
				}
			}
		})
	}
}

// What is undone comes before the version of the records is written, for which a disk may be waited.
func TestTheVersionOfTheRecordsIsSaidAfterTheUndoHasBegun(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	if out := e.Propose(t.Context(), w.decide(w.tree("/a", 100), 100, time.Minute)); out.LeaseID == "" {
		t.Fatalf("%+v", out)
	}
	w.crash()
	file := filepath.Join(w.state, leasesDir, versionFile)
	if err := os.WriteFile(file, []byte("3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	e = w.open()
	if b, _ := os.ReadFile(file); string(b) != "3\n" {
		t.Errorf("before anything is undone it says %q", b)
	}
	if _, err := e.Recover(t.Context()); err != nil {
		t.Fatal(err)
	}
	if b, _ := os.ReadFile(file); strings.TrimSpace(string(b)) != strconv.Itoa(model.LeaseVersion) {
		t.Errorf("it says %q", b)
	}
	w.close()
}

func TestAStateDirectoryThatSomebodyElseCanWriteIsRefused(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	for _, change := range []func(dir string) error{
		func(dir string) error { return os.Chmod(dir, 0o775) },
		func(dir string) error { return os.Chmod(dir, 0o757) },
		func(dir string) error { return os.Chown(dir, 65534, 0) },
	} {
		w := newWorld(t)
		if err := change(w.state); err != nil {
			t.Fatal(err)
		}
		if _, err := Open(w.options()); err == nil || !strings.Contains(err.Error(), "nobody else can write") {
			t.Errorf("got %v", err)
		}
		os.Chown(w.state, 0, 0)
	}
}
