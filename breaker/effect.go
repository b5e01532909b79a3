package breaker

import "github.com/breakerd/breakerd/model"

const (
	// Below this nothing can be said: scheduling alone makes waits of some milliseconds.
	leastBlame = 20.0 // ms/s
	// A cgroup that grows by less is no storm.
	leastGrowth = 1.0 // processes/s
	// A culprit that costs this part of what it cost costs it still.
	stillPart = 0.5
)

// effect compares what the victims suffered before and while a culprit is held. That the
// culprit's own part falls says nothing, for who stands still makes nobody wait: what
// counts is what anybody makes them wait. Where nobody waited, a storm of processes must
// have stopped to grow; where it did not even grow there is nothing to go by.
func (c *Config) effect(before, after model.Toll) model.Effect {
	switch {
	case before.CulpritMS >= leastBlame && before.OthersMS-after.OthersMS < c.ReliefPart*before.CulpritMS:
		return model.EffectNone
	case before.CulpritMS >= leastBlame && after.CulpritMS > stillPart*before.CulpritMS:
		return model.EffectPartial
	case before.CulpritMS >= leastBlame:
		return model.EffectRelieved
	case before.Growth >= leastGrowth && after.Growth > stillPart*before.Growth:
		return model.EffectNone
	case before.Growth >= leastGrowth:
		return model.EffectRelieved
	}
	return model.EffectUnknown
}

// suffersAgain reports whether the culprit, let go of, costs others again what it did. It
// goes by the victims and not by the figures that tripped it: those may be high for good.
// Where there is nothing to go by, that there is trouble at all must do.
func suffersAgain(before, now model.Toll) bool {
	switch {
	case before.CulpritMS >= leastBlame:
		return now.CulpritMS > stillPart*before.CulpritMS
	case before.Growth >= leastGrowth:
		return now.Growth > stillPart*before.Growth
	}
	return true
}
