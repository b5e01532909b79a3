// Package recording keeps what breakerd saw, so that it can be judged again: on
// another machine, with other thresholds or policies, without root.
//
// A recording is a file of JSON lines: a header, then samples and outcomes in the
// order in which breakerd took them in, and an end that counts them, so that a
// recording that was cut off is told from a whole one. Where the name of the file
// ends in .gz it is compressed with gzip.
package recording

import (
	"bufio"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// Version is the version of the form of recordings that this program writes. It reads
// no others.
const Version = 1

// maxLine bounds one line: a keyframe of 20,000 processes takes 8 MB.
const maxLine = 64 << 20

// Header says how the recording was judged when it was made.
type Header struct {
	Version  int               `json:"version"`
	Detect   json.RawMessage   `json:"detect"`             // thresholds, as detect.Config
	Policies map[string]string `json:"policies,omitempty"` // sources, by file name
}

// Record is one line of a recording: exactly one of its fields is set.
type Record struct {
	Header  *Header        `json:"header,omitempty"`
	Sample  *model.Sample  `json:"sample,omitempty"`
	Outcome *model.Outcome `json:"outcome,omitempty"`
	End     *End           `json:"end,omitempty"`
}

// End is the last line.
type End struct {
	Records int `json:"records"` // between the header and the end
}

// Encoder writes records as lines.
type Encoder struct {
	w       io.Writer
	records int
}

// NewEncoder begins a recording.
func NewEncoder(w io.Writer, h Header) (*Encoder, error) {
	h.Version = Version
	e := &Encoder{w: w}
	return e, e.line(Record{Header: &h})
}

// Encode adds a sample or an outcome.
func (e *Encoder) Encode(r Record) error {
	e.records++
	return e.line(r)
}

// End ends the recording.
func (e *Encoder) End() error { return WriteEnd(e.w, e.records) }

// WriteEnd ends a recording of so many records, for whoever copies its lines.
func WriteEnd(w io.Writer, records int) error {
	return (&Encoder{w: w}).line(Record{End: &End{Records: records}})
}

func (e *Encoder) line(r Record) error {
	text, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode record %d: %w", e.records, err)
	}
	_, err = e.w.Write(append(text, '\n'))
	return err
}

// ErrTruncated says that a recording ends before its end.
var ErrTruncated = errors.New("the recording is truncated: it was cut off while it was written")

// Decoder reads a recording.
type Decoder struct {
	lines   *bufio.Scanner
	name    string
	number  int // of the line
	records int
	header  Header
	close   []io.Closer
}

// Open opens a recording and reads its header.
func Open(path string) (_ *Decoder, err error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	var r io.Reader = f
	closers := []io.Closer{f}
	if strings.HasSuffix(path, ".gz") {
		z, err := gzip.NewReader(f)
		if err != nil {
			f.Close()
			return nil, fmt.Errorf("%s: not a gzip file: %w", path, err)
		}
		r, closers = z, append(closers, z)
	}
	d, err := NewDecoder(r, path)
	if err != nil {
		f.Close()
		return nil, err
	}
	d.close = closers
	return d, nil
}

// NewDecoder reads the header; name is for messages.
func NewDecoder(r io.Reader, name string) (*Decoder, error) {
	d := &Decoder{lines: bufio.NewScanner(r), name: name}
	d.lines.Buffer(make([]byte, 64<<10), maxLine)
	rec, err := d.line()
	switch {
	case errors.Is(err, io.EOF):
		return nil, fmt.Errorf("%s: the file is empty: not a recording", name)
	case err != nil:
		return nil, err
	case rec.Header == nil:
		return nil, fmt.Errorf("%s:1: not a recording of breakerd: its first line has no header", name)
	case rec.Header.Version != Version:
		return nil, fmt.Errorf("%s:1: the recording has version %d, and this program reads version %d: use the breakerctl that recorded it", name, rec.Header.Version, Version)
	}
	d.header = *rec.Header
	return d, nil
}

// Header is how the recording was judged when it was made.
func (d *Decoder) Header() Header { return d.header }

// Next returns the next sample or outcome, and io.EOF after the last. ErrTruncated
// says that all that was given so far is right, and that something is missing.
func (d *Decoder) Next() (Record, error) {
	rec, err := d.line()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return Record{}, fmt.Errorf("%s: %w (%d records are whole)", d.name, ErrTruncated, d.records)
	case err != nil:
		return Record{}, err
	case rec.End != nil:
		if rec.End.Records != d.records {
			return Record{}, fmt.Errorf("%s:%d: %d records are missing: the recording says %d and has %d", d.name, d.number, rec.End.Records-d.records, rec.End.Records, d.records)
		}
		return Record{}, io.EOF
	case rec.Sample == nil && rec.Outcome == nil:
		return Record{}, fmt.Errorf("%s:%d: neither a sample nor an outcome", d.name, d.number)
	}
	d.records++
	return rec, nil
}

// line reads one line. A last line without its newline was cut off.
func (d *Decoder) line() (Record, error) {
	if !d.lines.Scan() {
		err := d.lines.Err()
		switch {
		case err == nil:
			return Record{}, io.EOF
		case errors.Is(err, bufio.ErrTooLong):
			return Record{}, fmt.Errorf("%s:%d: the line is longer than %d MB: not a recording of breakerd", d.name, d.number+1, maxLine>>20)
		}
		return Record{}, err
	}
	d.number++
	var rec Record
	if err := json.Unmarshal(d.lines.Bytes(), &rec); err != nil {
		var syntax *json.SyntaxError
		if errors.As(err, &syntax) && int(syntax.Offset) >= len(d.lines.Bytes()) && !d.lines.Scan() {
			return Record{}, io.ErrUnexpectedEOF // the last line, and it breaks off
		}
		return Record{}, fmt.Errorf("%s:%d: %w", d.name, d.number, err)
	}
	return rec, nil
}

// Close closes the file.
func (d *Decoder) Close() error {
	var errs []error
	for i := len(d.close) - 1; i >= 0; i-- {
		errs = append(errs, d.close[i].Close())
	}
	return errors.Join(errs...)
}
