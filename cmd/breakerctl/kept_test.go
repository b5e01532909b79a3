package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/report"
)

// kept is a breakerd that only has a history.
type kept struct {
	api.Source
	stories []model.Story // the newest first
	aside   string        // where a damaged file is
	known   []model.Breaker
	sampled time.Time
}

func (k *kept) Status(context.Context) api.Status {
	return api.Status{History: api.History{Enabled: true, SetAside: k.aside}, Problems: []string{}, Host: model.Host{CPUs: 4}, LastSampleAt: k.sampled}
}

func (k *kept) Breakers(context.Context) ([]model.Breaker, error) { return k.known, nil }

func (k *kept) Report(context.Context, time.Time, time.Time) (*report.Report, error) {
	return nil, fmt.Errorf("%w: the file is damaged, is set aside, and a new one begins", model.ErrNoHistory)
}

func (k *kept) Past(_ context.Context, f model.IncidentFilter) ([]model.Incident, error) {
	var all []model.Incident
	for _, s := range k.stories {
		if s.ClosedAt.Before(f.Since) || !f.Until.IsZero() && s.OpenedAt.After(f.Until) {
			continue
		}
		all = append(all, s.Incident)
	}
	return all[:min(len(all), f.Most)], nil
}

func (k *kept) Story(_ context.Context, id string) (model.Story, error) {
	i := slices.IndexFunc(k.stories, func(s model.Story) bool { return s.ID == id })
	if i < 0 {
		return model.Story{}, fmt.Errorf("incident %q: %w", id, api.ErrNotFound)
	}
	return k.stories[i], nil
}

// keptStories are more than one answer of breakerd holds: storms of a minute, of which the
// newest three have something else to tell.
func keptStories() (all []model.Story, err error) {
	for n := range api.MaxIncidents + 200 {
		opened := time.Now().Add(-time.Duration(n+2) * time.Minute).Truncate(time.Millisecond)
		closed := opened.Add(time.Minute)
		in := model.Incident{
			ID: fmt.Sprintf("storm-%d", n), Kind: model.ForkStorm, State: model.Closed, OpenedAt: opened, ClosedAt: &closed, Severity: 0.4,
			Culprit: model.Culprit{Cgroup: fmt.Sprintf("/job-%d", n), CgroupID: 60, Scope: model.ScopeTree, Root: model.CulpritRoot{ProcID: model.ProcID{PID: 7, StartTime: 9}}},
		}
		s := model.Story{Incident: in, Host: &model.Host{CPUs: 2}}
		switch n {
		case 0: // it got worse while it went on, as the policies saw
			for _, at := range []struct {
				severity float64
				after    time.Duration
			}{{0.4, time.Second}, {0.9, 50 * time.Second}} {
				in.Severity = at.severity
				text, err := json.Marshal(policy.InputOf(&in, breaker.Unknown(in.Culprit.Cgroup), *s.Host, opened.Add(at.after)))
				if err != nil {
					return nil, err
				}
				s.Inputs = append(s.Inputs, text)
			}
		case 1: // nobody is asked about what nobody answers for
			s.Culprit = model.Culprit{}
			s.Severity = 0.9
		case api.MaxIncidents + 100: // of which nothing is kept but how it was seen last
			s.Severity = 0.8
		}
		all = append(all, s)
	}
	return all, nil
}

// serveKept lets histories answer in the folder of a story, until that ends: below run one
// that is whole, below damaged a new one after another that was, and below live one with an
// incident that is open, of somebody who was held before.
func serveKept(env *testscript.Env) error {
	stories, err := keptStories()
	if err != nil {
		return err
	}
	if err := serve(env, "run", &kept{stories: stories}); err != nil {
		return err
	}
	open := stories[0]
	open.ID, open.State, open.ClosedAt, open.Inputs = "live-0", model.Open, nil, nil
	live := &kept{stories: []model.Story{open}, known: []model.Breaker{{Cgroup: open.Culprit.Cgroup, Opened: 3}}, sampled: open.OpenedAt.Add(90 * time.Second)}
	if err := serve(env, "live", live); err != nil {
		return err
	}
	return serve(env, "damaged", &kept{stories: stories[:1], aside: "/var/lib/breakerd/history/history.db.damaged"})
}

func serve(env *testscript.Env, name string, k *kept) error {
	dir := filepath.Join(env.WorkDir, name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	l, err := api.Listen(filepath.Join(dir, "api.sock"))
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	served := make(chan error, 1)
	go func() { served <- api.Serve(ctx, l, k) }()
	env.Defer(func() {
		cancel()
		if err := <-served; err != nil {
			env.T().Fatal("serve the history: ", err)
		}
	})
	return nil
}
