package workload

import (
	"strings"

	"github.com/breakerd/breakerd/model"
)

// idLength is the length of a container's id: 64 hexadecimal digits with every engine
// that chooses the id itself. An id that a person chose (ctr run) is not recognised,
// because any directory could be one.
const idLength = 64

// container recognises one component of a path, below another ("" at the top), as the
// cgroup of a container.
//
// Conmon has a cgroup beside its container's and a name almost like it
// (libpod-conmon-ID.scope, crio-conmon-ID.scope): it is no container, and what it does
// is not the container's doing.
func container(above, name string) (id, runtime string, ok bool) {
	if isID(name) {
		switch above {
		case "docker":
			return name, "docker", true
		case "default", "k8s.io": // a namespace of containerd's, as nerdctl and cri use it
			return name, "containerd", true
		case "libpod_parent":
			return name, "podman", true
		}
		_, pod := podBelow(above)
		return name, "", pod // whose it is, a bare id below a pod does not say
	}
	name = strings.TrimSuffix(name, ".scope")
	// containerd with the systemd driver asked for in one of two places only makes
	// kubepods-burstable-podUID.slice:cri-containerd:ID.
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		prefix := name[strings.LastIndexByte(name[:i], ':')+1 : i]
		return named(prefix, name[i+1:])
	}
	if len(name) <= idLength+1 || name[len(name)-idLength-1] != '-' {
		return "", "", false
	}
	return named(name[:len(name)-idLength-1], name[len(name)-idLength:])
}

// named reads a container's name of which the engine and the id are apart.
func named(prefix, id string) (string, string, bool) {
	if !isID(id) {
		return "", "", false
	}
	switch prefix {
	case "docker":
		return id, "docker", true
	case "cri-containerd", "containerd", "nerdctl":
		return id, "containerd", true
	case "crio":
		return id, "cri-o", true
	case "libpod", "libpod-payload": // the payload: where conmon shares the unit with its container
		return id, "podman", true
	}
	return "", "", false
}

// pod recognises one component of a path, below another, as the cgroup of a pod.
func pod(above, name string) (uid string, ok bool) {
	slice, _, _ := strings.Cut(name, ":") // see container
	if slice, isSlice := strings.CutSuffix(slice, ".slice"); isSlice {
		// kubepods-podUID, kubepods-burstable-podUID; behind kubelet- in kind. The UID has
		// underscores, because a hyphen says which slice holds this one.
		i := strings.LastIndex(slice, "-pod")
		if i < 0 {
			return "", false
		}
		parent := strings.TrimPrefix(slice[:i], "kubelet-")
		if parent != "kubepods" && parent != "kubepods-burstable" && parent != "kubepods-besteffort" {
			return "", false
		}
		return podUID(strings.ReplaceAll(slice[i+len("-pod"):], "_", "-"))
	}
	switch above {
	case "kubepods", "burstable", "besteffort":
		return podBelow(name)
	}
	return "", false
}

// podBelow reads podUID, as the cgroupfs driver names a pod.
func podBelow(name string) (uid string, ok bool) {
	uid, ok = strings.CutPrefix(name, "pod")
	if !ok {
		return "", false
	}
	return podUID(uid)
}

// podUID accepts what the API server gives, a UUID, and what kubelet gives the pods of
// its own files: a digest of 32 digits.
func podUID(s string) (string, bool) {
	digits := strings.ReplaceAll(s, "-", "")
	if len(digits) != 32 || !isHex(digits) {
		return "", false
	}
	uuid := len(s) == 36 && s[8] == '-' && s[13] == '-' && s[18] == '-' && s[23] == '-'
	return s, uuid || len(s) == 32
}

func isID(s string) bool { return len(s) == idLength && isHex(s) }

func isHex(s string) bool {
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return false
		}
	}
	return true
}

// within finds the innermost container and pod of a path. unitAt is where the unit of w
// stands in it, -1 if it has none.
func within(w model.Workload, components []string, unitAt int) model.Workload {
	above := ""
	for i, name := range components {
		name = unprotect(name)
		if uid, ok := pod(above, name); ok {
			w.PodUID = uid
			if i > unitAt { // else a unit below the pod's slice is what it is
				w.Kind = model.Pod
			}
		}
		if id, runtime, ok := container(above, name); ok {
			w.Kind, w.Container, w.Runtime = model.Container, id, runtime
		}
		above = name
	}
	return w
}
