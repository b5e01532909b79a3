package observe

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/host"
)

// machine is a tree of files of /proc and of cgroup2 as a machine has them that lacks
// something.
func machine(t *testing.T, pressure bool, controllers string) host.Reader {
	t.Helper()
	r := host.Reader{ProcRoot: t.TempDir(), CgroupRoot: t.TempDir()}
	write := func(path, text string) {
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
	}
	write(r.CgroupRoot+"/cgroup.controllers", controllers+"\n")
	write(r.ProcRoot+"/stat", "cpu  10 0 10 100 0 0 0 0 0 0\ncpu0 10 0 10 100 0 0 0 0 0 0\nprocesses 1\n")
	write(r.ProcRoot+"/meminfo", "MemTotal: 1000 kB\nMemAvailable: 500 kB\nSwapFree: 0 kB\n")
	write(r.ProcRoot+"/sys/kernel/random/boot_id", "152e8026-06a9-491b-a2da-6f96c841d06b\n")
	if pressure {
		for _, name := range []string{"cpu", "memory", "io"} {
			write(r.ProcRoot+"/pressure/"+name, "some avg10=0.00 avg60=0.00 avg300=0.00 total=77\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=33\n")
		}
	}
	return r
}

// eyes is a kernel in which everything could be attached.
type eyes struct {
	blind
	problems []string
}

func (e eyes) Problems() []string { return e.problems }

func TestWhatAMachineLacksIsSaidAndDoesNotKeepItFromBeingWatched(t *testing.T) {
	const all = "cpuset cpu io memory pids"
	attached := func() (kernelSide, error) { return eyes{}, nil }
	for _, tt := range []struct {
		name   string
		reader host.Reader
		attach func() (kernelSide, error)
		want   []string
	}{
		{"a machine that has everything", machine(t, true, all), attached, nil},
		{"no BTF", machine(t, true, all), func() (kernelSide, error) { return (*bpf.Collector)(nil), bpf.ErrNoBTF }, []string{"BTF: CONFIG_DEBUG_INFO_BTF=y"}},
		{"psi=0", machine(t, false, all), attached, []string{"pressure stall information: psi=1"}},
		{"a hybrid machine", machine(t, true, ""), attached, []string{"cgroup2 controllers cpu, memory, io: unified_cgroup_hierarchy=1"}},
		{"no memory controller", machine(t, true, "cpu io pids"), attached, []string{"cgroup2 controllers memory: "}},
		{"an unknown block layer", machine(t, true, all), func() (kernelSide, error) { return eyes{problems: []string{"no io"}}, nil }, []string{"block devices: no io"}},
		{"nothing of it", machine(t, false, ""), func() (kernelSide, error) { return nil, bpf.ErrNoBTF }, []string{"BTF: ", "pressure stall information: ", "cgroup2 controllers cpu, memory, io: "}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			o, err := begin(time.Millisecond, tt.reader, tt.attach)
			if err != nil {
				t.Fatal(err)
			}
			defer o.Close()
			got := o.Missing()
			if len(got) != len(tt.want) {
				t.Fatalf("missing %+v, want %q", got, tt.want)
			}
			for i, want := range tt.want {
				what, advice, _ := strings.Cut(want, ": ")
				if got[i].What != what || !strings.Contains(got[i].Text, advice) {
					t.Errorf("missing %+v, want %q", got[i], want)
				}
			}
			if _, err := o.Next(t.Context()); err != nil {
				t.Errorf("it cannot be watched: %v", err)
			}
		})
	}
}

func TestWithoutBTFOnlyTheMachineIsSeenAndNobodyInIt(t *testing.T) {
	reader, err := host.NewReader() // this machine's
	if err != nil {
		t.Skip(err)
	}
	o, err := begin(10*time.Millisecond, reader, func() (kernelSide, error) { return nil, bpf.ErrNoBTF })
	if err != nil {
		t.Fatal(err)
	}
	defer o.Close()
	for i := range 3 {
		s, err := o.Next(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		if s.Host.CPUs == 0 || s.Keyframe != (i == 0) || len(s.Cgroups)+len(s.Waits)+len(s.Procs.Forked)+len(s.Procs.Usage) > 0 {
			t.Errorf("sample %d: %d cgroups, %d waits, %d processes, host %+v", i, len(s.Cgroups), len(s.Waits), len(s.Procs.Forked), s.Host)
		}
	}
}

func TestWhatKeepsTheProgramsFromBeingAttachedOtherwiseIsAnError(t *testing.T) {
	refused := errors.New("operation not permitted")
	if _, err := begin(time.Second, machine(t, true, ""), func() (kernelSide, error) { return nil, refused }); !errors.Is(err, refused) {
		t.Errorf("got %v", err)
	}
}

// keeper cannot give its capabilities up.
type keeper struct{ eyes }

func (keeper) DropCapabilities() error { return bpf.ErrKept }

func TestCapabilitiesAreGivenUpAfterTheFirstSampleAndOnce(t *testing.T) {
	for want, k := range map[string]kernelSide{"given up": eyes{}, bpf.ErrKept.Error(): keeper{}} {
		o, err := begin(time.Millisecond, machine(t, true, ""), func() (kernelSide, error) { return k, nil })
		if err != nil {
			t.Fatal(err)
		}
		if got := o.Privileges(); got != "" {
			t.Errorf("before the first sample: %q", got)
		}
		if _, err := o.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
		if got := o.Privileges(); got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

func TestATickThatIsChangedCountsFromTheNextSampleOn(t *testing.T) {
	o, err := begin(time.Hour, machine(t, true, ""), func() (kernelSide, error) { return eyes{}, nil })
	if err != nil {
		t.Fatal(err)
	}
	o.due = time.Now()
	o.SetTick(2 * time.Millisecond)
	for range 5 {
		if _, err := o.Next(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	if until := time.Until(o.due); until > time.Second {
		t.Errorf("the next sample is due in %v", until)
	}
}
