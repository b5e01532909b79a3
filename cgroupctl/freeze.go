package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

const (
	freezeFile = "cgroup.freeze" // 0 or 1; since 5.2, in every cgroup but the root
	eventsFile = "cgroup.events" // the kernel's word that everything stands still
)

// DefaultConfirm bounds the wait for a confirmation where the caller's context has
// no deadline. Freezing took 0.3 to 1.7 ms where it was measured (8 CPU hogs, a
// fork storm, 300 processes), so a second means that something blocks it.
const DefaultConfirm = time.Second

// FreezeWrite is the write that freezes a cgroup.
func FreezeWrite() model.FileWrite {
	return model.FileWrite{File: freezeFile, Was: "0", Wrote: "1"}
}

// CheckWrite says what is wrong with a write, if anything is. What may be written is
// decided here and nowhere else: the limits in limits, and 1 to cgroup.freeze. Was is "0"
// then: a cgroup that was frozen before is never touched, so that no record, forged or
// spoilt, can make the undo freeze something.
func CheckWrite(w model.FileWrite) error {
	if l, ok := limitOf(w); ok {
		return checkLimit(l, w)
	}
	plain := w
	plain.Unit = ""
	if plain != FreezeWrite() {
		return fmt.Errorf("write %q to %q over %q: this is no write that breakerd makes", w.Wrote, w.File, w.Was)
	}
	return nil
}

// Apply writes a file that must still hold what it held, and reads it back. It does
// not wait for the kernel to carry it out: see Confirm.
func (c *Controller) Apply(r Ref, w model.FileWrite) error {
	if err := CheckWrite(w); err != nil {
		return err
	}
	if l, ok := limitOf(w); ok && w.Unit != "" {
		return c.applyLimit(r, l, w)
	}
	if w.Unit != "" {
		return c.applyUnit(r, w)
	}
	return c.applyFile(r, w)
}

// applyFile writes a file directly.
func (c *Controller) applyFile(r Ref, w model.FileWrite) error {
	dir, err := c.open(r)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	now, err := readLimit(dir, r, w)
	if err != nil {
		return err
	}
	if now != w.Was {
		return owned(r, w, now)
	}
	if err := wouldWait(dir, r, w); err != nil {
		return err
	}
	return writeLimit(dir, r, w, w.Wrote)
}

func owned(r Ref, w model.FileWrite, now string) error {
	return &notWritten{fmt.Errorf("write %s to %s of %s: it holds %s, not %s: %w", w.Wrote, w.File, r, now, w.Was, ErrOwned)}
}

// notWritten marks an error of Apply after which the file is as it was.
type notWritten struct{ error }

func (e *notWritten) Unwrap() error { return e.error }

// Untouched reports whether an error of Apply came before anything was written, so
// that there is nothing to put back and what is there belongs to somebody else.
func Untouched(err error) bool {
	var e *notWritten
	return errors.As(err, &e) || errors.Is(err, ErrGone)
}

// afterwards is an error of Apply once systemd was asked. A cgroup that is gone is no ErrGone
// then: the unit has what was set, and so has whoever is started again under its name.
func afterwards(err error) error {
	if errors.Is(err, ErrGone) {
		return fmt.Errorf("systemd has set it, and then: %s", err)
	}
	return err
}

// Confirm waits until cgroup.events says frozen or thawed, at most until the
// context's deadline. Frozen means that every cgroup below says so as well: where a
// cgroup has processes of its own and others below, the kernel (seen on 6.18) can
// call it frozen as soon as its own stand still. Thawed is about this cgroup alone,
// for one below may be held by somebody else.
func (c *Controller) Confirm(ctx context.Context, r Ref, frozen bool) error {
	dir, err := c.open(r)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	ctx, cancel := bound(ctx)
	defer cancel()
	if err := confirm(ctx, dir, r, frozen); err != nil || !frozen {
		return err
	}
	return confirmBelow(ctx, dir, r)
}

// bound gives a context without a deadline the default one.
func bound(ctx context.Context) (context.Context, context.CancelFunc) {
	if _, bounded := ctx.Deadline(); bounded {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, DefaultConfirm)
}

// confirmBelow waits until every cgroup below the open one is frozen.
func confirmBelow(ctx context.Context, dir int, r Ref) error {
	names, err := children(dir)
	if err != nil {
		return fmt.Errorf("read directory of cgroup %s: %w", r, err)
	}
	for _, name := range names {
		fd, err := openBeneath(dir, name, unix.O_RDONLY|unix.O_DIRECTORY)
		if err == nil {
			// It is told of under the name of the one above: see moveAll.
			if err = confirm(ctx, fd, r, true); err == nil {
				err = confirmBelow(ctx, fd, r)
			}
			unix.Close(fd)
		}
		// One that was removed meanwhile has nobody left to stand still.
		if err != nil && !errors.Is(gone(err), ErrGone) {
			return err
		}
	}
	return nil
}

// Restore puts back what was there before the writes, each though another fails, and waits
// until the kernel has carried it out. It goes in the order of the writes, for io.max is the
// last one, and may wait for its device. It compares first: a file that no longer holds
// what was written has another owner by now and is left alone. The note says what was
// found, if it was not what we had left; a cgroup that is gone is a note, no error.
func (c *Controller) Restore(ctx context.Context, r Ref, writes ...model.FileWrite) (note string, err error) {
	var ofUnit []model.FileWrite
	for _, w := range writes {
		if err := CheckWrite(w); err != nil {
			return "", err
		}
		if _, ok := limitOf(w); ok && w.Unit != "" {
			ofUnit = append(ofUnit, w)
		}
	}
	if len(ofUnit) > 0 {
		if len(ofUnit) != len(writes) {
			return "", fmt.Errorf("restore %s: the writes are not all of one kind", r)
		}
		return c.restoreLimits(ctx, r, writes)
	}
	var u undone
	for _, w := range writes {
		if w.Unit != "" {
			note, err = c.restoreUnit(ctx, r, w)
		} else {
			note, err = c.restoreFile(ctx, r, w)
		}
		if errors.Is(err, ErrGone) {
			note, err = noteGone, nil
		}
		u.add(note, err)
	}
	return u.said()
}

// undone gathers what the parts of an undo say. None is left out because another failed.
type undone struct {
	notes []string
	err   error
}

func (u *undone) add(note string, err error) {
	switch {
	case err == nil:
	case u.err == nil:
		u.err = err
	default:
		u.err = fmt.Errorf("%w; %w", u.err, err)
	}
	if note != "" && !slices.Contains(u.notes, note) {
		u.notes = append(u.notes, note)
	}
}

func (u *undone) said() (note string, err error) { return strings.Join(u.notes, "; "), u.err }

// ours reports whether a file holds what a lease wrote, or writes in its course.
func ours(w model.FileWrite, now string) bool {
	return now == w.Wrote || w.Step != "" && now == w.Step
}

const noteGone = "the cgroup had gone"

func noteOwned(w model.FileWrite, now string) string {
	return fmt.Sprintf("%s held %q already instead of our %s, so it was left alone", w.File, now, w.Wrote)
}

func noteAbove(p string) string {
	return fmt.Sprintf("%s, above it, is frozen by somebody else", p)
}

// restoreFile puts back what one file held.
func (c *Controller) restoreFile(ctx context.Context, r Ref, w model.FileWrite) (string, error) {
	dir, err := c.open(r)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	now, err := readLimit(dir, r, w)
	if err != nil {
		return "", err
	}
	if !ours(w, now) {
		if w.File != freezeFile && (now == w.Was || now == "") {
			return "", nil // it was never limited, or the controller has gone
		}
		return noteOwned(w, now), nil
	}
	switch err := writeLimit(dir, r, w, w.Was); {
	case errors.Is(err, ErrOwned):
		return err.Error(), nil // somebody wrote it after us, and it is his
	case err != nil:
		return "", err
	}
	if w.File != freezeFile {
		return "", nil
	}
	// Our file is thawed. If a cgroup above is frozen, what stands still is not ours.
	above, err := c.frozenAbove(r.Path)
	if err != nil {
		return "", err
	}
	if above != "" {
		return noteAbove(above), nil
	}
	return "", confirm(ctx, dir, r, false)
}

// frozenAbove is the nearest cgroup above whose cgroup.freeze holds 1.
func (c *Controller) frozenAbove(p string) (string, error) {
	for {
		i := strings.LastIndexByte(p, '/')
		if i <= 0 {
			return "", nil
		}
		p = p[:i]
		dir, _, err := c.openDir(p)
		if err != nil {
			return "", err
		}
		v, err := read(dir, Ref{Path: p}, freezeFile)
		unix.Close(dir)
		if err != nil {
			return "", err
		}
		if v == "1" {
			return p, nil
		}
	}
}

// confirm polls cgroup.events of the open cgroup.
func confirm(ctx context.Context, dir int, r Ref, frozen bool) error {
	ctx, cancel := bound(ctx)
	defer cancel()
	fd, err := openBeneath(dir, eventsFile, unix.O_RDONLY)
	if err != nil {
		return fmt.Errorf("open %s of %s: %w", eventsFile, r, fileGone(dir, err))
	}
	defer unix.Close(fd)
	// The kernel raises POLLPRI when the file changes, but since 4.18 at most once in
	// 10 ms for each file, so we look by ourselves as well.
	wait := time.Millisecond
	for {
		if _, err := unix.Seek(fd, 0, unix.SEEK_SET); err != nil {
			return fmt.Errorf("seek %s of %s: %w", eventsFile, r, gone(err))
		}
		text, err := readAll(fd)
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", eventsFile, r, gone(err))
		}
		is, err := parseFrozen(string(text))
		if err != nil {
			return fmt.Errorf("read %s of %s: %w", eventsFile, r, err)
		}
		if is == frozen {
			return nil
		}
		if ctx.Err() != nil {
			return unconfirmed(ctx, r, frozen)
		}
		fds := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLPRI}}
		if _, err := unix.Poll(fds, int(wait.Milliseconds())); err != nil && err != unix.EINTR {
			return fmt.Errorf("poll %s of %s: %w", eventsFile, r, err)
		}
		wait = min(2*wait, 16*time.Millisecond)
	}
}

func unconfirmed(ctx context.Context, r Ref, frozen bool) error {
	if !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("wait for %s of %s: %w", eventsFile, r, context.Cause(ctx))
	}
	word := "thawed"
	if frozen {
		word = "frozen"
	}
	return fmt.Errorf("wait until %s is %s: %w", r, word, ErrUnconfirmed)
}

// parseFrozen finds the frozen line of cgroup.events:
//
//	populated 1
//	frozen 0
func parseFrozen(text string) (bool, error) {
	for line := range strings.Lines(text) {
		switch strings.TrimSuffix(line, "\n") {
		case "frozen 0":
			return false, nil
		case "frozen 1":
			return true, nil
		}
	}
	return false, fmt.Errorf("no frozen line in %q (kernels since 5.2 have one)", text)
}
