package workload

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
)

const (
	idA    = "4f0a7c1d9e8b3a5261f0c4d7e2b9a8f3150d6c7e8f9a0b1c2d3e4f5061728394"
	idB    = "b1946ac92492d2347c6235b4d2611184aa7d0c1b2e3f405162738495a6b7c8d9"
	uid    = "5f3c1b2a-0d4e-4f6a-9b8c-7d6e5f4a3b2c"
	uidOf  = "5f3c1b2a_0d4e_4f6a_9b8c_7d6e5f4a3b2c"
	uid2   = "0a1b2c3d-4e5f-4a6b-8c9d-0e1f2a3b4c5d"
	uid2Of = "0a1b2c3d_4e5f_4a6b_8c9d_0e1f2a3b4c5d"
	static = "8e1d2c3b4a5f60718293a4b5c6d7e8f9" // of a file of kubelet's own
	home   = "/user.slice/user-1000.slice/user@1000.service"
	k8s    = "/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod" + uidOf + ".slice"
	kind   = "/kubelet.slice/kubelet-kubepods.slice/kubelet-kubepods-burstable.slice/kubelet-kubepods-burstable-pod" + uid2Of + ".slice"
)

// The paths are as the engines make them: the systemd and the cgroupfs driver of each.
var containers = []struct {
	name, path string
	want       model.Workload
}{
	{"docker, systemd driver", "/system.slice/docker-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: "docker-" + idA + ".scope", Slice: "system.slice", Container: idA, Runtime: "docker"}},
	{"docker, below a container's own cgroup", "/system.slice/docker-" + idA + ".scope/init",
		model.Workload{Kind: model.Container, Unit: "docker-" + idA + ".scope", Slice: "system.slice", Container: idA, Runtime: "docker"}},
	{"docker, cgroupfs driver, and the hybrid mount of an older host", "/docker/" + idA,
		model.Workload{Kind: model.Container, Container: idA, Runtime: "docker"}},
	{"docker, with a parent of its own", "/batch.slice/docker-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: "docker-" + idA + ".scope", Slice: "batch.slice", Container: idA, Runtime: "docker"}},
	{"nerdctl, systemd driver", "/system.slice/nerdctl-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: "nerdctl-" + idA + ".scope", Slice: "system.slice", Container: idA, Runtime: "containerd"}},
	{"nerdctl, cgroupfs driver", "/default/" + idA,
		model.Workload{Kind: model.Container, Container: idA, Runtime: "containerd"}},
	{"podman, systemd driver", "/machine.slice/libpod-" + idA + ".scope/container",
		model.Workload{Kind: model.Container, Unit: "libpod-" + idA + ".scope", Slice: "machine.slice", Container: idA, Runtime: "podman"}},
	{"podman, in a pod of podman's", "/machine.slice/machine-libpod_pod_" + idB + ".slice/libpod-" + idA + ".scope/container",
		model.Workload{Kind: model.Container, Unit: "libpod-" + idA + ".scope", Slice: "machine-libpod_pod_" + idB + ".slice", Container: idA, Runtime: "podman"}},
	{"podman, cgroupfs driver", "/libpod_parent/libpod-" + idA,
		model.Workload{Kind: model.Container, Container: idA, Runtime: "podman"}},
	{"podman, cgroupfs driver, below a slice", "/machine.slice/libpod-" + idA,
		model.Workload{Kind: model.Container, Container: idA, Runtime: "podman"}},
	{"podman, as a unit (quadlet)", "/system.slice/web.service/libpod-payload-" + idA + "/container",
		model.Workload{Kind: model.Container, Unit: "web.service", Slice: "system.slice", Container: idA, Runtime: "podman"}},
	{"podman's monitor is not the container", "/machine.slice/libpod-conmon-" + idA + ".scope",
		model.Workload{Kind: model.ScopeUnit, Unit: "libpod-conmon-" + idA + ".scope", Slice: "machine.slice"}},
	{"podman without root", home + "/user.slice/libpod-" + idA + ".scope/container",
		model.Workload{Kind: model.Container, Unit: "libpod-" + idA + ".scope", Slice: "user.slice", Manager: "user@1000.service", Container: idA, Runtime: "podman"}},
	{"docker without root", home + "/user.slice/docker-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: "docker-" + idA + ".scope", Slice: "user.slice", Manager: "user@1000.service", Container: idA, Runtime: "docker"}},
	{"docker without root, cgroupfs driver within its service", home + "/app.slice/docker.service/docker/" + idA,
		model.Workload{Kind: model.Container, Unit: "docker.service", Slice: "app.slice", Manager: "user@1000.service", Container: idA, Runtime: "docker"}},

	{"containerd in kubernetes, systemd driver", k8s + "/cri-containerd-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: "cri-containerd-" + idA + ".scope", Slice: "kubepods-burstable-pod" + uidOf + ".slice", Container: idA, Runtime: "containerd", PodUID: uid}},
	{"a guaranteed pod", "/kubepods.slice/kubepods-pod" + uidOf + ".slice/cri-containerd-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: "cri-containerd-" + idA + ".scope", Slice: "kubepods-pod" + uidOf + ".slice", Container: idA, Runtime: "containerd", PodUID: uid}},
	{"cri-o in kubernetes", k8s + "/crio-" + idA + ".scope/container",
		model.Workload{Kind: model.Container, Unit: "crio-" + idA + ".scope", Slice: "kubepods-burstable-pod" + uidOf + ".slice", Container: idA, Runtime: "cri-o", PodUID: uid}},
	{"cri-o's monitor is not the container, but of the pod", k8s + "/crio-conmon-" + idA + ".scope",
		model.Workload{Kind: model.ScopeUnit, Unit: "crio-conmon-" + idA + ".scope", Slice: "kubepods-burstable-pod" + uidOf + ".slice", PodUID: uid}},
	{"docker in kubernetes", k8s + "/docker-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: "docker-" + idA + ".scope", Slice: "kubepods-burstable-pod" + uidOf + ".slice", Container: idA, Runtime: "docker", PodUID: uid}},
	{"kubernetes, cgroupfs driver: the engine cannot be told", "/kubepods/burstable/pod" + uid + "/" + idA,
		model.Workload{Kind: model.Container, Container: idA, PodUID: uid}},
	{"kubernetes, cgroupfs driver, guaranteed", "/kubepods/pod" + uid + "/" + idA,
		model.Workload{Kind: model.Container, Container: idA, PodUID: uid}},
	{"cri-o, cgroupfs driver", "/kubepods/besteffort/pod" + uid + "/crio-" + idA,
		model.Workload{Kind: model.Container, Container: idA, Runtime: "cri-o", PodUID: uid}},
	{"a pod of kubelet's own files", "/kubepods/burstable/pod" + static + "/" + idA,
		model.Workload{Kind: model.Container, Container: idA, PodUID: static}},
	{"containerd and kubelet that disagree on the driver", "/system.slice/containerd.service/kubepods-burstable-pod" + uidOf + ".slice:cri-containerd:" + idA,
		model.Workload{Kind: model.Container, Unit: "containerd.service", Slice: "system.slice", Container: idA, Runtime: "containerd", PodUID: uid}},
	{"a pod", k8s, model.Workload{Kind: model.Pod, Slice: "kubepods-burstable-pod" + uidOf + ".slice", PodUID: uid}},
	{"a pod, cgroupfs driver", "/kubepods/burstable/pod" + uid, model.Workload{Kind: model.Pod, PodUID: uid}},
	{"all burstable pods", "/kubepods.slice/kubepods-burstable.slice", model.Workload{Kind: model.Slice, Slice: "kubepods-burstable.slice"}},
	{"all burstable pods, cgroupfs driver", "/kubepods/burstable", model.Workload{}},

	{"docker in docker", "/docker/" + idA + "/docker/" + idB,
		model.Workload{Kind: model.Container, Container: idB, Runtime: "docker"}},
	{"docker in docker, the outer by systemd", "/system.slice/docker-" + idA + ".scope/docker/" + idB,
		model.Workload{Kind: model.Container, Unit: "docker-" + idA + ".scope", Slice: "system.slice", Container: idB, Runtime: "docker"}},
	{"docker in a pod is of the pod", k8s + "/cri-containerd-" + idA + ".scope/docker/" + idB,
		model.Workload{Kind: model.Container, Unit: "cri-containerd-" + idA + ".scope", Slice: "kubepods-burstable-pod" + uidOf + ".slice", Container: idB, Runtime: "docker", PodUID: uid}},
	{"a pod of kind", "/docker/" + idA + kind + "/cri-containerd-" + idB + ".scope",
		model.Workload{Kind: model.Container, Container: idB, Runtime: "containerd", PodUID: uid2}},
	{"a pod of kind, docker by systemd", "/system.slice/docker-" + idA + ".scope" + kind + "/cri-containerd-" + idB + ".scope",
		model.Workload{Kind: model.Container, Unit: "docker-" + idA + ".scope", Slice: "system.slice", Container: idB, Runtime: "containerd", PodUID: uid2}},
	{"a pod of kind itself, within the container", "/docker/" + idA + kind,
		model.Workload{Kind: model.Pod, Container: idA, Runtime: "docker", PodUID: uid2}},
	{"kind in a pod: the inner pod", k8s + "/cri-containerd-" + idA + ".scope" + kind + "/cri-containerd-" + idB + ".scope",
		model.Workload{Kind: model.Container, Unit: "cri-containerd-" + idA + ".scope", Slice: "kubepods-burstable-pod" + uidOf + ".slice", Container: idB, Runtime: "containerd", PodUID: uid2}},
	{"a virtual machine", `/machine.slice/machine-qemu\x2d1\x2ddb.scope/libvirt/vcpu0`,
		model.Workload{Kind: model.ScopeUnit, Unit: `machine-qemu\x2d1\x2ddb.scope`, Slice: "machine.slice"}},
	{"a pod's container in a machine's scope", `/machine.slice/machine-qemu\x2d1\x2ddb.scope/payload` + k8s + "/crio-" + idA + ".scope",
		model.Workload{Kind: model.Container, Unit: `machine-qemu\x2d1\x2ddb.scope`, Slice: "machine.slice", Container: idA, Runtime: "cri-o", PodUID: uid}},

	{"a container that calls a cgroup of its sshd.service", "/docker/" + idA + "/system.slice/sshd.service",
		model.Workload{Kind: model.Container, Container: idA, Runtime: "docker"}},
	{"a delegated unit that poses as a container stays the unit", "/system.slice/evil.service/docker/" + idB,
		model.Workload{Kind: model.Container, Unit: "evil.service", Slice: "system.slice", Container: idB, Runtime: "docker"}},
	{"a container that poses as one of another pod stays its unit", k8s + "/cri-containerd-" + idA + ".scope/kubepods/pod" + uid2 + "/" + idB,
		model.Workload{Kind: model.Container, Unit: "cri-containerd-" + idA + ".scope", Slice: "kubepods-burstable-pod" + uidOf + ".slice", Container: idB, PodUID: uid2}},
	{"capital digits are no id", "/docker/" + strings.ToUpper(idA), model.Workload{}},
	{"an id that is too long", "/system.slice/docker-" + idA + "0.scope",
		model.Workload{Kind: model.ScopeUnit, Unit: "docker-" + idA + "0.scope", Slice: "system.slice"}},
	{"an engine that nobody knows", "/system.slice/thing-" + idA + ".scope",
		model.Workload{Kind: model.ScopeUnit, Unit: "thing-" + idA + ".scope", Slice: "system.slice"}},
	{"an id below nothing", "/" + idA, model.Workload{}},
	{"an id below a stranger", "/jobs/" + idA, model.Workload{}},
	{"a pod with a broken uid", "/kubepods/burstable/pod5f3c1b2a-0d4e/" + idA, model.Workload{}},
	{"hyphens in the wrong place", "/kubepods/burstable/pod5f3c1b2a0d4e4f6a9b8c7d6e5f4a3b2---c/" + idA, model.Workload{}},
	{"a slice that only ends like a pod's", "/kubepods.slice/evil-pod" + uidOf + ".slice",
		model.Workload{Kind: model.Slice, Slice: "evil-pod" + uidOf + ".slice"}},
	{"colons alone", "/system.slice/:::", model.Workload{}},
}

func TestTheInnermostContainerNamesTheCgroup(t *testing.T) {
	for _, tt := range containers {
		t.Run(tt.name, func(t *testing.T) {
			if diff := cmp.Diff(tt.want, Name(tt.path)); diff != "" {
				t.Error(diff)
			}
		})
	}
}
