package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// UnitLimits reads and sets the limits of a unit.
type UnitLimits interface {
	// Limits reads them, each as it is named by its property and device.
	Limits(ctx context.Context, unit string, of ...model.UnitLimit) ([]model.UnitLimit, error)
	// SetLimits sets them until they are reset, or the machine is started again.
	SetLimits(ctx context.Context, unit string, to []model.UnitLimit) error
	// ResetLimits puts them back as they were, and leaves nothing else behind. It can be
	// done twice, and to a unit that is gone. Those that are theirs, because somebody else has
	// set them since, stay; only what ours left behind beside them goes.
	ResetLimits(ctx context.Context, unit string, was, theirs []model.UnitLimit) error
}

// Throttle decides which writes would give a cgroup the limits of an action, or why that
// cannot be done. Nothing is written yet. The rates are what IORates said of it, if I/O is to
// be limited.
func (c *Controller) Throttle(ctx context.Context, r Ref, o Owner, a model.Action, rates []IORate) (writes []model.FileWrite, refused string, err error) {
	dir, err := c.open(r)
	if err != nil {
		return nil, "", err
	}
	defer unix.Close(dir)
	return planLimits(r, o, a, rates, &realLimits{c, ctx, r, dir})
}

// realLimits asks the kernel and systemd.
type realLimits struct {
	c   *Controller
	ctx context.Context
	r   Ref
	dir int
}

func (s *realLimits) limitNow(w model.FileWrite) (string, error) { return readLimit(s.dir, s.r, w) }

func (s *realLimits) limitsNow(device string) (bool, error) {
	text, err := read(s.dir, s.r, ioFile)
	return strings.HasPrefix(text, device+" ") || strings.Contains(text, "\n"+device+" "), err
}

func (s *realLimits) memoryNow() (uint64, error) { return memoryNow(s.dir, s.r) }

func (s *realLimits) oomKiller() (string, error) { return s.c.oomKiller(s.ctx, s.r.Path) }

// oomKiller asks about each unit whose cgroup is on the way to the root, which is a slice, too.
func (c *Controller) oomKiller(ctx context.Context, p string) (string, error) {
	if c.units == nil {
		return "", nil
	}
	for ; p != "/"; p = path.Dir(p) {
		name, below, ok := unitOf(p)
		if !ok || below != "" {
			continue
		}
		if kills, err := c.units.OOMKills(ctx, name); kills || err != nil {
			return name, err
		}
	}
	const root = "-.slice"
	kills, err := c.units.OOMKills(ctx, root)
	if !kills {
		return "", err
	}
	return root, err
}

func (s *realLimits) machineHas(controller string) (bool, error) {
	text, err := read(s.c.root, Ref{Path: "/"}, "cgroup.controllers")
	return slices.Contains(strings.Fields(text), controller), err
}

func (s *realLimits) most(l limit) float64 {
	switch l.file {
	case "cpu.max":
		return float64(runtime.NumCPU()) * 1e6
	case memoryFile:
		var info unix.Sysinfo_t
		if unix.Sysinfo(&info) == nil {
			return float64(info.Totalram) * float64(info.Unit)
		}
	}
	return 0
}

func (s *realLimits) unitLimit(unit string, of model.UnitLimit) (model.UnitLimit, error) {
	if s.c.units == nil {
		return model.UnitLimit{}, fmt.Errorf("read limits of unit %s: pid 1 is not systemd", unit)
	}
	all, err := s.c.units.Limits(s.ctx, unit, of)
	if err != nil {
		return model.UnitLimit{}, err
	}
	return all[0], nil
}

// memoryNow is how much memory the open cgroup uses; 0 without a memory controller.
func memoryNow(dir int, r Ref) (uint64, error) {
	const file = "memory.current"
	text, err := read(dir, r, file)
	if errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrGone) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	used, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0, fmt.Errorf("read %s of %s: %q is no number of bytes", file, r, text)
	}
	return used, nil
}

// wouldWait is the error of a write that would have its writer wait while the kernel reclaims:
// the cgroup may have grown since it was planned.
func wouldWait(dir int, r Ref, w model.FileWrite) error {
	if w.File != memoryFile {
		return nil
	}
	used, err := memoryNow(dir, r)
	if why := whyReclaimed(r, w, used); err == nil && why != "" {
		err = errors.New(why)
	}
	if err != nil {
		return &notWritten{err}
	}
	return nil
}

// readLimit is what a file of the open cgroup holds, of io.max the limit that the write is
// about; "" if the cgroup does not have it, as where the cgroup above does not give it the
// controller.
func readLimit(dir int, r Ref, w model.FileWrite) (string, error) {
	text, err := read(dir, r, w.File)
	if errors.Is(err, unix.ENOENT) && !errors.Is(err, ErrGone) {
		return "", nil
	}
	if err == nil && w.File == ioFile {
		device, key, _, _ := splitIO(w.Wrote)
		text = ioHolds(text, device, key)
	}
	return text, err
}

// Holds is what a file of a write holds now; "" if the cgroup does not have it.
func (c *Controller) Holds(r Ref, w model.FileWrite) (string, error) {
	if err := CheckWrite(w); err != nil {
		return "", err
	}
	dir, err := c.open(r)
	if err != nil {
		return "", err
	}
	defer unix.Close(dir)
	return readLimit(dir, r, w)
}

// Ease loosens a limit that is held to its step. Where the file does not hold what was written
// any more it is left alone.
func (c *Controller) Ease(r Ref, w model.FileWrite) error {
	l, step, err := toStep(w)
	if err != nil {
		return err
	}
	if step.Unit != "" {
		return c.applyLimit(r, l, step)
	}
	return c.applyFile(r, step)
}

// toStep is the write that takes a limit of ours to its step. It is no write by itself, for
// it may loosen: how far, CheckWrite has said.
func toStep(w model.FileWrite) (limit, model.FileWrite, error) {
	if err := CheckWrite(w); err != nil {
		return limit{}, w, err
	}
	if w.Step == "" {
		return limit{}, w, fmt.Errorf("ease %s: no step is written down", w.File)
	}
	l, _ := limitOf(w)
	w.Was, w.Wrote, w.Step = w.Wrote, w.Step, w.Wrote
	return l, w, nil
}

// applyLimit has systemd set a limit of a unit, and waits until the cgroup has it: systemd
// answers first and writes then.
func (c *Controller) applyLimit(r Ref, l limit, w model.FileWrite) error {
	if err := checkUnit(r, w); err != nil {
		return &notWritten{err}
	}
	dir, err := c.open(r)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	now, err := readLimit(dir, r, w)
	switch {
	case err != nil:
		return err
	case now != w.Was:
		return owned(r, w, now)
	case c.units == nil:
		return &notWritten{fmt.Errorf("limit unit %s: pid 1 is not systemd", w.Unit)}
	}
	if err := wouldWait(dir, r, w); err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), unitBound)
	defer cancel()
	to := []model.UnitLimit{{Property: l.property, Device: w.Limit.Device, Value: l.unitValue(w.Wrote)}}
	if err := c.units.SetLimits(ctx, w.Unit, to); err != nil {
		return err
	}
	for wait := time.Millisecond; ; wait = min(2*wait, 50*time.Millisecond) {
		if now, err = readLimit(dir, r, w); err != nil || now == w.Wrote {
			return afterwards(err)
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("limit unit %s: %s of %s reads %q after %s, not %s: %w", w.Unit, w.File, r, now, unitBound, w.Wrote, ErrUnconfirmed)
		case <-time.After(wait):
		}
	}
}

// restoreLimits lifts limits of a unit, and then has systemd know of it, all at once: it
// reads its units again for that. Nobody stays limited because systemd is slow, or hangs.
func (c *Controller) restoreLimits(ctx context.Context, r Ref, writes []model.FileWrite) (note string, err error) {
	for _, w := range writes {
		if err := checkUnit(r, w); err != nil {
			return "", err
		}
	}
	var u undone
	for _, w := range writes {
		plain := w
		plain.Unit = ""
		if plain.Was == "" {
			l, _ := limitOf(w)
			plain.Was = l.none
		}
		if note, err = c.restoreFile(ctx, r, plain); errors.Is(err, ErrGone) {
			note, err = noteGone, nil
		}
		u.add(note, err)
	}
	if c.units != nil { // else it has no units any more
		u.add(c.resetUnit(writes))
	}
	return u.said()
}

// resetUnit puts the properties of a unit back, but not one that somebody else has set
// meanwhile. It has the bound of systemd: that of the kernel's confirmation may be too short
// to ever succeed.
func (c *Controller) resetUnit(writes []model.FileWrite) (note string, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), unitBound)
	defer cancel()
	unit := writes[0].Unit
	var was, theirs []model.UnitLimit
	var notes []string
	for _, w := range writes {
		l, _ := limitOf(w)
		now, err := c.units.Limits(ctx, unit, model.UnitLimit{Property: l.property, Device: w.Limit.Device})
		switch {
		case errors.Is(err, ErrNoUnit):
			was = append(was, w.Limit) // its files may be left
		case err != nil:
			return "", fmt.Errorf("the limits of %s are lifted, and systemd could not be told: %w", unit, err)
		case now[0].Value == l.unitValue(w.Wrote), w.Step != "" && now[0].Value == l.unitValue(w.Step), now[0].Value == w.Limit.Value:
			was = append(was, w.Limit)
		default:
			theirs = append(theirs, w.Limit)
			notes = append(notes, fmt.Sprintf("%s of %s was set by somebody else meanwhile, so it was left alone", l.property, unit))
		}
	}
	if err := c.units.ResetLimits(ctx, unit, was, theirs); err != nil {
		return "", fmt.Errorf("the limits of %s are lifted, and systemd could not be told: %w", unit, err)
	}
	return strings.Join(notes, "; "), nil
}
