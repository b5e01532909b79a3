package config

import (
	"fmt"
	"os"
	"syscall"
)

// trusted refuses a file that somebody else than root could have written, if we are root.
func trusted(f *os.File) error {
	if os.Geteuid() != 0 {
		return nil
	}
	info, err := f.Stat()
	if err != nil {
		return unreadable(f.Name(), err)
	}
	st := info.Sys().(*syscall.Stat_t)
	switch {
	case !info.Mode().IsRegular():
		return fmt.Errorf("read configuration %s: it is no regular file", f.Name())
	case st.Uid != 0:
		return fmt.Errorf("read configuration %s: it belongs to uid %d and must belong to root (chown root %[1]s)", f.Name(), st.Uid)
	case info.Mode()&0o002 != 0, info.Mode()&0o020 != 0 && st.Gid != 0:
		return fmt.Errorf("read configuration %s: others than root can write it (chmod go-w %[1]s)", f.Name())
	}
	return nil
}
