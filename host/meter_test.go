package host

import (
	"errors"
	"strings"
	"testing"
)

func TestAMeterTellsWhatTheFilesSayNow(t *testing.T) {
	r := fixture(t, "debian-6.1")
	m, err := r.Meter()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	was, err := m.Host()
	if err != nil {
		t.Fatal(err)
	}
	// Also where it is longer than it was, and than there is room for.
	write(t, r.proc("meminfo"), strings.Repeat("Other: 1 kB\n", 2000)+"MemTotal: 2000 kB\nMemAvailable: 1000 kB\n")
	write(t, r.proc("pressure/cpu"), "some avg10=0.00 avg60=0.00 avg300=0.00 total=123\n")
	now, err := m.Host()
	if err != nil {
		t.Fatal(err)
	}
	if now.MemTotalBytes != 2000<<10 || now.MemAvailBytes != 1000<<10 || now.Pressure.CPU.SomeUS != 123 {
		t.Errorf("got %+v, want what was written", now)
	}
	was.MemTotalBytes, was.MemAvailBytes, was.SwapFreeBytes, was.Pressure.CPU = now.MemTotalBytes, now.MemAvailBytes, now.SwapFreeBytes, now.Pressure.CPU
	if now != was {
		t.Errorf("got %+v, want the rest as it was: %+v", now, was)
	}
	write(t, r.proc("stat"), "")
	if _, err := m.Host(); err == nil {
		t.Error("no error where the times of the CPUs are gone")
	}
}

func TestAMeterWithoutPressureSaysSo(t *testing.T) {
	r := fixture(t, "debian-6.1")
	remove(t, r.proc("pressure"))
	m, err := r.Meter()
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	if _, err := m.Pressure(); !errors.Is(err, ErrPressureOff) {
		t.Errorf("got %v, want %v", err, ErrPressureOff)
	}
	if host, err := m.Host(); err != nil || !host.PressureAbsent {
		t.Errorf("got %+v and %v, want pressure to be absent", host, err)
	}
}

func BenchmarkMeterPressure(b *testing.B) {
	m, err := machine(b).Meter()
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Pressure(); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkMeterHost(b *testing.B) {
	m, err := machine(b).Meter()
	if err != nil {
		b.Fatal(err)
	}
	defer m.Close()
	b.ReportAllocs()
	for b.Loop() {
		if _, err := m.Host(); err != nil {
			b.Fatal(err)
		}
	}
}
