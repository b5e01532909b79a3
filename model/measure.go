package model

// Measure is one figure of a detector beside its threshold, as seen of one cgroup.
type Measure struct {
	Name      string  `json:"name"` // snake_case, with the unit
	Value     float64 `json:"value"`
	Threshold float64 `json:"threshold"`
	Known     bool    `json:"known"` // it could be measured
	Met       bool    `json:"met"`   // it is on the incident's side of the threshold
}
