package api

import (
	"net/http"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
)

// writeMetrics answers what a Prometheus server asks.
func writeMetrics(w http.ResponseWriter, r *http.Request, s Status) {
	all := prometheus.NewPedanticRegistry()
	all.MustRegister(metrics{s}) // it is the only one
	promhttp.HandlerFor(all, promhttp.HandlerOpts{}).ServeHTTP(w, r)
}

// metrics are the figures of a status: which policies are in force, and whether newer ones
// are not.
type metrics struct{ Status }

// Describe implements prometheus.Collector: what there is depends on the status.
func (metrics) Describe(chan<- *prometheus.Desc) {}

// Collect implements prometheus.Collector.
func (m metrics) Collect(to chan<- prometheus.Metric) {
	of := func(kind prometheus.ValueType) func(name, help string, value float64, labels prometheus.Labels) {
		return func(name, help string, value float64, labels prometheus.Labels) {
			desc := prometheus.NewDesc("breakerd_"+name, help, nil, labels)
			metric, err := prometheus.NewConstMetric(desc, kind, value)
			if err != nil { // such as a label that is no text; whoever asks is told
				metric = prometheus.NewInvalidMetric(desc, err)
			}
			to <- metric
		}
	}
	gauge, counter := of(prometheus.GaugeValue), of(prometheus.CounterValue)
	p := &m.Policies
	gauge("policies_info", "The set of policies in force; 1, or 0 where there is none.", truth(p.Hash != ""), prometheus.Labels{"hash": p.Hash})
	if p.Hash != "" {
		gauge("policies_active_timestamp_seconds", "When the set of policies came into force.", stamp(p.LoadedAt), nil)
	}
	gauge("policies_refused", "Whether a newer set of policies was refused, and why stands in the status.", truth(p.Error != ""), nil)
	if p.RefusedAt != nil {
		gauge("policies_refused_timestamp_seconds", "When a newer set of policies was refused.", stamp(*p.RefusedAt), nil)
	}
	if b := p.Bundle; b != nil {
		gauge("policies_bundle_info", "The bundle that policies come from.", 1, prometheus.Labels{"source": b.Source, "revision": b.Revision})
		gauge("policies_bundle_failed", "Whether there was no bundle to be had, or one that cannot be used, when it was asked for last.", truth(b.Error != ""), nil)
	}
	if l := p.DecisionLog; l != nil {
		counter("decision_log_dropped_total", "Entries of the decision log since the start that found no room while the server did not take them.", float64(l.Dropped), nil)
		gauge("decision_log_failed", "Whether nothing is logged, or the last entries were not taken.", truth(l.Error != ""), nil)
	}
	if t := p.Trial; t != nil {
		gauge("policies_trial_info", "The set of policies that is tried beside the one in force.", 1, prometheus.Labels{"hash": t.Hash})
		gauge("policies_trial_until_timestamp_seconds", "When its time is up.", stamp(t.Until), nil)
		gauge("policies_trial_withheld", "Whether its time is up and it waits for a person.", truth(t.Withheld != ""), nil)
		gauge("policies_trial_more", "Cgroups that it would hold and the set in force would not.", float64(len(t.More)), nil)
	}
}

func truth(is bool) float64 {
	if is {
		return 1
	}
	return 0
}

func stamp(at time.Time) float64 { return float64(at.UnixMilli()) / 1000 }
