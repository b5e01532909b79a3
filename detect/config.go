package detect

import (
	"fmt"
	"time"

	"github.com/breakerd/breakerd/config"
)

// Config holds every threshold. The defaults are in DefaultConfig and nowhere else.
type Config struct {
	ForkStorm      ForkStormConfig      `json:"fork_storm" yaml:"fork_storm"`
	CPUContention  CPUContentionConfig  `json:"cpu_contention" yaml:"cpu_contention"`
	NoisyNeighbour NoisyNeighbourConfig `json:"noisy_neighbour" yaml:"noisy_neighbour"`
	ShortLivedJobs ShortLivedJobsConfig `json:"short_lived_jobs" yaml:"short_lived_jobs"`
	MemoryLeak     MemoryLeakConfig     `json:"memory_leak" yaml:"memory_leak"`
	MemoryPressure PressureConfig       `json:"memory_pressure" yaml:"memory_pressure"`
	IOPressure     PressureConfig       `json:"io_pressure" yaml:"io_pressure"`
	PSISaturation  PSISaturationConfig  `json:"psi_saturation" yaml:"psi_saturation"`
	Hysteresis     Hysteresis           `json:"hysteresis" yaml:"hysteresis"`
}

// Hysteresis keeps an incident from flapping.
type Hysteresis struct {
	// CloseBelow is the part of its threshold (0 to 1) under which an incident is on
	// its way to close.
	CloseBelow float64 `json:"close_below" yaml:"close_below"`
	// CloseAfter is how long it must stay there.
	CloseAfter config.Duration `json:"close_after" yaml:"close_after"`
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
			MinGrowthMB:      64,
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
func (c *Config) Check() error {
	for _, v := range []struct {
		key         string
		value       float64
		least, most float64
	}{
		{"fork_storm.forks_per_second", c.ForkStorm.ForksPerSecond, 1, 1e6},
		{"cpu_contention.some_percent", c.CPUContention.SomePercent, 1, 100},
		{"cpu_contention.use_percent", c.CPUContention.UsePercent, 1, 100},
		{"cpu_contention.victim_ms_per_second", c.CPUContention.VictimMSPerSecond, 1, 1e6},
		{"cpu_contention.deprived_percent", c.CPUContention.DeprivedPercent, 0, 100},
		{"cpu_contention.own_quota_part_at_most", c.CPUContention.OwnQuotaPartAtMost, 0, 1},
		{"noisy_neighbour.victim_ms_per_second", c.NoisyNeighbour.VictimMSPerSecond, 1, 1e6},
		{"noisy_neighbour.deprived_percent", c.NoisyNeighbour.DeprivedPercent, 0, 100},
		{"noisy_neighbour.own_quota_part_at_most", c.NoisyNeighbour.OwnQuotaPartAtMost, 0, 1},
		{"short_lived_jobs.exits_per_second", c.ShortLivedJobs.ExitsPerSecond, 1, 1e6},
		{"short_lived_jobs.victim_ms_per_second", c.ShortLivedJobs.VictimMSPerSecond, 1, 1e6},
		{"memory_leak.min_growth_mb", c.MemoryLeak.MinGrowthMB, 1, 1e6},
		{"memory_leak.min_growth_percent", c.MemoryLeak.MinGrowthPercent, 0.1, 1000},
		{"memory_leak.rising_percent", c.MemoryLeak.RisingPercent, 50, 100},
		{"memory_pressure.full_percent", c.MemoryPressure.FullPercent, 1, 100},
		{"memory_pressure.victim_ms_per_second", c.MemoryPressure.VictimMSPerSecond, 1, 1e6},
		{"io_pressure.full_percent", c.IOPressure.FullPercent, 1, 100},
		{"io_pressure.victim_ms_per_second", c.IOPressure.VictimMSPerSecond, 1, 1e6},
		{"psi_saturation.some_percent", c.PSISaturation.SomePercent, 1, 100},
		{"psi_saturation.victim_ms_per_second", c.PSISaturation.VictimMSPerSecond, 1, 1e6},
		{"hysteresis.close_below", c.Hysteresis.CloseBelow, 0.1, 1},
	} {
		if !(v.value >= v.least && v.value <= v.most) { // also where it is no number
			return &config.BadValue{Key: "detect." + v.key, What: fmt.Sprintf("%v is not between %v and %v", v.value, v.least, v.most)}
		}
	}
	for _, v := range []struct {
		key   string
		value config.Duration
	}{
		{"fork_storm.hold", c.ForkStorm.Hold},
		{"cpu_contention.hold", c.CPUContention.Hold},
		{"noisy_neighbour.hold", c.NoisyNeighbour.Hold},
		{"short_lived_jobs.hold", c.ShortLivedJobs.Hold},
		{"memory_leak.horizon", c.MemoryLeak.Horizon},
		{"memory_leak.min_observation", c.MemoryLeak.MinObservation},
		{"memory_pressure.hold", c.MemoryPressure.Hold},
		{"io_pressure.hold", c.IOPressure.Hold},
		{"psi_saturation.hold", c.PSISaturation.Hold},
		{"hysteresis.close_after", c.Hysteresis.CloseAfter},
	} {
		if v.value <= 0 || v.value.D() > time.Hour {
			return &config.BadValue{Key: "detect." + v.key, What: fmt.Sprintf("%v is not between 0s and 1h0m0s", v.value)}
		}
	}
	return nil
}
