package detect

import (
	"testing"
	"time"

	"github.com/breakerd/breakerd/model"
)

// calm lets a sample cover so much time in which nothing happens.
func (s *scene) calm(length time.Duration) {
	s.sample.LengthNS = int64(length)
	s.now += length - tick
	s.end(0.1, 0)
}

// Of a calm machine a sample is taken each second, and the one in which it stirs is as long
// as what was calm before it, too: an incident opens at most a tick later for that.
func TestAnIncidentOpensAsSoonWhereTheCalmBeforeWasSampledEachSecond(t *testing.T) {
	troubles := map[model.Kind]func(*scene, model.ProcID, int){
		model.NoisyNeighbour: func(s *scene, _ model.ProcID, _ int) { s.pinned(0); s.end(0.5, 1) },
		model.ForkStorm: func(s *scene, parent model.ProcID, _ int) {
			s.storm(parent, job, 10, 0)
			s.end(0.5, 0.1)
		},
		model.CPUContention: func(s *scene, _ model.ProcID, _ int) { s.pinned(1); s.end(1, 1) },
	}
	for kind, trouble := range troubles {
		t.Run(string(kind), func(t *testing.T) {
			opens := func(each, before time.Duration) time.Duration {
				s := newScene()
				parent, _ := hogsAndService(s)
				s.end(0.1, 0)
				for began := s.now; s.now-began < 10*time.Second; {
					s.calm(each)
				}
				began := s.now + before
				s.sample.LengthNS += int64(before)
				s.now += before
				for i := 0; s.open(kind) == nil; i++ {
					if trouble(s, parent, i); s.now-began > 6*time.Second {
						t.Fatal("nothing opened within 6 s")
					}
				}
				return s.now - began
			}
			often := opens(tick, 0)
			for before := range 4 {
				seldom := opens(time.Second, time.Duration(before)*tick)
				t.Logf("%v before it stirs: opened after %v, and after %v with a sample each tick", time.Duration(before)*tick, seldom, often)
				if seldom > often+tick {
					t.Errorf("opened after %v, want %v at most", seldom, often+tick)
				}
			}
		})
	}
}
