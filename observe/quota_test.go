package observe

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/internal/kerneltest"
	"github.com/breakerd/breakerd/model"
)

// withCPUController makes a cgroup whose children have a cpu.max, or skips: on a hybrid
// host the controller is of cgroup v1. scripts/vm runs this on hosts that have it.
func withCPUController(t *testing.T) *kerneltest.Cgroup {
	t.Helper()
	scratch := kerneltest.ScratchCgroup(t)
	control := filepath.Join(scratch.Mount, "cgroup.subtree_control")
	_ = os.WriteFile(control, []byte("+cpu"), 0) // it may be enabled already
	if err := os.WriteFile(filepath.Join(scratch.Dir, "cgroup.subtree_control"), []byte("+cpu"), 0); err != nil {
		t.Skipf("missing: the cpu controller of cgroup2: %v", err)
	}
	return scratch
}

// What a quota did is never a neighbour's doing, however many tasks it held, whosever the
// quota is, and whether a span or a single tick is looked at.
func TestNobodyIsAccusedOfWhatAQuotaDid(t *testing.T) {
	for _, limit := range []struct {
		tasks     int
		ancestors bool
	}{{tasks: 10}, {tasks: 1, ancestors: true}} {
		t.Run(fmt.Sprintf("%+v", limit), func(t *testing.T) {
			scratch := withCPUController(t)
			o := open(t)
			hogs, above := scratch.Child("hogs"), scratch.Child("above")
			above.Write("cgroup.subtree_control", "+cpu")
			victim := above.Child("victim")
			limited := victim
			if limit.ancestors {
				limited = above
			}
			limited.Write("cpu.max", "10000 100000")
			// What is held takes long to die.
			t.Cleanup(func() { limited.Write("cpu.max", "max 100000") })
			for range 4 {
				hogs.Start("sh", "-c", spin)
			}
			for range limit.tasks {
				victim.Start("sh", "-c", spin)
			}
			next(t, o)
			var span []*model.Sample
			var ticks, whole uint64
			for len(span) < 24 {
				span = append(span, next(t, o))
				if len(span) < 4 {
					continue // its first readings
				}
				if s := blame.Over(span, len(span)-1)[victim.ID()]; s != nil {
					ticks += s.NeighbourNS()
					whole += s.WaitNS
					if others := s.NeighbourNS(); others > s.WaitNS/2 && s.WaitNS > 10e6 {
						t.Errorf("tick %d: others are blamed for %d ns of it: %+v", len(span), others, s)
					}
				}
			}
			s := blame.Over(span, 4)[victim.ID()]
			if s == nil {
				t.Fatal("the victim never waited")
			}
			t.Logf("waited %.2f s, quota %.2f s, unknown %.2f s, neighbours %.3f s; by tick neighbours %.3f of %.2f s",
				float64(s.WaitNS)/1e9, float64(s.OwnQuotaNS)/1e9, float64(s.UnknownNS)/1e9, float64(s.NeighbourNS())/1e9, float64(ticks)/1e9, float64(whole)/1e9)
			if s.NeighbourNS() > s.WaitNS/50 || ticks > whole/50 {
				t.Errorf("neighbours are accused of %d ns, by tick %d, of %d", s.NeighbourNS(), ticks, s.WaitNS)
			}
		})
	}
}

// The same without a quota: then it is the neighbours. All are pinned to one CPU: of two,
// the scheduler rightly leaves one to the victim, whose group weighs as much as the hogs'.
func TestWithoutAQuotaTheNeighboursAreAccused(t *testing.T) {
	scratch := withCPUController(t)
	o := open(t)
	hogs, victim := scratch.Child("hogs"), scratch.Child("victim")
	for range 4 {
		pin(t, hogs.Start("sh", "-c", spin).Process.Pid)
	}
	pin(t, victim.Start("sh", "-c", spin).Process.Pid)
	next(t, o)
	var span []*model.Sample
	for len(span) < 16 {
		span = append(span, next(t, o))
	}
	s := blame.Over(span, 4)[victim.ID()]
	// On an emulated processor this test is a neighbour of weight, too.
	if s == nil || s.By(hogs.ID()) == 0 || s.NeighbourNS() < s.WaitNS/2 {
		t.Errorf("nobody is accused: %+v", s)
	}
}
