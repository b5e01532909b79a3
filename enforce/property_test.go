package enforce

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/model"
)

// Whatever happens, in whatever order: nothing protected is ever written, never more
// is held than the reach, nothing longer than its maximum, what is frozen is a lease, who
// is protected beside a tree is neither moved nor frozen with it, and in the end every file
// holds what it held before and everybody is where he was.
func TestWhateverHappens(t *testing.T) {
	apart := 0
	for seed := range uint64(12) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				if storm(t, rand.New(rand.NewPCG(seed, 1))) {
					apart++
				}
			})
		})
	}
	if apart < 6 {
		t.Errorf("somebody was moved apart in %d of 12 runs only", apart)
	}
}

// storm reports whether anybody was moved apart.
func storm(t *testing.T, random *rand.Rand) (apart bool) {
	w := newWorld(t)
	var stop context.CancelFunc
	start := func() {
		w.open(func(o *Options) {
			o.Config.MaxLease = config.Duration(20 * time.Second)
			o.Config.Rate.PerTarget = Bucket{config.Duration(time.Second), 5}
			o.Config.Rate.Overall = Bucket{config.Duration(time.Second), 20}
			o.Config.Protected.Cgroups = []string{"/kept"}
		})
		if _, err := w.e.Recover(t.Context()); err != nil {
			t.Fatal(err)
		}
		var ctx context.Context
		ctx, stop = context.WithCancel(context.Background())
		go w.e.Run(ctx)
	}
	start()
	refs := map[string]cgroupctl.Ref{}
	roots := map[string]int32{}
	for i, p := range []string{"/a", "/b", "/c", "/d", "/e/f", "/kept/g", "/system.slice/ssh.service"} {
		pid := int32(100 + 10*i)
		refs[p], roots[p] = w.tree(p, pid), pid
		unlimited(w, p)
	}
	w.process(77, 1, oldStart, "sshd", "/usr/sbin/sshd")
	refs["/h"], roots["/h"] = w.tree("/h", 300), 300
	w.fake.SetPIDs("/h", 77, 300, 301) // a tree beside a way in
	unlimited(w, "/h")
	protected := []string{"/kept/g", "/system.slice/ssh.service", "/h"}
	var paths []string
	for p := range refs {
		paths = append(paths, p)
	}
	var failing atomic.Value // the operation that fails
	failing.Store("")
	w.fake.SetFault(func(op string, r cgroupctl.Ref) error {
		if op == failing.Load() {
			return errors.New("made to fail")
		}
		return nil
	})
	var stuck atomic.Bool
	w.fake.SetStuck(func(cgroupctl.Ref) bool { return stuck.Load() })
	// inside are the cgroups that were made below /h.
	inside := func() []string {
		fails := failing.Swap("")
		defer failing.Store(fails)
		s, err := w.fake.Inspect(refs["/h"])
		if err != nil {
			t.Fatal(err)
		}
		return s.Below
	}
	since := map[string]time.Time{} // when a cgroup was first seen frozen
	asked := map[string]bool{}      // decisions that need a yes, and whether one was said to the like

	for range 300 {
		p := paths[random.IntN(len(paths))]
		switch random.IntN(15) {
		case 0, 1, 2, 3:
			d := w.decide(refs[p], roots[p], time.Duration(random.Int64N(int64(40*time.Second)))+time.Millisecond)
			if random.IntN(4) == 0 {
				d.Action.Scope = model.ScopeCgroup
			}
			if random.IntN(3) == 0 {
				d.Action.Kind, d.Action.CPUPercent, d.Action.PIDsMax = model.Throttle, float64(1+random.IntN(300)), uint64(1+random.IntN(6000))
				d.Action.IOPercent = float64(random.IntN(2) * random.IntN(100))
				d.Action.EaseMS = random.Int64N(d.Action.ForMS + 1)
			}
			if random.IntN(4) == 0 {
				d.Action.ApprovalMS = random.Int64N(60_000) + 1
				asked[d.ID] = true
			}
			if d.Action.Kind == model.Throttle && random.IntN(2) == 0 {
				freeze := model.Action{Kind: model.Freeze, Scope: d.Action.Scope, ForMS: d.Action.ForMS, Reason: d.Action.Reason}
				d.Action.Then = []model.Action{freeze}
			}
			if out := w.e.Propose(t.Context(), d); asked[d.ID] && out.LeaseID != "" {
				t.Fatalf("carried out without a yes: %+v", out)
			}
		case 4, 5:
			time.Sleep(time.Duration(random.Int64N(int64(4 * time.Second))))
		case 6:
			w.e.Heartbeat()
		case 7:
			for _, l := range w.e.Leases() {
				if failing.Load() == "" {
					w.e.Release(t.Context(), l.ID, "somebody")
				}
			}
		case 8:
			failing.Store([]string{"", "", "apply", "confirm", "restore", "inspect", "ease"}[random.IntN(7)])
		case 9:
			stuck.Store(random.IntN(3) == 0)
		case 10: // removed and made again, as another one
			if p != "/h" {
				w.fake.Remove(p)
				refs[p] = w.tree(p, roots[p])
				unlimited(w, p)
				delete(since, p)
			}
		case 12: // the next rung of what is held, the same again, or something that is neither
			for _, l := range w.e.Leases() {
				d := l.Decision
				w.n++
				d.ID, d.At, d.After = fmt.Sprintf("fs-1-%d", w.n), time.Now(), l.ID
				climbs := l.State == model.LeaseHeld && l.Inside == "" && len(d.Action.Then) == 1
				again := l.State == model.LeaseHeld && l.EasedAt != nil && random.IntN(2) == 0
				switch {
				case again:
					d.IncidentID = "another"
				case climbs:
					d.Action = d.Action.Then[0]
				}
				if out := w.e.Propose(t.Context(), d); !climbs && !again && out.RefusedBy == "" && out.Error == "" {
					t.Fatalf("it took the place of %+v: %+v", l, out)
				}
			}
		case 13: // a yes, and what was said yes to
			for _, q := range w.e.Status().Approvals {
				if _, err := w.e.Approve(q.ID, "somebody"); err != nil {
					continue
				}
				d := q.Decision
				w.n++
				d.ID, d.At = fmt.Sprintf("fs-1-%d", w.n), time.Now()
				out := w.e.Propose(t.Context(), d)
				for _, left := range w.e.Status().Approvals {
					if out.LeaseID != "" && left.ID == q.ID {
						t.Fatalf("a yes was not used up: %+v", left)
					}
				}
			}
		case 14: // it did not help
			for _, l := range w.e.Leases() {
				if failing.Load() == "" {
					w.e.Undo(t.Context(), l.ID)
				}
			}
		case 11:
			failing.CompareAndSwap("restore", "")
			synctest.Wait()
			stop()
			w.crash()
			start()
		}
		synctest.Wait()
		active := map[string]bool{}
		for _, l := range w.e.Leases() {
			active[l.Decision.Target.Cgroup] = true
			if l.BeganAt != nil && l.State == model.LeaseHeld && l.ExpiresAt.Sub(*l.BeganAt) > 20*time.Second {
				t.Fatalf("held for too long, by one lease after another: %+v", l)
			}
			if l.State == model.LeaseHeld && l.Decision.Action.Kind == model.Throttle && !isLimited(w, l.Decision.Target.Cgroup) && w.exists(l) {
				t.Fatalf("held, and not limited: %+v", l)
			}
			if l.State == model.LeaseHeld && (time.Now().After(l.ExpiresAt) || l.ExpiresAt.Sub(l.CreatedAt) > 20*time.Second) {
				t.Fatalf("held for too long: %+v", l)
			}
		}
		if n := len(w.e.Status().Approvals); n > maxApprovals {
			t.Fatalf("%d questions wait", n)
		}
		if len(active) > DefaultConfig().Reach.Leases {
			t.Fatalf("%d are held", len(active))
		}
		for p := range refs {
			if isLimited(w, p) && !active[p] {
				t.Fatalf("%s is limited without a lease", p)
			}
			switch {
			case !w.held(p):
				delete(since, p)
			case !active[p]:
				t.Fatalf("%s is frozen without a lease", p)
			case isLimited(w, p):
				t.Fatalf("%s is frozen and limited at once", p)
			case since[p].IsZero():
				since[p] = time.Now()
			}
		}
		for _, line := range w.fake.Writes() {
			for _, p := range protected {
				if strings.HasPrefix(line, p+" ") {
					t.Fatalf("written: %s", line)
				}
			}
			if strings.HasSuffix(line, " takes 77") {
				t.Fatalf("moved: %s", line)
			}
		}
		below := inside()
		if len(below) > 1 || len(below) == 1 && !active["/h"] {
			t.Fatalf("%v are there, with the leases %+v", below, w.e.Leases())
		}
		apart = apart || len(below) == 1
		if w.held("/h") || !slices.Contains(w.fake.PIDs("/h"), 77) {
			t.Fatalf("the way in is held: %v", w.fake.PIDs("/h"))
		}
	}
	failing.Store("")
	stuck.Store(false)
	time.Sleep(30 * time.Second)
	synctest.Wait()
	for p := range refs {
		w.wantHeld(p, false)
		if isLimited(w, p) {
			t.Errorf("%s is limited in the end", p)
		}
	}
	there := w.fake.PIDs("/h")
	slices.Sort(there)
	if below := inside(); len(below) != 0 || !slices.Equal(there, []int32{77, 300, 301}) {
		t.Errorf("in the end %v are in /h, and %v is below it", there, below)
	}
	stop()
	synctest.Wait()
	w.close()
	return apart
}

// unlimited gives a cgroup files that limit nothing.
func unlimited(w *world, p string) {
	w.fake.SetLimit(p, "cpu.max", "max 100000")
	w.fake.SetLimit(p, "pids.max", "max")
	w.fake.SetIO(p, cgroupctl.IORate{Device: "8:0", Read: 50e6}, cgroupctl.IORate{Device: "8:16", Write: 3e6})
}

func isLimited(w *world, p string) bool {
	for _, l := range []string{"8:0 rbps", "8:0 wbps", "8:16 rbps", "8:16 wbps"} {
		if now := w.fake.Limit(p, "io.max "+l); now != "" && now != l+"=max" {
			return true
		}
	}
	return w.fake.Limit(p, "cpu.max") != "max 100000" || w.fake.Limit(p, "pids.max") != "max"
}

// exists reports whether the cgroup of a lease is the one that it was made for.
func (w *world) exists(l model.Lease) bool {
	_, err := w.fake.Inspect(targetOf(&l.Decision))
	return err == nil
}
