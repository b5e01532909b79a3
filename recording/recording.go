// Package recording keeps what breakerd saw, so that it can be judged again: on
// another machine, with other thresholds or policies, without root.
//
// A recording is a file of JSON lines: a header, then samples, outcomes and ends of leases in the
// order in which breakerd took them in, and an end that counts them, so that a
// recording that was cut off is told from a whole one. Where the name of the file
// ends in .gz it is compressed with gzip.
package recording

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// Version is the version of the form of recordings that this program writes. It reads those
// since 1 as well, which have no ends of leases and no breakers.
const Version = 2

// maxLine bounds one line: a keyframe of 20,000 processes takes 8 MB.
const maxLine = 64 << 20

// Header says how the recording was judged when it was made.
type Header struct {
	Version  int               `json:"version"`
	Detect   json.RawMessage   `json:"detect"`             // thresholds, as detect.Config
	Policies map[string]string `json:"policies,omitempty"` // sources, by file name
	Learning json.RawMessage   `json:"learning,omitempty"` // as breaker.Config
	Breakers json.RawMessage   `json:"breakers,omitempty"` // as they were when it began
}

// Record is one line of a recording: exactly one of its fields is set.
type Record struct {
	Header  *Header        `json:"header,omitempty"`
	Sample  *model.Sample  `json:"sample,omitempty"`
	Outcome *model.Outcome `json:"outcome,omitempty"`
	// Ended is the end of a lease.
	Ended *model.LeaseEnd `json:"lease_end,omitempty"`
	End   *End            `json:"end,omitempty"`
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
	if err := e.line(r); err != nil {
		return err
	}
	e.records++
	return nil
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
	ended   bool
	header  Header
	close   []io.Closer
}

// Open opens a recording and reads its header.
func Open(path string) (_ *Decoder, err error) {
	// A pipe would be waited for without end, and a recording has an end.
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s: not a regular file: not a recording", path)
	}
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
			if errors.Is(err, io.EOF) {
				return nil, errEmpty(path)
			}
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

func errEmpty(name string) error {
	return fmt.Errorf("%s: the file is empty: not a recording", name)
}

// NewDecoder reads the header; name is for messages.
func NewDecoder(r io.Reader, name string) (*Decoder, error) {
	d := &Decoder{lines: bufio.NewScanner(r), name: name}
	d.lines.Buffer(make([]byte, 64<<10), maxLine)
	d.lines.Split(splitLine)
	rec, version, err := d.first()
	switch {
	case errors.Is(err, io.EOF):
		return nil, errEmpty(name)
	case version > Version:
		return nil, foreign(name, version)
	case errors.Is(err, errCut):
		return nil, fmt.Errorf("%s:1: %w, within its header", name, ErrTruncated)
	case err != nil:
		return nil, err
	case rec.Header == nil:
		return nil, fmt.Errorf("%s:1: not a recording of breakerd: its first line has no header", name)
	case rec.Header.Version < 1:
		return nil, foreign(name, rec.Header.Version)
	}
	d.header = *rec.Header
	return d, nil
}

func foreign(name string, version int) error {
	return fmt.Errorf("%s:1: the recording has version %d, and this program reads versions up to %d: use the breakerctl that recorded it", name, version, Version)
}

// first reads the first line, and the version of its header alone, whatever else a later
// version has made of it.
func (d *Decoder) first() (Record, int, error) {
	rec, err := d.line()
	var only struct {
		Header struct {
			Version int `json:"version"`
		} `json:"header"`
	}
	if json.Unmarshal(d.lines.Bytes(), &only) != nil {
		only.Header.Version = 0
	}
	return rec, only.Header.Version, err
}

// Header is how the recording was judged when it was made.
func (d *Decoder) Header() Header { return d.header }

// Next returns the next sample or outcome, and io.EOF after the last. ErrTruncated
// says that all that was given so far is right, and that something is missing.
func (d *Decoder) Next() (Record, error) {
	if d.ended {
		return Record{}, io.EOF
	}
	rec, err := d.line()
	switch {
	case errors.Is(err, io.EOF), errors.Is(err, errCut):
		return Record{}, d.truncated()
	case err != nil:
		return Record{}, err
	case rec.End != nil:
		return Record{}, d.end(rec.End)
	case count(rec.Sample != nil, rec.Outcome != nil, rec.Ended != nil) != 1:
		return Record{}, fmt.Errorf("%s:%d: neither a sample nor an outcome nor the end of a lease", d.name, d.number)
	}
	d.records++
	return rec, nil
}

// count counts what is there.
func count(there ...bool) (n int) {
	for _, is := range there {
		if is {
			n++
		}
	}
	return n
}

// end checks that nothing is missing and that nothing follows. What follows is asked
// for also because only then gzip compares its checksum.
func (d *Decoder) end(e *End) error {
	if missing := e.Records - d.records; missing > 0 {
		return fmt.Errorf("%s:%d: %d records are missing: the recording says %d and has %d", d.name, d.number, missing, e.Records, d.records)
	} else if missing < 0 {
		return fmt.Errorf("%s:%d: there are too many records: the recording says %d and has %d", d.name, d.number, e.Records, d.records)
	}
	switch _, err := d.line(); {
	case errors.Is(err, io.EOF):
		d.ended = true
		return io.EOF
	case err != nil && d.lines.Err() != nil:
		if errors.Is(err, errCut) {
			return d.truncated()
		}
		return err
	}
	return fmt.Errorf("%s:%d: something follows the end of the recording", d.name, d.number)
}

func (d *Decoder) truncated() error {
	return fmt.Errorf("%s: %w (%d records are whole)", d.name, ErrTruncated, d.records)
}

// errCut says that the file breaks off, within a line or within what is compressed.
var errCut = errors.New("cut off")

// line reads one line. A last line without its newline was cut off.
func (d *Decoder) line() (Record, error) {
	if !d.lines.Scan() {
		if d.lines.Err() == nil {
			return Record{}, io.EOF
		}
		return Record{}, d.unread(d.number + 1)
	}
	d.number++
	text, whole := bytes.CutSuffix(d.lines.Bytes(), []byte("\n"))
	if !whole && d.lines.Err() != nil {
		return Record{}, d.unread(d.number)
	}
	var rec Record
	if err := json.Unmarshal(text, &rec); err != nil {
		var syntax *json.SyntaxError
		breaksOff := errors.As(err, &syntax) && int(syntax.Offset) >= len(text)
		if breaksOff && (!whole || !d.lines.Scan()) { // an editor may have ended the last line
			return Record{}, errCut // else it is something else than a recording
		}
		return Record{}, fmt.Errorf("%s:%d: %w", d.name, d.number, err)
	}
	if !whole {
		return Record{}, errCut
	}
	return rec, nil
}

// unread says why a line could not be read.
func (d *Decoder) unread(number int) error {
	switch err := d.lines.Err(); {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errCut
	case errors.Is(err, bufio.ErrTooLong):
		return fmt.Errorf("%s:%d: the line is longer than %d MB: not a recording of breakerd", d.name, number, maxLine>>20)
	default:
		return fmt.Errorf("%s:%d: %w", d.name, number, err)
	}
}

// splitLine gives whole lines with their newline, and then what is left without one.
func splitLine(data []byte, atEOF bool) (advance int, token []byte, err error) {
	if i := bytes.IndexByte(data, '\n'); i >= 0 {
		return i + 1, data[:i+1], nil
	}
	if atEOF && len(data) > 0 {
		return len(data), data, nil
	}
	return 0, nil, nil
}

// Close closes the file.
func (d *Decoder) Close() error {
	var errs []error
	for i := len(d.close) - 1; i >= 0; i-- {
		errs = append(errs, d.close[i].Close())
	}
	return errors.Join(errs...)
}
