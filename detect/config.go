package detect

import (
	"time"

	"github.com/breakerd/breakerd/model"
)

// Config holds every threshold. The defaults are in DefaultConfig and nowhere else.
type Config struct {
	ForkStorm     ForkStormConfig     `json:"fork_storm" yaml:"fork_storm"`
	CPUContention CPUContentionConfig `json:"cpu_contention" yaml:"cpu_contention"`
	Hysteresis    Hysteresis          `json:"hysteresis" yaml:"hysteresis"`
}

// Hysteresis keeps an incident from flapping.
type Hysteresis struct {
	// CloseBelow is the part of its threshold (0 to 1) under which an incident is on
	// its way to close.
	CloseBelow float64 `json:"close_below" yaml:"close_below"`
	// CloseAfter is how long it must stay there.
	CloseAfter model.Duration `json:"close_after" yaml:"close_after"`
}

// DefaultConfig is what applies where the operator says nothing.
func DefaultConfig() Config {
	return Config{
		ForkStorm: ForkStormConfig{
			ForksPerSecond: 10,
			Hold:           model.Duration(2 * time.Second),
		},
		CPUContention: CPUContentionConfig{
			SomePercent:        40,
			UsePercent:         90,
			VictimMSPerSecond:  50,
			Margin:             1.5,
			OwnQuotaPartAtMost: 0.25,
			Hold:               model.Duration(2 * time.Second),
		},
		Hysteresis: Hysteresis{CloseBelow: 0.8, CloseAfter: model.Duration(5 * time.Second)},
	}
}
