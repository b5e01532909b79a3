// Package report says what was decided over a stretch of time, what came of it, and what
// to make of it: of a dry run, what would have been done, and who would have been spared
// how much. It is a pure function of what history keeps.
package report

import (
	"time"

	"github.com/breakerd/breakerd/model"
)

// Report is what was decided and what came of it. Lists are bounded; LeftOut says what
// found no room in them.
type Report struct {
	Since time.Time `json:"since"`
	Until time.Time `json:"until"`
	// Began is how far back history reaches; zero where it is empty.
	Began     time.Time   `json:"began"`
	Totals    Totals      `json:"totals"`
	Kinds     []KindCount `json:"kinds"`
	Policies  []Policy    `json:"policies"`
	Holds     []Hold      `json:"holds"`      // those that spared most, the most first
	Victims   []Spared    `json:"victims"`    // who was spared, the most first
	OthersHit []OtherHit  `json:"others_hit"` // who else was in what was held
	Guards    []Guard     `json:"guards"`     // which guard refused what, the most often first
	Flaps     []Flap      `json:"flaps"`      // what was held again and again
	// Infeasible is what was asked for and cannot be done, and Failed what was begun and
	// did not succeed.
	Infeasible []Refusal `json:"infeasible"`
	Failed     []Refusal `json:"failed"`
	Lanes      []Lane    `json:"lanes"`
	Charts     []Chart   `json:"charts"`
	LeftOut    []string  `json:"left_out"`
}

// Totals sum up everything.
type Totals struct {
	Incidents  int `json:"incidents"`
	Trouble    int `json:"trouble"`    // those above informational
	Unanswered int `json:"unanswered"` // of those, the ones about which no policy said anything
	Held       int `json:"held"`
	DryRun     int `json:"dry_run"` // of those held, where nothing was written
	Refused    int `json:"refused"` // times
	Denied     int `json:"denied"`  // by a policy, times
	Failed     int `json:"failed"`
	// SparedMS is how long the victims would not have waited.
	SparedMS float64 `json:"spared_ms"`
	HeldMS   float64 `json:"held_ms"`
}

// KindCount counts the incidents of a kind.
type KindCount struct {
	Kind     model.Kind `json:"kind"`
	Count    int        `json:"count"`
	Warning  int        `json:"warning"`
	Critical int        `json:"critical"`
	StallMS  float64    `json:"stall_ms"` // of their victims
}

// Policy is one policy, by its package.
type Policy struct {
	Policy     string    `json:"policy"`
	Hashes     []string  `json:"hashes"` // of the sets that it was in, the newest last
	FirstAt    time.Time `json:"first_at"`
	LastAt     time.Time `json:"last_at"`
	Incidents  int       `json:"incidents"` // about which it asked for something
	Held       int       `json:"held"`
	DryRun     int       `json:"dry_run"`
	Refused    int       `json:"refused"` // times
	Denied     int       `json:"denied"`
	Failed     int       `json:"failed"`
	Protected  int       `json:"protected"`  // refused because the target is protected
	Infeasible int       `json:"infeasible"` // incidents of which it asked for what cannot be done
	OthersHit  int       `json:"others_hit"` // processes that were held and not meant
	Flaps      int       `json:"flaps"`
	Estimated  int       `json:"estimated"` // of those held, where the blame is an estimate
	Helped     int       `json:"helped"`    // of those held, where somebody was spared
	HeldMS     float64   `json:"held_ms"`
	SparedMS   float64   `json:"spared_ms"`
	Advice     Advice    `json:"advice"`
	Reasons    []string  `json:"reasons"`

	failure string    // the first one
	rungs   int       // of those held, what took the place of the one before on a ladder
	heard   time.Time // when it first said anything, also before the report's time
}

// Advice is what to do with a policy.
type Advice string

// The advice.
const (
	KeepWatching Advice = "keep watching"
	ReadyToArm   Advice = "ready to arm"
	NeedsWork    Advice = "needs work"
)

// Hold is something that was held, or in a dry run would have been.
type Hold struct {
	ID        string           `json:"id"`
	Incident  string           `json:"incident"`
	Kind      model.Kind       `json:"kind"`
	Policy    string           `json:"policy"`
	Action    model.ActionKind `json:"action"`
	Limits    string           `json:"limits,omitempty"` // of a throttle
	Scope     model.Scope      `json:"scope"`
	Cgroup    string           `json:"cgroup"`
	Who       string           `json:"who"` // the culprit as people call it
	DryRun    bool             `json:"dry_run"`
	At        time.Time        `json:"at"`
	HeldMS    float64          `json:"held_ms"`
	End       model.EndReason  `json:"end"`
	EasedMS   float64          `json:"eased_ms,omitempty"` // of HeldMS, its limits loosened half way
	Note      string           `json:"note,omitempty"`
	SparedMS  float64          `json:"spared_ms"`
	Estimated bool             `json:"estimated"`
	Spared    []Spared         `json:"spared"`
	OthersHit int              `json:"others_hit"`

	lasted time.Duration
}

// Spared is a victim and how long it would not have waited.
type Spared struct {
	Cgroup    string         `json:"cgroup"`
	Unit      string         `json:"unit"`
	Resource  model.Resource `json:"resource"`
	Estimated bool           `json:"estimated"`
	Holds     int            `json:"holds"`
	SparedMS  float64        `json:"spared_ms"`
}

// OtherHit is a cgroup in which more was held than was meant.
type OtherHit struct {
	Cgroup    string   `json:"cgroup"`
	Policy    string   `json:"policy"`
	Times     int      `json:"times"`
	Processes int      `json:"processes"` // at most at a time
	Names     []string `json:"names"`     // of some of them, as far as they are known
}

// Guard says what a guard refused; a policy's deny is the guard "policy".
type Guard struct {
	Guard     string   `json:"guard"`
	Times     int      `json:"times"`
	Incidents int      `json:"incidents"`
	Policies  []string `json:"policies"` // whose decisions
	Example   string   `json:"example"`
	Cgroup    string   `json:"cgroup"` // of the example
}

// Flap is a culprit that was held again and again.
type Flap struct {
	Cgroup string    `json:"cgroup"`
	Policy string    `json:"policy"`
	Holds  int       `json:"holds"`
	From   time.Time `json:"from"`
	Until  time.Time `json:"until"`
}

// Refusal is what could not be done, to whom, and why.
type Refusal struct {
	Cgroup string `json:"cgroup"`
	Policy string `json:"policy"`
	Guard  string `json:"guard,omitempty"`
	Times  int    `json:"times"`
	Why    string `json:"why"`
}

// Lane is one line of the timeline.
type Lane struct {
	Name  string `json:"name"`
	Holds bool   `json:"holds"` // of what was held, and not of incidents
	Spans []Span `json:"spans"`
}

// Span is a stretch of a lane: parts of a thousand of the report's time.
type Span struct {
	From  int `json:"from"`
	Until int `json:"until"`
	// Weight is 1 to 3: the level of an incident, or 1 for a dry run and 3 for what was
	// really held.
	Weight int `json:"weight"`
}

// Chart is the course of an incident about which something was held.
type Chart struct {
	Hold   Hold           `json:"hold"`
	Opened time.Time      `json:"opened"`
	Points []model.Moment `json:"points"`
}
