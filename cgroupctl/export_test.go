package cgroupctl

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// Failing has reads and writes of files fail, as the kernel may, until the test ends.
func Failing(t *testing.T, fault func(op, file string) error) {
	was := sys
	t.Cleanup(func() { sys = was })
	fail := func(op string, fd int) error {
		name, err := os.Readlink(fmt.Sprintf("/proc/self/fd/%d", fd))
		if err != nil {
			t.Fatal(err)
		}
		return fault(op, filepath.Base(name))
	}
	sys.read = func(fd int, b []byte) (int, error) {
		if err := fail("read", fd); err != nil {
			return -1, err
		}
		return was.read(fd, b)
	}
	sys.write = func(fd int, b []byte) (int, error) {
		if err := fail("write", fd); err != nil {
			return -1, err
		}
		return was.write(fd, b)
	}
}

// ReadFile and PutFile read and write any file of a cgroup.
func (c *Controller) ReadFile(r Ref, file string) (string, error) {
	dir, err := c.open(r)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	return read(dir, r, file)
}

func (c *Controller) PutFile(r Ref, file, value string) error {
	dir, err := c.open(r)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	return put(dir, r, file, value)
}
