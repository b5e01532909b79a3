// Package api tells people and programs what breakerd sees and does: HTTP on a Unix
// socket, JSON in snake_case with the unit in the name. The routes stand in routes, and
// nowhere else; Client is the other side of the same list.
package api

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/report"
)

// SocketName is the socket's name within the runtime directory.
const SocketName = "api.sock"

// Version is that of the routes and of what they answer. It grows when a client that knows
// an older one would misread an answer; more fields are no reason.
const Version = 1

// versionHeader carries it with every answer.
const versionHeader = "Breakerd-Api-Version"

// Status is how breakerd itself is doing.
type Status struct {
	Version       string     `json:"version"`
	PID           int        `json:"pid"`
	Mode          model.Mode `json:"mode"`
	StartedAt     time.Time  `json:"started_at"`
	Kernel        string     `json:"kernel"`
	CgroupMount   string     `json:"cgroup_mount"`
	Controllers   []string   `json:"controllers"`
	Programs      []string   `json:"programs"` // of the kernel that are attached
	Samples       uint64     `json:"samples"`
	LastSampleAt  time.Time  `json:"last_sample_at"`
	TickMS        int64      `json:"tick_ms"`
	Host          model.Host `json:"host"`
	LostSinceBoot model.Lost `json:"lost"` // since breakerd started
	Policies      Policies   `json:"policies"`
	Enforcer      Enforcer   `json:"enforcer"`
	OpenIncidents int        `json:"open_incidents"`
	Incidents     int        `json:"incidents"` // since breakerd started
	Leases        int        `json:"leases"`
	Cost          Cost       `json:"cost"`
	Config        Config     `json:"config"`
	History       History    `json:"history"`
	Journal       Journal    `json:"journal"`
	// Privileges says what became of the capabilities that were needed to attach the
	// programs: "given up", or why they are kept.
	Privileges string `json:"privileges"`
	// Missing is what this machine does not have, so that less is seen. It is not among the
	// problems.
	Missing []Missing `json:"missing"`
	// LastErrors are the last warnings and errors about breakerd itself that were told to
	// the journal, the oldest first.
	LastErrors []Told `json:"last_errors"`
	// Problems are what is missing or wrong, each with what to do about it.
	Problems []string `json:"problems"`
}

// Policies says which policies are in force.
type Policies struct {
	Hash     string    `json:"hash"`
	Packages []string  `json:"packages"`
	LoadedAt time.Time `json:"loaded_at"` // when they came into force
	// Error says why there are none, or why a newer set is not in force.
	Error     string     `json:"error"`
	RefusedAt *time.Time `json:"refused_at,omitempty"`
	// Writing are files that are being written: they are loaded once they are closed.
	Writing []string `json:"writing"`
	// WatchError says why changes of the files are not noticed; "" if they are, or nobody
	// wants that.
	WatchError string `json:"watch_error,omitempty"`
	// Bundle is where a part of them comes from; nil where nothing does.
	Bundle *Bundle `json:"bundle,omitempty"`
	// DecisionLog is how what they answer is written down; nil where it is not.
	DecisionLog *DecisionLog `json:"decision_log,omitempty"`
	// Trial is how a newer set fares that is tried; nil where there is none.
	Trial *model.PolicyTrial `json:"trial,omitempty"`
}

// Bundle is an OPA bundle.
type Bundle struct {
	Source   string `json:"source"`
	Revision string `json:"revision"` // of the one that is part of what is in force; "" where its manifest says nothing
	// AskedAt is when the server, or the disk, was asked last; nil before.
	AskedAt *time.Time `json:"asked_at,omitempty"`
	Error   string     `json:"error"` // why there was no answer that could be used; the bundle before stays
}

// DecisionLog is how answers of the policies are written down.
type DecisionLog struct {
	URL     string `json:"url"`     // that they are sent to; "" is none
	Dropped uint64 `json:"dropped"` // entries that found no room while the server did not take them, or that it refused for good
	Error   string `json:"error"`   // why nothing is written, or the server did not take the last ones
}

// Caller is who asks, as the kernel says (SO_PEERCRED).
type Caller struct {
	UID uint32
	PID int32
}

func (c Caller) String() string { return fmt.Sprintf("uid %d (pid %d)", c.UID, c.PID) }

// Config says which configuration is in force.
type Config struct {
	LoadedAt     time.Time `json:"loaded_at"`
	Error        string    `json:"error"`         // why a newer one is not in force
	NeedsRestart []string  `json:"needs_restart"` // keys that were changed and are not in force
}

// History says how what happens is kept.
type History struct {
	Enabled  bool   `json:"enabled"`
	Dir      string `json:"dir"`
	Problem  string `json:"problem"`   // why nothing is kept now; "" if it is
	SetAside string `json:"set_aside"` // where a damaged file is; "" if there was none since the start
	Bytes    int64  `json:"bytes"`     // on the disk
	Dropped  uint64 `json:"dropped"`   // records that found no room while nothing could be written
}

// Missing is something that a machine does not have.
type Missing struct {
	What string `json:"what"` // in a few words
	Text string `json:"text"` // what follows from it, and what to do
}

// Journal says where entries go.
type Journal struct {
	Native bool   `json:"native"` // to journald, and not to standard error as JSON lines
	Lost   uint64 `json:"lost"`   // entries that found no place
}

// Told is an entry of the journal.
type Told struct {
	At        time.Time `json:"at"`
	Priority  int       `json:"priority"` // syslog's: 3 is an error, 4 a warning
	MessageID string    `json:"message_id"`
	Message   string    `json:"message"`
}

// Enforcer says who carries decisions out.
type Enforcer struct {
	// State is "off" in monitor, "dry-run", and in enforce "connected" or "unreachable".
	State string `json:"state"`
	Error string `json:"error"`
	// Paused says why nothing new is begun; "" if it may be.
	Paused string `json:"paused"`
	// Approvals are what waits for a person's yes, and what was said yes to and not done yet.
	Approvals []model.Approval `json:"approvals"`
}

// Bounds that breakerd holds itself to: of the whole machine's CPUs, and of memory at
// 20,000 processes and 2,000 cgroups.
const (
	BudgetCPUPercent = 0.5
	BudgetRSSBytes   = 60 << 20
)

// Cost is what breakerd itself uses.
type Cost struct {
	CPUPercent float64 `json:"cpu_percent"` // of one CPU, since it started
	RSSBytes   uint64  `json:"rss_bytes"`
}

// Cgroup names a cgroup.
type Cgroup struct {
	Cgroup   string         `json:"cgroup"`
	CgroupID model.CgroupID `json:"cgroup_id"`
	Unit     string         `json:"unit"`
	Workload model.Workload `json:"workload"`
}

// Blame is who made whom wait.
type Blame struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	Pairs []Pair    `json:"pairs"` // the longest stall first
	// Victims say where each one's whole wait went, also what no neighbour is accused of.
	Victims []VictimShares `json:"victims"`
}

// Pair is an offender and one that waited for it.
type Pair struct {
	Offender Cgroup         `json:"offender"`
	Victim   Cgroup         `json:"victim"`
	Resource model.Resource `json:"resource"`
	// Estimated says that this was worked out from circumstances and not measured: always
	// for memory and io, never for cpu.
	Estimated bool    `json:"estimated"`
	StallMS   float64 `json:"stall_ms"`
}

// VictimShares divide the time that one cgroup waited for a resource: for a CPU the waits
// of its tasks, added up; for memory and io the growth of its own pressure (some).
// Everything after WaitMS adds up to it.
type VictimShares struct {
	Cgroup
	Resource      model.Resource `json:"resource"`
	Estimated     bool           `json:"estimated"` // as of a Pair
	WaitMS        float64        `json:"wait_ms"`
	NeighbourMS   float64        `json:"neighbour_ms"`
	SelfMS        float64        `json:"self_ms"`
	OwnQuotaMS    float64        `json:"own_quota_ms"` // for memory: held by its own memory.max or memory.high
	KernelMS      float64        `json:"kernel_ms"`
	OurThrottleMS float64        `json:"our_throttle_ms"`
	StealMS       float64        `json:"steal_ms"`
	UnknownMS     float64        `json:"unknown_ms"`
}

// Ranking says by what to rank, and how many to list.
type Ranking struct {
	By   model.SortKey
	Most int
}

// MaxRanked is how many a ranking lists at the most.
const MaxRanked = 1000

// MaxIncidents is how many incidents are listed at the most.
const MaxIncidents = 1000

// Subject is what is asked about: a process where PID is not 0, or else a cgroup, by its
// path below the cgroup2 mount.
type Subject struct {
	PID    int32
	Cgroup string
}

// Source is what the server asks.
type Source interface {
	Status(context.Context) Status
	// Incidents are all that are remembered, the newest first.
	Incidents() []model.Incident
	// Past are those that are kept, too, the newest first; as far as there is a history.
	Past(context.Context, model.IncidentFilter) ([]model.Incident, error)
	// Story is all that is kept of one incident.
	Story(ctx context.Context, id string) (model.Story, error)
	// Report says what was decided, and what came of it.
	Report(ctx context.Context, since, until time.Time) (*report.Report, error)
	// Blame sums over the last window; 0 is since breakerd started.
	Blame(window time.Duration) (Blame, error)
	// Processes and Cgroups are those that weigh most, the heaviest first.
	Processes(context.Context, Ranking) ([]model.ProcessFigures, error)
	Cgroups(context.Context, Ranking) ([]model.CgroupFigures, error)
	// WhyNot says what was seen of a process or a cgroup, and how far it is from an incident.
	WhyNot(context.Context, Subject) (model.WhyNot, error)
	Leases(context.Context) ([]model.Lease, error)
	// Breakers are those of the culprits of whom something is known, by their paths.
	Breakers(context.Context) ([]model.Breaker, error)
	// Release ends one lease, or all of them where the ID is "".
	Release(ctx context.Context, id string) error
	// Promote puts the policies in force that are on trial, and gives their hash. Where one is
	// given they must be those.
	Promote(ctx context.Context, who Caller, hash string) (string, error)
	// Record writes a recording until the context ends.
	Record(context.Context, io.Writer) error
	// Ready says why breakerd does not see anything (yet); nil if it does.
	Ready() error
}

// Promoted says which policies were put in force.
type Promoted struct {
	Hash string `json:"hash"`
}

// Error is how the server says what is wrong.
type Error struct {
	Message string `json:"error"`
}
