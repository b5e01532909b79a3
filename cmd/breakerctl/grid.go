package main

import (
	"cmp"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/charmbracelet/x/ansi"

	"github.com/breakerd/breakerd/safetext"
)

// page is how wide text for people is.
const page = 80

// grid is a table that keeps to a width: figures to the right, and behind them so many
// columns of text, which are cut. Cells may hold anything: whoever started a process
// chose its name.
type grid struct {
	titles []string
	texts  int
	rows   [][]string
}

func (g *grid) add(cells ...string) {
	for i, c := range cells {
		cells[i] = safetext.Printable(c)
	}
	g.rows = append(g.rows, cells)
}

// lines are the titles and the rows, none of them wider than it may be.
func (g *grid) lines(width int) []string {
	widths := make([]int, len(g.titles))
	for _, row := range append([][]string{g.titles}, g.rows...) {
		for i, c := range row {
			widths[i] = max(widths[i], ansi.StringWidth(c))
		}
	}
	figures := len(g.titles) - g.texts
	left := width
	for _, w := range widths[:figures] {
		left -= w + 2
	}
	share(widths[figures:], left-2*(g.texts-1))
	var out []string
	for _, row := range append([][]string{g.titles}, g.rows...) {
		var b strings.Builder
		for i, c := range row {
			if i > 0 {
				b.WriteString("  ")
			}
			if i >= figures {
				c = fit(c, widths[i], g.titles[i] != "COMMAND")
			}
			pad := strings.Repeat(" ", max(0, widths[i]-ansi.StringWidth(c)))
			if i < figures {
				b.WriteString(pad + c)
			} else {
				b.WriteString(c + pad)
			}
		}
		out = append(out, ansi.Truncate(strings.TrimRight(b.String(), " "), width, ""))
	}
	return out
}

// share divides a width among texts: what one does not need is the others'.
func share(widths []int, left int) {
	order := make([]int, len(widths))
	for i := range order {
		order[i] = i
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(widths[i], widths[j]) })
	for done, i := range order {
		widths[i] = max(1, min(widths[i], left/(len(order)-done)))
		left -= widths[i]
	}
}

func (g *grid) write(w io.Writer, indent string) {
	for _, line := range g.lines(page - len(indent)) {
		fmt.Fprintln(w, indent+line)
	}
}

// fit cuts a text to a width: of a path the end says most, of a command its beginning.
func fit(s string, width int, keepEnd bool) string {
	have := ansi.StringWidth(s)
	if have <= width {
		return s
	}
	if keepEnd {
		return ansi.TruncateLeft(s, have-width+1, "…")
	}
	return ansi.Truncate(s, width, "…")
}

// paragraph breaks a text into lines of the page.
func paragraph(w io.Writer, indent, text string) {
	for line := range strings.Lines(ansi.Wrap(safetext.Printable(text), page-len(indent), " ")) {
		fmt.Fprintln(w, indent+strings.TrimRight(line, " \n"))
	}
}

// size says bytes as shortly as a person would.
func size(n uint64) string {
	switch {
	case n >= 10<<30:
		return fmt.Sprintf("%dG", n>>30)
	case n >= 1<<30:
		return fmt.Sprintf("%.1fG", float64(n)/(1<<30))
	case n >= 1<<20:
		return fmt.Sprintf("%dM", n>>20)
	}
	return fmt.Sprintf("%dK", n>>10)
}
