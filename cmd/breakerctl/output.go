package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/safetext"
)

// format is the value of -o.
type format string

const (
	table    format = "table"
	jsonText format = "json"
	yamlText format = "yaml"
)

// Set implements pflag.Value.
func (f *format) Set(s string) error { *f = format(s); return nil }

// Type implements pflag.Value.
func (f *format) Type() string { return "string" }

func (f *format) String() string {
	if *f == "" {
		return string(table)
	}
	return string(*f)
}

func (f *format) check(c *cobra.Command) error {
	switch *f {
	case "":
		*f = table
	case table, jsonText:
	case yamlText:
		if c.Annotations["yaml"] == "" {
			return errNoYAML
		}
	default:
		return fmt.Errorf("-o %s: the formats are table and json", *f)
	}
	return nil
}

// writeJSON writes a value for programs.
func writeJSON(w io.Writer, v any) error {
	enc := json.NewEncoder(w)
	enc.SetEscapeHTML(false)
	enc.SetIndent("", "  ")
	return enc.Encode(v)
}

// rows writes columns under their titles. Cells may hold anything: whoever started a
// process chose its name.
type rows struct{ w *tabwriter.Writer }

func newRows(w io.Writer, titles ...string) *rows {
	r := &rows{tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)}
	r.add(titles...)
	return r
}

func (r *rows) add(cells ...string) {
	for i, c := range cells {
		cells[i] = safetext.Printable(c)
	}
	fmt.Fprintln(r.w, strings.Join(cells, "\t"))
}

func (r *rows) flush() error { return r.w.Flush() }

// facts writes a name and a value a line.
func facts(w io.Writer, pairs ...string) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i := 0; i+1 < len(pairs); i += 2 {
		fmt.Fprintf(t, "%s:\t%s\n", pairs[i], safetext.Printable(pairs[i+1]))
	}
	return t.Flush()
}

func or(s, instead string) string {
	if s == "" {
		return instead
	}
	return s
}

func clock(t time.Time) string { return t.Local().Format("2006-01-02 15:04:05") }

// span says a duration as shortly as a person would.
func span(d time.Duration) string {
	switch {
	case d < time.Second:
		return d.Round(time.Millisecond).String()
	case d < time.Minute:
		return d.Round(100 * time.Millisecond).String()
	}
	text := d.Round(time.Second).String() // such as 1h0m0s
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}
