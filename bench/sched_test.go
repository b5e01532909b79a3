// Package bench measures what the kernel programs cost. README.md has the figures and
// how to measure them again.
package bench

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cilium/ebpf"
	"github.com/cilium/ebpf/asm"
	"github.com/cilium/ebpf/link"
	"github.com/cilium/ebpf/rlimit"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/internal/kerneltest"
)

// objectsVar compares other builds of the kernel programs in the same run: paths of
// object files, separated by commas.
const objectsVar = "BREAKERD_BENCH_OBJECTS"

// shipped is the object that package bpf embeds.
const shipped = "../bpf/collector_bpfel.o"

// scenario is what the CPUs do while the cost of a context switch is measured.
type scenario struct {
	name    string
	kind    string // of load
	cgroups int    // each has one task
	cpus    int    // 1: the tasks share one; 2: each has its own
	same    bool   // all tasks are in one cgroup
}

var scenarios = []scenario{
	// Each wakes the other on an idle CPU: the only wait is the CPU's waking up.
	{name: "nobody_waits", kind: "token", cgroups: 2, cpus: 2},
	// Both share a CPU and a cgroup: every other switch ends a wait for a sibling.
	{name: "waits_for_itself", kind: "token", cgroups: 2, cpus: 1, same: true},
	// Every switch ends a wait that is blamed on one other cgroup.
	{name: "waits_for_1_other", kind: "token", cgroups: 2, cpus: 1},
	// As above, and the other's slices are all that the wait was made of.
	{name: "yields_to_1_other", kind: "yield", cgroups: 2, cpus: 1},
	// Every switch ends a wait that is split among three others, and among seven.
	{name: "yields_to_3_others", kind: "yield", cgroups: 4, cpus: 1},
	{name: "yields_to_7_others", kind: "yield", cgroups: 8, cpus: 1},
}

// BenchmarkSchedSwitch attaches an empty program and ours to sched_switch at the same
// time, so that both see the very same switches, and reads from the kernel's own BPF
// statistics what each took. Reading the clock twice around each program is in both,
// so the difference is what ours does.
func BenchmarkSchedSwitch(b *testing.B) {
	kerneltest.Require(b, kerneltest.Root, kerneltest.Cgroup2, kerneltest.BTF)
	if err := rlimit.RemoveMemlock(); err != nil {
		b.Fatal(err)
	}
	stats, err := ebpf.EnableStats(unix.BPF_STATS_RUN_TIME)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { stats.Close() })

	for _, s := range scenarios {
		b.Run(s.name, func(b *testing.B) { measure(b, s) })
	}
}

func measure(b *testing.B, s scenario) {
	var progs []*program
	for _, path := range objects() {
		progs = append(progs, loadSchedSwitch(b, path))
	}
	empty := emptyProgram(b)
	all := append([]*program{empty}, progs...)

	scratch := kerneltest.ScratchCgroup(b)
	var places []place
	for i := range s.cgroups {
		p := place{cgroup: scratch, cpu: i % s.cpus}
		if !s.same {
			p.cgroup = scratch.Child(fmt.Sprint(i))
		}
		places = append(places, p)
	}

	// Who runs first on a switch finds the cache colder, and warms it for the next. So
	// they stand in every order round, forwards and backwards. The machine is never
	// quite quiet: what is told is the median of the turns.
	turns := 4 * len(all)
	rounds := max(1, b.N/turns)
	var took time.Duration
	for turn := range turns {
		l := newLoad(b, s.kind, rounds, places)
		from := turn / 2 % len(all)
		order := slices.Concat(all[from:], all[:from])
		if turn%2 == 1 {
			slices.Reverse(order)
		}
		for _, p := range order {
			p.attach(b)
		}
		began := time.Now()
		l.run(b)
		took += time.Since(began)
		for _, p := range order {
			p.detach(b)
		}
		l.close()
	}
	b.ReportMetric(float64(took.Nanoseconds())/float64(rounds*turns), "ns/op")
	b.ReportMetric(float64(empty.runs), "switches")
	b.ReportMetric(median(empty.perRun), "empty-ns/switch")
	for _, p := range progs {
		added := make([]float64, turns)
		for i := range added {
			added[i] = p.perRun[i] - empty.perRun[i]
		}
		b.ReportMetric(median(added), "added-ns/switch"+p.label)
	}
}

func median(v []float64) float64 {
	v = slices.Sorted(slices.Values(v))
	return (v[(len(v)-1)/2] + v[len(v)/2]) / 2
}

// program is one that hangs on sched_switch, and what the kernel measured of it.
type program struct {
	*ebpf.Program
	label  string
	link   link.Link
	before *ebpf.ProgramStats
	runs   uint64
	perRun []float64 // ns, a value for each turn
}

func (p *program) attach(b *testing.B) {
	b.Helper()
	var err error
	if p.before, err = p.Stats(); err != nil {
		b.Fatal(err)
	}
	if p.link, err = link.AttachTracing(link.TracingOptions{Program: p.Program}); err != nil {
		b.Fatal(err)
	}
}

func (p *program) detach(b *testing.B) {
	b.Helper()
	if err := p.link.Close(); err != nil {
		b.Fatal(err)
	}
	after, err := p.Stats()
	if err != nil {
		b.Fatal(err)
	}
	runs, took := after.RunCount-p.before.RunCount, after.Runtime-p.before.Runtime
	p.runs += runs
	p.perRun = append(p.perRun, float64(took.Nanoseconds())/float64(max(1, runs)))
}

// emptyProgram does nothing on sched_switch.
func emptyProgram(b *testing.B) *program {
	b.Helper()
	p, err := ebpf.NewProgram(&ebpf.ProgramSpec{
		Name:         "empty",
		Type:         ebpf.Tracing,
		AttachType:   ebpf.AttachTraceRawTp,
		AttachTo:     "sched_switch",
		License:      "Dual BSD/GPL",
		Instructions: asm.Instructions{asm.Mov.Imm(asm.R0, 0), asm.Return()},
	})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { p.Close() })
	return &program{Program: p}
}

// loadSchedSwitch loads only on_sched_switch and its maps from an object of package bpf.
func loadSchedSwitch(b *testing.B, path string) *program {
	b.Helper()
	const name = "on_sched_switch"
	spec, err := ebpf.LoadCollectionSpec(path)
	if err != nil {
		b.Fatal(err)
	}
	for other := range spec.Programs {
		if other != name {
			delete(spec.Programs, other)
		}
	}
	if cpus := spec.Maps["cpus"]; cpus.Type == ebpf.Array {
		cpus.MaxEntries = uint32(ebpf.MustPossibleCPU())
	}
	c, err := ebpf.NewCollection(spec)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(c.Close)
	p := &program{Program: c.Programs[name]}
	if path != shipped {
		base := path[strings.LastIndexByte(path, '/')+1:]
		p.label = "-" + strings.TrimSuffix(base, ".o")
	}
	return p
}

func objects() []string {
	paths := []string{shipped}
	if more := os.Getenv(objectsVar); more != "" {
		paths = append(paths, strings.Split(more, ",")...)
	}
	return paths
}
