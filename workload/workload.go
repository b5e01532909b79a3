// Package workload names a cgroup: from its path to what an operator calls it.
// It is a pure function of the path. What it does not know it leaves empty; a
// wrong name is worse than none.
package workload

import (
	"strconv"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// Name names the cgroup that has this path below the cgroup2 mount.
//
// It reads the path as systemd does, from the top: slices, and below them one
// unit. What comes below a unit is the unit's own business, and whoever it is
// delegated to can make a cgroup called sshd.service there. The one exception is
// a user manager, which has slices and units of its own.
//
// Containers and pods are looked for along the whole path, because engines run
// inside units, in user managers and in other containers; the innermost names
// the cgroup. So Container, Runtime and PodUID are what somebody on that path
// says: a container can make a cgroup in its own that looks like one of another
// pod. It cannot change Unit and Manager by that, and those alone may be trusted,
// Unit only where Manager is empty.
func Name(path string) model.Workload {
	components := strings.Split(strings.Trim(path, "/"), "/")
	w, unitAt := systemUnit(components)
	if isUserManager(w.Unit) {
		if inner, at := systemUnit(components[unitAt+1:]); inner.Unit != "" {
			inner.Manager = w.Unit
			w, unitAt = inner, unitAt+1+at
		} // else it is the manager's own cgroup, or a slice of its
	}
	if isSession(w) {
		w.Kind = model.Session
	}
	return within(w, components, unitAt)
}

// systemUnit reads slices and the first unit below them, and says where that
// stands; -1 if there is none.
func systemUnit(components []string) (model.Workload, int) {
	var w model.Workload
	for i, component := range components {
		name := unprotect(component)
		switch kind := kindOf(name); kind {
		case model.Slice:
			w.Kind, w.Slice = model.Slice, name
		case model.UnknownWorkload:
			// Below a slice all directories are units: this tree is not systemd's.
			return model.Workload{}, -1
		default:
			w.Kind, w.Unit = kind, name
			return w, i
		}
	}
	return w, -1
}

// isSession recognises session-3.scope in user-1000.slice, where only logind puts one:
// a user may call a scope of the own manager that, too.
func isSession(w model.Workload) bool {
	uid, ofUser := strings.CutPrefix(w.Slice, "user-")
	uid, isSlice := strings.CutSuffix(uid, ".slice")
	_, err := strconv.ParseUint(uid, 10, 32)
	return w.Manager == "" && w.Kind == model.ScopeUnit && ofUser && isSlice && err == nil &&
		strings.HasPrefix(w.Unit, "session-") && len(w.Unit) > len("session-.scope")
}

// unprotect takes away the underscore that systemd puts before a unit's name if
// it could be taken for a file of the kernel's (_cgroup.service).
func unprotect(component string) string { return strings.TrimPrefix(component, "_") }

// kindOf tells a unit's kind from its name, Unknown if it is none.
func kindOf(name string) model.WorkloadKind {
	const longest = 255
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 || len(name) > longest {
		return model.UnknownWorkload
	}
	for _, c := range []byte(name[:dot]) {
		if !unitByte(c) {
			return model.UnknownWorkload
		}
	}
	switch name[dot+1:] {
	case "service":
		return model.Service
	case "scope":
		return model.ScopeUnit
	case "slice":
		return model.Slice
	case "socket", "mount", "swap":
		return model.OtherUnit
	}
	return model.UnknownWorkload
}

func unitByte(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' ||
		strings.IndexByte(`:-_.\@`, c) >= 0
}

// isUserManager recognises user@1000.service.
func isUserManager(unit string) bool {
	uid, ok := strings.CutPrefix(unit, "user@")
	uid, isService := strings.CutSuffix(uid, ".service")
	_, err := strconv.ParseUint(uid, 10, 32)
	return ok && isService && err == nil
}

// Readable undoes systemd's escapes in a unit's name, for people: \x2d is "-".
// What comes out may hold anything, and is no name that systemctl takes.
func Readable(unit string) string {
	var out strings.Builder
	for i := 0; i < len(unit); i++ {
		if strings.HasPrefix(unit[i:], `\x`) && i+4 <= len(unit) {
			if c, err := strconv.ParseUint(unit[i+2:i+4], 16, 8); err == nil {
				out.WriteByte(byte(c))
				i += 3
				continue
			}
		}
		out.WriteByte(unit[i])
	}
	return out.String()
}
