package enforce

import (
	"errors"
	"fmt"
	"path"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// guardProtected protects what a machine cannot do without, and breakerd itself. It
// goes by the cgroup's place and by every process in it and below it.
func guardProtected(d *model.Decision, f *facts) string {
	target := d.Target.Cgroup
	if target == "/" {
		return "it is the root cgroup: the whole machine is in it"
	}
	list := &f.config.Protected
	for _, p := range list.Cgroups {
		if nested(target, p) {
			return fmt.Sprintf("the operator protects cgroup %s", p)
		}
	}
	for _, p := range append([]string{target}, f.state.Below...) {
		if unit := protectedUnit(p, list.Units); unit != "" {
			return fmt.Sprintf("%s belongs to %s, which is protected", p, unit)
		}
	}
	switch {
	case errors.Is(f.err, cgroupctl.ErrGone):
		return "" // there is nothing to protect; identity says it better
	case f.err != nil:
		return fmt.Sprintf("the cgroup could not be looked at, and in doubt it is protected: %v", f.err)
	case f.state.Omit != "":
		return fmt.Sprintf("root has marked %s to be left alone (user.oomd_omit or user.oomd_avoid)", f.state.Omit)
	}
	for i := range f.procs {
		p := &f.procs[i]
		if why := protectedProcess(p, f); why != "" {
			return fmt.Sprintf("process %s: %s", p, why)
		}
	}
	return ""
}

func protectedProcess(p *process, f *facts) string {
	who, ours := f.ours[p.PID]
	switch {
	case p.PID == 0:
		return "it belongs to a pid namespace that cannot be seen from here"
	case p.PID == 1:
		return "it is pid 1"
	case ours:
		return who
	case p.kernel:
		return "it is a kernel thread"
	case p.exe != "":
		if protectedExe(p.exe, f.config.Protected.Exes) {
			return p.exe + " is protected"
		}
		return ""
	case p.denied && f.mode != model.Enforce:
		// breakerd has no right to look at other users' processes. Where nothing can be
		// written, their own word for what they are is good enough: a dry run that
		// refuses everything would tell nothing. The enforcer never comes here.
		if protectedComm(p.comm) {
			return "it calls itself like something protected"
		}
		return ""
	}
	return "its program cannot be told (the enforcer needs CAP_SYS_PTRACE for that), and in doubt it is protected"
}

// protectedUnit is the protected unit or slice that a cgroup belongs to; "" if none.
// A unit is named by the path's first component that is no slice, as systemd has it.
// What lies below was delegated, and its names are chosen by somebody else.
func protectedUnit(p string, extra []string) string {
	for name := range components(p) {
		for _, pattern := range extra {
			if unitMatches(pattern, name) {
				return name
			}
		}
		for _, pattern := range protectedUnits {
			if unitMatches(pattern, name) {
				return name
			}
		}
		if path.Ext(name) != ".slice" {
			return ""
		}
	}
	return ""
}
