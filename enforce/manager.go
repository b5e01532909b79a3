package enforce

import (
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
)

// Since version 255 systemd starts processes right in the cgroup of their unit (clone3
// with CLONE_INTO_CGROUP and CLONE_VFORK, Linux 5.7) and waits until the new process has
// gone on to its program. In a frozen cgroup it never does, so that pid 1 itself would
// hang as long as the cgroup is held: when a unit of a held slice is started, and when a
// held unit is stopped, reloaded or restarted. Before 255 the new process moved itself.
const spawnsIntoCgroups = 255

// spawnable are the kinds of units in whose cgroups systemd starts processes. It starts
// none in a scope, nor in what lies below a unit.
var spawnable = []string{".slice", ".service", ".socket", ".mount", ".swap"}

// sharedLibrary is the library of systemd's programs, with their version in its name:
//
//	7f2c60200000-7f2c60240000 r--p 00000000 fd:01 1835 /usr/lib/x86_64-linux-gnu/systemd/libsystemd-shared-257.so
var sharedLibrary = regexp.MustCompile(`/libsystemd-shared-(\d+)[^/]*\.so`)

// mayHangPid1 reports whether pid 1 may start a process in a cgroup and would hang with
// it. Where pid 1 is systemd and its version cannot be told, it may.
func (r *procReader) mayHangPid1(cgroup string) bool {
	if !slices.Contains(spawnable, path.Ext(cgroup)) {
		return false
	}
	init, err := r.stat(1)
	if err == nil && init.comm != "systemd" {
		return false
	}
	maps, err := os.ReadFile(filepath.Join(r.dir, "1", "maps"))
	if err != nil {
		return true
	}
	m := sharedLibrary.FindSubmatch(maps)
	if m == nil {
		return true
	}
	version, err := strconv.Atoi(string(m[1]))
	return err != nil || version >= spawnsIntoCgroups
}
