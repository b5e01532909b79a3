package disposable

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

// A storm in a tree of which a part is frozen goes, with cgroup.kill and without.
func TestWhateverRunsIsKilledAndItsCgroupsAreRemoved(t *testing.T) {
	for name, kill := range map[string]func(dir string){
		"cgroup.kill":         Kill,
		"one after the other": func(dir string) { killEach(below(dir)) },
	} {
		t.Run(name, func(t *testing.T) {
			scratch := kerneltest.ScratchCgroup(t)
			inner, frozen := scratch.Child("inner"), scratch.Child("frozen")
			for range 3 {
				inner.Start("sh", "-c", "while :; do sleep 100 & sleep 0.005; done")
			}
			frozen.Start("sleep", "100")
			frozen.Write("cgroup.freeze", "1")
			time.Sleep(100 * time.Millisecond)
			if len(inner.PIDs()) < 4 {
				t.Fatalf("%d processes: no storm", len(inner.PIDs()))
			}
			kill(scratch.Dir)
			if err := Clear(scratch.Dir, "breakerd-test-"); err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(scratch.Dir); !errors.Is(err, fs.ErrNotExist) {
				t.Errorf("%s is still there: %v", scratch.Dir, err)
			}
		})
	}
}

func TestAForeignCgroupIsLeftAlone(t *testing.T) {
	scratch := kerneltest.ScratchCgroup(t)
	for _, dir := range []string{scratch.Dir, scratch.Dir + "/breakerd-drill-1/.."} {
		if err := Clear(dir, "breakerd-drill-"); err == nil {
			t.Errorf("%s was cleared", dir)
		}
	}
	if _, err := os.Stat(scratch.Dir); err != nil {
		t.Error(err)
	}
}

func TestOnlyTheGroundsOfThoseWhoHaveEndedAreSwept(t *testing.T) {
	scratch := kerneltest.ScratchCgroup(t)
	mine := scratch.Child("ground-1") // pid 1 runs
	foreign := scratch.Child("ground-x")
	left := scratch.Child("ground-2000000000") // no pid is as large
	Sweep(scratch.Dir, "ground-")
	for dir, want := range map[string]bool{mine.Dir: true, foreign.Dir: true, left.Dir: false} {
		if _, err := os.Stat(dir); (err == nil) != want {
			t.Errorf("%s: there is %v, want %v", filepath.Base(dir), err == nil, want)
		}
	}
}

func TestAProgramIsStoppedAndWhatItSaidIsKept(t *testing.T) {
	p, err := Start(syscall.SIGKILL, "/bin/sh", "-c", "echo said; echo complained >&2; exec sleep 100")
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(5 * time.Second); !strings.Contains(p.Output(), "complained") && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if err := p.Stop(5 * time.Second); err != nil {
		t.Error(err)
	}
	if got := p.Output(); got != "said\ncomplained" {
		t.Errorf("it said %q", got)
	}
	deaf, err := Start(syscall.SIGKILL, "/bin/sh", "-c", "trap '' TERM; echo deaf; while :; do sleep 0.1; done")
	if err != nil {
		t.Fatal(err)
	}
	for until := time.Now().Add(5 * time.Second); deaf.Output() == "" && time.Now().Before(until); {
		time.Sleep(time.Millisecond)
	}
	if err := deaf.Stop(50 * time.Millisecond); err == nil || !strings.Contains(err.Error(), "sh did not end") {
		t.Errorf("one that does not listen: %v", err)
	}
}
