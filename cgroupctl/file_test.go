package cgroupctl

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// plainCgroup is a cgroup of plain files, with all that a throttle and a freeze write.
type plainCgroup struct {
	t   *testing.T
	dir string
	c   *Controller
	r   Ref
	was map[string]string
}

var plainWrites = []model.FileWrite{
	{File: "cpu.max", Was: "max 100000", Wrote: "50000 100000"},
	{File: "memory.high", Was: "max", Wrote: "104857600"},
	{File: "pids.max", Was: "4915", Wrote: "100"},
	{File: "io.max", Was: "8:0 rbps=max", Wrote: "8:0 rbps=1048576"},
}

func newPlainCgroup(t *testing.T) *plainCgroup {
	t.Helper()
	mount := t.TempDir()
	root, err := unix.Open(mount, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	p := &plainCgroup{t: t, dir: mount + "/a", c: &Controller{mount: mount, root: root}, was: map[string]string{
		freezeFile: "0", eventsFile: "populated 1\nfrozen 0", "cgroup.procs": "",
	}}
	t.Cleanup(func() { p.c.Close() })
	for _, w := range plainWrites {
		p.was[w.File] = w.Was
	}
	if err := os.Mkdir(p.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if p.r, err = p.c.Find("/a"); err != nil {
		t.Fatal(err)
	}
	return p
}

func (p *plainCgroup) reset() {
	p.t.Helper()
	for file, text := range p.was {
		if err := os.WriteFile(filepath.Join(p.dir, file), []byte(text+"\n"), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
}

// wantAsBefore looks at a file, unless it was taken away.
func (p *plainCgroup) wantAsBefore(what, file string) {
	p.t.Helper()
	b, err := os.ReadFile(filepath.Join(p.dir, file))
	got, want := strings.TrimSpace(string(b)), p.was[file]
	if errors.Is(err, os.ErrNotExist) || file == ioFile && ioHolds(got, "8:0", "rbps") == want {
		return
	}
	if got != want {
		p.t.Errorf("%s: %s holds %q, and held %q", what, file, got, want)
	}
}

// Whatever the kernel answers to a read or a write of a single file: the others are put back
// all the same, and it is once it can be. A cgroup that is there is not taken for gone.
func TestAnErrorOfAFileKeepsNoOtherFromBeingPutBack(t *testing.T) {
	p := newPlainCgroup(t)
	freeze, kernel := []model.FileWrite{FreezeWrite()}, sys
	for _, writes := range [][]model.FileWrite{plainWrites, freeze} {
		for _, w := range writes {
			for _, op := range []string{"read", "write"} {
				for _, errno := range []error{unix.ENODEV, unix.EBUSY, unix.EPERM, unix.ENOSPC, unix.EROFS, unix.EIO} {
					if errno == unix.ENODEV && w.File == freezeFile {
						continue // it goes with its cgroup only
					}
					for nth := 1; nth <= 2; nth++ { // a write is followed by a read
						for _, at := range []string{"apply", "restore"} {
							what := fmt.Sprintf("%s: %s %d of %s: %v", at, op, nth, w.File, errno)
							sys = kernel
							p.reset()
							now, seen := "", 0
							Failing(t, func(of, file string) error {
								if of == "write" { // the kernel takes each for a whole
									if err := os.Truncate(filepath.Join(p.dir, file), 0); err != nil {
										return err
									}
								}
								return nil
							})
							plain := sys
							Failing(t, func(of, file string) error {
								if now != at || of != op || file != w.File {
									return nil
								}
								if seen++; seen != nth {
									return nil
								}
								if errno == unix.ENODEV {
									os.Remove(filepath.Join(p.dir, file))
								}
								return errno
							})
							now = "apply"
							for _, each := range writes {
								switch err := p.c.Apply(p.r, each); {
								case err == nil:
								case seen < nth || errors.Is(err, ErrGone):
									t.Fatalf("%s: %v", what, err)
								case Untouched(err) && each.File == w.File:
									p.wantAsBefore(what+": untouched, it says", w.File)
								}
								if seen >= nth {
									break
								}
							}
							now = "restore"
							note, err := p.c.Restore(t.Context(), p.r, writes...)
							if strings.Contains(note, noteGone) || errors.Is(err, ErrGone) {
								t.Errorf("%s: %q, %v", what, note, err)
							}
							sys = plain
							for _, each := range writes {
								if each.File != w.File || err == nil {
									p.wantAsBefore(what, each.File)
								}
							}
							if _, err := p.c.Restore(t.Context(), p.r, writes...); err != nil {
								t.Errorf("%s: again: %v", what, err)
							}
							p.wantAsBefore(what+": again", w.File)
						}
					}
				}
			}
		}
	}
}
