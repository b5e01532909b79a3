package history

import (
	"bytes"
	"compress/flate"
	_ "embed"
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// dictionary is what the JSON of this package looks like. Records of a few hundred bytes
// hardly compress alone; with it they take a third. It is part of the format: another one
// is another schema.
//
//go:embed dictionary.txt
var dictionary []byte

// packer makes bytes of values: JSON, deflated with the dictionary. The writer has one.
type packer struct {
	buffer  bytes.Buffer
	deflate *flate.Writer
}

func newPacker() *packer {
	p := &packer{}
	// It fails for a level that there is not.
	p.deflate, _ = flate.NewWriterDict(&p.buffer, flate.DefaultCompression, dictionary)
	return p
}

func (p *packer) pack(v any) ([]byte, error) {
	text, err := json.Marshal(v)
	if err != nil {
		return nil, err
	}
	p.buffer.Reset()
	p.deflate.Reset(&p.buffer)
	if _, err := p.deflate.Write(text); err != nil {
		return nil, err
	}
	if err := p.deflate.Close(); err != nil {
		return nil, err
	}
	return bytes.Clone(p.buffer.Bytes()), nil
}

// unpacker is the other way. Each question has one.
type unpacker struct{ inflate io.ReadCloser }

// maxUnpacked bounds what a damaged record can become.
const maxUnpacked = 8 << 20

// errDamaged says that a record cannot be read.
var errDamaged = errors.New("damaged")

func (u *unpacker) unpack(packed []byte, v any) error {
	if u.inflate == nil {
		u.inflate = flate.NewReaderDict(bytes.NewReader(packed), dictionary)
	} else if err := u.inflate.(flate.Resetter).Reset(bytes.NewReader(packed), dictionary); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(u.inflate, maxUnpacked))
	if err == nil {
		err = json.Unmarshal(text, v)
	}
	if err != nil {
		return fmt.Errorf("%w: a record cannot be unpacked: %w", errDamaged, err)
	}
	return nil
}
