package observe

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

func TestEverybodyIsReadInTurnThoughNothingHappens(t *testing.T) {
	scratch := kerneltest.ScratchCgroup(t)
	want := map[model.CgroupID]string{}
	for i := range 60 {
		c := scratch.Child(fmt.Sprint(i))
		want[c.ID()] = c.Path
	}
	o := open(t)
	var most time.Duration
	for began := time.Now(); len(want) > 0; {
		s := next(t, o)
		for i := range s.Cgroups {
			c := &s.Cgroups[i]
			if i > 0 && c.ID <= s.Cgroups[i-1].ID {
				t.Fatal("cgroups are not in the order of their ids")
			}
			if c.Detail != nil && c.Path == want[c.ID] {
				delete(want, c.ID)
			}
		}
		most = time.Since(began)
		if most > 8*time.Second {
			t.Fatalf("%d cgroups were not read in %v", len(want), most)
		}
	}
	t.Logf("a round took %v", most)
}

func TestAQuotaThatCannotBeReadIsNotTakenForNone(t *testing.T) {
	root := t.TempDir()
	for _, file := range []string{"hidden/cpu.stat/is a folder", "plain/cpu.stat", "gone/cpu.stat"} {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(root, file)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, file), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := host.Reader{CgroupRoot: root}
	o := &Observer{reader: r, tree: r.Tree(), details: newDetails()}
	if err := o.tree.Refresh(); err != nil {
		t.Fatal(err)
	}
	want := map[string]bool{"/": false, "/hidden": true, "/plain": false, "/gone": false, "a stranger": true}
	s, at, paths := &model.Sample{}, map[model.CgroupID]int{}, map[model.CgroupID]string{}
	for path := range want {
		id, err := o.tree.ID(path)
		if err != nil {
			id = 1 << 40
		}
		at[id], paths[id] = len(s.Cgroups), path
		s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: id})
	}
	if err := os.RemoveAll(filepath.Join(root, "gone")); err != nil {
		t.Fatal(err)
	}
	for i := range s.Cgroups {
		o.readDetail(s, at, s.Cgroups[i].ID, false)
		if c := &s.Cgroups[i]; c.QuotaUnread != want[paths[c.ID]] || (c.Detail != nil) != (paths[c.ID] == "/plain") {
			t.Errorf("%s: %+v, want it unread: %v", paths[c.ID], c, want[paths[c.ID]])
		}
	}
}

// Of more who wait than can be read in a tick, some may have a quota that nobody knows.
func TestAQuotaThatWasNeverReadIsNotTakenForNone(t *testing.T) {
	root := t.TempDir()
	var names []string
	for i := range detailMost + 4 {
		names = append(names, fmt.Sprint("/c", i))
		if err := os.MkdirAll(filepath.Join(root, names[i]), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(root, names[i], "cpu.stat"), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	r := host.Reader{CgroupRoot: root}
	o := &Observer{reader: r, tree: r.Tree(), details: newDetails(), tick: time.Second}
	if err := o.tree.Refresh(); err != nil {
		t.Fatal(err)
	}
	s := &model.Sample{LengthNS: int64(time.Microsecond)}
	for _, path := range append(names, "/") {
		id, err := o.tree.ID(path)
		if err != nil {
			t.Fatal(err)
		}
		s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: id, Path: path})
		s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: 1 << 40, Victim: id, NS: uint64(time.Second)})
	}
	o.readDetails(s, model.Host{})
	unread := 0
	for i := range s.Cgroups {
		c := &s.Cgroups[i]
		if c.QuotaUnread == (c.Detail != nil || c.Path == "/") {
			t.Errorf("%s: read %v, said to be unread %v", c.Path, c.Detail != nil, c.QuotaUnread)
		}
		if c.QuotaUnread {
			unread++
		}
	}
	if unread < 3 {
		t.Errorf("%d were not read: the test has too few", unread)
	}
}

// What changes from tick to tick is read of who waits in each of them, and that must not
// keep the rest from being read in its turn.
func TestWhoWaitsIsReadWholeInTurnToo(t *testing.T) {
	d := newDuel(t)
	pin(t, d.hogs.Start("sh", "-c", spin).Process.Pid)
	pin(t, d.victim.Start("sh", "-c", spin).Process.Pid)
	whole, repeated := 0, 0
	for began := time.Now(); whole < 3 || repeated == 0; {
		s := next(t, d.o)
		for i := range s.Cgroups {
			switch c := &s.Cgroups[i]; {
			case c.ID != d.victim.ID() || c.Detail == nil:
			case c.Detail.Repeated:
				repeated++
			default:
				whole++
			}
		}
		if time.Since(began) > 30*time.Second {
			t.Fatalf("within 30 s all of its files were read %d times, and some of them %d times", whole, repeated)
		}
	}
}

// Two cgroups read the same disk past the page cache. The one with a single small request at
// a time stalls because of the one with many large ones.
func TestIOIsBlamedOnWhoHoldsTheDevice(t *testing.T) {
	scratch := kerneltest.ScratchCgroup(t)
	hog, victim := scratch.Child("hog"), scratch.Child("victim")
	path := kerneltest.DiskDir(t) + "/file"
	if err := os.WriteFile(path, make([]byte, 256<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	unix.Sync()
	o := open(t)
	next(t, o)
	read := "while :; do dd if=" + path + " of=/dev/null bs=$0 iflag=direct 2>/dev/null; done"
	for range 6 {
		hog.Start("sh", "-c", read, "4M")
	}
	victim.Start("sh", "-c", read, "16k")
	var span []*model.Sample
	for len(span) < 20 {
		span = append(span, next(t, o))
	}
	s := blame.OverIO(span, 1)[victim.ID()]
	if s == nil {
		t.Fatal("the victim's stall was not read")
	}
	t.Logf("stalled %.2f s, the hog %.2f s, itself %.2f s, the kernel %.2f s, unknown %.2f s", float64(s.WaitNS)/1e9,
		float64(s.By(hog.ID()))/1e9, float64(s.SelfNS)/1e9, float64(s.KernelNS)/1e9, float64(s.UnknownNS)/1e9)
	if len(s.Neighbours) == 0 || s.Neighbours[0].Offender != hog.ID() || s.By(hog.ID()) <= max(s.SelfNS, s.UnknownNS) {
		t.Errorf("%+v, want the hog before anything else", s)
	}
}

// Who made others wait and was never read is read at once, for its weight says whether it may.
func TestTheWeightsOfWhoMakesOthersWaitAreRead(t *testing.T) {
	root := t.TempDir()
	for path, weight := range map[string]string{"heavy": "1000", "heavy/in": "100", "plain": "100", "big": "500", "quiet": "1"} {
		if err := os.MkdirAll(filepath.Join(root, path), 0o755); err != nil {
			t.Fatal(err)
		}
		for file, text := range map[string]string{"cpu.weight": weight, "cpu.stat": ""} {
			if err := os.WriteFile(filepath.Join(root, path, file), []byte(text), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	r := host.Reader{CgroupRoot: root}
	o := &Observer{reader: r, tree: r.Tree(), details: newDetails(), tick: time.Second}
	if err := o.tree.Refresh(); err != nil {
		t.Fatal(err)
	}
	id := func(path string) model.CgroupID {
		id, err := o.tree.ID(path)
		if err != nil {
			t.Fatal(err)
		}
		return id
	}
	sample := func() *model.Sample {
		s := &model.Sample{LengthNS: int64(time.Microsecond)}
		for _, path := range []string{"/heavy/in", "/plain", "/big", "/quiet"} {
			s.Cgroups = append(s.Cgroups, model.CgroupSample{ID: id(path), Path: path})
		}
		for offender, victim := range map[string]string{"/heavy/in": "/plain", "/plain": "/heavy/in", "/big": "/plain"} {
			s.Waits = append(s.Waits, model.Wait{Resource: model.CPU, By: model.ByCgroup, Offender: id(offender), Victim: id(victim), NS: uint64(time.Second)})
		}
		o.readDetails(s, model.Host{})
		return s
	}
	weights := func(s *model.Sample) map[string][]uint32 {
		all := map[string][]uint32{}
		for i := range s.Cgroups {
			if c := &s.Cgroups[i]; c.CPUWeights != nil {
				all[c.Path] = c.CPUWeights
			}
		}
		return all
	}
	want := map[string][]uint32{"/heavy/in": {1000, 100}, "/big": {500}}
	if diff := cmp.Diff(want, weights(sample())); diff != "" {
		t.Error(diff)
	}
	// What was read stands in each sample, and is read again when its turn comes.
	if err := os.WriteFile(filepath.Join(root, "heavy", "cpu.weight"), []byte("7"), 0); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, weights(sample())); diff != "" {
		t.Error(diff)
	}
	s := &model.Sample{LengthNS: int64(time.Hour)}
	o.readDetails(s, model.Host{})
	want = map[string][]uint32{"/heavy": {7}, "/heavy/in": {7, 100}, "/big": {500}, "/quiet": {1}}
	if diff := cmp.Diff(want, weights(s)); diff != "" {
		t.Error(diff)
	}
}
