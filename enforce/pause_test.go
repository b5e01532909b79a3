package enforce

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

func TestAPauseBeginsNothingAndOutlivesARestart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t)
		e := w.open()
		a, b := w.tree("/a", 100), w.tree("/b", 200)
		if out := e.Propose(t.Context(), w.decide(a, 100, time.Minute)); out.ConfirmedAt == nil {
			t.Fatalf("got %+v", out)
		}
		if _, err := e.Pause(time.Hour, "somebody"); err != nil {
			t.Fatal(err)
		}
		paused := func() {
			t.Helper()
			if out := w.e.Propose(t.Context(), w.decide(b, 200, time.Second)); out.RefusedBy != "mode" || !strings.Contains(out.Reason, "paused by somebody until") {
				t.Errorf("got %+v", out)
			}
		}
		paused()
		w.wantHeld("/a", true) // it goes on to its end
		w.crash()
		w.open()
		if _, err := w.e.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		paused()
		if w.e.Status().Paused == "" {
			t.Error("the status does not say so")
		}
		time.Sleep(time.Hour)
		if out := w.e.Propose(t.Context(), w.decide(b, 200, time.Second)); out.ConfirmedAt == nil || w.e.Status().Paused != "" {
			t.Errorf("an hour later: %+v, %q", out, w.e.Status().Paused)
		}
		w.close()
	})
}

func TestAPauseWithoutAnEndGoesOnUntilSomebodyResumes(t *testing.T) {
	w := newWorld(t)
	e := w.open()
	a := w.tree("/a", 100)
	if _, err := e.Pause(0, "somebody"); err != nil {
		t.Fatal(err)
	}
	// The disk has spoilt it: whoever paused is not overruled.
	if err := os.WriteFile(filepath.Join(w.state, leasesDir, pauseFile), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	w.crash()
	e = w.open()
	if out := e.Propose(t.Context(), w.decide(a, 100, time.Second)); out.RefusedBy != "mode" || !strings.Contains(out.Reason, "resume") {
		t.Errorf("got %+v", out)
	}
	if err := e.Resume(); err != nil {
		t.Fatal(err)
	}
	w.crash()
	e = w.open()
	if out := e.Propose(t.Context(), w.decide(a, 100, time.Second)); out.ConfirmedAt == nil {
		t.Errorf("got %+v", out)
	}
	w.close()
}

// The file needs no socket: the real program lets go as soon as it is there, begins nothing
// while it is, and goes on afterwards.
func TestTheReleaseFileLetsEverythingGo(t *testing.T) {
	kerneltest.Require(t, kerneltest.Root, kerneltest.Cgroup2)
	k, g := heldByAProgram(t)
	cmd := k.start("")
	k.answers(cmd)
	k.propose(0, time.Minute)
	if !g.Frozen() {
		t.Fatal("not frozen")
	}
	// Both are there: whoever owns the runtime directory takes away only his.
	file, other := filepath.Join(k.state, ReleaseFile), filepath.Join(k.run, ReleaseFile)
	if err := errors.Join(os.WriteFile(other, nil, 0o644), os.WriteFile(file, nil, 0o644)); err != nil {
		t.Fatal(err)
	}
	eventually(t, "thawed", func() bool { return !g.Frozen() })
	eventually(t, "it says why", func() bool {
		st, err := k.client.Status(t.Context())
		return err == nil && strings.Contains(st.Paused, file)
	})
	if err := os.Remove(other); err != nil {
		t.Fatal(err)
	}
	out, err := k.client.Propose(t.Context(), about(t, g, "while-it-is-there", k.roots[0], time.Minute))
	if err != nil || out.RefusedBy != "mode" || !strings.Contains(out.Reason, file) {
		t.Errorf("got %+v, %v", out, err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
	eventually(t, "it acts again", func() bool {
		st, err := k.client.Status(t.Context())
		return err == nil && st.Paused == ""
	})
	k.propose(0, time.Minute)
	if !g.Frozen() {
		t.Error("not frozen afterwards")
	}
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || g.Frozen() {
		t.Errorf("it ended with %v, frozen %v", err, g.Frozen())
	}
}

// A disk that does not answer hides no file in the runtime directory.
func TestASlowDiskDoesNotHideTheReleaseFile(t *testing.T) {
	run(t, func(t *testing.T, w *world) {
		w.mustHold(w.decide(w.tree("/a", 100), 100, time.Minute))
		let := make(chan struct{})
		p := Program{StateDir: w.state, RuntimeDir: t.TempDir(), Log: w.e.log}
		p.lstat = func(name string) (fs.FileInfo, error) {
			if filepath.Dir(name) == p.StateDir {
				<-let
			}
			return os.Lstat(name)
		}
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go p.watchReleaseFile(ctx, w.e)
		time.Sleep(time.Second)
		synctest.Wait()
		w.wantHeld("/a", true)
		file := filepath.Join(p.RuntimeDir, ReleaseFile)
		if err := os.WriteFile(file, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		time.Sleep(2 * releaseFileEvery)
		synctest.Wait()
		w.wantHeld("/a", false)
		if err := os.Rename(file, filepath.Join(w.state, ReleaseFile)); err != nil {
			t.Fatal(err)
		}
		close(let)
		time.Sleep(2 * releaseFileEvery)
		synctest.Wait()
		if why := w.e.Status().Paused; !strings.Contains(why, w.state) {
			t.Errorf("it says %q", why)
		}
	})
}

func TestWhoMayPauseAndWhoMayResume(t *testing.T) {
	w := newWorld(t)
	w.open()
	s := NewServer(w.e, DefaultConfig().Allow, "test", w.e.log)
	s.access = access{user: 990, users: true, group: 991, named: true, self: 0}
	for _, tt := range []struct {
		name   string
		peer   peer
		op     string
		denied bool
	}{
		{"root pauses", peer{uid: 0}, opPause, false},
		{"breakerd pauses", peer{uid: 990}, opPause, false},
		{"the group pauses", peer{uid: 1000, groups: []uint32{991}}, opPause, false},
		{"somebody pauses", peer{uid: 1000}, opPause, true},
		{"breakerd resumes", peer{uid: 990}, opResume, true},
		{"the group resumes", peer{uid: 1000, groups: []uint32{991}}, opResume, true},
		{"root resumes", peer{uid: 0}, opResume, false},
	} {
		out := s.do(t.Context(), nil, tt.peer, request{V: protocolVersion, Op: tt.op})
		if denied := strings.Contains(out.Error, "may not"); denied != tt.denied {
			t.Errorf("%s: %+v", tt.name, out)
		}
	}
	if w.e.Mode() != model.Enforce || w.e.Status().Paused != "" {
		t.Errorf("paused in the end: %q", w.e.Status().Paused)
	}
	w.close()
}
