package history

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

func TestADamagedFileIsSetAsideAndANewOneBegins(t *testing.T) {
	for _, tt := range []struct {
		name   string
		damage func(t *testing.T, path string)
	}{
		{"it is no database", func(t *testing.T, path string) {
			if err := os.WriteFile(path, []byte(strings.Repeat("not a database. ", 1000)), 0o600); err != nil {
				t.Fatal(err)
			}
		}},
		{"its first page is overwritten", func(t *testing.T, path string) { overwrite(t, path, 100, 400) }},
		{"it is cut off", func(t *testing.T, path string) {
			if err := os.Truncate(path, 5000); err != nil {
				t.Fatal(err)
			}
		}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			r := run(t, dir)
			for n := range 20 {
				r.Incident(closed(incident(n), time.Second))
			}
			r.written()
			r.stop()
			tt.damage(t, r.file())
			damaged, err := os.ReadFile(r.file())
			if err != nil {
				t.Fatal(err)
			}
			again := run(t, dir)
			again.Incident(closed(incident(50), time.Second))
			again.written()
			s := again.State()
			aside, err := os.ReadFile(filepath.Join(dir, asideName))
			if err != nil || string(aside) != string(damaged) || s.SetAside != filepath.Join(dir, asideName) || s.Problem != "" {
				t.Errorf("state %+v, error %v: want the damaged file set aside as it was", s, err)
			}
			if all := again.incidents(model.IncidentFilter{}); len(all) != 1 {
				t.Errorf("%d incidents, want the new one", len(all))
			}
			if len(again.told) == 0 || again.told[0].SetAside == "" {
				t.Errorf("told %+v: want that it is set aside", again.told)
			}
		})
	}
}

// A page that is damaged while breakerd runs is found by whoever reads it.
func TestDamageThatAQuestionRunsIntoIsToldAndANewFileBegins(t *testing.T) {
	for name, ask := range map[string]func(*running) error{
		"a list": func(r *running) error {
			_, err := r.Incidents(context.Background(), model.IncidentFilter{})
			return err
		},
		"one story": func(r *running) error {
			_, err := r.Story(context.Background(), incident(7).ID)
			return err
		},
		"a report": func(r *running) error {
			_, err := r.Stories(context.Background(), start, time.Now(), func(*model.Story) {})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			r := run(t, dir)
			for n := range 300 {
				r.Incident(closed(incident(n), time.Second))
			}
			r.written()
			r.stop()
			size, err := os.Stat(r.file())
			if err != nil {
				t.Fatal(err)
			}
			r = run(t, dir)
			r.written()
			overwrite(t, r.file(), 4096*6, size.Size()-4096*6)
			if err := ask(r); !errors.Is(err, model.ErrNoHistory) || !strings.Contains(err.Error(), "the file is damaged, is set aside, and a new one begins") {
				t.Errorf("who asks is told %v", err)
			}
			if is := r.State(); is.Problem == "" && is.SetAside == "" {
				t.Error("the state says nothing of it yet")
			}
			r.Incident(closed(incident(400), time.Second))
			if all := r.incidents(model.IncidentFilter{}); len(all) != 1 || r.State().SetAside == "" || r.State().Problem != "" {
				t.Errorf("%d incidents, state %+v: want a new file", len(all), r.State())
			}
		})
	}
}

// overwrite puts noise into a file.
func overwrite(t *testing.T, path string, from, length int64) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	noise := make([]byte, length)
	for i := range noise {
		noise[i] = byte(i*7 + i>>8)
	}
	if _, err := f.WriteAt(noise, from); err != nil {
		t.Fatal(err)
	}
}

func TestAFullDiskIsToldAndItGoesOnWhenThereIsRoom(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root)
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size=1m"); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	r := run(t, filepath.Join(dir, "history"))
	r.Incident(closed(incident(0), time.Second))
	r.written()
	filler := filepath.Join(dir, "filler")
	fill := func() {
		f, err := os.OpenFile(filler, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		for _, err := f.Write(make([]byte, 4096)); err == nil; {
			_, err = f.Write(make([]byte, 4096))
		}
	}
	fill()
	for n := 1; r.State().Problem == ""; n++ {
		r.Incident(closed(incident(n%900), time.Second))
		r.written()
	}
	if s := r.State(); !strings.Contains(s.Problem, "the disk is full. It goes on by itself when there is room again") {
		t.Fatalf("the problem is %q", s.Problem)
	}
	r.Incident(closed(incident(950), time.Second))
	if all := r.incidents(model.IncidentFilter{}); len(all) == 0 {
		t.Error("what was written before cannot be read")
	}
	if err := os.Remove(filler); err != nil {
		t.Fatal(err)
	}
	r.wait(func(s model.HistoryState) bool { return s.Problem == "" })
	if got := r.story(incident(950).ID); got.State != model.Closed {
		t.Errorf("what was told while the disk was full: %+v", got.Incident)
	}
	if s := r.State(); s.Dropped != 0 || s.SetAside != "" {
		t.Errorf("state %+v", s)
	}
}

func TestAFolderThatCannotBeWrittenIsToldAndTriedAgain(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(dir, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r := run(t, filepath.Join(dir, "history"))
	r.wait(func(s model.HistoryState) bool { return strings.Contains(s.Problem, "make the folder") })
	r.Incident(closed(incident(0), time.Second))
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	r.wait(func(s model.HistoryState) bool { return s.Problem == "" })
	if all := r.incidents(model.IncidentFilter{}); len(all) != 1 {
		t.Errorf("%d incidents, want the one that was told meanwhile", len(all))
	}
}

// writerOf makes this test binary a breakerd that writes a history until it is killed.
const (
	writerOf   = "BREAKERD_TEST_WRITES_HISTORY"
	writesFrom = "BREAKERD_TEST_WRITES_FROM"
)

func TestMain(m *testing.M) {
	dir := os.Getenv(writerOf)
	if dir == "" {
		os.Exit(m.Run())
	}
	s := New(Options{Dir: dir, MaxAge: time.Hour * 24, MaxBytes: 1 << 30})
	go s.Run(context.Background())
	// What it says was told before the moment that it names: a second later it is written.
	first, _ := strconv.Atoi(os.Getenv(writesFrom))
	for n := first; ; n++ {
		in := incident(n)
		s.Incident(in)
		for i := range 20 {
			s.Verdict(verdict(&in, i))
		}
		s.Incident(closed(in, time.Second))
		fmt.Println(n, time.Now().UnixMilli())
		// Two thousand verdicts in each second: two hundred times what a bad hour has, and no more than a
		// busy machine writes in a small part of a second.
		time.Sleep(10 * time.Millisecond)
	}
}

// kills is how often the writer is killed, and longKills how often after it wrote for long.
const (
	kills     = 20
	longKills = 3
)

func TestKilledAtAnyInstantItLosesTheLastSecondAndNeverTheFile(t *testing.T) {
	dir := t.TempDir()
	kept, old := 0, 0
	for i := range kills {
		long := time.Duration(40+i*30) * time.Millisecond
		if i >= kills-longKills {
			long = 3 * time.Second
		}
		first := i * 10_000
		told, killed := killWriter(t, dir, first, long)
		r := run(t, dir)
		all := r.incidents(model.IncidentFilter{})
		s := r.State()
		if s.Problem != "" || s.SetAside != "" {
			t.Fatalf("kill %d: the file is not whole: %+v", i, s)
		}
		there := make(map[string]bool)
		for _, in := range all {
			there[in.ID] = true
		}
		for n, at := range told {
			// Some more than the second, for the write itself on a machine that is busy.
			if killed.Sub(at) <= flushAfter+time.Second {
				continue
			}
			old++
			if !there[incident(n).ID] {
				t.Errorf("kill %d: incident %d is lost, and was told %v before", i, n, killed.Sub(at))
			}
		}
		if there[incident(first).ID] {
			if got := r.story(incident(first).ID); len(got.Verdicts) != 20 {
				t.Errorf("incident %d has %d verdicts, want its 20: it was written as a whole", first, len(got.Verdicts))
			}
		}
		r.stop()
		kept = len(all)
	}
	if kept < 100 || old < 100 {
		t.Errorf("only %d incidents after all, and %d of more than two seconds: the kills came too early to prove anything", kept, old)
	}
}

// killWriter lets a writer write for so long after its first word, kills it, and says when
// each incident was told.
func killWriter(t *testing.T, dir string, first int, after time.Duration) (told map[int]time.Time, killed time.Time) {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), writerOf+"="+dir, fmt.Sprintf("%s=%d", writesFrom, first))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	told = make(map[int]time.Time)
	var timer *time.Timer
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var n int
		var at int64
		if _, err := fmt.Sscan(lines.Text(), &n, &at); err != nil {
			break // its last line may be cut
		}
		told[n] = time.UnixMilli(at)
		if timer == nil {
			timer = time.AfterFunc(after, func() { cmd.Process.Kill() })
		}
	}
	killed = time.Now()
	_ = cmd.Wait()
	return told, killed
}

func TestWhatIsTooOldAndWhatIsTooMuchIsDeletedAndTheFileShrinks(t *testing.T) {
	dir := t.TempDir()
	r := run(t, dir, func(o *Options) { o.MaxAge = 89*time.Minute + 30*time.Second })
	for n := range 600 {
		in := incident(n % 60)
		in.ID = fmt.Sprint("i", n)
		r.Incident(in)
		for i := range 30 {
			r.Verdict(verdict(&in, i))
		}
		r.Incident(closed(in, time.Second))
		if n%100 == 99 {
			r.written()
		}
	}
	r.written()
	if all := r.incidents(model.IncidentFilter{}); len(all) != 290 {
		t.Errorf("%d incidents are told, want the 290 of the last 89.5 minutes", len(all))
	}
	before := r.State().Bytes
	r.stop()
	r = run(t, dir, func(o *Options) { o.MaxAge = 89*time.Minute + 30*time.Second })
	r.written()
	r.stop()
	f, err := openFile(dir)
	if err != nil {
		t.Fatal(err)
	}
	var rows, verdicts int
	if err := f.conn.QueryRowContext(background, "SELECT (SELECT count(*) FROM incidents), (SELECT count(*) FROM verdicts)").Scan(&rows, &verdicts); err != nil {
		t.Fatal(err)
	}
	if err := f.close(); err != nil {
		t.Fatal(err)
	}
	if rows != 290 || verdicts != 290 {
		t.Errorf("%d incidents and %d parts of verdicts are in the file, want 290 each", rows, verdicts)
	}
	const most = 200 << 10
	r = run(t, dir, func(o *Options) { o.MaxBytes = most })
	r.written()
	left := r.incidents(model.IncidentFilter{})
	r.stop()
	info, err := os.Stat(r.file())
	if err != nil || info.Size() > most || info.Size() >= before || len(left) == 0 || len(left) >= 290 {
		t.Errorf("the file has %d bytes and %d incidents, it had %d bytes; error %v", info.Size(), len(left), before, err)
	}
	if len(left) > 0 && left[0].OpenedAt.Before(incident(59).OpenedAt) {
		t.Error("the newest are not those that are left")
	}
}
