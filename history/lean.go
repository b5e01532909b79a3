package history

import (
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

// What is packed leaves out what follows from the rest, and is put back when it is read:
// there may be a million of them.

// kept is a time as it is kept: nanoseconds would take a tenth of the room.
func kept(at time.Time) time.Time { return at.UTC().Truncate(time.Millisecond) }

// leanVerdict is a verdict as it is packed.
type leanVerdict struct {
	model.DecisionRecord
	Target     *model.Target `json:"target,omitempty"` // nil where it is the one before's
	NoTarget   bool          `json:"no_target,omitempty"`
	PolicyHash string        `json:"policy_hash,omitempty"` // likewise
	InputHash  string        `json:"input_hash,omitempty"`
	EvalUS     int64         `json:"eval_us,omitempty"`
	Confidence float64       `json:"confidence,omitempty"`
	Times      int           `json:"times,omitempty"` // 0 where it is once
	LastAt     time.Time     `json:"last_at,omitzero"`
}

// lean packs the verdicts of a part. What belongs to an incident begins with its ID.
func lean(id string, part []model.Verdict) []leanVerdict {
	out := make([]leanVerdict, len(part))
	var before model.Verdict
	for i, v := range part {
		l := leanVerdict{DecisionRecord: v.DecisionRecord, InputHash: v.InputHash, EvalUS: v.EvalUS, Confidence: v.Confidence, NoTarget: v.Target == nil}
		l.At = kept(v.At)
		l.ID, l.LeaseID = cutID(v.ID, id), cutID(v.LeaseID, id)
		if v.Target != nil && (before.Target == nil || *v.Target != *before.Target) {
			l.Target = v.Target
		}
		if v.PolicyHash != before.PolicyHash {
			l.PolicyHash = v.PolicyHash
		}
		if v.Times != 1 {
			l.Times = v.Times
		}
		if !v.LastAt.Equal(v.At) {
			l.LastAt = kept(v.LastAt)
		}
		if v.Target == nil {
			v.Target = before.Target
		}
		if v.PolicyHash == "" {
			v.PolicyHash = before.PolicyHash
		}
		before = v
		out[i] = l
	}
	return out
}

// whole is the other way.
func whole(id string, part []leanVerdict) []model.Verdict {
	out := make([]model.Verdict, len(part))
	var target *model.Target
	hash := ""
	for i, l := range part {
		v := model.Verdict{DecisionRecord: l.DecisionRecord, IncidentID: id, InputHash: l.InputHash, EvalUS: l.EvalUS, Confidence: l.Confidence, Times: max(1, l.Times), LastAt: l.LastAt}
		v.ID, v.LeaseID = putID(l.ID, id), putID(l.LeaseID, id)
		if l.Target != nil {
			target = l.Target
		}
		if !l.NoTarget {
			v.Target = target
		}
		if l.PolicyHash != "" {
			hash = l.PolicyHash
		}
		if v.ID != "" { // what was never proposed has none
			v.PolicyHash = hash
		}
		if v.LastAt.IsZero() {
			v.LastAt = v.At
		}
		out[i] = v
	}
	return out
}

// cutID leaves out the incident's ID where that is what an ID begins with.
func cutID(s, id string) string {
	if rest, found := strings.CutPrefix(s, id+"-"); found {
		return "-" + rest
	}
	return s
}

func putID(s, id string) string {
	if strings.HasPrefix(s, "-") {
		return id + s
	}
	return s
}

// leanHold leaves out of a lease what its incident and its verdict say.
func leanHold(h model.Hold) model.Hold {
	id := h.Decision.IncidentID
	h.ID = cutID(h.ID, id)
	h.CreatedAt, h.ExpiresAt, h.Decision.At, h.Decision.OpenedAt = kept(h.CreatedAt), kept(h.ExpiresAt), kept(h.Decision.At), kept(h.Decision.OpenedAt)
	for _, at := range []**time.Time{&h.HeldAt, &h.EasesAt, &h.EasedAt, &h.EndedAt} {
		if *at != nil {
			is := kept(**at)
			*at = &is
		}
	}
	h.Decision.ID, h.Decision.PolicyHash, h.Decision.IncidentID = cutID(h.Decision.ID, id), "", ""
	return h
}

func wholeHold(id string, h model.Hold, verdicts []model.Verdict) model.Hold {
	h.ID, h.Decision.ID, h.Decision.IncidentID = putID(h.ID, id), putID(h.Decision.ID, id), id
	for i := range verdicts {
		if verdicts[i].ID == h.Decision.ID {
			h.Decision.PolicyHash = verdicts[i].PolicyHash
		}
	}
	return h
}
