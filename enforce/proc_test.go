package enforce

import (
	"os"
	"testing"
)

func TestParseStat(t *testing.T) {
	tail := " S 6465 6465 5173 0 -1 4194304 123 0 0 0 0 0 0 0 20 0 1 0 91745 2990080 413"
	for comm, text := range map[string]string{
		"sleep":     "6469 (sleep)" + tail + "\n",
		"a b":       "6469 (a b)" + tail,
		") R 1 (":   "6469 () R 1 ()" + tail,
		"x\n) Z 1 ": "6469 (x\n) Z 1 )" + tail,
		"":          "6469 ()" + tail,
	} {
		s, err := parseStat([]byte(text))
		if err != nil || s.comm != comm || s.state != 'S' || s.parent != 6465 || s.start != 91745 || s.threads != 1 || s.flags != 4194304 {
			t.Errorf("%q: got %+v, %v", text, s, err)
		}
	}
	for _, text := range []string{"", "1", "1 (", ")(", "1 (a)", "1 (a) S", "1 (a) S x 1 1 0 -1 1 0 0 0 0 0 0 0 0 0 0 1 0 1"} {
		if s, err := parseStat([]byte(text)); err == nil {
			t.Errorf("%q: got %+v", text, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("6469 (sleep) S 6465 6465 5173 0 -1 4194304 123 0 0 0 0 0 0 0 20 0 1 0 91745 2990080 413\n"))
	f.Add([]byte("1 (a)) (b\n) R"))
	f.Fuzz(func(t *testing.T, b []byte) { _, _ = parseStat(b) })
}

func TestReadsItself(t *testing.T) {
	r := procReader{dir: "/proc"}
	p, there := r.read(int32(os.Getpid()))
	exe, _ := os.Executable()
	if !there || p.exe != exe || p.parent != int32(os.Getppid()) || p.StartTime == 0 || p.StartTime > r.ticks() {
		t.Errorf("got %+v, want %s", p, exe)
	}
	up := r.above(int32(os.Getpid()), map[int32]int32{})
	if len(up) == 0 || up[0] != int32(os.Getppid()) || up[len(up)-1] != 1 {
		t.Errorf("above us are %v", up)
	}
	if len(r.pids()) < 2 {
		t.Error("nobody else is there")
	}
}
