package detect

import (
	"math/rand/v2"
	"testing"

	"github.com/breakerd/breakerd/model"
)

// checkTable says what is wrong with a process table: it must be a forest whose links and
// cgroups agree with its nodes.
func checkTable(t *testing.T, tb *table) {
	t.Helper()
	members := 0
	for id, set := range tb.cgroups {
		members += len(set)
		var own uint64
		for n := range set {
			own += n.ownBytes
		}
		if tb.own[id] != own {
			t.Fatalf("cgroup %d is said to have %d bytes, and its processes have %d", id, tb.own[id], own)
		}
	}
	if len(tb.own) > len(tb.cgroups) {
		t.Fatalf("%d cgroups have memory, and %d have processes", len(tb.own), len(tb.cgroups))
	}
	visible := 0
	for id, n := range tb.nodes {
		if n.ended || n.ProcID != id {
			t.Fatalf("%v is in the table as %v, ended %v", n.ProcID, id, n.ended)
		}
		if n.up != nil {
			if _, ok := n.up.down[n]; !ok || tb.nodes[n.up.ProcID] != n.up {
				t.Fatalf("%v hangs on %v, which does not know it or has ended", id, n.up.ProcID)
			}
		}
		for child := range n.down {
			if child.up != n {
				t.Fatalf("%v has child %v, which hangs elsewhere", id, child.ProcID)
			}
		}
		slow := n // goes half as fast, and is met in a cycle only
		for i, up := 0, n.up; up != nil; i, up = i+1, up.up {
			if i%2 == 1 {
				slow = slow.up
			}
			if up == slow {
				t.Fatalf("%v is its own ancestor", up.ProcID)
			}
		}
		if !n.Kernel {
			visible++
			if _, ok := tb.cgroups[n.Cgroup][n]; !ok {
				t.Fatalf("%v is not in the list of its cgroup %d", id, n.Cgroup)
			}
		}
	}
	if members != visible {
		t.Fatalf("the cgroups hold %d processes and the table %d", members, visible)
	}
}

func TestTheTableHoldsTheLivingWhateverOrderTheyComeIn(t *testing.T) {
	for seed := range uint64(200) {
		rng := rand.New(rand.NewPCG(seed, 1))
		tb := newTable()
		living := map[model.ProcID]bool{}
		// Few pids and start times, so that they are given out again, forked twice, and
		// parents of each other.
		anyID := func() model.ProcID {
			return model.ProcID{PID: int32(rng.IntN(8)), StartTime: uint64(rng.IntN(4))}
		}
		for range 60 {
			s := &model.Sample{Keyframe: rng.IntN(50) == 0}
			if s.Keyframe {
				clear(living)
			}
			for range rng.IntN(6) {
				p := model.Proc{ProcID: anyID(), Parent: anyID(), Cgroup: model.CgroupID(rng.IntN(3)), Found: rng.IntN(2) == 0, Kernel: rng.IntN(9) == 0}
				s.Procs.Forked = append(s.Procs.Forked, p)
				living[p.ProcID] = true
			}
			for range rng.IntN(3) {
				s.Procs.Execed = append(s.Procs.Execed, model.Exec{ProcID: anyID(), Comm: "x"})
			}
			for range rng.IntN(4) {
				s.Procs.Usage = append(s.Procs.Usage, model.Usage{ProcID: anyID(), Cgroup: model.CgroupID(rng.IntN(3)), CPUNS: rng.Uint64(), RSSBytes: rng.Uint64()})
			}
			for range rng.IntN(6) {
				id := anyID()
				s.Procs.Exited = append(s.Procs.Exited, model.Exit{ProcID: id, CPUNS: rng.Uint64()})
				delete(living, id)
			}
			ch := tb.apply(s)
			if len(tb.nodes) != len(living) {
				t.Fatalf("seed %d: the table holds %d processes, and %d live", seed, len(tb.nodes), len(living))
			}
			for n := range ch.exits {
				n.alive()
			}
			checkTable(t, tb)
			for cgroup := range model.CgroupID(3) {
				for _, s := range tb.tally(cgroup, map[*node]float64{}).suspects(1) {
					t.Fatalf("a cause of nothing has the suspect %+v", s)
				}
			}
		}
	}
}

func TestAParentThatDescendsFromItsChildIsNotBelieved(t *testing.T) {
	id := func(pid int32) model.ProcID { return model.ProcID{PID: pid, StartTime: 1} }
	proc := func(pid, parent int32) model.Proc {
		return model.Proc{ProcID: id(pid), Parent: id(parent), Cgroup: job}
	}
	tests := []struct {
		name   string
		forked []model.Proc
	}{
		{"its own parent", []model.Proc{proc(5, 5)}},
		{"each other's parent", []model.Proc{proc(5, 6), proc(6, 5)}},
		{"a ring", []model.Proc{proc(5, 6), proc(6, 7), proc(7, 8), proc(8, 5)}},
		{"a ring with a tail", []model.Proc{proc(4, 5), proc(5, 6), proc(6, 7), proc(7, 5), proc(3, 4)}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			tb := newTable()
			tb.apply(&model.Sample{Procs: model.ProcChanges{Forked: tt.forked}})
			checkTable(t, tb)
			own := map[*node]float64{}
			for _, n := range tb.nodes {
				own[n] = 1
			}
			if a := tb.tally(job, own); a.total != float64(len(tt.forked)) {
				t.Errorf("the trees account for %v of %d processes", a.total, len(tt.forked))
			}
			for _, p := range tt.forked {
				tb.apply(&model.Sample{Procs: model.ProcChanges{Exited: []model.Exit{{ProcID: p.ProcID}}}})
				checkTable(t, tb)
			}
			if len(tb.nodes)+len(tb.cgroups) != 0 {
				t.Errorf("%d processes and %d cgroups are left", len(tb.nodes), len(tb.cgroups))
			}
		})
	}
}

func TestAVeryDeepTreeIsWalked(t *testing.T) {
	tb := newTable()
	const depth = 300_000
	s := &model.Sample{}
	for i := range int32(depth) {
		s.Procs.Forked = append(s.Procs.Forked, model.Proc{ProcID: model.ProcID{PID: i + 2}, Parent: model.ProcID{PID: i + 1}, Cgroup: job})
	}
	ch := tb.apply(s)
	if len(ch.forks) != depth-1 {
		t.Errorf("%d processes forked, want %d", len(ch.forks), depth-1)
	}
	own := map[*node]float64{tb.nodes[model.ProcID{PID: depth}]: 1}
	found := tb.tally(job, own).suspects(0)
	if len(found) != 1 || found[0].root.PID != depth+1 && found[0].root.PID != depth {
		t.Errorf("suspects %+v, want the end of the line", found)
	}
}
