// Package decisionlog writes down what policies answered, in the form of OPA's decision log:
// an id, the revision, the input with what is masked taken out, the hash of the whole input, the
// result and how long it took. It goes to an HTTP endpoint where one is named, as OPA sends it.
//
// OPA's own plugin is not used: it needs OPA's plugin manager and its store, and masks by
// evaluating one more policy for each decision.
package decisionlog

import (
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
)

// Entry is one decision.
type Entry struct {
	Labels     map[string]string `json:"labels"`
	DecisionID string            `json:"decision_id"`
	Bundles    map[string]Bundle `json:"bundles"`
	Path       string            `json:"path"`
	Input      any               `json:"input"`
	Result     Result            `json:"result"`
	Erased     []string          `json:"erased,omitempty"` // as JSON pointers
	Timestamp  time.Time         `json:"timestamp"`
	Metrics    map[string]int64  `json:"metrics"`
	Custom     map[string]string `json:"custom"`
}

// Bundle says of which revision policies are.
type Bundle struct {
	Revision string `json:"revision"`
}

// Result is what the policies answered.
type Result struct {
	Action Asked    `json:"action"` // that wins; of kind none where nothing is to be done
	Asked  []Asked  `json:"asked"`
	Denied []Denied `json:"denied"`
	Error  string   `json:"error,omitempty"`
}

// Asked is what a policy asks for.
type Asked struct {
	Policy string       `json:"policy"`
	Action model.Action `json:"action"`
	DryRun bool         `json:"dry_run"`
}

// Denied is a reason against doing anything.
type Denied struct {
	Policy string `json:"policy"`
	Reason string `json:"reason"`
}

func resultOf(v *policy.Verdict) Result {
	r := Result{Action: Asked{v.Policy, v.Action, v.DryRun}, Asked: []Asked{}, Denied: []Denied{}, Error: v.Error}
	for _, a := range v.Asked {
		r.Asked = append(r.Asked, Asked(a))
	}
	for _, d := range v.Denied {
		r.Denied = append(r.Denied, Denied(d))
	}
	return r
}

// Answer is what is logged.
type Answer struct {
	ID         string // of the decision
	IncidentID string
	At         time.Time
	Input      *policy.Input
	Verdict    *policy.Verdict
	PolicyHash string
	Revision   string // of the bundle; "" is none
}

// maxRevision bounds a bundle's revision, in bytes: whoever makes it chooses it.
const maxRevision = 256

// Mask is what is taken out of inputs.
type Mask struct{ paths [][]string }

// NewMask reads JSON pointers such as /input/incident/culprit/root/cmdline. One that leads to
// nothing is refused: what it was to hide would be shown.
func NewMask(pointers []string) (Mask, error) {
	var m Mask
	for _, p := range pointers {
		parts := strings.Split(p, "/")
		if len(parts) < 3 || parts[0] != "" || parts[1] != "input" || !policy.HasInput(parts[2:]...) {
			return Mask{}, fmt.Errorf("mask %q leads to nothing of the input: write a pointer such as /input/incident/culprit/root/cmdline (breakerctl policy schema lists what there is; of a list, only the whole can be erased)", p)
		}
		m.paths = append(m.paths, parts[2:])
	}
	return m, nil
}

// Hash is that of an input, before anything is taken out.
func Hash(text []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(text)) }

// Entry makes the entry of an answer.
func (m Mask) Entry(a Answer, labels map[string]string) (Entry, error) {
	text, err := json.Marshal(a.Input)
	if err != nil {
		return Entry{}, fmt.Errorf("write the input of decision %s: %w", a.ID, err)
	}
	var input map[string]any
	d := json.NewDecoder(bytes.NewReader(text))
	d.UseNumber() // a cgroup's id is larger than what a float64 holds
	if err := d.Decode(&input); err != nil {
		return Entry{}, fmt.Errorf("write the input of decision %s: %w", a.ID, err)
	}
	v := a.Verdict
	e := Entry{
		Labels: labels, DecisionID: a.ID, Bundles: map[string]Bundle{"breakerd": {a.Revision[:min(len(a.Revision), maxRevision)]}}, Path: "breaker",
		Input: input, Timestamp: a.At.UTC(), Metrics: map[string]int64{"timer_rego_query_eval_ns": v.Elapsed.Nanoseconds()},
		Result: resultOf(v),
		Custom: map[string]string{"incident_id": a.IncidentID, "input_hash": Hash(text), "policy_hash": a.PolicyHash},
	}
	for _, p := range m.paths {
		if erase(input, p) {
			e.Erased = append(e.Erased, "/input/"+strings.Join(p, "/"))
		}
	}
	return e, nil
}

// erase takes a value out, and reports whether it was there.
func erase(from map[string]any, path []string) bool {
	for _, name := range path[:len(path)-1] {
		below, ok := from[name].(map[string]any)
		if !ok {
			return false
		}
		from = below
	}
	last := path[len(path)-1]
	if _, there := from[last]; !there {
		return false
	}
	delete(from, last)
	return true
}
