package report

import (
	"fmt"
	"io"
	"strings"

	"github.com/charmbracelet/x/ansi"
)

// page is how wide the text is.
const page = 80

// heldInText is how many of what was held the text lists.
const heldInText = 20

// Text writes the report for a terminal.
func (r *Report) Text(w io.Writer) error {
	t := &text{}
	t.lines(r.title(), "")
	for _, line := range r.summary() {
		t.paragraph("", line)
	}
	for _, s := range r.sections(heldInText) {
		t.lines("", strings.ToUpper(s.Title))
		for _, a := range s.Advice {
			t.paragraph("  ", fmt.Sprintf("%s: %s", a.Policy, a.Advice))
			for _, reason := range a.Reasons {
				t.item("    ", reason)
			}
		}
		t.table(&s)
		for _, note := range s.Notes {
			t.paragraph("  ", note)
		}
	}
	_, err := io.WriteString(w, t.b.String())
	return err
}

type text struct{ b strings.Builder }

func (t *text) lines(all ...string) {
	for _, line := range all {
		t.b.WriteString(strings.TrimRight(line, " ") + "\n")
	}
}

func (t *text) paragraph(indent, s string) {
	for line := range strings.Lines(ansi.Wrap(s, page-len(indent), " ")) {
		t.lines(indent + strings.TrimRight(line, "\n"))
	}
}

// item is a paragraph behind a dash.
func (t *text) item(indent, s string) {
	mark := "- "
	for line := range strings.Lines(ansi.Wrap(s, page-len(indent)-len(mark), " ")) {
		t.lines(indent + mark + strings.TrimRight(line, "\n"))
		mark = "  "
	}
}

// table writes figures to the right, and cuts texts where the page ends: the widest first.
func (t *text) table(s *section) {
	if len(s.Rows) == 0 {
		return
	}
	widths := make([]int, len(s.Titles))
	sum := 2 // the indent
	for i, title := range s.Titles {
		widths[i] = ansi.StringWidth(title)
		for _, row := range s.Rows {
			widths[i] = max(widths[i], ansi.StringWidth(row[i]))
		}
		sum += widths[i] + 2
	}
	for sum -= 2; sum > page; sum-- {
		widest := s.Figures
		for i := s.Figures; i < len(widths); i++ {
			if widths[i] > widths[widest] {
				widest = i
			}
		}
		widths[widest]--
	}
	for _, row := range append([][]string{s.Titles}, s.Rows...) {
		line := "  "
		for i, cell := range row {
			cell = fit(cell, widths[i], s.cutsLeft(i))
			room := strings.Repeat(" ", widths[i]-ansi.StringWidth(cell))
			if i < s.Figures {
				line += room + cell + "  "
			} else {
				line += cell + room + "  "
			}
		}
		t.lines(line)
	}
}

func (s *section) cutsLeft(column int) bool {
	for _, i := range s.Paths {
		if i == column {
			return true
		}
	}
	return false
}

func fit(s string, width int, keepEnd bool) string {
	have := ansi.StringWidth(s)
	switch {
	case have <= width:
		return s
	case keepEnd:
		return ansi.TruncateLeft(s, have-width+1, "…")
	}
	return ansi.Truncate(s, width, "…")
}
