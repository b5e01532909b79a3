package host

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/breakerd/breakerd/model"
	"github.com/google/go-cmp/cmp"
)

func TestCgroupDetail(t *testing.T) {
	capped := "/system.slice/capped.service"
	tests := []struct {
		name, fixture, path string
		want                model.CgroupDetail
	}{
		{
			"a service under its own quota", "debian-6.1", capped,
			model.CgroupDetail{
				Pressure:    &model.Pressure{CPU: model.Stall{SomeUS: 2268204, FullUS: 2268204}},
				ThrottledNS: 2426087_000, MemoryBytes: 180224,
				MemoryMaxBytes: 1 << 30, MemoryHighBytes: 512 << 20, CPUMaxPercent: 10, PIDsMax: 500,
			},
		},
		{
			"the slice above it", "debian-6.1", "/system.slice",
			model.CgroupDetail{
				Pressure: &model.Pressure{
					CPU: model.Stall{SomeUS: 3826778, FullUS: 2103612},
					IO:  model.Stall{SomeUS: 63680, FullUS: 17986},
				},
				MemoryBytes: 44703744, IOReadBytes: 229376, IOWriteBytes: 8396800,
				AnonBytes: 6664192, FileBytes: 31547392, ShmemBytes: 352256,
				MemoryHighBytes: 512 << 20, CPUMaxPercent: 150, PIDsMax: 500,
			},
		},
		{
			"the root, which sums over all devices", "debian-6.1", "/",
			model.CgroupDetail{
				Pressure: &model.Pressure{
					CPU: model.Stall{SomeUS: 4857482},
					IO:  model.Stall{SomeUS: 101658, FullUS: 33712},
				},
				IOReadBytes: 1111040 + 5999616 + 27137024, IOWriteBytes: 4096 + 10276864,
			},
		},
		{
			"before cpu.pressure had a full line", "debian-5.10", capped,
			model.CgroupDetail{
				Pressure:    &model.Pressure{CPU: model.Stall{SomeUS: 2094685}},
				ThrottledNS: 2229786_000, MemoryBytes: 180224,
				MemoryMaxBytes: 1 << 30, MemoryHighBytes: 512 << 20, CPUMaxPercent: 10, PIDsMax: 500,
			},
		},
		{
			"a hybrid machine, without controllers", "hybrid-6.18", "/scratch",
			model.CgroupDetail{Pressure: &model.Pressure{}},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := fixture(t, tt.fixture).CgroupDetail(tt.path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got); diff != "" {
				t.Error(diff)
			}
		})
	}
}

func TestThrottlingIsThatOfTheCgroupAndAllAbove(t *testing.T) {
	throttled := func(us string) string { return "usage_usec 1\nnr_throttled 1\nthrottled_usec " + us + "\n" }
	tests := []struct {
		name             string
		above, mid, self string
		want             uint64
	}{
		{"only its own quota", throttled("0"), throttled("0"), throttled("7"), 7000},
		{"a quota right above", throttled("0"), throttled("9"), throttled("7"), 16000},
		{"a quota further up", throttled("11"), throttled("9"), throttled("7"), 27000},
		{"it has no cpu controller, its ancestor has", throttled("5"), throttled("0"), "usage_usec 1\n", 5000},
		{"nobody has one", "usage_usec 1\n", "usage_usec 1\n", "usage_usec 1\n", 0},
		{"an ancestor without the file", throttled("5"), "", throttled("3"), 8000},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := Reader{CgroupRoot: t.TempDir()}
			for dir, text := range map[string]string{"a": tt.above, "a/b": tt.mid, "a/b/c": tt.self} {
				if text != "" {
					write(t, filepath.Join(r.CgroupRoot, dir, "cpu.stat"), text)
				}
			}
			for _, path := range []string{"/a/b/c", "a/b/c", "/a/b/c/"} {
				got, err := r.CgroupDetail(path)
				if err != nil || got.ThrottledNS != tt.want {
					t.Errorf("%s: got %d, %v; want %d", path, got.ThrottledNS, err, tt.want)
				}
			}
		})
	}
}

func TestMemoryStat(t *testing.T) {
	tests := []struct {
		name, text string
		want       MemoryStat
	}{
		{"since 5.9 refaults are told apart", "anon 8192\nfile 12288\nshmem 4096\nworkingset_refault_anon 2\nworkingset_refault_file 17\npgscan 40\npgscan_kswapd 30\npgscan_direct 10\n", MemoryStat{8192, 12288, 4096, 19, 40}},
		{"before they were not", "anon 8192\nworkingset_refault 17\npgscan 40\n", MemoryStat{AnonBytes: 8192, RefaultPages: 17, ScanPages: 40}},
		{"nothing of interest", "sock 0\n", MemoryStat{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got, err := parseMemoryStat([]byte(tt.text)); err != nil || got != tt.want {
				t.Errorf("got %+v, %v; want %+v", got, err, tt.want)
			}
		})
	}
}

func TestLimitsAreTheTightestOfAllAbove(t *testing.T) {
	r := Reader{CgroupRoot: t.TempDir()}
	for path, text := range map[string]string{
		"a/memory.max": "1000\n", "a/b/memory.max": "max\n", "a/b/c/memory.max": "2000\n",
		"a/memory.high": "max\n", "a/b/memory.high": "0\n",
		"a/cpu.max": "max 100000\n", "a/b/cpu.max": "150000 100000\n", "a/b/c/cpu.max": "20000 10000\n",
		"a/b/c/pids.max": "max\n", "a/io.max": "254:0 rbps=max wbps=1048576 riops=max wiops=max\n",
	} {
		write(t, filepath.Join(r.CgroupRoot, path), text)
	}
	got, err := r.CgroupDetail("/a/b/c")
	want := model.CgroupDetail{MemoryMaxBytes: 1000, MemoryHighBytes: 1, CPUMaxPercent: 150, IOLimited: true}
	if err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
	if got, err := r.CgroupStalls("/a/b/c"); err != nil || got != (model.CgroupDetail{}) {
		t.Errorf("the stalls read limits as well: %+v, %v", got, err)
	}
}

func TestCPUWeights(t *testing.T) {
	r := Reader{CgroupRoot: t.TempDir()}
	for path, text := range map[string]string{
		"a/cpu.weight": "100\n", "a/b/cpu.weight": "0\n", "a/b/c/cpu.stat": "", "a/b/c/d/cpu.weight": "10000\n", "plain/cpu.weight": "100\n", "plain/cpu.stat": "",
	} {
		write(t, filepath.Join(r.CgroupRoot, path), text)
	}
	for path, want := range map[string][]uint32{
		"/a": nil, "/a/b": {100, 0}, "/a/b/c": {100, 0, 100}, "a/b/c/d/": {100, 0, 100, 10_000}, "/plain": nil, "/": nil,
	} {
		if got, err := r.CPUWeights(path); err != nil || !slices.Equal(got, want) {
			t.Errorf("%s: %v, %v; want %v", path, got, err, want)
		}
	}
	if _, err := r.CPUWeights("/gone"); !errors.Is(err, ErrGone) {
		t.Errorf("one that is not there: %v", err)
	}
	write(t, filepath.Join(r.CgroupRoot, "plain/cpu.weight"), "10001\n")
	if _, err := r.CPUWeights("/plain"); err == nil || !strings.Contains(err.Error(), "plain/cpu.weight line 1: ") {
		t.Errorf("no weight: %v", err)
	}
}

func TestPressureOfOneCgroupMayBeOff(t *testing.T) {
	r := fixture(t, "hybrid-6.18")
	for _, resource := range []string{"cpu", "memory", "io"} {
		remove(t, filepath.Join(r.CgroupRoot, "scratch", resource+".pressure"))
	}
	detail, err := r.CgroupDetail("/scratch")
	if err != nil || detail.Pressure != nil {
		t.Errorf("got %+v, %v", detail, err)
	}
	if _, err := r.CgroupPressure("/scratch"); !errors.Is(err, ErrPressureOff) {
		t.Errorf("CgroupPressure: %v", err)
	}
}

func TestAVanishedCgroupIsGone(t *testing.T) {
	r := fixture(t, "debian-6.1")
	_, detail := r.CgroupDetail("/system.slice/ended.service")
	_, pressure := r.CgroupPressure("/system.slice/ended.service")
	_, events := r.CgroupEvents("/system.slice/ended.service")
	_, id := r.Tree().ID("/system.slice/ended.service")
	for _, err := range []error{detail, pressure, events, id} {
		if !errors.Is(err, ErrGone) {
			t.Errorf("got %v", err)
		}
	}
}

// Files that are missing because the cgroup is being removed must not be taken
// for files that it never had.
func TestACgroupThatVanishesWhileItIsReadIsGone(t *testing.T) {
	r := machine(t)
	path := scratch(t, r)
	c, err := r.openCgroup(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.close()
	if !c.alive() {
		t.Error("not alive before it was removed")
	}
	dir := filepath.Join(r.CgroupRoot, path)
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := readOptional(c, "memory.current", parseBytes); err != nil || !c.lacking || c.alive() {
		t.Errorf("after removal: %v, lacking %v, alive %v", err, c.lacking, c.alive())
	}
	// Another one under the same name is not the same.
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	if c.alive() {
		t.Error("alive in another cgroup of the same name")
	}
}

func TestAnOpenFileOfARemovedCgroupIsGone(t *testing.T) {
	r := machine(t)
	path := scratch(t, r)
	dir := filepath.Join(r.CgroupRoot, path)
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.Remove(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Read(make([]byte, 64)); !vanished(err) {
		t.Errorf("the kernel says %v", err)
	}
}

func TestCgroupEvents(t *testing.T) {
	r := fixture(t, "debian-6.1")
	got, err := r.CgroupEvents("/system.slice/capped.service")
	if want := (CgroupEvents{Populated: true}); err != nil || got != want {
		t.Errorf("got %+v, %v", got, err)
	}
	if _, err := r.CgroupEvents("/"); err == nil || errors.Is(err, ErrGone) {
		t.Errorf("the root has no cgroup.events: %v", err)
	}
}

func TestCgroupEventsOfAFrozenCgroup(t *testing.T) {
	r := machine(t)
	path := scratch(t, r)
	freeze := filepath.Join(r.CgroupRoot, path, "cgroup.freeze")
	if err := os.WriteFile(freeze, []byte("1"), 0o644); err != nil {
		t.Fatal(err)
	}
	got, err := r.CgroupEvents(path)
	if want := (CgroupEvents{Frozen: true}); err != nil || got != want {
		t.Errorf("got %+v, %v; want %+v", got, err, want)
	}
}

func TestCgroupErrorsNameTheFileAndTheLine(t *testing.T) {
	tests := []struct{ name, file, text, want string }{
		{"no number", "cpu.stat", "usage_usec 1\nthrottled_usec x\n", "cpu.stat line 2:"},
		{"no value", "cpu.stat", "usage_usec\n", "cpu.stat line 1:"},
		{"memory that is none", "memory.current", "lots\n", "memory.current line 1:"},
		{"an io limit that is none", "io.max", "254:0 rbps\n", "io.max line 1:"},
		{"a memory limit that is none", "memory.high", "much\n", "memory.high line 1:"},
		{"a quota without a period", "cpu.max", "max\n", "cpu.max line 1:"},
		{"a period of nothing", "cpu.max", "1000 0\n", "cpu.max line 1:"},
		{"memory statistics that are none", "memory.stat", "anon x\n", "memory.stat line 1:"},
		{"bytes that are none", "io.stat", "8:0 rbytes=1 wbytes=-2\n", `io.stat line 1: "wbytes=-2"`},
		{"a pressure cut short", "io.pressure", "some avg10=0.0", "io.pressure line 1: no total"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			r := fixture(t, "debian-6.1")
			write(t, filepath.Join(r.CgroupRoot, "system.slice", tt.file), tt.text)
			_, err := r.CgroupDetail("/system.slice")
			if err == nil || !strings.HasPrefix(err.Error(), "parse ") || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got  %v\nwant …%s", err, tt.want)
			}
		})
	}
}

func TestDetailOfARealCgroup(t *testing.T) {
	r := machine(t)
	detail, err := r.CgroupDetail(scratch(t, r))
	if err != nil {
		t.Fatal(err)
	}
	if detail.Pressure == nil {
		needKernel(t, ErrPressureOff.Error())
	}
}

func BenchmarkCgroupDetail(b *testing.B) {
	r := machine(b)
	path := scratch(b, r)
	for _, name := range []string{"a", "b", "c"} { // as deep as a user's service
		path += "/" + name
		if err := os.Mkdir(filepath.Join(r.CgroupRoot, path), 0o755); err != nil {
			b.Fatal(err)
		}
	}
	for name, read := range map[string]func(string) (model.CgroupDetail, error){"whole": r.CgroupDetail, "stalls": r.CgroupStalls} {
		b.Run(name, func(b *testing.B) {
			for b.Loop() {
				if _, err := read(path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
