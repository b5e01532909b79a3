package cgroupctl

import (
	"context"
	"math"

	"github.com/breakerd/breakerd/model"
)

// SetLimit writes a limit as somebody else would; "" takes the file away. Those of io.max are
// named as in "io.max 8:0 rbps".
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
func (f *Fake) Throttle(_ context.Context, r Ref, o Owner, a model.Action, rates []IORate) ([]model.FileWrite, string, error) {
	if err := f.begin("throttle", r); err != nil {
		return nil, "", err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(r)
	if err != nil {
		return nil, "", err
	}
	return planLimits(r, o, a, rates, fakeLimits{g})
}

// Ease loosens a limit that is held to its step. Its faults are those of "ease".
func (f *Fake) Ease(r Ref, w model.FileWrite) error {
	_, step, err := toStep(w)
	if err != nil {
		return err
	}
	if err := f.begin("ease", r); err != nil {
		return err
	}
	return f.apply(r, step)
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
	return g.holds(w), nil
}

type fakeLimits struct{ g *fakeGroup }

func (s fakeLimits) limitNow(w model.FileWrite) (string, error) { return s.g.holds(w), nil }

func (s fakeLimits) limitsNow(device string) (bool, error) {
	for _, key := range []string{"rbps", "wbps"} {
		if l := s.g.limits[ioFile+" "+device+" "+key]; l != "" && l != ioText(device, key, "max") {
			return true, nil
		}
	}
	return false, nil
}

func (fakeLimits) machineHas(string) (bool, error) { return true, nil }

func (s fakeLimits) memoryNow() (uint64, error) { return s.g.memory, nil }

func (s fakeLimits) oomKiller() (string, error) { return "", nil }

// most is that of a machine with 2 CPUs and 8 GiB.
func (fakeLimits) most(l limit) float64 {
	return map[string]float64{"cpu.max": 2e6, memoryFile: 8 << 30}[l.file]
}

func (fakeLimits) unitLimit(_ string, of model.UnitLimit) (model.UnitLimit, error) {
	of.Value = math.MaxUint64
	return of, nil
}

// SetMemory says how much memory a cgroup uses.
func (f *Fake) SetMemory(p string, used uint64) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].memory = used
}

// SetIO gives a cgroup the io controller, and says what it reads and writes.
func (f *Fake) SetIO(p string, rates ...IORate) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.groups[p].io, f.groups[p].rates = true, rates
}

// IORates is what SetIO said. Its faults are those of "rates".
func (f *Fake) IORates(_ context.Context, r Ref) ([]IORate, error) {
	if err := f.begin("rates", r); err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	g, err := f.open(r)
	if err != nil {
		return nil, err
	}
	return g.rates, nil
}
