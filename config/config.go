// Package config reads configuration files: YAML, and strictly. A key that nobody
// knows, a value of the wrong type, a second document: each is refused with its
// line and what to do. A slip in a safety setting must never be read as silence.
package config

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"

	"gopkg.in/yaml.v3"
)

// maxSize bounds a configuration file, in bytes; ours are a few kilobytes.
const maxSize = 1 << 20

// Load reads the file into v, a pointer to a struct with yaml tags that holds the
// defaults: what the file does not name keeps them, so an empty file changes
// nothing. It tells where each value that the file sets stands. After an error v may be
// half filled; do not use it.
//
// Where v has a method Check() error, that is asked as well, and a *BadValue of its is
// told with the place of its key.
//
// A missing file is an error that wraps fs.ErrNotExist, for the caller to decide
// whether it had to be there.
//
// Types in v with an UnmarshalYAML of their own must not decode a mapping: yaml.v3
// forgets to be strict there.
func Load(path string, v any) (Origins, error) {
	o := make(Origins)
	if err := o.read(path, v, func(*os.File) error { return nil }); err != nil {
		return nil, err
	}
	return o, o.check(path, v)
}

// LoadTrusted is Load, for a program that runs as root, of a file that says what must
// not be done: it refuses one that others than root could have written or exchanged.
func LoadTrusted(path string, v any) (Origins, error) {
	o := make(Origins)
	if err := o.read(path, v, trusted); err != nil {
		return nil, err
	}
	return o, o.check(path, v)
}

// maxDropIns bounds the files of a drop-in folder.
const maxDropIns = 100

// DropIns is the folder whose files change a configuration file.
func DropIns(path string) string { return path + ".d" }

// LoadWithDropIns is Load of a file and then, in the order of their names, of the files
// in its drop-in folder that end in .yaml and do not begin with a dot. A key that a later
// one names is changed, its neighbours are not; a list is replaced as a whole. What the
// parts give together is checked, not each for itself. Where optional is set the file,
// but not what it says, may be missing.
func LoadWithDropIns(path string, optional bool, v any) (Origins, error) {
	o := make(Origins)
	accept := func(*os.File) error { return nil }
	if err := o.read(path, v, accept); err != nil && !(optional && errors.Is(err, fs.ErrNotExist)) {
		return nil, err
	}
	entries, err := os.ReadDir(DropIns(path)) // in the order of their names
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("read configuration folder %s: %w; let the user that runs this program read it", DropIns(path), bare(err))
	}
	entries = slices.DeleteFunc(entries, func(e fs.DirEntry) bool {
		return strings.HasPrefix(e.Name(), ".") || !strings.HasSuffix(e.Name(), ".yaml")
	})
	if len(entries) > maxDropIns {
		return nil, fmt.Errorf("read configuration folder %s: it has %d files, and %d is the most", DropIns(path), len(entries), maxDropIns)
	}
	for _, e := range entries {
		if err := o.read(filepath.Join(DropIns(path), e.Name()), v, accept); err != nil {
			return nil, err
		}
	}
	return o, o.check(path, v)
}

// read reads one file into v.
func (o Origins) read(path string, v any, accept func(*os.File) error) error {
	f, err := os.Open(path)
	if err != nil {
		return unreadable(path, err)
	}
	defer f.Close()
	if err := accept(f); err != nil {
		return err
	}
	text, err := io.ReadAll(io.LimitReader(f, maxSize+1))
	switch {
	case err != nil:
		return unreadable(path, err)
	case len(text) > maxSize:
		return fmt.Errorf("read configuration %s: longer than %d bytes; is this the right file?", path, maxSize)
	}
	return o.decode(path, text, v)
}

func unreadable(path string, err error) error {
	advice := "let the user that runs this program read it"
	if errors.Is(err, fs.ErrNotExist) {
		advice = "make it, or leave --config out for the defaults"
	}
	return fmt.Errorf("read configuration %s: %w; %s", path, bare(err), advice)
}

// bare is an error without its own "open PATH:".
func bare(err error) error {
	var what *fs.PathError
	if errors.As(err, &what) {
		return what.Err
	}
	return err
}

// Parse is Load of a text; path is for errors alone.
func Parse(path string, text []byte, v any) (Origins, error) {
	o := make(Origins)
	if err := o.decode(path, text, v); err != nil {
		return nil, err
	}
	return o, o.check(path, v)
}

// check asks v whether its values can be, and says where the one stands that cannot.
func (o Origins) check(path string, v any) error {
	checked, ok := v.(interface{ Check() error })
	if !ok {
		return nil
	}
	err := checked.Check()
	if bad, ok := errors.AsType[*BadValue](err); ok {
		if at, known := o.nearest(bad.Key); known {
			return fmt.Errorf("%s: %w", at, err)
		}
		return fmt.Errorf("%s: %w", path, err)
	}
	return err
}

func (o Origins) decode(path string, text []byte, v any) error {
	var doc yaml.Node
	if err := yaml.Unmarshal(text, &doc); err != nil {
		return explain(path, nil, v, err)
	}
	if at := borrowed(&doc); at != nil {
		return fmt.Errorf("%s:%d:%d: a value that stands elsewhere (%s) is not understood here; write the value itself", path, at.Line, at.Column, at.Value)
	}
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	switch err := decoder.Decode(v); {
	case errors.Is(err, io.EOF): // nothing but comments
		return nil
	case err != nil:
		return explain(path, &doc, v, err)
	}
	var more yaml.Node
	switch err := decoder.Decode(&more); {
	case errors.Is(err, io.EOF):
		o.note(path, "", &doc, reflect.TypeOf(v))
		return nil
	case err != nil:
		return explain(path, nil, v, err)
	}
	return fmt.Errorf("%s:%d:%d: a second document begins here, and would not be read; remove the ---", path, more.Line, more.Column)
}
