package enforce

import (
	"errors"
	"io/fs"

	"github.com/breakerd/breakerd/config"
)

// DefaultConfigFile is read where no other is named.
const DefaultConfigFile = "/etc/breakerd/enforcer.yaml"

// fileConfig is a configuration as a file may have it.
type fileConfig struct {
	Config `yaml:",inline"`
}

// Check says what is wrong, naming the key.
func (c *fileConfig) Check() error {
	if c.HeartbeatTimeout == 0 {
		return &config.BadValue{Key: "heartbeat_timeout", What: "it cannot be 0: a lease must end when breakerd does"}
	}
	return c.check()
}

// LoadConfig reads a configuration file over the defaults. An empty name is the
// default file, which may be missing; one that is named must be there.
func LoadConfig(name string) (Config, error) {
	c, _, err := ReadConfig(name)
	return c, err
}

// ReadConfig is LoadConfig, and says where each value that the file sets stands.
func ReadConfig(name string) (Config, config.Origins, error) {
	file := name
	if file == "" {
		file = DefaultConfigFile
	}
	c := fileConfig{DefaultConfig()}
	origins, err := config.LoadTrusted(file, &c)
	if name == "" && errors.Is(err, fs.ErrNotExist) {
		return DefaultConfig(), nil, nil
	}
	if err != nil {
		return Config{}, nil, err
	}
	return c.Config, origins, nil
}
