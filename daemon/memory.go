package daemon

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/breakerd/breakerd/breaker"
)

// memory keeps the breakers and the trial on disk, so that they outlive a restart. Without the
// breakers everybody begins anew, which holds nobody for longer.
type memory struct {
	dir string // "" keeps nothing

	err error // why they could not be kept, or read

	mu    sync.Mutex
	trial *keptTrial // as it is on the disk; nil where none is kept
}

// memoryDir lies within the state directory, whose records are the enforcer's.
const memoryDir = "daemon"

// breakersFile holds the breakers.
const breakersFile = "breakers.json"

// maxBreakersFile is more than a full set takes.
const maxBreakersFile = 16 << 20

// recall reads the breakers of before, as they are after a restart.
func (m *memory) recall(cfg breaker.Config) *breaker.Set {
	s := breaker.New(cfg)
	if m.dir != "" {
		kept, err := m.read(cfg)
		if m.err = err; err == nil && kept != nil {
			s = kept
		}
	}
	s.Restart(time.Now().UTC())
	return s
}

func (m *memory) read(cfg breaker.Config) (*breaker.Set, error) {
	text, err := readKept(filepath.Join(m.dir, breakersFile), maxBreakersFile)
	switch {
	case err != nil:
		return nil, fmt.Errorf("read breakers: %w", err)
	case text == nil:
		return nil, nil
	}
	return breaker.Load(cfg, text)
}

// readKept reads a file of no more than so many bytes; nil where there is none.
func readKept(name string, most int64) ([]byte, error) {
	info, err := os.Stat(name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil, nil
	case err != nil:
		return nil, err
	case info.Size() > most:
		return nil, fmt.Errorf("%s has %d bytes, and %d is the most", name, info.Size(), most)
	}
	return os.ReadFile(name) // of what is empty it is not nil
}

// keep writes the breakers, whole or not at all.
func (m *memory) keep(text []byte) error {
	if m.dir == "" {
		return nil
	}
	if err := m.write(filepath.Join(m.dir, breakersFile), text); err != nil {
		return fmt.Errorf("keep breakers: %w", err)
	}
	return nil
}

// write writes a file, whole or not at all.
func (m *memory) write(name string, text []byte) error {
	err := os.MkdirAll(m.dir, 0o750)
	if err == nil {
		err = writeSynced(name+".new", text)
	}
	if err == nil {
		err = os.Rename(name+".new", name)
	}
	return err
}

// writeSynced writes a file that is on the disk before anything is renamed to it: after a
// power cut there is the old one or the new one, and not half of it.
func writeSynced(name string, text []byte) error {
	f, err := os.OpenFile(name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o640)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	return errors.Join(err, f.Sync(), f.Close())
}
