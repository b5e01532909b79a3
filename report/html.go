package report

import (
	_ "embed"
	"fmt"
	"html/template"
	"io"
	"strings"
	"time"

	"github.com/breakerd/breakerd/safetext"
)

//go:embed report.html
var htmlText string

var pages = template.Must(template.New("report").Parse(htmlText))

// HTML writes the report as one file that loads nothing.
func (r *Report) HTML(w io.Writer) error {
	return pages.Execute(w, htmlPage{
		Title: r.title(), Summary: r.summary(), Sections: r.sections(maxHolds), Totals: r.tiles(), Timeline: r.timeline(), Charts: r.charts(),
	})
}

type htmlPage struct {
	Title    string
	Summary  []string
	Totals   []tile
	Sections []section
	Timeline *timeline
	Charts   []chart
}

// Numeric reports whether a column is of figures.
func (s section) Numeric(column int) bool { return column < s.Figures }

type tile struct{ Figure, What string }

func (r *Report) tiles() []tile {
	if r.Empty() {
		return nil
	}
	t := r.Totals
	held, spared := "held", "spared"
	if t.Held > 0 && t.DryRun == t.Held {
		held, spared = "would be held", "would be spared"
	}
	return []tile{
		{fmt.Sprint(t.Incidents), "incidents"}, {fmt.Sprint(t.Trouble), "of them trouble"}, {fmt.Sprint(t.Held), held},
		{stall(t.SparedMS), spared}, {fmt.Sprint(t.Refused + t.Denied), "refused"}, {fmt.Sprint(t.Failed), "failed"},
	}
}

// Measures of the drawings, in their own units.
const (
	timelineWidth = 1000
	timelineLeft  = 190
	laneHeight    = 26
	chartWidth    = 1000
	chartHeight   = 150
)

type timeline struct {
	Width, Height, Left int
	Lanes               []drawnLane
	Ticks               []tick
}

type drawnLane struct {
	Name    string
	Y, Text int
	Holds   bool
	Bars    []bar
}

type bar struct {
	X, Width float64
	Weight   int
}

type tick struct {
	X     float64
	Label string
}

func (r *Report) timeline() *timeline {
	if len(r.Lanes) == 0 {
		return nil
	}
	t := &timeline{Width: timelineWidth, Height: 24 + len(r.Lanes)*laneHeight, Left: timelineLeft}
	scale := float64(timelineWidth-timelineLeft) / laneSlots
	for i, lane := range r.Lanes {
		y := 20 + i*laneHeight
		d := drawnLane{Name: fit(safetext.Printable(short(lane.Name)), 26, false), Y: y, Text: y + 16, Holds: lane.Holds}
		for _, s := range lane.Spans {
			d.Bars = append(d.Bars, bar{timelineLeft + float64(s.From)*scale, max(2, float64(s.Until-s.From)*scale), s.Weight})
		}
		t.Lanes = append(t.Lanes, d)
	}
	t.Ticks = ticks(r.Since, r.Until, timelineLeft, timelineWidth)
	return t
}

// ticks are at whole hours, or days, so that there are a handful.
func ticks(since, until time.Time, left, right int) (all []tick) {
	whole := until.Sub(since)
	step := 24 * time.Hour
	for _, s := range []time.Duration{time.Minute, 5 * time.Minute, 15 * time.Minute, time.Hour, 3 * time.Hour, 6 * time.Hour, 24 * time.Hour, 7 * 24 * time.Hour, 30 * 24 * time.Hour} {
		if step = s; whole/s <= 10 {
			break
		}
	}
	for at := since.Truncate(step).Add(step); at.Before(until) && len(all) < 100; at = at.Add(step) {
		label := at.Format("15:04")
		if step >= 24*time.Hour || label == "00:00" {
			label = at.Format("Jan 2")
		}
		all = append(all, tick{float64(left) + float64(at.Sub(since))/float64(whole)*float64(right-left), label})
	}
	return all
}

type chart struct {
	Title         string
	Width, Height int
	HeldX, HeldW  float64
	OpenedX       float64
	Area, Line    string // of the stall, and of the host's CPU pressure
	Most          string // what the top of the chart means
	From, Until   string
}

// charts draw how long the victims waited, and when the culprit was held.
func (r *Report) charts() (all []chart) {
	for _, c := range r.Charts {
		first, last := c.Points[0].At, c.Points[len(c.Points)-1].At
		whole := last.Sub(first)
		if whole <= 0 {
			continue
		}
		x := func(at time.Time) float64 {
			return min(max(float64(at.Sub(first))/float64(whole), 0), 1) * chartWidth
		}
		rate := func(i int) float64 { return c.Points[i].StallMS / max(c.Points[i].LengthMS, 1) * 1000 }
		most := 1.0
		for i := range c.Points {
			most = max(most, rate(i))
		}
		var area, line strings.Builder
		fmt.Fprintf(&area, "M0 %d", chartHeight)
		for i, p := range c.Points {
			fmt.Fprintf(&area, " L%.1f %.1f", x(p.At), chartHeight*(1-rate(i)/most))
			verb := "L"
			if i == 0 {
				verb = "M"
			}
			fmt.Fprintf(&line, "%s%.1f %.1f ", verb, x(p.At), chartHeight*(1-min(p.CPUPercent, 100)/100))
		}
		fmt.Fprintf(&area, " L%d %d Z", chartWidth, chartHeight)
		until := c.Hold.At.Add(c.Hold.lastedOr())
		h := c.Hold
		would := ""
		if h.DryRun {
			would = "would have been "
		}
		all = append(all, chart{
			Title: safetext.Printable(fmt.Sprintf("%s because of %s: %sheld (%s) at %s for %s by %s", h.Kind, h.Who, would, h.Action, second(h.At), span(h.lastedOr()), h.Policy)),
			Width: chartWidth, Height: chartHeight, HeldX: x(h.At), HeldW: max(2, x(until)-x(h.At)), OpenedX: x(c.Opened),
			Area: area.String(), Line: strings.TrimSpace(line.String()), Most: fmt.Sprintf("%s in each second", stall(most)),
			From: first.UTC().Format("15:04:05"), Until: last.UTC().Format("15:04:05"),
		})
	}
	return all
}
