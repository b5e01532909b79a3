package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/recording"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/workload"
)

func (a *app) replay() *cobra.Command {
	var o replayOptions
	c := &cobra.Command{
		Use: "replay FILE", Short: "Judge a recording again", Args: cobra.ExactArgs(1),
		Long: `Take a recording through the detectors and the policies again and list the incidents, as
breakerctl incidents does. The same recording gives the same incidents every time, on any
machine, without root and without a running breakerd.

By default the thresholds and policies of the recording apply, and so do the answers that
its decisions got. With --policy or --config others do: then each decision is shown as a
dry run, and the guards are not asked, because they look at a machine and not at samples.`,
		RunE: func(c *cobra.Command, args []string) error {
			r, err := replay(c.Context(), args[0], o)
			if err != nil {
				return err
			}
			all := r.all
			slices.Reverse(all)  // the newest first
			for i := range all { // a list leaves them out, as breakerd's does
				all[i].Triage = nil
			}
			return a.writeIncidents(c.OutOrStdout(), all)
		},
	}
	c.Flags().StringArrayVar(&o.policies, "policy", nil, "`DIR` of .rego files, instead of the recording's policies; may be given more than once")
	c.Flags().StringVar(&o.config, "config", "", "`FILE` whose thresholds and breaker settings apply, instead of the recording's")
	c.Flags().BoolVar(&o.partial, "partial", false, "accept a truncated recording, and judge what is whole")
	return c
}

type replayOptions struct {
	policies []string
	config   string
	partial  bool
}

// replay takes a recording through a judge.
func replay(ctx context.Context, path string, o replayOptions) (*replayer, error) {
	dec, err := recording.Open(path)
	if err != nil {
		return nil, err
	}
	defer dec.Close()
	thresholds, err := o.thresholds(dec.Header())
	if err != nil {
		return nil, err
	}
	set, err := o.set(dec.Header())
	if err != nil {
		return nil, err
	}
	r := &replayer{
		judge:  judge.New(thresholds, set, workload.Name),
		other:  o.policies != nil || o.config != "",
		wanted: make(map[string][]string),
	}
	r.judge.Log(true)
	breakers, err := o.breakers(dec.Header())
	if err != nil {
		return nil, err
	}
	r.judge.Remember(breakers)
	for {
		rec, err := dec.Next()
		switch {
		case ctx.Err() != nil:
			return nil, errors.New("interrupted")
		case errors.Is(err, io.EOF):
			return r, nil
		case errors.Is(err, recording.ErrTruncated) && o.partial:
			return r, nil
		case errors.Is(err, recording.ErrTruncated):
			return nil, fmt.Errorf("%w: --partial judges those", err)
		case err != nil:
			return nil, err
		}
		r.take(ctx, rec)
	}
}

func (o *replayOptions) thresholds(h recording.Header) (detect.Config, error) {
	if o.config != "" {
		cfg, _, err := settings.Load(o.config)
		return cfg.Detect, err
	}
	cfg := detect.DefaultConfig()
	if err := json.Unmarshal(h.Detect, &cfg); err != nil {
		return cfg, fmt.Errorf("the recording's thresholds: %w", err)
	}
	return cfg, cfg.Check()
}

// breakers are as they were when the recording began; with other thresholds or policies they
// begin anew.
func (o *replayOptions) breakers(h recording.Header) (*breaker.Set, error) {
	cfg := breaker.DefaultConfig()
	if o.config != "" {
		c, _, err := settings.Load(o.config)
		if err != nil {
			return nil, err
		}
		cfg = c.Breaker
	} else if len(h.Learning) > 0 {
		if err := json.Unmarshal(h.Learning, &cfg); err != nil {
			return nil, fmt.Errorf("the recording's breaker: %w", err)
		}
		if err := cfg.Check(); err != nil {
			return nil, fmt.Errorf("the recording's breaker: %w", err)
		}
	}
	if o.policies != nil || o.config != "" || len(h.Breakers) == 0 {
		return breaker.New(cfg), nil
	}
	return breaker.Load(cfg, h.Breakers)
}

func (o *replayOptions) set(h recording.Header) (*policy.Set, error) {
	if o.policies != nil {
		return policy.Load(o.policies...)
	}
	set, err := policy.LoadSources(h.Policies)
	if err != nil {
		return nil, fmt.Errorf("the recording's policies: %w", err)
	}
	return set, nil
}

// replayer collects what a judge says.
type replayer struct {
	judge  *judge.Judge
	other  bool // not as it was judged when it was recorded
	all    []model.Incident
	wanted map[string][]string // what the policies wanted, by the incident's ID
}

func (r *replayer) take(ctx context.Context, rec recording.Record) {
	switch {
	case rec.Sample != nil:
		r.events(r.judge.Sample(ctx, rec.Sample))
		for _, in := range r.judge.Open() {
			r.keep(in)
		}
	case rec.Outcome != nil && !r.other:
		r.events(r.judge.Outcome(*rec.Outcome))
	case rec.Ended != nil && !r.other:
		r.events(r.judge.Ended(*rec.Ended))
	}
}

func (r *replayer) events(events []judge.Event) {
	for _, e := range events {
		if e.Incident.ID == "" {
			continue // about a breaker
		}
		r.keep(e.Incident)
		switch {
		case e.Type == judge.Answered:
			r.wanted[e.Incident.ID] = alsoWanted(r.wanted[e.Incident.ID], &e.Answer.Verdict)
		case e.Type == judge.Wanted && r.other:
			r.events(r.judge.Outcome(assumed(e.Decision)))
		}
	}
}

// assumed is what would have become of a decision, had nobody refused it.
func assumed(d *model.Decision) model.Outcome {
	o := model.Outcome{DecisionID: d.ID, DryRun: true}
	if a := d.Action; a.EaseMS > 0 {
		eases := d.At.Add(a.For() - a.Ease())
		o.EasesAt = &eases
	}
	return o
}

func (r *replayer) keep(in model.Incident) {
	i := slices.IndexFunc(r.all, func(x model.Incident) bool { return x.ID == in.ID })
	if i < 0 {
		r.all = append(r.all, in)
		return
	}
	r.all[i] = in
}
