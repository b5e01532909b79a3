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

	"gopkg.in/yaml.v3"
)

// maxSize bounds a configuration file, in bytes; ours are a few kilobytes.
const maxSize = 1 << 20

// Load reads the file into v, a pointer to a struct with yaml tags that holds the
// defaults: what the file does not name keeps them, so an empty file changes
// nothing. After an error v may be half filled; do not use it.
//
// Where v has a method Check() error, that is asked as well, and a *BadValue of its is
// told with the line of its key.
//
// A missing file is an error that wraps fs.ErrNotExist, for the caller to decide
// whether it had to be there.
//
// Types in v with an UnmarshalYAML of their own must not decode a mapping: yaml.v3
// forgets to be strict there.
func Load(path string, v any) error { return load(path, v, func(*os.File) error { return nil }) }

// LoadTrusted is Load, for a program that runs as root, of a file that says what must
// not be done: it refuses one that others than root could have written.
func LoadTrusted(path string, v any) error { return load(path, v, trusted) }

func load(path string, v any, accept func(*os.File) error) error {
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
	return Parse(path, text, v)
}

func unreadable(path string, err error) error {
	var what *fs.PathError
	if errors.As(err, &what) {
		err = what.Err // without its own "open PATH:"
	}
	advice := "let the user that runs this program read it"
	if errors.Is(err, fs.ErrNotExist) {
		advice = "make it, or leave --config out for the defaults"
	}
	return fmt.Errorf("read configuration %s: %w; %s", path, err, advice)
}

// Parse is Load of a text; path is for errors alone.
func Parse(path string, text []byte, v any) error {
	if err := decode(path, text, v); err != nil {
		return err
	}
	checked, ok := v.(interface{ Check() error })
	if !ok {
		return nil
	}
	err := checked.Check()
	if bad, ok := errors.AsType[*BadValue](err); ok {
		return fmt.Errorf("%s:%d: %w", path, lineOf(text, bad.Key), err)
	}
	return err
}

func decode(path string, text []byte, v any) error {
	decoder := yaml.NewDecoder(bytes.NewReader(text))
	decoder.KnownFields(true)
	switch err := decoder.Decode(v); {
	case errors.Is(err, io.EOF): // nothing but comments
		return nil
	case err != nil:
		return explain(path, v, err)
	}
	var more yaml.Node
	switch err := decoder.Decode(&more); {
	case errors.Is(err, io.EOF):
		return nil
	case err != nil:
		return explain(path, v, err)
	}
	return fmt.Errorf("%s:%d: a second document begins here, and would not be read; remove the ---", path, more.Line)
}
