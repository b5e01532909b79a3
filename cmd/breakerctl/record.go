package main

import (
	"bufio"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/recording"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) record() *cobra.Command {
	var length time.Duration
	c := &cobra.Command{
		Use: "record FILE", Short: "Write down what breakerd sees, to judge it again later", Args: cobra.ExactArgs(1),
		Long: `Write every sample that breakerd takes, and what became of each decision, to a new FILE, for
some time or until interrupted. It ends early, with exit code 1, when the configuration is read
again or other policies come into force or on trial: replay --partial takes what there is.
breakerctl replay judges it again, on any machine and without root. Where the name ends in .gz
the file is compressed.

A recording holds the names and command lines of all processes: treat it as a secret.`,
		RunE: func(c *cobra.Command, args []string) error {
			if c.Flags().Changed("for") && length <= 0 {
				return errors.New("--for: the duration must be more than 0")
			}
			n, err := a.recordTo(c.Context(), args[0], length)
			if err != nil {
				return err
			}
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), map[string]any{"file": args[0], "records": n})
			}
			fmt.Fprintf(c.OutOrStdout(), "%d records in %s\n", n, safetext.Printable(args[0]))
			return nil
		},
	}
	c.Flags().DurationVar(&length, "for", 0, "stop after `DURATION`, such as 30s (default: when interrupted)")
	return c
}

// recordTo records until the time is up or the context ends, and ends the recording.
// It does not overwrite a file.
func (a *app) recordTo(ctx context.Context, path string, length time.Duration) (records int, err error) {
	if length > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, length)
		defer cancel()
	}
	// The connection must outlive the time that is up, so that the last record is whole.
	streaming, hangUp := context.WithCancel(context.Background())
	defer hangUp()
	stream, err := a.client().Record(streaming)
	if err != nil {
		return 0, err
	}
	defer stream.Close()
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, f.Close()) }()
	var w io.Writer = f
	if strings.HasSuffix(path, ".gz") {
		z := gzip.NewWriter(f)
		defer func() { err = errors.Join(err, z.Close()) }()
		w = z
	}
	stop := context.AfterFunc(ctx, hangUp)
	defer stop()
	return copyRecords(stream, w, func() bool { return ctx.Err() != nil })
}

// copyRecords copies whole lines, and writes the end where the stream was hung up by us.
func copyRecords(stream io.Reader, w io.Writer, ours func() bool) (records int, err error) {
	lines := bufio.NewReaderSize(stream, 1<<20)
	for records = -1; ; records++ { // the header is none

		line, err := lines.ReadBytes('\n')
		if err != nil {
			if !ours() {
				return records, fmt.Errorf("breakerd ended the recording (it stopped, its policies were changed, or the file could not be written fast enough): %w", err)
			}
			// What came of a line that is not whole is left out.
			return max(records, 0), recording.WriteEnd(w, max(records, 0))
		}
		if _, err := w.Write(line); err != nil {
			return records, err
		}
	}
}
