package main

import (
	"log/slog"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/breakerd/breakerd/daemon"
	"github.com/breakerd/breakerd/history"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/settings"
)

// configure reads the file, and puts what the command line says above it.
func configure(f *pflag.FlagSet, file, runtimeDir, stateDir, mode string, policies []string) (settings.Settings, error) {
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
	if f.Changed("state-dir") {
		cfg.History.Dir = filepath.Join(stateDir, settings.HistoryDir)
	}
	if len(policies) > 0 {
		cfg.Policies.Paths = policies
	}
	return cfg, cfg.Check()
}

// openHistory is here and not in the daemon, which needs to know no more of SQLite than
// what it tells and asks.
func openHistory(s settings.History, tell func(model.HistoryState), log *slog.Logger) daemon.History {
	return history.New(history.Options{Dir: s.Dir, MaxAge: s.MaxAge.D(), MaxBytes: int64(s.MaxSize), Tell: tell, Log: log})
}
