package main

import (
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/report"
)

// forms are what a report can be written as.
var forms = []string{"text", "markdown", "html", "json"}

func (a *app) report() *cobra.Command {
	var f pastFlags
	form := "text"
	c := &cobra.Command{
		Use: "report", Short: "Say what was decided, what came of it, and which policy is ready to be armed", Args: cobra.NoArgs,
		Long: `Say what breakerd kept of the last day, or of the time that --since and --until say: what
was held or in a dry run would have been, when, to whom, for how long and by which policy;
who was spared how much, and who else was hit; which guard refused what; what flapped,
what cannot be done here and why; and for each policy whether to keep watching it, to arm
it or to work on it, with the reasons.

In a dry run, who would have been spared how much is what the victims did wait for the
culprit while it would have been held. Where something was really held, it is estimated
from how long they had waited before.

The HTML is one file that loads nothing, to look at, to print and to send:

  breakerctl report --since 7d --format html > report.html`,
		RunE: func(c *cobra.Command, _ []string) error {
			if a.output == jsonText {
				form = "json"
			}
			if !slices.Contains(forms, form) {
				return fmt.Errorf("--format %q: the formats are %s", form, strings.Join(forms, ", "))
			}
			since, until, err := f.stretch(time.Now())
			if err != nil {
				return err
			}
			r, err := a.client().Report(c.Context(), since, until)
			if err != nil {
				return err
			}
			return writeReport(c.OutOrStdout(), form, &r)
		},
	}
	f.add(c, "24h")
	c.Flags().StringVar(&form, "format", form, "`FORMAT`: "+strings.Join(forms, ", "))
	completeValues(c, "format", forms...)
	return c
}

func writeReport(w io.Writer, form string, r *report.Report) error {
	switch form {
	case "markdown":
		return r.Markdown(w)
	case "html":
		return r.HTML(w)
	case "json":
		return writeJSON(w, r)
	}
	return r.Text(w)
}
