package cgroupctl

import (
	"context"
	"math"

	"github.com/breakerd/breakerd/model"
)

// SetLimit writes a limit as somebody else would; "" takes the file away.
func (f *Fake) SetLimit(p, file, value string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.limit(f.groups[p], file, value)
}

func (f *Fake) limit(g *fakeGroup, file, value string) {
	if g.limits == nil {
		g.limits = map[string]string{}
	}
	g.limits[file] = value
}

// Limit is what a limit of a cgroup holds; "" if it does not have it.
func (f *Fake) Limit(p, file string) string {
	f.mu.Lock()
	defer f.mu.Unlock()
	if g := f.groups[p]; g != nil {
		return g.limits[file]
	}
	return ""
}

// Throttle decides which writes would give a cgroup the limits of an action. Its faults
// are those of "throttle".
func (f *Fake) Throttle(_ context.Context, r Ref, o Owner, a model.Action) ([]model.FileWrite, string, error) {
	if err := f.begin("throttle", r); err != nil {
		return nil, "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(r)
	if err != nil {
		return nil, "", err
	}
	return planLimits(r, o, a, fakeLimits{g})
}

// Holds is what a file of a write holds now. Its faults are those of "holds".
func (f *Fake) Holds(r Ref, w model.FileWrite) (string, error) {
	if err := CheckWrite(w); err != nil {
		return "", err
	}
	if err := f.begin("holds", r); err != nil {
		return "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(r)
	if err != nil {
		return "", err
	}
	return g.holds(w.File), nil
}

type fakeLimits struct{ g *fakeGroup }

func (s fakeLimits) limitNow(file string) (string, error) { return s.g.limits[file], nil }

func (fakeLimits) machineHas(string) (bool, error) { return true, nil }

func (fakeLimits) unitLimit(_, property string) (model.UnitLimit, error) {
	return model.UnitLimit{Property: property, Value: math.MaxUint64}, nil
}
