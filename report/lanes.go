package report

import (
	"slices"
	"strings"
	"time"
)

// laneKey names a line of the timeline: a kind of incident, or a policy that held somebody.
type laneKey struct {
	holds bool
	name  string
}

// mark marks a stretch of a lane.
func (b *Builder) mark(key laneKey, from, until time.Time, weight int) {
	slots := b.lanes[key]
	if slots == nil {
		if len(b.lanes) >= maxRows {
			b.leftOut["lines of the timeline"]++
			return
		}
		slots = make([]uint8, laneSlots)
		b.lanes[key] = slots
	}
	whole := b.report.Until.Sub(b.report.Since)
	if whole <= 0 {
		return
	}
	slot := func(at time.Time) int {
		return min(max(int(float64(at.Sub(b.report.Since))/float64(whole)*laneSlots), 0), laneSlots-1)
	}
	for i := slot(from); i <= slot(until); i++ {
		slots[i] = max(slots[i], uint8(weight))
	}
}

// spans are the lanes of the timeline: what was held below what happened.
func (b *Builder) spans() []Lane {
	lanes := []Lane{}
	for key, slots := range b.lanes {
		lane := Lane{Name: key.name, Holds: key.holds}
		for i, weight := range slots {
			switch n := len(lane.Spans); {
			case weight == 0:
			case n > 0 && lane.Spans[n-1].Until == i && lane.Spans[n-1].Weight == int(weight):
				lane.Spans[n-1].Until = i + 1
			default:
				lane.Spans = append(lane.Spans, Span{i, i + 1, int(weight)})
			}
		}
		lanes = append(lanes, lane)
	}
	slices.SortFunc(lanes, func(x, y Lane) int {
		if x.Holds != y.Holds {
			if x.Holds {
				return 1
			}
			return -1
		}
		return strings.Compare(x.Name, y.Name)
	})
	return lanes
}
