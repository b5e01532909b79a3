package observe

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/model"
)

func TestWhatStirsACalmMachine(t *testing.T) {
	const tick = 250 * time.Millisecond
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
		{"a clock that stands still", 2, func(g *glance) { g.boot -= int64(tick) }, false},
		{"6 ms in a doze of a second", 1, func(g *glance) { g.boot += 3 * int64(tick); g.pressure.CPU.SomeUS += 6000 }, true},
		{"how many CPUs there are is not known", 0, func(g *glance) { g.pressure.CPU.SomeUS += 6000 }, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			now := before
			now.boot += int64(tick)
			tt.change(&now)
			if got := stirred(before, now, tt.cpus, tick); got != tt.want {
				t.Errorf("stirred: %v, want %v", got, tt.want)
			}
		})
	}
	after := before
	after.boot += int64(time.Second)
	after.pressure.CPU.SomeUS += 6000
	if stirred(before, after, 1, time.Second) {
		t.Error("6 ms in a tick of a second stirred")
	}
}

// still is a kernel in which so many bytes of records were written since the last sample.
type still struct {
	blind
	unread  *int
	stirred chan struct{} // nil where it cannot wake whoever dozes
}

func (s still) Collect(*model.Sample, bool) error { *s.unread = 0; return nil }
func (s still) Unread() int                       { return *s.unread }
func (s still) Doze() (<-chan struct{}, error)    { return s.stirred, nil }

// calmMachine is one whose files are a fixture, and whose clock is the test's.
type calmMachine struct {
	*testing.T
	dir string
	*Observer
}

func newCalmMachine(t *testing.T) *calmMachine {
	m := &calmMachine{T: t, dir: t.TempDir()}
	m.waited(0)
	for _, name := range []string{"memory", "io"} {
		m.write("pressure/"+name, "some avg10=0.00 avg60=0.00 avg300=0.00 total=0\n")
	}
	m.write("stat", "cpu  9 0 3 169 3 0 8 1 0 0\ncpu0 4 0 1 84 7 0 1 5 0 0\nintr 3\n")
	m.write("meminfo", "MemTotal: 1000 kB\nMemAvailable: 900 kB\n")
	m.write("sys/kernel/random/boot_id", "152e8026-06a9-491b-a2da-6f96c841d06b\n")
	return m
}

func (m *calmMachine) write(name, text string) {
	m.Helper()
	path := filepath.Join(m.dir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		m.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		m.Fatal(err)
	}
}

// waited says how long somebody has waited for a CPU, in µs.
func (m *calmMachine) waited(us int) {
	m.Helper()
	m.write("pressure/cpu", fmt.Sprintf("some avg10=0.00 avg60=0.00 avg300=0.00 total=%d\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n", us))
}

func (m *calmMachine) observe(kernel kernelSide) {
	m.Helper()
	o, err := begin(250*time.Millisecond, host.Reader{ProcRoot: m.dir, CgroupRoot: m.dir}, func() (kernelSide, error) { return kernel, nil })
	if err != nil {
		m.Fatal(err)
	}
	began := time.Now()
	o.now = func() (host.Clocks, error) {
		ns := int64(time.Hour + time.Since(began))
		return host.Clocks{Wall: ns, Boot: ns, Mono: ns}, nil
	}
	o.clocks, _ = o.now()
	m.Observer = o
}

// sample expects the next sample to be of this length.
func (m *calmMachine) sample(length time.Duration, keyframe bool) {
	m.Helper()
	s, err := m.Next(context.Background())
	if err != nil {
		m.Fatal(err)
	}
	if s.Length() != length || s.Keyframe != keyframe || s.Lost != (model.Lost{}) {
		m.Errorf("a sample of %v, keyframe %v, lost %+v: want one of %v, keyframe %v, and nothing lost", s.Length(), s.Keyframe, s.Lost, length, keyframe)
	}
}

func TestACalmMachineIsGlancedAtAndASampleIsTakenInTheTickInWhichItStirs(t *testing.T) {
	m := newCalmMachine(t)
	synctest.Test(t, func(t *testing.T) {
		unread := 0
		m.observe(still{unread: &unread})
		defer m.Close()
		sample, waited, o := m.sample, m.waited, m.Observer
		const tick = 250 * time.Millisecond
		sample(tick, true)
		sample(wholeEvery, false)
		sample(wholeEvery, false)
		waited(6000)
		sample(tick, false)
		waited(12000)
		sample(tick, false)
		sample(wholeEvery, false)
		time.AfterFunc(2*tick+tick/2, func() { unread = bpf.StirBytes })
		sample(3*tick, false)
		sample(wholeEvery, false)
		m.write("pressure/cpu", "no pressure\n")
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

func TestWhereNothingStirsForLongItDozesUntilTheKernelWakesIt(t *testing.T) {
	m := newCalmMachine(t)
	synctest.Test(t, func(t *testing.T) {
		unread, stirred := 0, make(chan struct{}, 1)
		m.observe(still{unread: &unread, stirred: stirred})
		defer m.Close()
		const tick = 250 * time.Millisecond
		// wake has somebody wait after a while, for so long in all.
		wake := func(after time.Duration, us int) {
			time.AfterFunc(after, func() {
				m.waited(us)
				stirred <- struct{}{}
			})
		}
		// calm waits until nothing has stirred for so long that it dozes.
		calm := func() {
			for !m.drowsy() {
				s, err := m.Next(context.Background())
				if err != nil {
					t.Fatal(err)
				}
				if s.Length() < wholeEvery-tick/2 || s.Length() > Longest || (s.Length() > wholeEvery && !m.drowsy()) {
					t.Errorf("a sample of %v", s.Length())
				}
			}
		}
		m.sample(tick, true)
		calm()
		m.sample(Longest, false)

		wake(tick/2, 6000) // before a tick is over: nobody comes earlier than at its end
		m.sample(tick, false)
		calm()

		wake(tick+tick/2, 12000) // after it: at once
		m.sample(tick+tick/2, false)
		calm()

		wake(tick+tick/2, 13000) // less than a glance takes for trouble: it dozes on
		m.sample(Longest, false)

		// Nothing wakes it where somebody waits for memory, but it looks within a second.
		time.AfterFunc(tick/2, func() {
			m.write("pressure/memory", "some avg10=0.00 avg60=0.00 avg300=0.00 total=9000\n")
		})
		m.sample(dozeTick, false)
	})
}
