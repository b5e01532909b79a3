package enforce

import (
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
)

// Config is the enforcer's own configuration. Its zero value is not valid: start
// from DefaultConfig.
type Config struct {
	// MaxLease is the longest that anything is held. A longer wish is shortened.
	MaxLease config.Duration `yaml:"max_lease"`
	// HeartbeatTimeout is how long breakerd may be silent before every lease ends.
	// 0, which a file cannot say, is for an engine within breakerd itself.
	HeartbeatTimeout config.Duration `yaml:"heartbeat_timeout"`
	// ConfirmTimeout is how long the kernel may take to confirm a freeze.
	ConfirmTimeout config.Duration `yaml:"confirm_timeout"`
	Rate           RateConfig      `yaml:"rate"`
	Reach          ReachConfig     `yaml:"reach"`
	Protected      ProtectedConfig `yaml:"protected"`
	Allow          AllowConfig     `yaml:"allow"`
}

// RateConfig bounds how often something is done.
type RateConfig struct {
	PerTarget Bucket `yaml:"per_target"`
	Overall   Bucket `yaml:"overall"`
}

// Bucket is a token bucket: Burst actions at once, then one more each Every.
type Bucket struct {
	Every config.Duration `yaml:"every"`
	Burst int             `yaml:"burst"`
}

func (b Bucket) String() string {
	return fmt.Sprintf("at most %d at once and one more each %s", b.Burst, b.Every.D())
}

// ReachConfig bounds how much is held at once.
type ReachConfig struct {
	Leases           int     `yaml:"leases"`
	ProcessesPercent float64 `yaml:"processes_percent"`
	// Young is the age below which a process does not count towards the share.
	Young config.Duration `yaml:"young"`
}

// ProtectedConfig is the operator's addition to the built-in list.
type ProtectedConfig struct {
	Units   []string `yaml:"units"`   // names; one * stands for any part
	Exes    []string `yaml:"exes"`    // full paths of programs
	Cgroups []string `yaml:"cgroups"` // paths below the cgroup2 mount, with all below and above them
}

// AllowConfig says who may talk to the enforcer, besides root. Either may be missing
// on the machine.
type AllowConfig struct {
	User  string `yaml:"user"`  // may propose, and its silence ends the leases
	Group string `yaml:"group"` // may see and release leases
}

// HardMaxLease is the longest lease that any configuration can allow.
const HardMaxLease = 10 * time.Minute

// DefaultConfig is what holds without a file.
func DefaultConfig() Config {
	return Config{
		MaxLease:         config.Duration(HardMaxLease),
		HeartbeatTimeout: config.Duration(10 * time.Second),
		ConfirmTimeout:   config.Duration(cgroupctl.DefaultConfirm),
		Rate: RateConfig{
			PerTarget: Bucket{Every: config.Duration(10 * time.Second), Burst: 3},
			Overall:   Bucket{Every: config.Duration(6 * time.Second), Burst: 10},
		},
		Reach: ReachConfig{Leases: 3, ProcessesPercent: 25, Young: config.Duration(time.Minute)},
		Allow: AllowConfig{User: "breakerd", Group: "breakerd"},
	}
}

// check says what is wrong, naming the key.
func (c *Config) check() error {
	in := func(key string, d config.Duration, least, most time.Duration) error {
		if d.D() < least || d.D() > most {
			return &config.BadValue{Key: key, What: fmt.Sprintf("%s is not between %s and %s", d.D(), least, most)}
		}
		return nil
	}
	count := func(key string, n, most int) error {
		if n < 1 || n > most {
			return &config.BadValue{Key: key, What: fmt.Sprintf("%d is not between 1 and %d", n, most)}
		}
		return nil
	}
	checks := []error{
		in("max_lease", c.MaxLease, time.Second, HardMaxLease),
		in("confirm_timeout", c.ConfirmTimeout, 10*time.Millisecond, 10*time.Second),
		in("rate.per_target.every", c.Rate.PerTarget.Every, time.Millisecond, 24*time.Hour),
		count("rate.per_target.burst", c.Rate.PerTarget.Burst, 1000),
		in("rate.overall.every", c.Rate.Overall.Every, time.Millisecond, 24*time.Hour),
		count("rate.overall.burst", c.Rate.Overall.Burst, 1000),
		count("reach.leases", c.Reach.Leases, 100),
		in("reach.young", c.Reach.Young, 0, time.Hour),
	}
	if c.HeartbeatTimeout != 0 {
		checks = append(checks, in("heartbeat_timeout", c.HeartbeatTimeout, time.Second, time.Minute))
	}
	if p := c.Reach.ProcessesPercent; !(p > 0 && p <= 100) {
		checks = append(checks, &config.BadValue{Key: "reach.processes_percent", What: fmt.Sprintf("%g is not more than 0 and at most 100", p)})
	}
	for _, u := range c.Protected.Units {
		if u == "" || strings.Count(u, "*") > 1 || strings.Contains(u, "/") || !strings.Contains(u, ".") {
			checks = append(checks, &config.BadValue{Key: "protected.units", What: fmt.Sprintf("%q is no unit's name, such as postgresql.service or postgresql@*.service", u)})
		}
	}
	for _, x := range c.Protected.Exes {
		if !path.IsAbs(x) || path.Clean(x) != x {
			checks = append(checks, &config.BadValue{Key: "protected.exes", What: fmt.Sprintf("%q is no full path of a program", x)})
		}
	}
	for _, p := range c.Protected.Cgroups {
		if err := cgroupctl.CheckPath(p); err != nil || p == "/" {
			checks = append(checks, &config.BadValue{Key: "protected.cgroups", What: fmt.Sprintf("%q is no path of a cgroup below the mount, such as /system.slice", p)})
		}
	}
	for _, err := range checks {
		if err != nil {
			return err
		}
	}
	return nil
}
