package cgroupctl

import (
	"context"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// Units asks the service manager about its units, and has it freeze and limit them:
// unit.Manager.
type Units interface {
	UnitLimits
	Version(context.Context) (int, error)
	Look(ctx context.Context, name string) (Unit, error)
	Freeze(ctx context.Context, name string) error
	Thaw(ctx context.Context, name string) error
	// OOMKills reports whether systemd-oomd ends what is below a unit where memory is fought
	// for there; no if there is no such unit.
	OOMKills(ctx context.Context, name string) (bool, error)
}

// Unit is what the service manager says about a unit.
type Unit struct {
	Name         string
	ControlGroup string // path of its cgroup
	Delegate     bool   // what lies below its cgroup is somebody else's
	ActiveState  string
	FreezerState string // "running" unless systemd itself froze it; "" before 246
	Job          string // the type of the job that is queued for it; "" if there is none
	// Watchdog is how long the service may be silent before systemd takes it for dead;
	// 0 if it may be for ever.
	Watchdog time.Duration
	// StartTimeout is how long the service may take to start before systemd ends it; 0 if it
	// may for ever, as what runs once and then has started may unless it says otherwise.
	StartTimeout time.Duration
}

// Ends reports whether the unit is about to be stopped, restarted or reloaded, or has
// ended: then nothing may hold it.
func (u Unit) Ends() bool {
	switch u.Job {
	case "", "start", "verify-active", "nop":
	default:
		return true
	}
	return slices.Contains([]string{"deactivating", "inactive", "failed"}, u.ActiveState)
}

// ErrNoUnit says that the service manager knows no such unit.
var ErrNoUnit = errors.New("there is no such unit")

// Owner is who looks after a cgroup.
type Owner struct {
	// Unit is the unit whose cgroup it is, or the one below which it lies; its Name is
	// "" where neither is so, as on a machine without systemd.
	Unit Unit
	// Own says that it is the unit's own cgroup. Else it lies below it: it was delegated,
	// or the service or container made it.
	Own bool
	// Version is that of systemd; 0 where it is not pid 1.
	Version int
}

// spawnable are the kinds of units in whose cgroups systemd starts processes. It starts
// none in a scope, nor in what lies below a unit.
var spawnable = []string{".slice", ".service", ".socket", ".mount", ".swap"}

// Versions of systemd that make a difference.
const (
	// FreezeUnit and ThawUnit. What they froze is thawed before it is stopped, until 255.
	hasFreezer = 246
	// From 255 on systemd starts processes right in the cgroup of their unit (clone3 with
	// CLONE_INTO_CGROUP and CLONE_VFORK, Linux 5.7) and waits until the new process has gone
	// on to its program, which in a frozen cgroup it never does: pid 1 hangs. Seen on 257,
	// where the main process of a unit that FreezeUnit had frozen was killed. And from 256
	// on a unit that is frozen with FreezeUnit cannot be stopped: the job fails at once.
	spawnsIntoCgroups = 255
)

// Way is how a freeze is done.
type Way string

// The ways to freeze.
const (
	// WayDirect writes cgroup.freeze.
	WayDirect Way = "direct"
	// WayUnit has systemd do it.
	WayUnit Way = "unit"
	// WayInside makes a cgroup below, moves processes into it, and freezes that.
	WayInside Way = "inside"
)

// WayToFreeze says how a cgroup has to be frozen for so long, or why it must not be.
func WayToFreeze(p string, o Owner, hold time.Duration) (way Way, refused string) {
	u, kind := o.Unit, path.Ext(p)
	if !o.Own {
		// The process that has to say something in time may be in a cgroup below.
		if why := u.whyTooLate(hold); why != "" {
			return "", why
		}
		if o.Version == 0 || !slices.Contains(spawnable, kind) {
			return WayDirect, ""
		}
		// A unit of a user's or a container's own systemd, whose version is not known.
		if kind == ".slice" {
			return "", fmt.Sprintf("%s is a slice of another service manager than pid 1, which may start processes in it and would hang with it: freeze a scope or a service", p)
		}
		return WayInside, ""
	}
	late := u.whyTooLate(hold)
	switch {
	case u.Ends():
		return "", fmt.Sprintf("unit %s is %s, with the job %q queued: it is left alone", u.Name, u.ActiveState, u.Job)
	case u.FreezerState != "" && u.FreezerState != "running":
		return "", fmt.Sprintf("systemd says that %s is %s: somebody else had it frozen", u.Name, u.FreezerState)
	case late != "":
		return "", late
	case kind == ".slice":
		// From 255 on pid 1 would hang until it is thawed. Before, whoever in it has a watchdog is
		// taken for dead, and who is stopped meanwhile is killed after its time.
		return "", fmt.Sprintf("%s is a slice, whose units systemd starts, stops and watches while they stand still: freeze a unit of it", p)
	case o.Version < hasFreezer:
		return WayDirect, ""
	case o.Version < spawnsIntoCgroups && u.Job != "":
		return "", fmt.Sprintf("systemd freezes no unit for which a job is queued, and for %s there is one (%s)", u.Name, u.Job)
	case o.Version < spawnsIntoCgroups:
		return WayUnit, ""
	case slices.Contains(spawnable, kind):
		return WayInside, ""
	}
	return WayDirect, ""
}

// whyTooLate says why systemd could take a unit for dead that stands still for so long.
func (u Unit) whyTooLate(hold time.Duration) string {
	switch {
	case u.Watchdog != 0 && u.Watchdog/2 <= hold+watchdogSpare:
		return fmt.Sprintf("unit %s must tell its watchdog each %s that it lives, and could be taken for dead before %s are over", u.Name, u.Watchdog, hold)
	case u.ActiveState == "activating" && u.StartTimeout != 0:
		// How much of it is left cannot be told: it begins anew with each of its commands.
		return fmt.Sprintf("unit %s starts still, for which it has %s, and could be too late", u.Name, u.StartTimeout)
	}
	return ""
}

// watchdogSpare is what a service gets, once it is thawed, to say that it lives. It did so
// last up to half its time before (sd_watchdog_enabled(3)). FreezeUnit is no help: on 247
// and 252 the watchdog of a unit that it froze goes on and ends the unit; on 257 it rests,
// but there FreezeUnit does what is told at spawnsIntoCgroups.
const watchdogSpare = time.Second

// UseUnits has the controller ask systemd whose a cgroup is. Without, every cgroup is
// written directly.
func (c *Controller) UseUnits(u Units) { c.units = u }

// unitOf finds the unit that a path belongs to, as systemd builds paths: slices, then at
// most one unit that is none, then whatever the unit made below. below is what is left.
// Names that would clash with a file of the cgroup have an underscore before them.
//
//	/user.slice/user-1000.slice/session-3.scope
//	/system.slice/system-getty.slice/getty@tty1.service
//	/system.slice/run-p1\x2dq.mount
func unitOf(p string) (name, below string, ok bool) {
	rest := strings.TrimPrefix(p, "/")
	for rest != "" {
		first, after, _ := strings.Cut(rest, "/")
		kind := path.Ext(first)
		if !slices.Contains(spawnable, kind) && kind != ".scope" {
			return name, rest, name != ""
		}
		name, rest = strings.TrimPrefix(first, "_"), after
		if kind != ".slice" {
			break
		}
	}
	return name, rest, name != ""
}

// Owner tells who looks after a cgroup. It is an error where systemd should know and
// does not answer, or says that the unit has another cgroup.
func (c *Controller) Owner(ctx context.Context, r Ref) (Owner, error) {
	if err := CheckPath(r.Path); err != nil {
		return Owner{}, err
	}
	name, below, ok := unitOf(r.Path)
	if c.units == nil || !ok {
		return Owner{}, nil
	}
	var o Owner
	var err error
	if o.Version, err = c.units.Version(ctx); err != nil {
		return Owner{}, fmt.Errorf("find the owner of cgroup %s: %w", r, err)
	}
	o.Unit, err = c.units.Look(ctx, name)
	if errors.Is(err, ErrNoUnit) && below != "" {
		return Owner{Version: o.Version}, nil // somebody's own tree that is named like a unit
	}
	if err != nil {
		return Owner{}, fmt.Errorf("find the owner of cgroup %s: %w", r, err)
	}
	own := r.Path
	if below != "" {
		own = strings.TrimSuffix(r.Path, "/"+below)
	}
	if o.Unit.ControlGroup != own {
		return Owner{}, fmt.Errorf("find the owner of cgroup %s: systemd says that the cgroup of %s is %q", r, name, o.Unit.ControlGroup)
	}
	o.Own = below == ""
	return o, nil
}

// FreezeUnitWrite is the write that freezes a unit's cgroup through systemd.
func FreezeUnitWrite(unit string) model.FileWrite {
	w := FreezeWrite()
	w.Unit = unit
	return w
}

// unitBound bounds what systemd is given to hear that a unit is thawed. Whoever was frozen
// does not wait for that.
const unitBound = 2 * time.Second

// checkUnit refuses to do by a unit's name what is meant for another cgroup.
func checkUnit(r Ref, w model.FileWrite) error {
	if name, below, _ := unitOf(r.Path); w.Unit != name || below != "" {
		return fmt.Errorf("write %s of %s: that is not the cgroup of unit %q", w.File, r, w.Unit)
	}
	return nil
}

// applyUnit has systemd freeze a unit whose cgroup.freeze still holds what it held.
func (c *Controller) applyUnit(r Ref, w model.FileWrite) error {
	if err := checkUnit(r, w); err != nil {
		return &notWritten{err}
	}
	dir, err := c.open(r)
	if err != nil {
		return err
	}
	defer unix.Close(dir)
	now, err := read(dir, r, w.File)
	if err != nil {
		return err
	}
	if now != w.Was {
		return owned(r, w, now)
	}
	if c.units == nil {
		return &notWritten{fmt.Errorf("freeze unit %s: pid 1 is not systemd", w.Unit)}
	}
	ctx, cancel := context.WithTimeout(context.Background(), DefaultConfirm)
	defer cancel()
	failed := c.units.Freeze(ctx, w.Unit)
	now, err = read(dir, r, w.File)
	if errors.Is(err, ErrGone) {
		failed = errors.Join(failed, c.thawSuccessor(r, w))
	}
	switch {
	case failed != nil:
		return failed
	case err != nil:
		return afterwards(err)
	}
	if now != w.Wrote {
		return fmt.Errorf("freeze unit %s: %s of %s reads %s afterwards: %w", w.Unit, w.File, r, now, ErrOwned)
	}
	return nil
}

// thawSuccessor thaws whoever was started under the unit's name before systemd froze what has that
// name: nobody has judged him, and no record is about him.
func (c *Controller) thawSuccessor(r Ref, w model.FileWrite) error {
	if now, err := c.Find(r.Path); err != nil || now.ID == r.ID {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), unitBound)
	defer cancel()
	return c.units.Thaw(ctx, w.Unit)
}

// restoreUnit thaws a unit, and then has systemd know of it. It does not ask systemd to do
// it: nobody stays frozen because of a service manager that is slow, or hangs, or refuses
// because a job waits for the unit. As long as systemd has not heard it, it takes the unit
// for frozen, so the error has it told again.
func (c *Controller) restoreUnit(ctx context.Context, r Ref, w model.FileWrite) (note string, err error) {
	if err := checkUnit(r, w); err != nil {
		return "", err
	}
	plain := w
	plain.Unit = ""
	if note, err = c.restoreFile(ctx, r, plain); errors.Is(err, ErrGone) {
		note, err = noteGone, nil
	}
	if err != nil {
		return note, err
	}
	return note, c.settle(r, w)
}

// settle has systemd know that a unit is not frozen, once its cgroup is not.
func (c *Controller) settle(r Ref, w model.FileWrite) error {
	if c.units == nil {
		return nil // it has no units any more
	}
	ctx, cancel := context.WithTimeout(context.Background(), unitBound)
	defer cancel()
	u, err := c.units.Look(ctx, w.Unit)
	switch {
	case errors.Is(err, ErrNoUnit):
		return nil
	case err != nil:
		return fmt.Errorf("%s is thawed, and systemd could not be told: %w", r, err)
	case u.FreezerState == "" || u.FreezerState == "running":
		return nil
	}
	// One that was started again under the name, and that somebody else froze.
	if now, err := c.Find(r.Path); err == nil && now.ID != r.ID {
		if s, err := c.Inspect(now); err == nil && s.Freeze == "1" {
			return nil
		}
	}
	if err := c.units.Thaw(ctx, w.Unit); err != nil {
		return fmt.Errorf("%s is thawed, and systemd takes the unit for %s still: %w", r, u.FreezerState, err)
	}
	return nil
}
