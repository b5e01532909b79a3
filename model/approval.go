package model

import "time"

// Approval is a question to a person: whether something may be done that a policy wants only
// with somebody's yes.
type Approval struct {
	ID        string        `json:"id"` // of the first decision that asked
	Decision  Decision      `json:"decision"`
	State     ApprovalState `json:"state"`
	AskedAt   time.Time     `json:"asked_at"`
	ExpiresAt time.Time     `json:"expires_at"`
	By        string        `json:"by"` // who said yes
	GivenAt   *time.Time    `json:"given_at"`
}

// ApprovalState is where a question stands.
type ApprovalState string

// The states of a question.
const (
	ApprovalWaiting ApprovalState = "waiting"
	ApprovalGiven   ApprovalState = "given"   // it is carried out when it is asked for next, if the guards agree
	ApprovalUsed    ApprovalState = "used"    // it was
	ApprovalExpired ApprovalState = "expired" // nobody said yes in time, or the trouble passed by itself
)
