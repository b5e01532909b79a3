package enforce

import (
	"fmt"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/config"
)

// Config is the enforcer's own configuration. Its zero value is not valid: start
// from DefaultConfig.
type Config struct {
	// MaxLease is the longest that anything is held. A longer wish is shortened.
	MaxLease config.Duration `yaml:"max_lease" doc:"The longest that anything is held; a longer wish is shortened." range:"1s..10m"`
	// HeartbeatTimeout is how long breakerd may be silent before every lease ends.
	// 0, which a file cannot say, is for an engine within breakerd itself.
	HeartbeatTimeout config.Duration `yaml:"heartbeat_timeout" doc:"How long breakerd may be silent, from 1s to 1m, before everything is let go."`
	// ConfirmTimeout is how long the kernel may take to confirm a freeze.
	ConfirmTimeout config.Duration `yaml:"confirm_timeout" doc:"How long the kernel may take to confirm a freeze before it is undone." range:"10ms..10s"`
	// MinObserved and MinConfidence are parts of 1.
	MinObserved   float64         `yaml:"min_observed" doc:"How much of what happened of late must have been seen, as a part of 1." range:"0..1"`
	MinConfidence float64         `yaml:"min_confidence" doc:"How sure the verdict on the culprit must be, as a part of 1." range:"0..1"`
	Grace         config.Duration `yaml:"grace" doc:"How long an incident must have been open before anything is done." range:"0s..1h"`
	Cooldown      config.Duration `yaml:"cooldown" doc:"How long a cgroup is left in peace after it was let go, and everybody after the enforcer has started." range:"0s..1h"`
	Rate          RateConfig      `yaml:"rate" doc:"How often something is done."`
	Reach         ReachConfig     `yaml:"reach" doc:"How much is held at once."`
	Protected     ProtectedConfig `yaml:"protected" doc:"What is never touched, besides the built-in list (pid 1, systemd, sshd, network, storage, logs, container runtimes and others like them)."`
	Allow         AllowConfig     `yaml:"allow" doc:"Who may talk to the enforcer, besides root. Users and groups that the machine does not have are passed over. Needs a restart."`
}

// RateConfig bounds how often something is done.
type RateConfig struct {
	PerTarget Bucket `yaml:"per_target" doc:"For one cgroup."`
	Overall   Bucket `yaml:"overall" doc:"For the whole machine."`
}

// Bucket is a token bucket: Burst actions at once, then one more each Every.
type Bucket struct {
	Every config.Duration `yaml:"every" doc:"How long until one more is allowed, after the burst." range:"1ms..24h"`
	Burst int             `yaml:"burst" doc:"How many are allowed one right after the other." range:"1..1000"`
}

func (b Bucket) String() string {
	return fmt.Sprintf("at most %d at once and one more each %s", b.Burst, b.Every.D())
}

// ReachConfig bounds how much is held at once.
type ReachConfig struct {
	Leases           int     `yaml:"leases" doc:"Leases at the same time." range:"1..100"`
	ProcessesPercent float64 `yaml:"processes_percent" doc:"How much of the machine's processes may be held at once, in percent, more than 0; those younger than young do not count." range:"0..100"`
	MemoryPercent    float64 `yaml:"memory_percent" doc:"How much of the machine's memory may be held at once, in percent, more than 0; what processes younger than young have does not count." range:"0..100"`
	// Young is the age below which a process does not count towards the share.
	Young config.Duration `yaml:"young" doc:"The age below which a process does not count towards that share." range:"0s..1h"`
}

// ProtectedConfig is the operator's addition to the built-in list.
type ProtectedConfig struct {
	Units   []string `yaml:"units" doc:"Names of units, such as postgresql@*.service: one * stands for any part."`
	Exes    []string `yaml:"exes" doc:"Full paths of programs, such as /usr/sbin/haproxy."`
	Cgroups []string `yaml:"cgroups" doc:"Paths of cgroups below the cgroup2 mount, with all that is below and above them."`
}

// AllowConfig says who may talk to the enforcer, besides root. Either may be missing
// on the machine.
type AllowConfig struct {
	User  string `yaml:"user" doc:"May propose; its silence ends the leases."`
	Group string `yaml:"group" doc:"May see and release leases, and pause."`
	// Approvers have to be in Group too, or they cannot reach the socket.
	Approvers []string `yaml:"approvers" doc:"Users who may say yes to what a policy wants approved, and put policies in force that are on trial (breakerctl policy promote), besides root; they must be in group too."`
}

// HardMaxLease is the longest lease that any configuration can allow.
const HardMaxLease = 10 * time.Minute

// DefaultConfig is what holds without a file.
func DefaultConfig() Config {
	return Config{
		MaxLease:         config.Duration(HardMaxLease),
		HeartbeatTimeout: config.Duration(10 * time.Second),
		ConfirmTimeout:   config.Duration(cgroupctl.DefaultConfirm),
		MinObserved:      0.5,
		MinConfidence:    0.5,
		Cooldown:         config.Duration(5 * time.Second),
		Rate: RateConfig{
			PerTarget: Bucket{Every: config.Duration(10 * time.Second), Burst: 3},
			Overall:   Bucket{Every: config.Duration(6 * time.Second), Burst: 10},
		},
		Reach: ReachConfig{Leases: 3, ProcessesPercent: 25, MemoryPercent: 50, Young: config.Duration(time.Minute)},
		Allow: AllowConfig{User: "breakerd", Group: "breakerd"},
	}
}

// check says what is wrong, naming the key.
func (c *Config) check() error {
	checks := []error{config.CheckRanges("", c)}
	if c.HeartbeatTimeout != 0 {
		if d := c.HeartbeatTimeout.D(); d < time.Second || d > time.Minute {
			checks = append(checks, &config.BadValue{Key: "heartbeat_timeout", What: fmt.Sprintf("%v is not between 1s and 1m", c.HeartbeatTimeout)})
		}
	}
	if c.Reach.ProcessesPercent == 0 {
		checks = append(checks, &config.BadValue{Key: "reach.processes_percent", What: "it must be more than 0"})
	}
	if c.Reach.MemoryPercent == 0 {
		checks = append(checks, &config.BadValue{Key: "reach.memory_percent", What: "it must be more than 0"})
	}
	if slices.Contains(c.Allow.Approvers, c.Allow.User) && c.Allow.User != "" {
		checks = append(checks, &config.BadValue{Key: "allow.approvers", What: fmt.Sprintf("%s asks, and cannot say yes to itself", c.Allow.User)})
	}
	if c.MaxLease.D() > HardMaxLease { // whatever the range of its tag says
		checks = append(checks, &config.BadValue{Key: "max_lease", What: fmt.Sprintf("%v is more than %v", c.MaxLease, config.Duration(HardMaxLease))})
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
