package model

// Workload is what people call a cgroup. What is not known is empty: a wrong name is
// worse than none.
type Workload struct {
	Kind WorkloadKind `json:"kind"`
	// Unit is the name that systemctl takes, with systemd's own escapes
	// (foo\x2dbar.service). For a cgroup below a unit's own it is that unit's.
	Unit string `json:"unit,omitempty"`
	// Slice is the innermost slice above the unit, or the cgroup itself where Kind is
	// slice; "" for the root slice.
	Slice string `json:"slice,omitempty"`
	// Manager is the user manager that Unit belongs to (user@1000.service), "" for the
	// system's. Users choose the names of their own units, sshd.service if they like:
	// never trust Unit where Manager is not empty.
	Manager string `json:"manager,omitempty"`
	// Container is the id of the innermost container that the cgroup is in, Runtime who
	// runs it (docker, containerd, cri-o, podman), "" where it cannot be told. They and
	// PodUID are what somebody along the path says: a container can make cgroups in its
	// own that look like another's. Show them; trust only Unit, and only as said above.
	Container string `json:"container,omitempty"`
	Runtime   string `json:"runtime,omitempty"`
	// PodUID is the Kubernetes uid of the pod, with dashes.
	PodUID string `json:"pod_uid,omitempty"`
}

// WorkloadKind says what a workload is.
type WorkloadKind string

// The kinds of workloads.
const (
	UnknownWorkload WorkloadKind = ""
	Service         WorkloadKind = "service"
	ScopeUnit       WorkloadKind = "scope"   // started by somebody else and handed to systemd: a machine
	Session         WorkloadKind = "session" // a login
	Slice           WorkloadKind = "slice"   // only groups others
	OtherUnit       WorkloadKind = "other"   // another unit with processes: a socket, mount or swap
	Container       WorkloadKind = "container"
	Pod             WorkloadKind = "pod" // holds the containers of a pod
)
