package blame

import (
	"testing"

	"github.com/breakerd/breakerd/model"
)

// BenchmarkOver divides the waits of four samples: of thousands of victims with three
// neighbours each, as a rule, and of one that waits for everybody.
func BenchmarkOver(b *testing.B) {
	for _, bb := range []struct {
		name                string
		victims, neighbours int
	}{
		{"thousands of victims", 2000, 3},
		{"thousands of neighbours", 1, 8192},
	} {
		b.Run(bb.name, func(b *testing.B) {
			var samples []*model.Sample
			for range 4 {
				s := &model.Sample{LengthNS: 250 * ms}
				for v := range bb.victims {
					for n := range bb.neighbours {
						s.Waits = append(s.Waits, wait(model.ByCgroup, model.CgroupID(10_000+n), model.CgroupID(10+v), 1000))
					}
				}
				samples = append(samples, s)
			}
			b.ReportAllocs()
			for b.Loop() {
				Over(samples, 0)
			}
		})
	}
}
