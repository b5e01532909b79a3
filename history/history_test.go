package history

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

func TestWhatWasToldIsThereAfterARestart(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "history")
	r := run(t, dir)
	in := incident(0)
	for i := range 12 {
		r.Sample(sample(time.Duration(i-12)*250*time.Millisecond, in.Culprit.CgroupID))
	}
	r.Incident(in)
	r.Lease(lease(&in, 3, model.LeaseHeld))
	refused := verdict(&in, 1)
	for range 5 {
		refused.At = refused.At.Add(time.Second)
		r.Verdict(refused)
	}
	r.Verdict(verdict(&in, 3))
	for i := range 12 {
		r.Sample(sample(time.Duration(i)*250*time.Millisecond, in.Culprit.CgroupID))
		grown := in.Clone()
		grown.Victims[0].StallMS += float64(10 * i)
		r.Incident(grown)
		in = grown
	}
	r.Lease(lease(&in, 3, model.LeaseEnded))
	in = closed(in, 4*time.Second)
	in.Decisions = []model.DecisionRecord{refused.DecisionRecord, verdict(&in, 3).DecisionRecord}
	r.Incident(in)
	r.stop()

	again := run(t, dir)
	got := again.story(in.ID)
	want := in.Clone()
	want.Decisions[0].At = verdict(&in, 1).At.Add(time.Second) // the first of five
	if diff := cmp.Diff(want, got.Incident); diff != "" {
		t.Errorf("the incident (-told +kept):\n%s", diff)
	}
	if len(got.Verdicts) != 2 || got.Verdicts[0].Times != 5 || !got.Verdicts[0].LastAt.Equal(refused.At) || got.Verdicts[1].LeaseID == "" {
		t.Errorf("verdicts %+v, want five refusals in one, and a lease", got.Verdicts)
	}
	if len(got.Holds) != 1 || got.Holds[0].EndReason != model.EndExpired || got.Holds[0].Before[0].StallMS != 120.5 || got.Holds[0].During[0].StallMS != 660 {
		t.Errorf("holds %+v, want one with 120.5 ms before and 660 ms during it", got.Holds)
	}
	var before, after int
	for _, m := range got.Moments {
		switch {
		case m.At.Before(in.OpenedAt):
			before++
		case m.StallMS > 0:
			after++
		}
		if m.RunMS != 800 || m.CPUPercent != 50 || m.Forks != 12 {
			t.Errorf("moment %+v, want 800 ms of run time, half of it under pressure and 12 forks", m)
		}
	}
	if before < 2 || after < 2 {
		t.Errorf("%d moments before it opened and %d after: %+v", before, after, got.Moments)
	}
	if got.Host == nil || got.Host.CPUs != 4 {
		t.Errorf("host %+v", got.Host)
	}
	if s := again.State(); s.Problem != "" || s.Dropped != 0 || s.Bytes == 0 {
		t.Errorf("state %+v", s)
	}
}

func TestTheFilterIsForWhatWasOpenAtTheTime(t *testing.T) {
	r := run(t, t.TempDir())
	for n := range 20 {
		in := incident(n)
		r.Incident(in)
		if n != 3 { // goes on
			r.Incident(closed(in, 30*time.Second))
		}
	}
	ids := func(f model.IncidentFilter) (all []int) {
		for _, in := range r.incidents(f) {
			var n int
			fmt.Sscanf(in.ID, "abc%09x", &n)
			all = append(all, n)
		}
		return all
	}
	at := func(n int) time.Time { return start.Add(time.Duration(n) * time.Minute) }
	r.Sample(sample(10*time.Minute, 1)) // the third is seen then
	r.Incident(incident(3))
	for _, tt := range []struct {
		name string
		f    model.IncidentFilter
		want []int
	}{
		{"since", model.IncidentFilter{Since: at(17)}, []int{19, 18, 17}},
		{"a stretch", model.IncidentFilter{Since: at(5), Until: at(6)}, []int{6, 5, 3}},
		{"the newest", model.IncidentFilter{Most: 2}, []int{19, 18}},
		{"a kind", model.IncidentFilter{Kind: model.Kinds[1]}, []int{17, 9, 1}},
		{"a unit", model.IncidentFilter{Unit: "session-9.scope"}, []int{9}},
		{"a cgroup", model.IncidentFilter{Cgroup: incident(5).Culprit.Cgroup}, []int{5}},
		{"all below a cgroup", model.IncidentFilter{Cgroup: "/user.slice/user-1001.slice"}, []int{15, 8, 1}},
		{"not what only begins alike", model.IncidentFilter{Cgroup: "/user.slice/user-100"}, nil},
		{"nothing", model.IncidentFilter{Kind: "none"}, nil},
	} {
		if got := ids(tt.f); !slices.Equal(got, tt.want) {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
	if _, err := r.Story(context.Background(), "none"); !errors.Is(err, model.ErrNotKept) {
		t.Errorf("an incident that there is not: %v", err)
	}
}

func TestWhatABreakerdThatStoppedLeftOpenIsOver(t *testing.T) {
	dir := t.TempDir()
	r := run(t, dir)
	in := incident(0)
	r.Sample(sample(0, 1))
	r.Incident(in)
	r.Sample(sample(time.Second, 1))
	r.Sample(sample(2*time.Second, 1))
	r.Lease(lease(&in, 1, model.LeaseHeld))
	r.stop() // nothing was closed
	got := run(t, dir).story(in.ID)
	if got.State != model.Closed || !got.Unfinished || !got.ClosedAt.Equal(start.Add(2*time.Second)) {
		t.Errorf("incident %s, closed %v, unfinished %v: want it closed when it was last seen", got.State, got.ClosedAt, got.Unfinished)
	}
	h := got.Holds[0]
	if h.State != model.LeaseEnded || !h.EndedAt.Equal(start.Add(2*time.Second)) || h.EndReason != "" || h.Note == "" {
		t.Errorf("hold %+v: want it ended with the breakerd that held nothing, and a note", h)
	}
}

func TestAVerdictAfterTheEndIsAddedToThoseBefore(t *testing.T) {
	r := run(t, t.TempDir())
	in := incident(0)
	for n := range 100 {
		r.Verdict(verdict(&in, n))
	}
	r.Incident(closed(in, time.Minute))
	r.written() // and forgotten
	if n := len(r.entries); n != 0 {
		t.Fatalf("%d incidents are in memory", n)
	}
	r.Verdict(verdict(&in, 100))
	r.written()
	r.Verdict(verdict(&in, 101))
	got := r.story(in.ID)
	if len(got.Verdicts) != 102 || got.Verdicts[101].ID != verdict(&in, 101).ID || got.Verdicts[0].ID != verdict(&in, 0).ID {
		t.Errorf("%d verdicts, want 102 in their order", len(got.Verdicts))
	}
	if len(got.Decisions) != keptDecisions || got.Decisions[0].ID != got.Verdicts[0].ID || got.Decisions[15].ID != got.Verdicts[101].ID {
		t.Errorf("%d decisions, want the first and the last", len(got.Decisions))
	}
	r.Verdict(model.Verdict{IncidentID: "never heard of"})
	r.written()
	if s := r.State(); s.Dropped != 1 || s.Problem != "" {
		t.Errorf("a verdict on nothing gives %+v, want it counted", s)
	}
}

func TestWhoTellsNeverWaitsAndWhatFindsNoRoomIsCounted(t *testing.T) {
	s := New(Options{Dir: t.TempDir()}) // and nobody writes
	for n := range maxEntries + 50 {
		in := incident(n)
		s.Incident(in)
		s.Lease(lease(&in, 1, model.LeaseHeld))
	}
	in := incident(0)
	for n := range maxVerdicts + 10 {
		s.Verdict(verdict(&in, n))
		s.Sample(sample(time.Duration(n)*time.Second, 1))
	}
	if got := s.State().Dropped; got < 60 {
		t.Errorf("%d were dropped, want at least 60", got)
	}
	if len(s.entries) > maxEntries || s.waiting > maxVerdicts || len(s.before) > maxBefore || s.entries[in.ID].seen > maxMoments {
		t.Errorf("%d incidents, %d verdicts, %d samples and %d moments are in memory", len(s.entries), s.waiting, len(s.before), s.entries[in.ID].seen)
	}
}

func TestAFileThatIsNotOursToWriteIsRefusedAndLeftAlone(t *testing.T) {
	for _, tt := range []struct {
		name string
		make func(t *testing.T, path string)
		want string
	}{
		{"a newer version", func(t *testing.T, path string) {
			r := run(t, filepath.Dir(path))
			r.written()
			r.stop()
			alter(t, path, "PRAGMA user_version = 99")
		}, "it is of version 99, and this program knows 2: install the package that wrote it, or move the file away"},
		{"another program's", func(t *testing.T, path string) { alter(t, path, "CREATE TABLE songs (title TEXT)") }, "it is a database of another program"},
		{"a link", func(t *testing.T, path string) {
			if err := os.Symlink("/etc/passwd", path); err != nil {
				t.Fatal(err)
			}
		}, "history.db is no plain file: move it away"},
		{"a folder", func(t *testing.T, path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		}, "history.db is no plain file: move it away"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			path := filepath.Join(dir, fileName)
			tt.make(t, path)
			before, err := os.Lstat(path)
			if err != nil {
				t.Fatal(err)
			}
			text, _ := os.ReadFile(path)
			r := run(t, dir)
			r.Incident(incident(0))
			r.wait(func(s model.HistoryState) bool { return strings.Contains(s.Problem, tt.want) })
			_, err = r.Incidents(context.Background(), model.IncidentFilter{})
			if !errors.Is(err, model.ErrNoHistory) || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("who asks is told %v", err)
			}
			r.stop()
			after, err := os.Lstat(path)
			if err != nil || !os.SameFile(before, after) {
				t.Errorf("it is not there any more: %v", err)
			}
			if now, _ := os.ReadFile(path); !slices.Equal(text, now) {
				t.Error("it was changed")
			}
		})
	}
}

func TestASecondWriterIsRefused(t *testing.T) {
	dir := t.TempDir()
	first := run(t, dir)
	first.written()
	second := run(t, dir)
	second.wait(func(s model.HistoryState) bool {
		return strings.Contains(s.Problem, "another breakerd writes it: give this one a folder of its own")
	})
}

// alter changes a file from outside.
func alter(t *testing.T, path, sql string) {
	t.Helper()
	db, err := openDB(path, "rwc")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	if _, err := db.Exec(sql); err != nil {
		t.Fatal(err)
	}
}

// wait waits for a state.
func (r *running) wait(for_ func(model.HistoryState) bool) {
	r.t.Helper()
	for range 2000 {
		if for_(r.State()) {
			return
		}
		time.Sleep(10 * time.Millisecond)
	}
	r.t.Fatalf("20 s passed, and the state is %+v", r.State())
}

func TestAFileOfNoVersionThatEverWasIsSetAside(t *testing.T) {
	for _, version := range []string{"0", "-1"} {
		dir := t.TempDir()
		r := run(t, dir)
		r.Incident(incident(0))
		r.written()
		r.stop()
		alter(t, filepath.Join(dir, fileName), "PRAGMA user_version = "+version)
		again := run(t, dir)
		in := incident(1)
		again.Incident(in)
		again.written()
		if got := again.story(in.ID); got.ID != in.ID {
			t.Errorf("of version %s: %+v", version, got)
		}
		again.stop()
	}
}
