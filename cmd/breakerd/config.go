package main

import (
	"github.com/spf13/pflag"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/settings"
)

// configure reads the file, and puts what the command line says above it.
func configure(f *pflag.FlagSet, file, runtimeDir, mode string, policies []string) (settings.Settings, error) {
	cfg, _, err := settings.Load(file)
	if err != nil {
		return settings.Settings{}, err
	}
	if f.Changed("mode") {
		cfg.Mode = model.Mode(mode)
	}
	if f.Changed("runtime-dir") {
		cfg.RuntimeDir = runtimeDir
	}
	if len(policies) > 0 {
		cfg.Policies = policies
	}
	return cfg, cfg.Check()
}
