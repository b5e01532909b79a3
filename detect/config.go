package detect

import (
	"time"

	"github.com/breakerd/breakerd/config"
)

// Config holds every threshold. The defaults are in DefaultConfig and nowhere else.
type Config struct {
	ForkStorm      ForkStormConfig      `json:"fork_storm" yaml:"fork_storm" doc:"A tree that makes processes faster than anybody needs."`
	CPUContention  CPUContentionConfig  `json:"cpu_contention" yaml:"cpu_contention" doc:"A busy machine on which one cgroup keeps others from running, measured in the scheduler."`
	NoisyNeighbour NoisyNeighbourConfig `json:"noisy_neighbour" yaml:"noisy_neighbour" doc:"One cgroup that takes the CPUs which another has a right to."`
	ShortLivedJobs ShortLivedJobsConfig `json:"short_lived_jobs" yaml:"short_lived_jobs" doc:"A tree that starts processes which end within a second."`
	MemoryLeak     MemoryLeakConfig     `json:"memory_leak" yaml:"memory_leak" doc:"Memory that grows steadily towards a limit."`
	MemoryPressure PressureConfig       `json:"memory_pressure" yaml:"memory_pressure" doc:"Memory so short that all tasks with work are held up together."`
	IOPressure     PressureConfig       `json:"io_pressure" yaml:"io_pressure" doc:"The same for disks."`
	PSISaturation  PSISaturationConfig  `json:"psi_saturation" yaml:"psi_saturation" doc:"Any one resource in short supply nearly all the time, whoever causes it."`
	Hysteresis     Hysteresis           `json:"hysteresis" yaml:"hysteresis" doc:"When an incident closes."`
}

// Hysteresis keeps an incident from flapping.
type Hysteresis struct {
	// CloseBelow is the part of its threshold (0 to 1) under which an incident is on
	// its way to close.
	CloseBelow float64 `json:"close_below" yaml:"close_below" doc:"The part of its threshold under which an incident is on its way to close." range:"0.1..1"`
	// CloseAfter is how long it must stay there.
	CloseAfter config.Duration `json:"close_after" yaml:"close_after" doc:"How long it must stay there." range:"1ms..1h"`
}

// DefaultConfig is what applies where the operator says nothing.
func DefaultConfig() Config {
	return Config{
		ForkStorm: ForkStormConfig{
			ForksPerSecond: 10,
			Hold:           config.Duration(2 * time.Second),
		},
		CPUContention: CPUContentionConfig{
			SomePercent:        40,
			UsePercent:         90,
			VictimMSPerSecond:  50,
			DeprivedPercent:    10,
			OwnQuotaPartAtMost: 0.25,
			Hold:               config.Duration(2 * time.Second),
		},
		NoisyNeighbour: NoisyNeighbourConfig{
			VictimMSPerSecond:  100,
			DeprivedPercent:    10,
			OwnQuotaPartAtMost: 0.25,
			Hold:               config.Duration(3 * time.Second),
		},
		ShortLivedJobs: ShortLivedJobsConfig{
			ExitsPerSecond:    20,
			VictimMSPerSecond: 50,
			Hold:              config.Duration(10 * time.Second),
		},
		MemoryLeak: MemoryLeakConfig{
			Horizon:          config.Duration(time.Hour),
			MinGrowth:        64 << 20,
			MinGrowthPercent: 5,
			RisingPercent:    80,
			MinObservation:   config.Duration(10 * time.Second),
		},
		MemoryPressure: PressureConfig{FullPercent: 10, VictimMSPerSecond: 50, Hold: config.Duration(5 * time.Second)},
		IOPressure:     PressureConfig{FullPercent: 40, VictimMSPerSecond: 50, Hold: config.Duration(5 * time.Second)},
		PSISaturation:  PSISaturationConfig{SomePercent: 80, VictimMSPerSecond: 50, Hold: config.Duration(15 * time.Second)},
		Hysteresis:     Hysteresis{CloseBelow: 0.8, CloseAfter: config.Duration(5 * time.Second)},
	}
}

// Check says which value cannot be.
func (c *Config) Check() error { return config.CheckRanges("detect", c) }
