package host

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/breakerd/breakerd/model"
	"github.com/google/go-cmp/cmp"
)

func TestHost(t *testing.T) {
	tests := map[string]model.Host{
		"debian-5.10": {
			BootID: "", CPUs: 2,
			Pressure: model.Pressure{
				CPU: model.Stall{SomeUS: 4439568},
				IO:  model.Stall{SomeUS: 139496, FullUS: 49124},
			},
		},
		"debian-6.1": {
			BootID: "2938d535-b335-424c-9d68-93f5d2936a17", CPUs: 2,
			CPUBusyNS:     (362 + 672 + 3) * 10_000_000,
			CPUIdleNS:     (645 + 3) * 10_000_000,
			MemTotalBytes: 996344 << 10, MemAvailBytes: 844888 << 10,
			Pressure: model.Pressure{
				CPU: model.Stall{SomeUS: 4722602},
				IO:  model.Stall{SomeUS: 101539, FullUS: 33592},
			},
		},
		"hybrid-6.18": {
			BootID: "152e8026-06a9-491b-a2da-6f96c841d06b", CPUs: 2,
			CPUBusyNS:     (16466 + 6498 + 8660 + 191) * 10_000_000,
			CPUIdleNS:     (306443 + 835) * 10_000_000,
			StealNS:       127 * 10_000_000,
			MemTotalBytes: 24684084 << 10, MemAvailBytes: 24274812 << 10,
			Pressure: model.Pressure{
				CPU: model.Stall{SomeUS: 67786107},
				IO:  model.Stall{SomeUS: 7376720, FullUS: 6031363},
			},
		},
	}
	for name, want := range tests {
		t.Run(name, func(t *testing.T) {
			got, err := fixture(t, name).Host()
			if err != nil {
				t.Fatal(err)
			}
			if want.BootID == "" { // only the pressure is of interest
				got = model.Host{CPUs: got.CPUs, Pressure: got.Pressure}
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestHostWithoutPressureSaysSo(t *testing.T) {
	r := fixture(t, "debian-6.1")
	remove(t, filepath.Join(r.ProcRoot, "pressure"))
	host, err := r.Host()
	if err != nil {
		t.Fatal(err)
	}
	if !host.PressureAbsent || host.Pressure != (model.Pressure{}) || host.CPUs != 2 {
		t.Errorf("got %+v", host)
	}
	if _, err := r.Pressure(); !errors.Is(err, ErrPressureOff) {
		t.Errorf("Pressure: %v", err)
	}
}

func TestErrorsNameTheFileAndTheLine(t *testing.T) {
	tests := []struct {
		name, file, text, want string
	}{
		{"a pressure without total", "pressure/cpu", "some avg10=0.00\n", "/pressure/cpu line 1: no total in"},
		{"a total that is no number", "pressure/io", "some total=1\nfull total=-1\n", `/pressure/io line 2: total "-1" is no number`},
		{"an empty pressure", "pressure/memory", "", "/pressure/memory line 1: neither some nor full"},
		{"a stat that begins otherwise", "stat", "intr 1\n", `/stat line 1: "int" does not begin with cpu`},
		{"an empty stat", "stat", "", "/stat line 1:"},
		{"CPU times that are none", "stat", "cpu  a b c d\n", `/stat line 1: time "a" is no number`},
		{"meminfo without an estimate", "meminfo", "MemTotal: 4 kB\n", "/meminfo line 1: no MemAvailable"},
		{"meminfo with nonsense", "meminfo", "MemFree: 4 kB\nMemTotal: much\n", "/meminfo line 2:"},
		{"a boot id that is none", "sys/kernel/random/boot_id", "yesterday\n", `/boot_id line 1: "yesterday`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := fixture(t, "debian-6.1")
			write(t, r.proc(tt.file), tt.text)
			_, err := r.Host()
			if err == nil || !strings.HasPrefix(err.Error(), "parse ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant parse …%s", err, tt.want)
			}
		})
	}
	r := fixture(t, "debian-6.1")
	remove(t, r.proc("stat"))
	if _, err := r.Host(); err == nil || err.Error() != "read "+r.proc("stat")+": no such file or directory" {
		t.Errorf("a missing stat: %v", err)
	}
}

func TestPressureToleratesWhatItDoesNotKnow(t *testing.T) {
	tests := []struct {
		name, text string
		want       model.Stall
	}{
		{"both lines", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=5\n", model.Stall{SomeUS: 7, FullUS: 5}},
		{"no full line, as cpu before 5.13", "some avg10=0.00 avg60=0.00 avg300=0.00 total=7\n", model.Stall{SomeUS: 7}},
		{"no some line, as irq", "full avg10=0.00 avg60=0.00 avg300=0.00 total=5\n", model.Stall{FullUS: 5}},
		{"a line of a kind to come", "some total=7\nmost total=x\nfull total=5\n", model.Stall{SomeUS: 7, FullUS: 5}},
		{"a field to come", "some avg1=0.00 total=7 peak=9\n", model.Stall{SomeUS: 7}},
		{"no newline at the end", "some total=7", model.Stall{SomeUS: 7}},
		{"the largest total", "some total=18446744073709551615\n", model.Stall{SomeUS: 1<<64 - 1}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := parsePressure([]byte(tt.text))
			if err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestLoad(t *testing.T) {
	got, err := fixture(t, "debian-6.1").Load()
	if want := (Load{Running: 1, Tasks: 81}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

// The real stat is followed by lines that we have no use for.
func TestCPUStopsReadingAtTheInterrupts(t *testing.T) {
	text := "cpu  1 2 3 4\ncpu0 1 2 3 4\nintr " + strings.Repeat("0 ", 100_000)
	from := strings.NewReader(text)
	got, err := parseCPU(from)
	if want := (CPU{Online: 1, BusyNS: 6 * tickNS, IdleNS: 4 * tickNS}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if read := len(text) - from.Len(); read > 4096 {
		t.Errorf("read %d bytes", read)
	}
}

func TestThisMachine(t *testing.T) {
	r := machine(t)
	host, err := r.Host()
	if err != nil {
		t.Fatal(err)
	}
	if host.CPUs == 0 || host.CPUBusyNS == 0 || host.MemTotalBytes < host.MemAvailBytes || host.BootID == "" {
		t.Errorf("implausible: %+v", host)
	}
	if host.PressureAbsent {
		needKernel(t, ErrPressureOff.Error())
	}
	if host.Pressure.CPU.SomeUS == 0 {
		t.Errorf("no CPU pressure since boot: %+v", host.Pressure)
	}
}

// Processes come and go while they are listed, so a few are forgiven.
func TestProcessesAreAsManyAsAreListed(t *testing.T) {
	r := machine(t)
	entries, err := os.ReadDir(r.ProcRoot)
	if err != nil {
		t.Fatal(err)
	}
	listed := 0
	for _, e := range entries {
		if name := e.Name(); name[0] >= '1' && name[0] <= '9' {
			listed++
		}
	}
	if os.Getenv("BREAKERD_REQUIRE_KERNEL") != "1" && listed < 10 {
		t.Skip("missing: a view of the whole machine's processes (this is a pid namespace)")
	}
	got, err := r.Processes()
	if err != nil {
		t.Fatal(err)
	}
	if d := got - listed; d < -20 || d > 20 {
		t.Errorf("counted %d, listed %d", got, listed)
	}
}

func TestProcessesOfATreeThatIsNotProcAreUnknown(t *testing.T) {
	if n, err := fixture(t, "debian-6.1").Processes(); n != 0 || err != nil {
		t.Errorf("got %d, %v", n, err)
	}
}

func BenchmarkHost(b *testing.B) {
	r := machine(b)
	for b.Loop() {
		if _, err := r.Host(); err != nil {
			b.Fatal(err)
		}
	}
}
