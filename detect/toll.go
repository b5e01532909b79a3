package detect

import (
	"time"

	"github.com/breakerd/breakerd/blame"
	"github.com/breakerd/breakerd/model"
)

// Toll is what a culprit costs others: how long it, and anybody else than themselves, made
// the victims wait in each second of the last span, and by how many processes it grew. What
// a victim makes itself wait is left out, because it can do more once it is spared. For
// memory and io the span is longer, as files are not read with every tick. It is empty where
// the span was not seen as a whole.
func (w *Watch) Toll(culprit model.CgroupID, resource model.Resource, victims []model.CgroupID, span time.Duration) model.Toll {
	win := w.window
	if len(win.samples) == 0 {
		return model.Toll{}
	}
	if resource != model.CPU {
		span = max(span, estimateSpan)
	}
	samples, covered := win.last(span)
	if covered < span-win.now().Length() {
		return model.Toll{}
	}
	from := win.index(span)
	var shares map[model.CgroupID]*blame.Shares
	switch resource {
	case model.Memory:
		shares = blame.OverMemory(win.samples, from, win.ledger.resident(span))
	case model.IO:
		shares = blame.OverIO(win.samples, from)
	default:
		shares = win.blame(span)
	}
	out := model.Toll{SpanMS: covered.Seconds() * 1000}
	for _, id := range victims {
		s := shares[id]
		if s == nil || id == culprit {
			continue
		}
		out.CulpritMS += msPerSecond(s.By(culprit), covered)
		own := s.SelfNS + s.OwnQuotaNS
		out.OthersMS += msPerSecond(s.WaitNS-min(own, s.WaitNS), covered)
	}
	grown := 0.0
	for _, s := range samples {
		for i := range s.Cgroups {
			if c := &s.Cgroups[i]; c.ID == culprit {
				grown += float64(c.Forks) - float64(c.Exits)
			}
		}
	}
	out.CulpritMS, out.OthersMS = round(out.CulpritMS), round(out.OthersMS)
	out.Growth = round(grown / covered.Seconds())
	return out
}
