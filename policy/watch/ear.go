package watch

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ear is one instance of inotify(7).
type ear struct {
	file *os.File
	fd   int
	dirs map[int32]*dir
	buf  []byte
}

// dir is a watched folder.
type dir struct {
	name string
	all  bool            // all that is in it counts
	only map[string]bool // or these names alone
}

// event is something that happened in a folder.
type event struct {
	dir  int32
	mask uint32
	name string // within the folder; "" for the folder itself
}

const heard = unix.IN_CREATE | unix.IN_DELETE | unix.IN_MODIFY | unix.IN_CLOSE_WRITE | unix.IN_MOVED_FROM | unix.IN_MOVED_TO |
	unix.IN_ATTRIB | unix.IN_DELETE_SELF | unix.IN_MOVE_SELF | unix.IN_ONLYDIR

func newEar() (*ear, error) {
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify_init1: %w", err)
	}
	// Without blocking, so that the runtime polls it and a deadline ends a read.
	return &ear{file: os.NewFile(uintptr(fd), "inotify"), fd: fd, dirs: map[int32]*dir{}, buf: make([]byte, 64<<10)}, nil
}

func (e *ear) close() { e.file.Close() }

// add watches a folder: one name in it, or all where there is none.
func (e *ear) add(name, only string) error {
	wd, err := unix.InotifyAddWatch(e.fd, name, heard)
	if err != nil {
		if errors.Is(err, unix.ENOSPC) {
			return fmt.Errorf("%s: there are as many inotify watches as fs.inotify.max_user_watches allows", name)
		}
		return fmt.Errorf("inotify_add_watch %s: %w", name, err)
	}
	d := e.dirs[int32(wd)] // the same for the same folder under another name
	if d == nil {
		d = &dir{name: name, only: map[string]bool{}}
		e.dirs[int32(wd)] = d
	}
	if only == "" {
		d.all = true
	} else {
		d.only[only] = true
	}
	return nil
}

// read waits for events, at most until a time that is not zero.
func (e *ear) read(ctx context.Context, until time.Time) ([]event, error) {
	if err := e.file.SetReadDeadline(until); err != nil {
		return nil, err
	}
	if ctx.Err() != nil { // it may have ended before, and nobody wakes it again
		return nil, ctx.Err()
	}
	n, err := e.file.Read(e.buf)
	if err != nil {
		return nil, err
	}
	return events(e.buf[:n]), nil
}

// wake ends a read.
func (e *ear) wake() { _ = e.file.SetReadDeadline(time.Unix(1, 0)) }

// pending are the events that are there already.
func (e *ear) pending() (all []event) {
	for {
		n, err := unix.Read(e.fd, e.buf)
		if err != nil || n == 0 {
			return all
		}
		all = append(all, events(e.buf[:n])...)
	}
}

func events(buf []byte) (all []event) {
	for b := buf; len(b) >= unix.SizeofInotifyEvent; {
		// struct inotify_event: wd, mask, cookie, len, and len bytes of a name that ends in zeros.
		length := unix.SizeofInotifyEvent + int(binary.NativeEndian.Uint32(b[12:]))
		name, _, _ := bytes.Cut(b[unix.SizeofInotifyEvent:length], []byte{0})
		all = append(all, event{int32(binary.NativeEndian.Uint32(b)), binary.NativeEndian.Uint32(b[4:]), string(name)})
		b = b[length:]
	}
	return all
}

// appears reports whether a folder has come that may not be watched yet.
func (ev event) appears() bool {
	return ev.mask&unix.IN_Q_OVERFLOW != 0 || ev.mask&unix.IN_ISDIR != 0 && ev.mask&(unix.IN_CREATE|unix.IN_MOVED_TO) != 0
}

// counts reports whether an event is about what is watched.
func (e *ear) counts(ev event) bool {
	d := e.dirs[ev.dir]
	switch {
	case ev.mask&unix.IN_Q_OVERFLOW != 0:
		return true // anything may have happened
	case d == nil, ev.mask&unix.IN_IGNORED != 0:
		return false
	case ev.name == "": // it has gone, or is somewhere else, with all that is in it
		return ev.mask&unix.IN_ATTRIB == 0
	case d.only[ev.name]:
		return true
	case !d.all:
		return false
	}
	// What editors keep beside a file is hidden; what Kubernetes exchanges is ..data.
	hidden := strings.HasPrefix(ev.name, ".") && !strings.HasPrefix(ev.name, "..")
	return !hidden && !strings.HasSuffix(ev.name, "~")
}

// follow notes which files are being written.
func (e *ear) follow(ev event, open map[string]bool) {
	d := e.dirs[ev.dir]
	switch {
	case ev.mask&unix.IN_Q_OVERFLOW != 0:
		clear(open) // who closed one may be among those that were lost
	case ev.name == "":
	case ev.mask&unix.IN_MODIFY != 0:
		open[filepath.Join(d.name, ev.name)] = true
	case ev.mask&(unix.IN_CLOSE_WRITE|unix.IN_DELETE|unix.IN_MOVED_FROM) != 0:
		delete(open, filepath.Join(d.name, ev.name))
	}
}
