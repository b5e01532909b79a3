package unit

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
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
}

// controlDirs are where such a file lies: the first for a unit that has a file of its own,
// the second for a transient one.
var controlDirs = []string{"/run/systemd/system.control", "/run/systemd/transient"}

// Limits reads limits of a unit: what Reset needs to put them back.
func (m *Manager) Limits(ctx context.Context, name string, properties ...string) ([]model.UnitLimit, error) {
	ctx, cancel := bounded(ctx)
	defer cancel()
	path, face, err := m.object(ctx, name)
	if err != nil {
		return nil, fmt.Errorf("read limits of unit %s: %w", name, err)
	}
	limits := make([]model.UnitLimit, 0, len(properties))
	for _, p := range properties {
		if dropIns[p] == "" {
			return nil, fmt.Errorf("read limits of unit %s: %q is no limit that breakerd sets", name, p)
		}
		l := model.UnitLimit{Property: p}
		if l.Value, err = get[uint64](m, ctx, path, face, p); err != nil {
			return nil, fmt.Errorf("read limits of unit %s: %w", name, err)
		}
		l.DropIn = slices.ContainsFunc(controlDirs, func(dir string) bool {
			_, err := os.Lstat(filepath.Join(dir, name+".d", dropIns[p]))
			return err == nil
		})
		limits = append(limits, l)
	}
	return limits, nil
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
		if dropIns[l.Property] == "" {
			return fmt.Errorf("limit unit %s: %q is no limit that breakerd sets", name, l.Property)
		}
		all = append(all, property{l.Property, dbus.MakeVariant(l.Value)})
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
func (m *Manager) ResetLimits(ctx context.Context, name string, was []model.UnitLimit) error {
	if strings.ContainsRune(name, '/') || strings.HasPrefix(name, ".") {
		return fmt.Errorf("reset unit %s: that is no name of a unit", name)
	}
	var other []model.UnitLimit
	for _, l := range was {
		now, err := m.Limits(ctx, name, l.Property)
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
	removed := false
	for _, dir := range controlDirs {
		own := filepath.Join(dir, name+".d")
		for _, l := range was {
			if l.DropIn {
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
		return nil
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), reloadBound)
	defer cancel()
	if err := m.call(ctx, managerPath, managerFace+".Reload", nil); err != nil {
		return fmt.Errorf("reset unit %s: have systemd read its units again: %w", name, err)
	}
	return nil
}

// StartScope moves processes into a new scope of a slice, with limits, for what a cgroup
// below their own could not be limited by: controllers are given to the cgroups of a slice.
// Who is moved back leaves the scope; the last one ends it.
func (m *Manager) StartScope(ctx context.Context, name, slice string, pids []int32, limits []model.UnitLimit) error {
	type property struct {
		Name  string
		Value dbus.Variant
	}
	type auxiliary struct {
		Name       string
		Properties []property
	}
	who := make([]uint32, len(pids))
	for i, pid := range pids {
		who[i] = uint32(pid)
	}
	all := []property{
		{"PIDs", dbus.MakeVariant(who)},
		{"Slice", dbus.MakeVariant(slice)},
		{"Description", dbus.MakeVariant("What breakerd limits for a while")},
		{"Delegate", dbus.MakeVariant(true)}, // who forks meanwhile is moved in directly
	}
	for _, l := range limits {
		all = append(all, property{l.Property, dbus.MakeVariant(l.Value)})
	}
	var job dbus.ObjectPath
	if err := m.call(ctx, managerPath, managerFace+".StartTransientUnit", &job, name, "fail", all, []auxiliary{}); err != nil {
		return fmt.Errorf("start scope %s: %w", name, err)
	}
	return nil
}
