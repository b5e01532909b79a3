package api

import (
	"bytes"
	"fmt"
	"strings"
	"time"
)

// metricsOf is what a Prometheus server reads, in its text format: which policies are in
// force, and whether newer ones are not.
func metricsOf(s Status) []byte {
	var m metrics
	p := &s.Policies
	m.add("breakerd_policies_info", "The set of policies in force; 1, or 0 where there is none.", truth(p.Hash != ""), "hash", p.Hash)
	if p.Hash != "" {
		m.add("breakerd_policies_active_timestamp_seconds", "When the set of policies came into force.", stamp(p.LoadedAt))
	}
	m.add("breakerd_policies_refused", "Whether a newer set of policies was refused, and why stands in the status.", truth(p.Error != ""))
	if p.RefusedAt != nil {
		m.add("breakerd_policies_refused_timestamp_seconds", "When a newer set of policies was refused.", stamp(*p.RefusedAt))
	}
	if b := p.Bundle; b != nil {
		m.add("breakerd_policies_bundle_info", "The bundle that policies come from.", 1, "source", b.Source, "revision", b.Revision)
		m.add("breakerd_policies_bundle_failed", "Whether there was no bundle to be had, or one that cannot be used, when it was asked for last.", truth(b.Error != ""))
	}
	if l := p.DecisionLog; l != nil {
		m.add("breakerd_decision_log_dropped", "Entries of the decision log since the start that found no room while the server did not take them.", float64(l.Dropped))
		m.add("breakerd_decision_log_failed", "Whether nothing is logged, or the last entries were not taken.", truth(l.Error != ""))
	}
	if t := p.Trial; t != nil {
		m.add("breakerd_policies_trial_info", "The set of policies that is tried beside the one in force.", 1, "hash", t.Hash)
		m.add("breakerd_policies_trial_until_timestamp_seconds", "When its time is up.", stamp(t.Until))
		m.add("breakerd_policies_trial_withheld", "Whether its time is up and it waits for a person.", truth(t.Withheld != ""))
		m.add("breakerd_policies_trial_more", "Cgroups that it would hold and the set in force would not.", float64(len(t.More)))
	}
	return m.text.Bytes()
}

// metrics are gauges in the text format of Prometheus.
type metrics struct{ text bytes.Buffer }

// add adds one with its labels, names and values in turn.
func (m *metrics) add(name, help string, value float64, labels ...string) {
	fmt.Fprintf(&m.text, "# HELP %s %s\n# TYPE %s gauge\n%s", name, help, name, name)
	for i := 0; i < len(labels); i += 2 {
		between := ","
		if i == 0 {
			between = "{"
		}
		fmt.Fprintf(&m.text, "%s%s=\"%s\"", between, labels[i], escaped.Replace(labels[i+1]))
	}
	if len(labels) > 0 {
		m.text.WriteByte('}')
	}
	fmt.Fprintf(&m.text, " %v\n", value)
}

// escaped is a label's value as the format has it.
var escaped = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "\n", `\n`)

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func stamp(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }
