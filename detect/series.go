package detect

import (
	"math"
	"slices"
	"time"
)

// series is how much memory something had over time, in little room: the last points
// finely, and older ones coarsely. With both full it takes 1 KB and reaches back 16
// minutes.
type series struct {
	began  int64 // boot time of the first point
	fine   []point
	coarse []point
	seen   int64 // boot time of the last reading
}

// point is one reading. Tenths of a second and pages of 4 KiB fit into half the room of
// nanoseconds and bytes, and say enough.
type point struct {
	at    uint32 // 100 ms since the series began
	pages uint32 // 4 KiB
}

const (
	finePoints, coarsePoints = 64, 64
	fineStep, coarseStep     = 10, 150 // 100 ms
	pageBytes                = 4096
)

func (s *series) add(now int64, bytes uint64) {
	if s.began == 0 {
		s.began = now
	}
	s.seen = now
	p := point{uint32(max(0, min((now-s.began)/1e8, math.MaxUint32))), uint32(min(bytes/pageBytes, math.MaxUint32))}
	s.fine = appendStep(s.fine, p, fineStep, finePoints)
	s.coarse = appendStep(s.coarse, p, coarseStep, coarsePoints)
}

// followed is how long it is kept already.
func (s *series) followed() time.Duration { return time.Duration(s.seen - s.began) }

// last is how many bytes there are.
func (s *series) last() float64 {
	if len(s.fine) == 0 {
		return 0
	}
	return float64(s.fine[len(s.fine)-1].pages) * pageBytes
}

// growth is by how many bytes it has grown within the last d.
func (s *series) growth(d time.Duration) uint64 {
	if len(s.fine) == 0 {
		return 0
	}
	last := s.fine[len(s.fine)-1]
	points := s.fine
	if time.Duration(last.at-points[0].at)*100*time.Millisecond < d && s.coarse[0].at < points[0].at {
		points = s.coarse
	}
	first := points[0]
	for _, p := range points {
		if time.Duration(last.at-p.at)*100*time.Millisecond < d {
			break
		}
		first = p
	}
	return uint64(last.pages-min(first.pages, last.pages)) * pageBytes
}

// appendStep adds a point that is far enough from the last one, and drops the oldest.
// Half a step early is still a step: readings come when ticks end.
func appendStep(points []point, p point, step uint32, most int) []point {
	if n := len(points); n > 0 && p.at-points[n-1].at < step-step/4 {
		return points
	}
	if len(points) == most {
		points = slices.Delete(points, 0, 1)
	}
	return append(points, p)
}

// trend is how a series went over a span that ends with its last point.
type trend struct {
	points      int
	span        time.Duration
	first, last float64 // bytes
	perSecond   float64 // bytes: the median of all slopes between two points (Theil-Sen)
	recent      float64 // the same of the last third
	early       float64 // of the first third
	rising      float64 // the part of the steps that rise
}

// fewestPoints are needed to speak of a trend: its thirds have three points each.
const fewestPoints = 7

// spans are how many of the last points are looked at: what has been calm for long may
// begin to grow at any time.
var spans = []int{fewestPoints, 12, 24, 48, finePoints}

// trends gives the trends of the last points for which it is worth the work: those that
// have grown by enough bytes, beyond what there was at any time before. Memory that is
// filled and freed in turn grows no further than it was.
func (s *series) trends(enough, rising float64) []trend {
	var all []trend
	for _, points := range [][]point{s.fine, s.coarse} {
		for i, n := range spans {
			if i > 0 && len(points) <= spans[i-1] {
				break
			}
			last := points[max(0, len(points)-n):]
			if len(last) < fewestPoints {
				break
			}
			highest := max(float64(last[0].pages), s.highest(last[0].at))
			if (float64(last[len(last)-1].pages)-highest)*pageBytes < enough || risingPart(last) < rising {
				continue
			}
			if t, ok := trendOf(last); ok {
				all = append(all, t)
			}
		}
	}
	return all
}

// highest is the most that there was before a point in time, in pages.
func (s *series) highest(before uint32) (pages float64) {
	for _, points := range [][]point{s.fine, s.coarse} {
		for _, p := range points {
			if p.at >= before {
				break
			}
			pages = max(pages, float64(p.pages))
		}
	}
	return pages
}

func risingPart(points []point) float64 {
	rising := 0
	for i := 1; i < len(points); i++ {
		if points[i].pages > points[i-1].pages {
			rising++
		}
	}
	return float64(rising) / float64(len(points)-1)
}

func trendOf(points []point) (trend, bool) {
	n := len(points)
	if n < fewestPoints {
		return trend{}, false
	}
	t := trend{
		points: n, span: time.Duration(points[n-1].at-points[0].at) * 100 * time.Millisecond,
		first: float64(points[0].pages) * pageBytes, last: float64(points[n-1].pages) * pageBytes,
	}
	if t.span <= 0 {
		return trend{}, false
	}
	t.rising = risingPart(points)
	t.perSecond = medianSlope(points)
	t.recent = medianSlope(points[n-n/3-1:])
	t.early = medianSlope(points[:n/3+1])
	return t, true
}

// medianSlope is in bytes a second. A few readings that lie far off do not move it.
func medianSlope(points []point) float64 {
	points = thin(points)
	slopes := make([]float64, 0, len(points)*(len(points)-1)/2)
	for i := range points {
		for j := range i {
			if dt := points[i].at - points[j].at; dt > 0 {
				slopes = append(slopes, (float64(points[i].pages)-float64(points[j].pages))*pageBytes/(float64(dt)/10))
			}
		}
	}
	if len(slopes) == 0 {
		return 0
	}
	slices.Sort(slopes)
	return slopes[len(slopes)/2]
}

// thin leaves so many points that all pairs of them are few.
func thin(points []point) []point {
	const most = 24 // 276 pairs
	n := len(points)
	if n <= most {
		return points
	}
	some := make([]point, most)
	for i := range some {
		some[i] = points[i*(n-1)/(most-1)]
	}
	return some
}

// steady is the least that the growth of the last third may be of that of the first, for
// the growth to be called steady.
const steady = 0.85

// ahead is how much more it will grow (bytes), where its growth becomes slower and goes on
// doing so by the same part from one third of the span to the next; without end where it
// is steady.
// What warms up comes to rest.
func (t trend) ahead() float64 {
	if t.recent <= 0 {
		return 0
	}
	if t.early <= 0 || t.recent >= steady*t.early {
		return math.Inf(1)
	}
	q := math.Sqrt(t.recent / t.early)
	return t.recent * t.span.Seconds() / 3 * q / (1 - q)
}
