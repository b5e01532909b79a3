package history

import (
	"bytes"
	"compress/flate"
	"embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/breakerd/breakerd/model"
)

// The dictionaries are what the JSON of this package looks like, of each type its own.
// Records of a few hundred bytes hardly compress alone; with them they take a third. They
// are part of the format: other ones are another version.
//
//go:embed dictionary
var dictionaries embed.FS

// form is a type of record.
type form string

const (
	formIncident form = "incident"
	formTriage   form = "triage"
	formInputs   form = "inputs"
	formVerdicts form = "verdicts"
	formMoments  form = "moments"
	formHold     form = "hold"
)

// formOf is the form of a value, or of what a pointer leads to.
func formOf(v any) form {
	switch v.(type) {
	case incidentBody, *incidentBody:
		return formIncident
	case model.Triage, *model.Triage:
		return formTriage
	case []json.RawMessage, *[]json.RawMessage:
		return formInputs
	case []leanVerdict, *[]leanVerdict:
		return formVerdicts
	case []model.Moment, *[]model.Moment:
		return formMoments
	case model.Hold, *model.Hold:
		return formHold
	}
	panic(fmt.Sprintf("a record of a %T", v)) // a table that no test has seen
}

func (f form) dictionary() []byte {
	text, err := dictionaries.ReadFile("dictionary/" + string(f) + ".json")
	if err != nil {
		panic(err) // it is in the program
	}
	return text
}

// packer makes bytes of values: JSON, deflated with a dictionary. The writer has one.
type packer struct {
	buffer  bytes.Buffer
	deflate map[form]*flate.Writer
}

func newPacker() *packer { return &packer{deflate: make(map[form]*flate.Writer)} }

func (p *packer) pack(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	f := formOf(v)
	p.buffer.Reset()
	w := p.deflate[f]
	if w == nil {
		// It fails for a level that there is not.
		w, _ = flate.NewWriterDict(&p.buffer, flate.DefaultCompression, f.dictionary())
		p.deflate[f] = w
	} else {
		w.Reset(&p.buffer)
	}
	if _, err := w.Write(text); err != nil {
		return nil, err
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(p.buffer.Bytes()), nil
}

// unpacker is the other way. Each question has one.
type unpacker struct {
	inflate      io.ReadCloser
	text         bytes.Buffer
	dictionaries map[form][]byte
}

// maxUnpacked bounds what a damaged record can become.
const maxUnpacked = 8 << 20

// errDamaged says that a record cannot be read.
var errDamaged = errors.New("damaged")

func (u *unpacker) unpack(packed []byte, v any) error {
	f := formOf(v)
	if u.dictionaries == nil {
		u.dictionaries = make(map[form][]byte)
	}
	if u.dictionaries[f] == nil {
		u.dictionaries[f] = f.dictionary()
	}
	if u.inflate == nil {
		u.inflate = flate.NewReaderDict(bytes.NewReader(packed), u.dictionaries[f])
	} else if err := u.inflate.(flate.Resetter).Reset(bytes.NewReader(packed), u.dictionaries[f]); err != nil {
		return err
	}
	u.text.Reset()
	_, err := u.text.ReadFrom(io.LimitReader(u.inflate, maxUnpacked))
	if err == nil {
		err = json.Unmarshal(u.text.Bytes(), v)
	}
	if err != nil {
		return fmt.Errorf("%w: a record cannot be unpacked: %w", errDamaged, err)
	}
	return nil
}
