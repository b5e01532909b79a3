package host

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rogpeppe/go-internal/txtar"
)

// seed adds all kernel text of the fixtures whose name ends so.
func seed(f *testing.F, suffix string) {
	names, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(names) == 0 {
		f.Fatal("no fixtures", err)
	}
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range txtar.Parse(text).Files {
			if strings.HasSuffix(file.Name, suffix) {
				f.Add(file.Data)
			}
		}
	}
	f.Add([]byte{})
	f.Add([]byte("\n"))
}

// fuzzZero holds a parser to this: an error comes without a value.
func fuzzZero[T comparable](f *testing.F, suffix string, parse func([]byte) (T, error)) {
	seed(f, suffix)
	f.Fuzz(func(t *testing.T, text []byte) {
		var zero T
		if got, err := parse(text); err != nil && got != zero {
			t.Errorf("%+v with error %v", got, err)
		}
	})
}

func FuzzPressure(f *testing.F)     { fuzzZero(f, ".pressure", parsePressure) }
func FuzzMeminfo(f *testing.F)      { fuzzZero(f, "meminfo", parseMeminfo) }
func FuzzBootID(f *testing.F)       { fuzzZero(f, "boot_id", parseBootID) }
func FuzzLoadavg(f *testing.F)      { fuzzZero(f, "loadavg", parseLoadavg) }
func FuzzCPUStat(f *testing.F)      { fuzzZero(f, "cpu.stat", parseCPUStat) }
func FuzzCgroupEvents(f *testing.F) { fuzzZero(f, "cgroup.events", parseCgroupEvents) }
func FuzzIOStat(f *testing.F)       { fuzzZero(f, "io.stat", parseIOStat) }
func FuzzBytes(f *testing.F)        { fuzzZero(f, "memory.current", parseBytes) }
func FuzzMemoryStat(f *testing.F)   { fuzzZero(f, "memory.stat", parseMemoryStat) }
func FuzzIOMax(f *testing.F)        { fuzzZero(f, "io.max", parseIOMax) }
func FuzzLimit(f *testing.F)        { fuzzZero(f, "memory.max", parseLimit) }
func FuzzCPUWeight(f *testing.F)    { fuzzZero(f, "cpu.weight", parseCPUWeight) }
func FuzzProcStat(f *testing.F)     { fuzzZero(f, "/stat", parseProcStat) }
func FuzzProcUID(f *testing.F)      { fuzzZero(f, "/status", parseProcUID) }
func FuzzCPUMax(f *testing.F) {
	seed(f, "cpu.max")
	f.Fuzz(func(t *testing.T, text []byte) {
		if percent, err := parseCPUMax(text); err == nil && !(percent >= 0) {
			t.Errorf("%v %% of a CPU", percent)
		}
	})
}
func FuzzCPU(f *testing.F) {
	fuzzZero(f, "proc/stat", func(text []byte) (CPU, error) { return parseCPU(bytes.NewReader(text)) })
}

func FuzzProcCgroup(f *testing.F) {
	seed(f, "1/cgroup")
	f.Fuzz(func(t *testing.T, text []byte) {
		path, err := parseProcCgroup(text)
		if err == nil && (path[0] != '/' || strings.Contains(path, "\n")) {
			t.Errorf("path %q", path)
		}
	})
}

func FuzzMountinfo(f *testing.F) {
	seed(f, "mountinfo")
	f.Add([]byte(`41 31 0:38 / /mnt/my\040c\134groups\ rw - cgroup2 cgroup2 rw`))
	f.Fuzz(func(t *testing.T, text []byte) {
		mounts, err := parseMountinfo(text)
		if err != nil {
			return
		}
		whole := true
		for _, m := range mounts {
			if m.Root == "/" && !whole {
				t.Errorf("a part comes before the whole: %+v", mounts)
			}
			whole = whole && m.Root == "/"
		}
	})
}

func FuzzCmdline(f *testing.F) {
	f.Add([]byte("make\x00-j2\x00all\x00"))
	f.Add(bytes.Repeat([]byte("x\xff"), 200))
	f.Fuzz(func(t *testing.T, text []byte) {
		line := parseCmdline(text)
		if len(line) > maxCmdline || !utf8.ValidString(line) || strings.Contains(line, "\x00") {
			t.Errorf("%q", line)
		}
	})
}

func FuzzDirents(f *testing.F) {
	entry := binary.NativeEndian.AppendUint64(nil, 101)
	entry = binary.NativeEndian.AppendUint64(entry, 1)
	entry = binary.NativeEndian.AppendUint16(entry, 32)
	entry = append(append(entry, 4), "nginx\x00\x00\x00\x00\x00\x00\x00\x00"...)
	f.Add(entry)
	f.Add(append(entry, entry...))
	f.Add(entry[:20])
	f.Fuzz(func(t *testing.T, buf []byte) {
		parseDirents(buf, func(e dirent) {
			if len(e.name) == 0 || bytes.IndexByte(e.name, 0) >= 0 {
				t.Errorf("name %q", e.name)
			}
		})
	})
}
