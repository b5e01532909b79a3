package enforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/breakerd/breakerd/model"
)

// SocketName is the enforcer's socket within the runtime directory.
const SocketName = "enforcer.sock"

// The protocol is one JSON object a line in each direction, each request answered in
// its turn:
//
//	{"v":2,"op":"heartbeat"}
//	{"v":2}
//	{"v":2,"op":"release","lease":"fs-1-1"}
//	{"v":2,"error":"release \"fs-1-1\": no such lease"}
const (
	protocolVersion = 2
	// maxLine bounds a request. A decision is about 1 KiB.
	maxLine = 64 << 10
	// maxAnswer bounds what a client reads: leases by the hundred.
	maxAnswer = 4 << 20
)

// The operations.
const (
	opPropose    = "propose"     // decision → outcome; counts as a heartbeat
	opHeartbeat  = "heartbeat"   // breakerd lives
	opLeases     = "leases"      // → leases that have not ended
	opRelease    = "release"     // lease → lease, ended
	opReleaseAll = "release_all" // → leases, ended
	opStatus     = "status"      // → status
	opPause      = "pause"       // for_ms → status: nothing new is begun; 0 is until resume
	opResume     = "resume"      // → status
	opLease      = "lease"       // lease → lease, also one that has ended of late
	opApprove    = "approve"     // approval → approval
)

type request struct {
	V        int             `json:"v"`
	Op       string          `json:"op"`
	Decision *model.Decision `json:"decision,omitempty"`
	Lease    string          `json:"lease,omitempty"`
	ForMS    int64           `json:"for_ms,omitempty"`
	Approval string          `json:"approval,omitempty"`
	// Reason of a release: no_relief, from who may propose; "" is because somebody asked.
	Reason model.EndReason `json:"reason,omitempty"`
}

type response struct {
	V       int            `json:"v"`
	Error   string         `json:"error,omitempty"`
	Outcome *model.Outcome `json:"outcome,omitempty"`
	Lease   *model.Lease   `json:"lease,omitempty"`
	Leases  []model.Lease  `json:"leases,omitempty"`
	Status  *Status        `json:"status,omitempty"`

	Approval *model.Approval `json:"approval,omitempty"`
}

// Status is what the enforcer says about itself.
type Status struct {
	PID                int        `json:"pid"`
	Mode               model.Mode `json:"mode"`
	Version            string     `json:"version"`
	StartedAt          time.Time  `json:"started_at"`
	Leases             int        `json:"leases"`
	Recovered          int        `json:"recovered"` // leases undone when it started
	LastHeartbeat      *time.Time `json:"last_heartbeat"`
	HeartbeatTimeoutMS int64      `json:"heartbeat_timeout_ms"`
	MaxLeaseMS         int64      `json:"max_lease_ms"`
	// Paused says why nothing new is begun; "" if it may be.
	Paused string `json:"paused"`
	// Approvals are the questions that wait for a person's yes, and the answers that were not
	// used yet.
	Approvals []model.Approval `json:"approvals"`
}

// parseRequest refuses everything that it does not know, so that a peer of another
// version is told, instead of half understood.
func parseRequest(line []byte) (request, error) {
	// The version comes first: what a later one says may be unknown, or of another type.
	var only struct {
		V int `json:"v"`
	}
	if json.Unmarshal(line, &only) == nil && only.V > protocolVersion {
		return request{}, fmt.Errorf("read request: it is of version %d, and this enforcer speaks %d: restart breaker-enforcer, so that both are of one package", only.V, protocolVersion)
	}
	var r request
	dec := json.NewDecoder(bytes.NewReader(line))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&r); err != nil {
		return request{}, fmt.Errorf("read request: %w", err)
	}
	if dec.More() {
		return request{}, errors.New("read request: something follows it on its line")
	}
	if r.V != protocolVersion {
		return request{}, fmt.Errorf("read request: it is of version %d, and this enforcer speaks %d", r.V, protocolVersion)
	}
	switch r.Op {
	case opPropose:
		if r.Decision == nil {
			return request{}, errors.New("read request: propose needs a decision")
		}
	case opRelease, opLease:
		switch {
		case r.Lease == "":
			return request{}, fmt.Errorf("read request: %s needs a lease", r.Op)
		case r.Reason != "" && (r.Op != opRelease || r.Reason != model.EndNoRelief):
			return request{}, fmt.Errorf("read request: %s for the reason %q: no_relief is the only one that a release may have", r.Op, r.Reason)
		}
	case opApprove:
		if r.Approval == "" {
			return request{}, errors.New("read request: approve needs an approval")
		}
	case opPause:
		// Bounded before it is multiplied.
		if r.ForMS < 0 || r.ForMS > MaxPause.Milliseconds() {
			return request{}, fmt.Errorf("read request: a pause of %d ms is not between 0 and %s", r.ForMS, MaxPause)
		}
	case opHeartbeat, opLeases, opReleaseAll, opStatus, opResume:
	default:
		return request{}, fmt.Errorf("read request: op %q is none of propose, heartbeat, leases, release, release_all, status, pause, resume, lease, approve", r.Op)
	}
	return r, nil
}
