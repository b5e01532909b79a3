package host

import (
	"bytes"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// ErrGone says that a process or a cgroup vanished before it could be read.
// That is everyday life, not a failure.
var ErrGone = errors.New("gone")

// maxFile bounds what is read of one file, in bytes. The longest that we read
// whole is mountinfo: some 200 bytes a mount, and a node may have 10,000 of them.
const maxFile = 16 << 20

// readFile reads a whole kernel file. os.ReadFile takes twice as long (20 µs for
// a file of a cgroup instead of 12): it asks for the size, which is 0 here, and
// registers the file with the poller, which kernfs lets it do.
func readFile(path string) ([]byte, error) { return readFileAt(unix.AT_FDCWD, path, path) }

// readFileAt reads a file relative to an open directory; path names it in errors.
func readFileAt(dir int, name, path string) ([]byte, error) {
	data, err := readUpTo(dir, name, maxFile)
	if err == nil && len(data) == maxFile {
		err = fmt.Errorf("longer than %d bytes", maxFile)
	}
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", path, err)
	}
	return data, nil
}

// readUpTo reads the first bytes of a file relative to an open directory.
func readUpTo(dir int, name string, limit int) ([]byte, error) {
	f, err := openFile(dir, name)
	if err != nil {
		return nil, err
	}
	defer f.close()
	buf := make([]byte, 0, min(limit, 1024))
	for len(buf) < limit {
		if len(buf) == cap(buf) {
			buf = append(buf, 0)[:len(buf)]
		}
		n, err := f.Read(buf[len(buf):min(cap(buf), limit)])
		if err != nil {
			return nil, err
		}
		if n == 0 {
			break
		}
		buf = buf[:len(buf)+n]
	}
	return buf, nil
}

// file is an open file descriptor. Unlike an os.File it is never in the poller.
type file int

func openFile(dir int, name string) (file, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	})
	return file(fd), err
}

func openDir(dir int, name string) (file, error) {
	fd, err := retry(func() (int, error) {
		return unix.Openat(dir, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	})
	return file(fd), err
}

// Read answers 0 bytes and no error at the end of the file, as read(2) does.
func (f file) Read(buf []byte) (int, error) {
	return retry(func() (int, error) { return unix.Read(int(f), buf) })
}

func (f file) close() { _ = unix.Close(int(f)) }

// retry repeats an interrupted call. Kernel files are not interrupted, but
// lxcfs puts a FUSE mount over /proc/stat and /proc/meminfo.
func retry(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// missing reports whether a file is not there.
func missing(err error) bool { return errors.Is(err, os.ErrNotExist) }

// lines calls f with each line and its number, until it fails.
func lines(text []byte, f func(number int, line []byte) error) error {
	for number := 1; len(text) > 0; number++ {
		line, rest, _ := bytes.Cut(text, []byte("\n"))
		if err := f(number, line); err != nil {
			return err
		}
		text = rest
	}
	return nil
}
