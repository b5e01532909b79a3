package config

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// trusted refuses a file that somebody else than root could have written, or put there,
// if we are root: the file and every folder above it must be root's.
func trusted(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return unreadable(f.Name(), err)
	}
	if !info.Mode().IsRegular() {
		return fmt.Errorf("read configuration %s: it is no regular file", f.Name())
	}
	if err := rootsOwn(f.Name(), info); err != nil {
		return fmt.Errorf("read configuration %s: %w", f.Name(), err)
	}
	path, err := filepath.Abs(f.Name())
	if err == nil {
		path, err = filepath.EvalSymlinks(path)
	}
	if err != nil {
		return unreadable(f.Name(), err)
	}
	for path != "/" {
		path = filepath.Dir(path)
		info, err := os.Stat(path)
		if err == nil && info.Mode()&fs.ModeSticky != 0 {
			continue // /tmp: everybody may write, and nobody exchange what is another's
		}
		if err == nil {
			err = rootsOwn(path, info)
		}
		if err != nil {
			return fmt.Errorf("read configuration %s: %w", f.Name(), err)
		}
	}
	return nil
}

func rootsOwn(path string, info fs.FileInfo) error {
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case st.Uid != 0:
		return fmt.Errorf("%s belongs to uid %d and must belong to root (chown root %[1]s)", path, st.Uid)
	case info.Mode()&0o002 != 0, info.Mode()&0o020 != 0 && st.Gid != 0:
		return fmt.Errorf("others than root can write %s (chmod go-w %[1]s)", path)
	}
	return nil
}
