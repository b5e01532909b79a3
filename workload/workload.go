// Package workload names a cgroup: from its path to what an operator calls it.
// It is a pure function of the path. What it does not know it leaves empty; a
// wrong name is worse than none.
package workload

import (
	"strconv"
	"strings"
)

// Kind says what a workload is.
type Kind string

// The kinds. Containers and pods come beside these.
const (
	Unknown Kind = ""
	Service Kind = "service"
	Scope   Kind = "scope" // started by somebody else and handed to systemd: a session, a machine
	Slice   Kind = "slice" // only groups others
	Other   Kind = "other" // another unit with processes: a socket, mount or swap
)

// Workload is what a cgroup is called.
type Workload struct {
	Kind Kind
	// Unit is the name that systemctl takes, with systemd's own escapes
	// (foo\x2dbar.service); "" if unknown. For a cgroup below a unit's own it is
	// that unit's.
	Unit string
	// Slice is the innermost slice above the unit, or the cgroup itself where Kind
	// is Slice; "" for the root slice.
	Slice string
	// Manager is the user manager that Unit belongs to (user@1000.service), "" for
	// the system's. Users choose the names of their own units, sshd.service if they
	// like: never trust Unit where Manager is not empty.
	Manager string
}

// Name names the cgroup that has this path below the cgroup2 mount.
//
// It reads the path as systemd does, from the top: slices, and below them one
// unit. What comes below a unit is the unit's own business, and whoever it is
// delegated to can make a cgroup called sshd.service there. The one exception is
// a user manager, which has slices and units of its own.
//
// Containers will be recognised here, before the units that hold them.
func Name(path string) Workload {
	rest := strings.Split(strings.Trim(path, "/"), "/")
	w, rest := systemUnit(rest)
	if !isUserManager(w.Unit) {
		return w
	}
	inner, _ := systemUnit(rest)
	if inner.Unit == "" {
		return w // the manager's own cgroup, or a slice of its
	}
	inner.Manager = w.Unit
	return inner
}

// systemUnit reads slices and the first unit below them, and returns what
// follows.
func systemUnit(components []string) (Workload, []string) {
	var w Workload
	for i, component := range components {
		name := unprotect(component)
		switch kind := kindOf(name); kind {
		case Slice:
			w.Kind, w.Slice = Slice, name
		case Unknown:
			// Below a slice all directories are units: this tree is not systemd's.
			return Workload{}, nil
		default:
			w.Kind, w.Unit = kind, name
			return w, components[i+1:]
		}
	}
	return w, nil
}

// unprotect takes away the underscore that systemd puts before a unit's name if
// it could be taken for a file of the kernel's (_cgroup.service).
func unprotect(component string) string { return strings.TrimPrefix(component, "_") }

// kindOf tells a unit's kind from its name, Unknown if it is none.
func kindOf(name string) Kind {
	const longest = 255
	dot := strings.LastIndexByte(name, '.')
	if dot <= 0 || len(name) > longest {
		return Unknown
	}
	for _, c := range []byte(name[:dot]) {
		if !unitByte(c) {
			return Unknown
		}
	}
	switch name[dot+1:] {
	case "service":
		return Service
	case "scope":
		return Scope
	case "slice":
		return Slice
	case "socket", "mount", "swap":
		return Other
	}
	return Unknown
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
