package unit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/godbus/dbus/v5"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// dropIns are the files that SetUnitProperties leaves behind for the limits that may be set.
var dropIns = map[string]string{
	cgroupctl.CPUQuota: "50-CPUQuota.conf", cgroupctl.MemoryHigh: "50-MemoryHigh.conf", cgroupctl.TasksMax: "50-TasksMax.conf",
	cgroupctl.IOReadBandwidthMax: "50-IOReadBandwidthMax.conf", cgroupctl.IOWriteBandwidthMax: "50-IOWriteBandwidthMax.conf",
}

// controlDirs are where such a file lies: the first for a unit that has a file of its own,
// the second for a transient one.
var controlDirs = []string{"/run/systemd/system.control", "/run/systemd/transient"}

// persistentDir is where an operator's lies who sets a limit for good: the file of the same name
// in the first of controlDirs counts no more then.
var persistentDir = "/etc/systemd/system.control"

// Limits reads limits of a unit: what Reset needs to put them back.
func (m *Manager) Limits(ctx context.Context, name string, of ...model.UnitLimit) ([]model.UnitLimit, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	path, face, err := m.object(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read limits of unit %s: %w", name, err)
	}
	limits := make([]model.UnitLimit, 0, len(of))
	for _, l := range of {
		if dropIns[l.Property] == "" {
			return nil, fmt.Errorf("read limits of unit %s: %q is no limit that breakerd sets", name, l.Property)
		}
		if l.Device == "" {
			l.Value, err = get[uint64](m, ctx, path, face, l.Property)
		} else {
			var all []deviceLimit
			all, err = get[[]deviceLimit](m, ctx, path, face, l.Property)
			l.Value = ofDevice(all, l.Device)
		}
		if err != nil {
			return nil, fmt.Errorf("read limits of unit %s: %w", name, err)
		}
		l.DropIn = slices.ContainsFunc(controlDirs, func(dir string) bool {
			_, err := os.Lstat(filepath.Join(dir, name+".d", dropIns[l.Property]))
			return err == nil
		})
		limits = append(limits, l)
	}
	return limits, nil
}

// OOMKills reports whether systemd-oomd ends what is below a unit where memory is fought for
// there (ManagedOOMMemoryPressure=, since 247; an older systemd says that it knows none).
func (m *Manager) OOMKills(ctx context.Context, name string) (bool, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	path, face, err := m.object(ctx, name)
	if errors.Is(err, cgroupctl.ErrNoUnit) {
		return false, nil
	}
	var does string
	if err == nil {
		does, err = get[string](m, ctx, path, face, "ManagedOOMMemoryPressure")
	}
	var said dbus.Error
	if err != nil && !errors.As(err, &said) {
		return false, fmt.Errorf("ask about unit %s: %w", name, err)
	}
	return does == "kill", nil
}

// deviceLimit is one of the limits of I/O that a unit has, each at a device. Whoever set it
// named the device by a path, of the device itself or of something on it.
type deviceLimit struct {
	Path  string
	Value uint64
}

// devicePath is how we name a device: udev(7) has a link for each.
func devicePath(device string) string { return "/dev/block/" + device }

// ofDevice is our limit of a device; the first of somebody else's where there is none, for
// that may be about the same device.
func ofDevice(all []deviceLimit, device string) uint64 {
	for _, l := range all {
		if l.Path == devicePath(device) {
			return l.Value
		}
	}
	if len(all) > 0 {
		return all[0].Value
	}
	return math.MaxUint64
}

// SetLimits sets limits of a unit until it is reset or the machine is started again
// (SetUnitProperties, at run time): systemctl show has them, and neither daemon-reload nor
// daemon-reexec undoes them.
func (m *Manager) SetLimits(ctx context.Context, name string, limits []model.UnitLimit) error {
	type property struct {
		Name  string
		Value dbus.Variant
	}
	var all []property
	for _, l := range limits {
		switch {
		case dropIns[l.Property] == "":
			return fmt.Errorf("limit unit %s: %q is no limit that breakerd sets", name, l.Property)
		case l.Device != "":
			all = append(all, property{l.Property, dbus.MakeVariant([]deviceLimit{{devicePath(l.Device), l.Value}})})
		default:
			all = append(all, property{l.Property, dbus.MakeVariant(l.Value)})
		}
	}
	if err := m.call(ctx, managerPath, managerFace+".SetUnitProperties", nil, name, true, all); err != nil {
		return fmt.Errorf("limit unit %s: %w", name, err)
	}
	return nil
}

// reloadBound is how long systemd may take to read its units again: 1 to 5 s were seen on
// an emulated machine. Nobody is limited meanwhile, so it is not the caller's bound.
const reloadBound = 10 * time.Second

// ResetLimits puts limits back to what they were, and takes the files away that setting
// them left behind. systemd has no call for the latter: an assignment of the value that
// was there before leaves a file that says so, and `systemctl revert` takes away what the
// operator has set as well. So the files are removed and systemd reads its units again.
// It can be done twice: what is as it was is not set again, for that would leave a file
// again. A unit that is gone has nothing left to reset but its files.
//
// Of theirs only a file of ours is removed that somebody else's has taken the place of.
func (m *Manager) ResetLimits(ctx context.Context, name string, was, theirs []model.UnitLimit) error {
	if strings.ContainsRune(name, '/') || strings.HasPrefix(name, ".") {
		return fmt.Errorf("reset unit %s: that is no name of a unit", name)
	}
	var other []model.UnitLimit
	for _, l := range was {
		now, err := m.Limits(ctx, name, model.UnitLimit{Property: l.Property, Device: l.Device})
		switch {
		case errors.Is(err, cgroupctl.ErrNoUnit):
		case err != nil:
			return err
		case now[0].Value != l.Value:
			other = append(other, l)
		}
	}
	if len(other) > 0 {
		if err := m.SetLimits(ctx, name, other); err != nil {
			return err
		}
	}
	kept, err := m.others(ctx, name, was)
	if err != nil {
		return err
	}
	for _, l := range theirs {
		if _, err := os.Lstat(filepath.Join(persistentDir, name+".d", dropIns[l.Property])); err == nil {
			was = append(was, l)
		}
	}
	removed := false
	for _, dir := range controlDirs {
		own := filepath.Join(dir, name+".d")
		for _, l := range was {
			if l.DropIn || kept[l.Property] {
				continue
			}
			switch err := os.Remove(filepath.Join(own, dropIns[l.Property])); {
			case err == nil:
				removed = true
			case !errors.Is(err, fs.ErrNotExist):
				return fmt.Errorf("reset unit %s: %w", name, err)
			}
		}
		_ = os.Remove(own) // unless the operator's are in it
	}
	if !removed {
		// It may have been removed before, and systemd not have been told.
		if removed, err = m.lacks(ctx, name, was); !removed {
			return err
		}
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadBound)
	defer cancel()
	if err := m.call(ctx, managerPath, managerFace+".Reload", nil); err != nil {
		return fmt.Errorf("reset unit %s: have systemd read its units again: %w", name, err)
	}
	return nil
}

// lacks reports whether systemd has read files of limits that are not there any more.
func (m *Manager) lacks(ctx context.Context, name string, of []model.UnitLimit) (bool, error) {
	path, _, err := m.object(ctx, name)
	if errors.Is(err, cgroupctl.ErrNoUnit) {
		return false, nil
	}
	var known []string
	if err == nil {
		known, err = get[[]string](m, ctx, path, unitFace, "DropInPaths")
	}
	if err != nil {
		return false, fmt.Errorf("read files of unit %s: %w", name, err)
	}
	for _, dir := range controlDirs {
		for _, l := range of {
			file := filepath.Join(dir, name+".d", dropIns[l.Property])
			if _, err := os.Lstat(file); errors.Is(err, fs.ErrNotExist) && slices.Contains(known, file) {
				return true, nil
			}
		}
	}
	return false, nil
}

// others are the limits of I/O that somebody else has set meanwhile: one file has those of all
// devices, so that it stays.
func (m *Manager) others(ctx context.Context, name string, was []model.UnitLimit) (map[string]bool, error) {
	kept := map[string]bool{}
	for _, l := range was {
		if l.Device == "" {
			continue
		}
		path, face, err := m.object(ctx, name)
		if errors.Is(err, cgroupctl.ErrNoUnit) {
			return kept, nil
		}
		var all []deviceLimit
		if err == nil {
			all, err = get[[]deviceLimit](m, ctx, path, face, l.Property)
		}
		if err != nil {
			return nil, fmt.Errorf("read limits of unit %s: %w", name, err)
		}
		kept[l.Property] = kept[l.Property] || len(all) > 0
	}
	return kept, nil
}
