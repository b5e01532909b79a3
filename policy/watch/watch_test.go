package watch

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

const settle = 50 * time.Millisecond

// watched runs a watch until the test ends; each change that it tells comes in the channel.
func watched(t *testing.T, paths ...string) (*Watch, <-chan time.Time) {
	t.Helper()
	w := New(settle, paths...)
	ctx, cancel := context.WithCancel(t.Context())
	told, ended := make(chan time.Time, 100), make(chan struct{})
	go func() {
		defer close(ended)
		w.Run(ctx, func() { told <- time.Now() })
	}()
	t.Cleanup(func() { cancel(); <-ended })
	next(t, told, "that it watches")
	if err := w.Err(); err != nil {
		t.Fatal(err)
	}
	return w, told
}

func next(t *testing.T, told <-chan time.Time, what string) (at time.Time) {
	t.Helper()
	select {
	case at = <-told:
	case <-time.After(10 * time.Second):
		t.Fatalf("%s: nothing was told", what)
	}
	return at
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func do(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestEachWayToChangeAFileIsToldOnce(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "policies")
	elsewhere := t.TempDir()
	do(t, os.MkdirAll(filepath.Join(dir, "deep"), 0o755))
	write(t, filepath.Join(dir, "a.rego"), "one")
	write(t, filepath.Join(elsewhere, "linked.rego"), "one")
	do(t, os.Symlink(filepath.Join(elsewhere, "linked.rego"), filepath.Join(dir, "l.rego")))
	_, told := watched(t, dir, filepath.Join(top, "missing", "sub"), filepath.Join(elsewhere, "single.rego"))
	for _, step := range []struct {
		what string
		do   func()
	}{
		{"written", func() { write(t, filepath.Join(dir, "a.rego"), "two") }},
		{"made", func() { write(t, filepath.Join(dir, "b.rego"), "one") }},
		{"many at once", func() {
			for _, name := range []string{"c", "d", "e", "f"} {
				write(t, filepath.Join(dir, name+".rego"), "one")
			}
		}},
		{"renamed over another", func() {
			write(t, filepath.Join(dir, ".a.rego.swp"), "three")
			do(t, os.Rename(filepath.Join(dir, ".a.rego.swp"), filepath.Join(dir, "a.rego")))
		}},
		{"removed", func() { do(t, os.Remove(filepath.Join(dir, "b.rego"))) }},
		{"below", func() { write(t, filepath.Join(dir, "deep", "data.yaml"), "one") }},
		{"a new folder", func() { do(t, os.Mkdir(filepath.Join(dir, "new"), 0o755)) }},
		{"in the new folder", func() { write(t, filepath.Join(dir, "new", "x.rego"), "one") }},
		{"what a link leads to", func() { write(t, filepath.Join(elsewhere, "linked.rego"), "two") }},
		{"let be read", func() { do(t, os.Chmod(filepath.Join(dir, "a.rego"), 0o600)) }},
		{"the folder exchanged", func() {
			do(t, os.Mkdir(filepath.Join(top, "next"), 0o755))
			do(t, os.Rename(dir, filepath.Join(top, "old")))
			do(t, os.Rename(filepath.Join(top, "next"), dir))
		}},
		{"in the exchanged folder", func() { write(t, filepath.Join(dir, "a.rego"), "four") }},
		{"a missing folder made", func() { do(t, os.MkdirAll(filepath.Join(top, "missing", "sub"), 0o755)) }},
		{"in the one that was missing", func() { write(t, filepath.Join(top, "missing", "sub", "m.rego"), "one") }},
		{"a single file made", func() { write(t, filepath.Join(elsewhere, "single.rego"), "one") }},
	} {
		step.do()
		next(t, told, step.what)
		if n := len(told); n != 0 {
			t.Errorf("%s: told %d times more", step.what, n)
		}
	}
}

func TestAFileThatIsBeingWrittenIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "a.rego")
	w, told := watched(t, dir)
	f, err := os.Create(file)
	do(t, err)
	_, err = f.WriteString("package breaker.")
	do(t, err)
	// Another is whole, and not told of before this one is.
	write(t, filepath.Join(dir, "b.rego"), "one")
	for deadline := time.Now().Add(10 * time.Second); !cmp.Equal(w.Writing(), []string{file}); {
		if time.Now().After(deadline) {
			t.Fatalf("being written: %v", w.Writing())
		}
		time.Sleep(time.Millisecond)
	}
	select {
	case <-told:
		t.Fatal("half a file was told of")
	case <-time.After(10 * settle):
	}
	closed := time.Now()
	do(t, f.Close())
	if at := next(t, told, "closed"); at.Sub(closed) < settle {
		t.Errorf("told %v after it was closed, before it was left alone for %v", at.Sub(closed), settle)
	}
	if got := w.Writing(); got != nil {
		t.Errorf("still being written: %v", got)
	}
}

// unheard fails if anything is told within some time.
func unheard(t *testing.T, told <-chan time.Time, d time.Duration, what string) {
	t.Helper()
	select {
	case <-told:
		t.Fatal(what)
	case <-time.After(d):
	}
}

func TestAFileThatIsBeingWrittenInANewFolderIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	w, told := watched(t, dir)
	deep := filepath.Join(dir, "new", "deep")
	do(t, os.MkdirAll(deep, 0o755))
	file := filepath.Join(deep, "a.rego")
	f, err := os.Create(file)
	do(t, err)
	// What is written before the folder is watched is not known to go on.
	for deadline := time.Now().Add(10 * time.Second); !cmp.Equal(w.Writing(), []string{file}); {
		if time.Now().After(deadline) {
			t.Fatalf("being written: %v", w.Writing())
		}
		_, err = f.WriteString("# one\n")
		do(t, err)
		time.Sleep(time.Millisecond)
	}
	if len(told) != 0 {
		t.Fatal("told before anybody knew that a file is being written")
	}
	unheard(t, told, 10*settle, "half a file in a new folder was told of")
	if !w.Restless() {
		t.Error("it is said to be left alone")
	}
	do(t, f.Close())
	next(t, told, "closed")
	if w.Restless() {
		t.Error("it is said to change still")
	}
}

func TestAFolderWhoseFilesAreStillArrivingIsWaitedFor(t *testing.T) {
	dir := t.TempDir()
	_, told := watched(t, dir)
	new := filepath.Join(dir, "new")
	do(t, os.Mkdir(new, 0o755))
	for _, name := range []string{"a", "b", "c", "d", "e", "f"} {
		unheard(t, told, settle/2, "half a set was told of")
		write(t, filepath.Join(new, name+".rego"), "one")
	}
	next(t, told, "all are there")
	unheard(t, told, 4*settle, "told twice")
}

func TestAFileThatIsGoneWithItsFolderIsNotWaitedFor(t *testing.T) {
	dir, elsewhere := t.TempDir(), t.TempDir()
	w, told := watched(t, dir)
	do(t, os.Mkdir(filepath.Join(dir, "new"), 0o755))
	next(t, told, "a new folder")
	f, err := os.Create(filepath.Join(dir, "new", "a.rego"))
	do(t, err)
	defer f.Close()
	_, err = f.WriteString("# one\n")
	do(t, err)
	unheard(t, told, 4*settle, "half a file was told of")
	do(t, os.Rename(filepath.Join(dir, "new"), filepath.Join(elsewhere, "new")))
	next(t, told, "the folder is gone")
	if got := w.Writing(); got != nil {
		t.Errorf("still being written: %v", got)
	}
}

func TestWhatNobodyLoadsIsNotTold(t *testing.T) {
	top := t.TempDir()
	dir := filepath.Join(top, "policies")
	do(t, os.MkdirAll(filepath.Join(dir, ".git"), 0o755))
	_, told := watched(t, dir)
	write(t, filepath.Join(dir, ".a.rego.swp"), "x")
	write(t, filepath.Join(dir, "a.rego~"), "x")
	write(t, filepath.Join(dir, ".git", "index"), "x")
	write(t, filepath.Join(top, "other"), "x")
	// Events keep their order: what is told now is about this file alone.
	write(t, filepath.Join(dir, "a.rego"), "x")
	next(t, told, "a policy")
	select {
	case <-told:
		t.Error("told twice")
	case <-time.After(4 * settle):
	}
}

func TestAFolderAboveThatIsExchangedIsTold(t *testing.T) {
	top := t.TempDir()
	above := filepath.Join(top, "etc")
	dir := filepath.Join(above, "policies")
	do(t, os.MkdirAll(dir, 0o755))
	do(t, os.MkdirAll(filepath.Join(top, "next", "policies"), 0o755))
	_, told := watched(t, dir)
	do(t, os.Rename(above, filepath.Join(top, "old")))
	do(t, os.Rename(filepath.Join(top, "next"), above))
	next(t, told, "the folder above is exchanged")
	write(t, filepath.Join(dir, "a.rego"), "x")
	next(t, told, "a policy in the new one")
}
