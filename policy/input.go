package policy

import (
	"cmp"
	"strings"
	"time"
	"unicode/utf8"

	"github.com/breakerd/breakerd/model"
)

// Input is exactly what a policy sees, as `input`. The tags doc and unit make the
// published schema, input.schema.json.
type Input struct {
	Incident Incident `json:"incident" doc:"What goes wrong, because of whom, and who suffers from it."`
	Breaker  Breaker  `json:"breaker" doc:"What is known of holding this culprit, which is the cgroup by its path: its history."`
	Host     Host     `json:"host" doc:"The machine as a whole."`
	Time     string   `json:"time" doc:"Wall clock of the sample that this is decided on. A policy has no other clock." unit:"RFC 3339, UTC"`
	TimeNS   int64    `json:"time_ns" doc:"The same as time, for time.clock, time.weekday and their like." unit:"ns since 1970"`
}

// Incident is an open incident, as a policy sees it.
type Incident struct {
	ID       string             `json:"id" doc:"Names the incident. The same recording gives the same id."`
	Kind     model.Kind         `json:"kind" doc:"What kind of trouble it is." enum:"fork_storm,cpu_contention,noisy_neighbour,short_lived_jobs,memory_leak,memory_pressure,io_pressure,psi_saturation"`
	Severity float64            `json:"severity" doc:"How bad it is, the highest that it reached." unit:"0 to 1"`
	Level    model.Level        `json:"level" doc:"Severity in a word. Nothing informational is trouble." enum:"info,warning,critical"`
	Summary  string             `json:"summary" doc:"One paragraph in plain words. For people: do not match on it."`
	OpenedAt string             `json:"opened_at" doc:"When it opened." unit:"RFC 3339, UTC"`
	AgeMS    int64              `json:"age_ms" doc:"How long it has been open." unit:"ms"`
	Culprit  Culprit            `json:"culprit" doc:"Who causes it: a process tree within a cgroup, or a whole cgroup."`
	Victims  []Victim           `json:"victims" doc:"Cgroups that were made to wait, the worst first, at most 256."`
	Evidence map[string]float64 `json:"evidence" doc:"Figures that the detector went by, named with their units. Which there are depends on the kind."`
	// How far the accusation goes.
	Estimated  bool    `json:"estimated" doc:"Whether who made whom wait was worked out from circumstances and not measured: for memory_pressure, io_pressure, and psi_saturation of memory and io. In a memory_leak nobody waits, and it is false."`
	Confidence float64 `json:"confidence" doc:"How sure the verdict on the culprit is." unit:"0 to 1"`
	Margin     float64 `json:"margin" doc:"How much more of the cause the culprit accounts for than the next suspect." unit:"0 to 1"`
}

// Culprit is who causes an incident.
type Culprit struct {
	Cgroup    string         `json:"cgroup" doc:"Path of the cgroup below the cgroup2 mount."`
	CgroupID  model.CgroupID `json:"cgroup_id" doc:"The kernel's id of the cgroup." unit:"id"`
	Unit      string         `json:"unit" doc:"Systemd unit of the cgroup, empty if unknown."`
	Scope     model.Scope    `json:"scope" doc:"Whether one process tree or the whole cgroup is the cause." enum:"tree,cgroup"`
	Root      Root           `json:"root" doc:"Topmost process of the tree; of a whole cgroup, its largest contributor."`
	Processes int            `json:"processes" doc:"Processes of the culprit." unit:"processes"`
	UID       uint32         `json:"uid" doc:"User id of the root." unit:"id"`
	Outside   int            `json:"outside" doc:"Processes in the cgroup that are not of the tree." unit:"processes"`
	Share     float64        `json:"share" doc:"Share of what its cgroup did that the culprit accounts for: 1 for a whole cgroup. How much of the victims' waiting that is, evidence.offender_share_percent says." unit:"0 to 1"`
	Workload  Workload       `json:"workload" doc:"What people call the cgroup."`
}

// Workload is what people call a cgroup.
type Workload struct {
	Kind      model.WorkloadKind `json:"kind" doc:"What it is; empty if unknown." enum:",service,scope,session,slice,other,container,pod"`
	Unit      string             `json:"unit" doc:"Systemd unit, empty if unknown. Trust it only where manager is empty."`
	Slice     string             `json:"slice" doc:"Innermost slice above the unit, empty for the root slice."`
	Manager   string             `json:"manager" doc:"User manager that the unit belongs to, empty for the system's. Users choose the names of their own units."`
	Container string             `json:"container" doc:"Id of the innermost container, empty if there is none. A container can make cgroups that look like another's."`
	Runtime   string             `json:"runtime" doc:"Who runs the container, empty if unknown."`
	PodUID    string             `json:"pod_uid" doc:"Kubernetes uid of the pod, with dashes; empty if there is none."`
}

// Root is the topmost process of a culprit.
type Root struct {
	PID       int32  `json:"pid" doc:"Process id." unit:"id"`
	StartTime uint64 `json:"start_time" doc:"When it started, since boot." unit:"1/100 s"`
	Comm      string `json:"comm" doc:"Name of the process. The process chooses it: never trust it to tell friend from foe."`
	Cmdline   string `json:"cmdline" doc:"Command line, cut at 4096 bytes. The process chooses it."`
}

// Victim is a cgroup that was made to wait.
type Victim struct {
	Cgroup   string         `json:"cgroup" doc:"Path of the cgroup below the cgroup2 mount."`
	CgroupID model.CgroupID `json:"cgroup_id" doc:"The kernel's id of the cgroup." unit:"id"`
	Unit     string         `json:"unit" doc:"Systemd unit of the cgroup, empty if unknown."`
	Resource model.Resource `json:"resource" doc:"What it waits for." enum:"cpu,memory,io"`
	StallMS  float64        `json:"stall_ms" doc:"How long it waited because of the culprit's cgroup, since shortly before the incident opened." unit:"ms"`
	Workload Workload       `json:"workload" doc:"What people call the cgroup."`
}

// Breaker is the culprit's history.
type Breaker struct {
	State      model.BreakerState `json:"state" doc:"Whether the culprit is held (open), was loosened or let go a moment ago and is watched (half_open), or neither (closed)." enum:"closed,open,half_open"`
	Generation uint64             `json:"generation" doc:"How often the state has changed. 0 of one of whom nothing is known." unit:"changes"`
	SinceMS    int64              `json:"since_ms" doc:"How long the state has lasted." unit:"ms"`
	Opened     int                `json:"opened" doc:"How often it was held of late. Each time doubles how long it is held next." unit:"times"`
	Rung       int                `json:"rung" doc:"Which action of the ladder it is at, 0 for the first." unit:"actions before it"`
	Refuted    bool               `json:"refuted" doc:"Whether holding it for this kind of trouble did not help its victims lately. While it is true it is not held, also where a policy asks for it."`
	LastEffect model.Effect       `json:"last_effect" doc:"Whether it helped the victims when it was held last." enum:"unknown,relieved,partial,none"`
	LastEnd    model.EndReason    `json:"last_end" doc:"Why the last lease ended, empty if there was none or nobody knows." enum:",expired,released,heartbeat,shutdown,recovered,unconfirmed,refused,failed,yielded,no_relief,replaced"`
}

// Host is the machine as a whole.
type Host struct {
	CPUs              int    `json:"cpus" doc:"CPUs that are online." unit:"CPUs"`
	Processes         int    `json:"processes" doc:"Processes on the machine." unit:"processes"`
	MemTotalBytes     uint64 `json:"mem_total_bytes" doc:"Memory of the machine." unit:"bytes"`
	MemAvailableBytes uint64 `json:"mem_available_bytes" doc:"Memory that could be had without swapping." unit:"bytes"`
}

// What a workload can choose about itself is cut, so that nobody escapes a policy
// by making its input too large to evaluate.
const (
	maxCmdline = 4096 // bytes; also of every other text of the input
	maxVictims = 256
)

// InputOf is the input for an incident and its culprit's breaker, seen on a host at the time
// of a sample. The same values give the same input.
func InputOf(inc *model.Incident, b model.Breaker, host model.Host, at time.Time) Input {
	c := inc.Culprit
	in := Input{
		Incident: Incident{
			ID: text(inc.ID), Kind: inc.Kind, Severity: inc.Severity, Level: inc.Level,
			Summary:  text(inc.Summary),
			OpenedAt: stamp(inc.OpenedAt),
			AgeMS:    max(0, at.Sub(inc.OpenedAt).Milliseconds()),
			Culprit: Culprit{
				Cgroup: text(c.Cgroup), CgroupID: c.CgroupID, Unit: text(c.Unit), Scope: c.Scope,
				Root: Root{
					PID: c.Root.PID, StartTime: c.Root.StartTime,
					Comm: text(c.Root.Comm), Cmdline: text(c.Root.Cmdline),
				},
				Processes: c.Processes, UID: c.UID, Outside: c.Outside, Share: c.Share,
				Workload: workloadOf(&c.Workload),
			},
			Victims:  make([]Victim, 0, min(len(inc.Victims), maxVictims)),
			Evidence: inc.Evidence,

			Estimated: inc.Estimated, Confidence: inc.Confidence, Margin: inc.Margin,
		},
		Breaker: Breaker{
			State: cmp.Or(b.State, model.BreakerClosed), Generation: b.Generation, Opened: b.Opened, Rung: b.Rung,
			Refuted: b.Refuted(inc.Kind, at), LastEffect: cmp.Or(b.LastEffect, model.EffectUnknown), LastEnd: b.LastEnd,
		},
		Host: Host{
			CPUs: host.CPUs, Processes: host.Processes,
			MemTotalBytes: host.MemTotalBytes, MemAvailableBytes: host.MemAvailBytes,
		},
		Time:   stamp(at),
		TimeNS: at.UnixNano(),
	}
	if !b.Since.IsZero() {
		in.Breaker.SinceMS = max(0, at.Sub(b.Since).Milliseconds())
	}
	if in.Incident.Evidence == nil {
		in.Incident.Evidence = map[string]float64{}
	}
	for _, v := range inc.Victims[:min(len(inc.Victims), maxVictims)] {
		in.Incident.Victims = append(in.Incident.Victims, Victim{
			Cgroup: text(v.Cgroup), CgroupID: v.CgroupID, Unit: text(v.Unit),
			Resource: v.Resource, StallMS: v.StallMS, Workload: workloadOf(&v.Workload),
		})
	}
	return in
}

func workloadOf(w *model.Workload) Workload {
	return Workload{
		Kind: w.Kind, Unit: text(w.Unit), Slice: text(w.Slice), Manager: text(w.Manager),
		Container: text(w.Container), Runtime: text(w.Runtime), PodUID: text(w.PodUID),
	}
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339Nano) }

// text makes a string that came from outside fit for JSON, and bounded.
func text(s string) string {
	if s == "" {
		return s
	}
	return cut(strings.ToValidUTF8(s, "\uFFFD"), maxCmdline)
}

// cut shortens s to at most n bytes, never within a character.
func cut(s string, n int) string {
	if len(s) <= n {
		return s
	}
	for n > 0 && !utf8.RuneStart(s[n]) {
		n--
	}
	return s[:n]
}
