package cgroupctl

import (
	"bytes"
	"errors"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// maxFile bounds what is read of one file: cgroup.procs with the four million pids
// that a kernel can have stays below it.
const maxFile = 64 << 20

// openBeneath opens a name beneath a held directory. The kernel itself refuses
// (openat2, since 5.6) to leave that directory, to follow a symlink, or to cross
// into another mount, so nobody can move the file from under us.
func openBeneath(dir int, name string, flags uint64) (int, error) {
	how := unix.OpenHow{
		Flags:   flags | unix.O_CLOEXEC | unix.O_NOCTTY,
		Resolve: unix.RESOLVE_BENEATH | unix.RESOLVE_NO_SYMLINKS | unix.RESOLVE_NO_MAGICLINKS | unix.RESOLVE_NO_XDEV,
	}
	for {
		fd, err := unix.Openat2(dir, name, &how)
		if err != unix.EINTR {
			return fd, err
		}
	}
}

// sys is how files are read and written; tests have it fail as the kernel may.
var sys = struct {
	read, write func(fd int, b []byte) (int, error)
}{unix.Read, unix.Write}

// gone turns the kernel's ways to say that a cgroup was removed into ErrGone:
// ENOENT from an open, ENODEV from a file that was open already, ENOTDIR from a
// path whose parent is something else by now.
func gone(err error) error {
	if errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENODEV) || errors.Is(err, unix.ENOTDIR) {
		return ErrGone
	}
	return err
}

// read returns what a file of the open cgroup holds, without the last newline.
func read(dir int, r Ref, file string) (string, error) {
	fd, err := openBeneath(dir, file, unix.O_RDONLY)
	if err != nil {
		return "", fmt.Errorf("open %s of %s: %w", file, r, fileGone(dir, err))
	}
	defer unix.Close(fd)
	b, err := readAll(fd)
	if err != nil {
		return "", fmt.Errorf("read %s of %s: %w", file, r, fileGone(dir, err))
	}
	return strings.TrimSuffix(string(b), "\n"), nil
}

func readAll(fd int) ([]byte, error) {
	var out bytes.Buffer
	buf := make([]byte, 16<<10)
	for {
		n, err := sys.read(fd, buf)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil:
			return nil, err
		case n == 0:
			return out.Bytes(), nil
		}
		out.Write(buf[:n])
		if out.Len() > maxFile {
			return nil, unix.EFBIG
		}
	}
}

// write writes a file of the open cgroup and reads it back.
func write(dir int, r Ref, file, value string) error {
	if err := put(dir, r, file, value); err != nil {
		return err
	}
	got, err := read(dir, r, file)
	if err != nil {
		return err
	}
	return readBack(r, file, value, got)
}

// writeLimit writes what a write is about and reads it back.
func writeLimit(dir int, r Ref, w model.FileWrite, value string) error {
	if err := put(dir, r, w.File, value); err != nil {
		return err
	}
	got, err := readLimit(dir, r, w)
	if err != nil {
		return err
	}
	return readBack(r, w.File, value, got)
}

func readBack(r Ref, file, wrote, got string) error {
	if got != wrote {
		return fmt.Errorf("write %s to %s of %s: it reads %s afterwards: %w", wrote, file, r, got, ErrOwned)
	}
	return nil
}

// put writes a file of the open cgroup. Where more memory is used than a memory.high that is put
// back, the kernel would reclaim first: O_NONBLOCK has it not do so (since 6.16; an older one
// does not know it).
func put(dir int, r Ref, file, value string) error {
	fd, err := openBeneath(dir, file, unix.O_WRONLY|unix.O_NONBLOCK)
	if err != nil {
		return &notWritten{fmt.Errorf("open %s of %s: %w", file, r, fileGone(dir, err))}
	}
	defer unix.Close(fd)
	for {
		_, err = sys.write(fd, []byte(value))
		if err != unix.EINTR {
			break
		}
	}
	switch {
	case err == unix.ENODEV && file == ioFile:
		// The device is gone, not the cgroup.
		return fmt.Errorf("write %s to %s of %s: %w", value, file, r, err)
	case err != nil:
		return fmt.Errorf("write %s to %s of %s: %w", value, file, r, fileGone(dir, err))
	}
	return nil
}

// fileGone tells a cgroup that was removed from one that has no such file, which is ENOENT: the
// root cgroup has no cgroup.freeze, no cgroup had one before 5.2, and the files of a controller
// go when the cgroup above takes it away, also from under who has them open.
func fileGone(dir int, err error) error {
	if gone(err) != ErrGone {
		return err
	}
	fd, removed := openBeneath(dir, "cgroup.procs", unix.O_RDONLY)
	if removed != nil {
		return ErrGone
	}
	unix.Close(fd)
	return unix.ENOENT
}
