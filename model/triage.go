package model

// Triage is what a person would have looked at when an incident opened, captured once
// and bounded in size.
type Triage struct {
	// Cause says the root cause in a short paragraph, with the figures in it.
	Cause string `json:"cause"`
}
