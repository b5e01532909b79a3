package report

import (
	"fmt"
	"io"
	"strings"
)

// Markdown writes the report for an issue or a wiki.
func (r *Report) Markdown(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "# %s\n\n%s\n", r.title(), plain(strings.Join(r.summary(), " ")))
	for _, s := range r.sections(maxHolds) {
		fmt.Fprintf(&b, "\n## %s\n\n", plain(s.Title))
		for _, a := range s.Advice {
			fmt.Fprintf(&b, "- %s: **%s**\n", plain(a.Policy), a.Advice)
			for _, reason := range a.Reasons {
				fmt.Fprintf(&b, "  - %s\n", plain(reason))
			}
		}
		if len(s.Rows) > 0 {
			row(&b, s.Titles)
			b.WriteString("|")
			for i := range s.Titles {
				if i < s.Figures {
					b.WriteString(" ---: |")
				} else {
					b.WriteString(" :--- |")
				}
			}
			b.WriteString("\n")
			for _, cells := range s.Rows {
				row(&b, cells)
			}
		}
		for _, note := range s.Notes {
			fmt.Fprintf(&b, "\n%s\n", plain(note))
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func row(b *strings.Builder, cells []string) {
	b.WriteString("|")
	for _, c := range cells {
		b.WriteString(" " + plain(c) + " |")
	}
	b.WriteString("\n")
}

// plain keeps a text from being anything else: a link, an image, HTML or a column.
var escapes = strings.NewReplacer(
	`\`, `\\`, "`", "\\`", `*`, `\*`, `_`, `\_`, `[`, `\[`, `]`, `\]`, `<`, `&lt;`, `>`, `&gt;`, `&`, `&amp;`, `|`, `\|`, `#`, `\#`, `!`, `\!`, `~`, `\~`, `@`, `&#64;`, "://", "&#58;//",
)

func plain(s string) string { return escapes.Replace(s) }
