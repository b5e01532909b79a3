package main

import (
	"github.com/spf13/pflag"

	"github.com/breakerd/breakerd/daemon"
	"github.com/breakerd/breakerd/model"
)

// configure reads the file, and puts what the command line says above it.
func configure(f *pflag.FlagSet, file, runtimeDir, mode string, policies []string) (daemon.Config, error) {
	cfg, err := daemon.LoadConfig(file)
	if err != nil {
		return daemon.Config{}, err
	}
	if f.Changed("mode") {
		cfg.Mode = model.Mode(mode)
	}
	if f.Changed("runtime-dir") {
		cfg.RuntimeDir = runtimeDir
	}
	cfg.Policies = append(cfg.Policies, policies...)
	return cfg, cfg.Check()
}
