package observe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/model"
)

func TestWhatStirsACalmMachine(t *testing.T) {
	const tick = int64(250 * time.Millisecond)
	before := glance{boot: 1e9, pressure: model.Pressure{CPU: model.Stall{SomeUS: 7e6}, Memory: model.Stall{SomeUS: 5e6}, IO: model.Stall{SomeUS: 3e6}}}
	tests := []struct {
		name   string
		cpus   int
		change func(*glance)
		want   bool
	}{
		{"nothing", 2, func(*glance) {}, false},
		{"a task that waited for 4 ms", 1, func(g *glance) { g.pressure.CPU.SomeUS += 4000 }, false},
		{"a task that waited for 6 ms", 1, func(g *glance) { g.pressure.CPU.SomeUS += 6000 }, true},
		{"the same on one of 64 CPUs", 64, func(g *glance) { g.pressure.CPU.SomeUS += 6000 / 64 }, true},
		{"somebody waited for memory", 1, func(g *glance) { g.pressure.Memory.SomeUS += 6000 }, true},
		{"somebody waited for a disk", 1, func(g *glance) { g.pressure.IO.SomeUS += 6000 }, true},
		{"a process was made, became another and ended", 2, func(g *glance) { g.records = 368 }, false},
		{"two were", 2, func(g *glance) { g.records = 2 * 368 }, true},
		{"a total that runs back", 2, func(g *glance) { g.pressure.CPU.SomeUS = 0 }, false},
		{"a clock that stands still", 2, func(g *glance) { g.boot -= tick }, false},
		{"the same in a tick of a second", 1, func(g *glance) { g.boot += 3 * tick; g.pressure.CPU.SomeUS += 6000 }, false},
		{"how many CPUs there are is not known", 0, func(g *glance) { g.pressure.CPU.SomeUS += 6000 }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := before
			now.boot += tick
			tt.change(&now)
			if got := stirred(before, now, tt.cpus); got != tt.want {
				t.Errorf("stirred: %v, want %v", got, tt.want)
			}
		})
	}
}

// still is a kernel in which so many bytes of records were written since the last sample.
type still struct {
	blind
	unread *int
}

func (s still) Collect(*model.Sample, bool) error { *s.unread = 0; return nil }
func (s still) Unread() int                       { return *s.unread }

// The machine's files are a fixture, and its clock is the test's.
func TestACalmMachineIsGlancedAtAndASampleIsTakenInTheTickInWhichItStirs(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	waited := func(us int) {
		write("pressure/cpu", fmt.Sprintf("some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", us))
	}
	waited(0)
	for _, name := range []string{"memory", "io"} {
		write("pressure/"+name, "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	}
	write("stat", "cpu  9 0 3 169 3 0 8 1 0 0\ncpu0 4 0 1 84 7 0 1 5 0 0\nintr 3\n")
	write("meminfo", "MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
	write("sys/kernel/random/boot_id", "152e8026-06a9-491b-a2da-6f96c841d06b\n")

	synctest.Test(t, func(t *testing.T) {
		unread := 0
		o, err := begin(250*time.Millisecond, host.Reader{ProcRoot: dir, CgroupRoot: dir}, func() (kernelSide, error) { return still{unread: &unread}, nil })
		if err != nil {
			t.Fatal(err)
		}
		defer o.Close()
		began := time.Now()
		o.now = func() (host.Clocks, error) {
			ns := int64(time.Hour + time.Since(began))
			return host.Clocks{Wall: ns, Boot: ns, Mono: ns}, nil
		}
		o.clocks, _ = o.now()
		sample := func(length time.Duration, keyframe bool) {
			t.Helper()
			s, err := o.Next(context.Background())
			if err != nil {
				t.Fatal(err)
			}
			if s.Length() != length || s.Keyframe != keyframe || s.Lost != (model.Lost{}) {
				t.Errorf("a sample of %v, keyframe %v, lost %+v: want one of %v, keyframe %v, and nothing lost", s.Length(), s.Keyframe, s.Lost, length, keyframe)
			}
		}
		const tick = 250 * time.Millisecond
		sample(tick, true)
		sample(WholeEvery, false)
		sample(WholeEvery, false)
		waited(6000)
		sample(tick, false)
		waited(12000)
		sample(tick, false)
		sample(WholeEvery, false)
		time.AfterFunc(2*tick+tick/2, func() { unread = stirBytes })
		sample(3*tick, false)
		sample(WholeEvery, false)
		write("pressure/cpu", "no pressure\n")
		if s, err := o.Next(context.Background()); err == nil {
			t.Errorf("a sample of %v where pressure cannot be read, want an error", s.Length())
		}
		waited(12000)
		o.last.PressureAbsent = true // then nothing tells calm from trouble
		sample(tick, false)
		o.SetTick(2 * time.Second)
		sample(tick, false) // it was under way
		sample(2*time.Second, false)
	})
}
