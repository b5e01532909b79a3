package breaker

import (
	"time"

	"github.com/breakerd/breakerd/config"
)

// Config says how breakers learn.
type Config struct {
	// ReliefAfter is how long a culprit is held before its victims are asked.
	ReliefAfter config.Duration `json:"relief_after" yaml:"relief_after" doc:"How long a culprit is held before it is judged by its victims whether that helps." range:"1s..1m"`
	// ReliefPart is a part of 1.
	ReliefPart float64         `json:"relief_part" yaml:"relief_part" doc:"How much of what the culprit was blamed for the victims must be spared, as a part of 1, or it is let go and refuted." range:"0.01..1"`
	RefutedFor config.Duration `json:"refuted_for" yaml:"refuted_for" doc:"How long a culprit is left alone, for the same kind of trouble, after holding it did not help or after an operator let it go." range:"1s..24h"`
	WatchFor   config.Duration `json:"watch_for" yaml:"watch_for" doc:"How long the victims are watched after a culprit was let go. If it makes them wait again it is held for twice the time." range:"2s..10m"`
	// ForgiveAfter is how long one opening weighs.
	ForgiveAfter config.Duration `json:"forgive_after" yaml:"forgive_after" doc:"How long a culprit must behave until one of the times that it was held is forgiven." range:"1s..24h"`
	// StartQuiet is the cool-down of a fresh start.
	StartQuiet config.Duration `json:"start_quiet" yaml:"start_quiet" doc:"How long nothing is asked for after breakerd has started." range:"0s..10m"`
}

// DefaultConfig is what holds where nothing else is said. A quarter of the blame: where three
// or four equals share one CPU with a victim, holding one of them spares the victim a third
// or a quarter of what that one had.
func DefaultConfig() Config {
	return Config{
		ReliefAfter:  config.Duration(3 * time.Second),
		ReliefPart:   0.25,
		RefutedFor:   config.Duration(5 * time.Minute),
		WatchFor:     config.Duration(10 * time.Second),
		ForgiveAfter: config.Duration(2 * time.Minute),
		StartQuiet:   config.Duration(5 * time.Second),
	}
}

// Check says what is wrong with it, naming the key.
func (c *Config) Check() error { return config.CheckRanges("", c) }
