// Package settings is what an operator can set for breakerd: the keys of breakerd.yaml
// with their defaults and bounds. The enforcer's own are in package enforce.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"time"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/model"
)

// DefaultFile is read where no other is named; it may be missing.
const DefaultFile = "/etc/breakerd/breakerd.yaml"

// Settings are the keys of breakerd.yaml.
type Settings struct {
	// Mode is how far breakerd may go: monitor, dry-run or enforce.
	Mode model.Mode `yaml:"mode"`
	// Tick is how often a sample is taken.
	Tick config.Duration `yaml:"tick"`
	// RuntimeDir holds the sockets.
	RuntimeDir string `yaml:"runtime_dir"`
	// Policies are directories of .rego files, or files.
	Policies []string `yaml:"policies"`
	// Detect holds the thresholds.
	Detect detect.Config `yaml:"detect"`
}

// Default watches and does nothing.
func Default() Settings {
	return Settings{
		Mode:       model.Monitor,
		Tick:       config.Duration(250 * time.Millisecond),
		RuntimeDir: "/run/breakerd",
		Detect:     detect.DefaultConfig(),
	}
}

// Load reads a configuration file. An empty name is the default one, which may be
// missing.
func Load(path string) (Settings, error) {
	c := Default()
	named := path != ""
	if !named {
		path = DefaultFile
	}
	err := config.Load(path, &c)
	if !named && errors.Is(err, fs.ErrNotExist) {
		return Default(), nil
	}
	if err != nil {
		return Settings{}, err
	}
	return c, nil
}

// Bounds of the tick: a shorter one costs more than it sees, a longer one is slower
// than the holds of the detectors.
const (
	minTick = 50 * time.Millisecond
	maxTick = 2 * time.Second
)

// Check says what is wrong with the configuration.
func (c *Settings) Check() error {
	if _, err := model.ParseMode(string(c.Mode)); err != nil {
		return &config.BadValue{Key: "mode", What: err.Error()}
	}
	if t := c.Tick.D(); t < minTick || t > maxTick {
		return &config.BadValue{Key: "tick", What: fmt.Sprintf("%v is not between %v and %v", t, minTick, maxTick)}
	}
	if c.RuntimeDir == "" {
		return &config.BadValue{Key: "runtime_dir", What: "it must name a directory"}
	}
	return c.Detect.Check()
}
