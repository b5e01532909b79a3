package enforce

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/cgroupctl/unit"
	"github.com/breakerd/breakerd/model"
)

// Program is breaker-enforcer.
type Program struct {
	ConfigFile string // "" is DefaultConfigFile, which may be missing
	RuntimeDir string
	StateDir   string
	CgroupRoot string // "" is found in mountinfo
	Version    string
	Log        *slog.Logger
	Recorder   Recorder // nil tells nobody
	// Listener is the socket where the service manager opened it; nil opens one in
	// RuntimeDir. Run closes it.
	Listener *net.UnixListener
	// Ready, if set, is called once the socket is open, and Stopping when the end begins.
	Ready, Stopping func()
	// Alive, if set, is called each AliveEvery for as long as the engine answers, with what
	// it says of itself.
	Alive      func(Status)
	AliveEvery time.Duration
	// Reloading, if set, is called when the configuration is read again, and then Reloaded
	// with what Engine.Reconfigure says. With an error the old one stays in force.
	Reloading func()
	Reloaded  func(changed, pending []string, err error)

	at    func(point string)                     // see Options
	lstat func(name string) (fs.FileInfo, error) // nil is os.Lstat; tests hold it up
}

// closeBound is how long the end may take. Whatever is not undone by then is undone
// by --undo, or at the next start.
const closeBound = 10 * time.Second

// Run undoes what an enforcer before left behind, then serves until ctx ends or
// SIGTERM or SIGINT comes, then releases every lease. SIGUSR2 releases every lease
// and goes on. SIGHUP reads the configuration again.
func (p Program) Run(ctx context.Context) error {
	// Signals are taken from the start on: one that comes while we recover ends us
	// afterwards, not in between.
	ctx, unhook := signal.NotifyContext(ctx, unix.SIGTERM, unix.SIGINT)
	defer unhook()
	releaseAll := make(chan os.Signal, 1)
	signal.Notify(releaseAll, unix.SIGUSR2)
	defer signal.Stop(releaseAll)
	hangUp := make(chan os.Signal, 1)
	signal.Notify(hangUp, unix.SIGHUP)
	defer signal.Stop(hangUp)
	go p.comeFirst(ctx)

	config, err := LoadConfig(p.ConfigFile)
	if err != nil {
		// What must not be done is not known, so nothing is begun. But what an enforcer
		// before held must not stay so until somebody has corrected the file.
		return errors.Join(err, p.undoLeft(ctx))
	}
	e, done, err := p.open(config)
	if err != nil {
		return err
	}
	defer done()
	p.recover(e)
	if err := e.unusable(); err != nil {
		return errors.Join(err, p.close(e))
	}
	s := NewServer(e, e.config.Load().Allow, p.Version, p.Log)
	ln, err := p.listen(s)
	if err != nil {
		return errors.Join(err, p.close(e))
	}
	if p.Listener == nil {
		defer os.Remove(filepath.Join(p.RuntimeDir, SocketName))
	}
	running, stop := context.WithCancel(context.WithoutCancel(ctx))
	ran := make(chan struct{})
	go func() {
		defer close(ran)
		e.Run(running)
	}()
	go onEach(running, hangUp, func() { p.reload(e) })
	go onEach(running, releaseAll, func() { p.releaseAll(running, e) })
	if p.Alive != nil {
		go p.prove(running, e)
	}
	go p.watchReleaseFile(running, e)
	// At the end everything is let go of at once, while the server still waits for those
	// it answers to.
	defer context.AfterFunc(ctx, e.Stop)()
	if p.Ready != nil {
		p.Ready()
	}
	p.Log.Info("breaker-enforcer is ready", keyPath, p.RuntimeDir+"/"+SocketName)
	err = s.Serve(ctx, ln)
	if p.Stopping != nil {
		p.Stopping()
	}
	err = errors.Join(err, p.close(e))
	stop()
	<-ran
	return err
}

// onEach acts on each signal of a kind. Each kind has its own goroutine: a configuration whose
// disk does not answer must not keep an operator from letting everything go.
func onEach(ctx context.Context, signals <-chan os.Signal, act func()) {
	for {
		select {
		case <-ctx.Done():
			return
		case <-signals:
			act()
		}
	}
}

// releaseAll lets everything go. It is done first and told then: whoever reads the log may be
// slow. What cannot be undone within the bound is tried again.
func (p Program) releaseAll(ctx context.Context, e *Engine) {
	bounded, cancel := context.WithTimeout(ctx, undoTimeout)
	err := e.ReleaseAll(bounded, model.EndReleased)
	cancel()
	p.Log.Warn("SIGUSR2: every lease is released")
	if err != nil {
		p.Log.Error("release failed", keyError, err)
	}
}

// listen opens the socket, unless the service manager has.
func (p Program) listen(s *Server) (*net.UnixListener, error) {
	if p.Listener != nil {
		return p.Listener, nil
	}
	if err := os.MkdirAll(p.RuntimeDir, 0o755); err != nil {
		return nil, fmt.Errorf("make runtime directory: %w", err)
	}
	return s.Listen(p.RuntimeDir)
}

// prove calls Alive for as long as the engine answers: one that holds its lock for ever
// keeps it from being called.
func (p Program) prove(ctx context.Context, e *Engine) {
	tick := time.NewTicker(p.AliveEvery)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			p.Alive(e.Status())
		}
	}
}

// Undo undoes every lease that an enforcer left behind, and returns them. It refuses
// while one is running.
func (p Program) Undo(ctx context.Context) ([]model.Lease, error) {
	go p.comeFirst(ctx)
	config, err := LoadConfig(p.ConfigFile)
	if err != nil {
		// No setting can forbid an undo.
		p.Log.Warn("the configuration cannot be read: the defaults are used for the undo", keyError, err)
		config = DefaultConfig()
	}
	return p.undo(ctx, config)
}

func (p Program) undo(ctx context.Context, config Config) ([]model.Lease, error) {
	e, done, err := p.open(config)
	if err != nil {
		return nil, err
	}
	defer done()
	leases, told, missing := e.recoverUntil(ctx, closeBound)
	// What could not be undone at once is tried again while we close.
	running, stop := context.WithCancel(ctx)
	defer stop()
	go e.Run(running)
	return leases, errors.Join(told, missing, p.end(e))
}

// undoLeft undoes, with the defaults, where the enforcer cannot be started.
func (p Program) undoLeft(ctx context.Context) error {
	if _, err := os.Stat(filepath.Join(p.StateDir, leasesDir)); errors.Is(err, fs.ErrNotExist) {
		return nil // no enforcer was ever here
	}
	leases, err := p.undo(context.WithoutCancel(ctx), DefaultConfig())
	if len(leases) > 0 {
		p.Log.Warn("leases of an enforcer before this one were undone", keyCount, len(leases))
	}
	return err
}

// lockWait is how long a start waits for the enforcer before it to be gone. Ten starts take longer
// than systemd counts them for, so that it goes on to start one until the disk answers for which
// the one before waits.
const lockWait = 5 * time.Second

// open opens the cgroups and the records.
func (p Program) open(config Config) (*Engine, func(), error) {
	root := p.CgroupRoot
	if root == "" {
		var err error
		if root, err = cgroupctl.FindRoot(); err != nil {
			return nil, nil, err
		}
	}
	c, err := cgroupctl.Open(root)
	if err != nil {
		return nil, nil, err
	}
	var units *unit.Manager
	if units = unit.Open(); units != nil {
		c.UseUnits(units)
	}
	e, err := Open(Options{
		Mode: model.Enforce, Config: config, Cgroups: c, StateDir: p.StateDir, LockWait: lockWait,
		Recorder: p.Recorder, Log: p.Log, at: p.at,
	})
	if err != nil {
		c.Close()
		return nil, nil, err
	}
	return e, func() {
		if units != nil {
			units.Close()
		}
		c.Close()
	}, nil
}

// reload reads the configuration again. One that cannot be read leaves the old one in
// force: what must not be done is still known.
func (p Program) reload(e *Engine) {
	if p.Reloading != nil {
		p.Reloading()
	}
	var changed, pending []string
	c, err := LoadConfig(p.ConfigFile)
	if err == nil {
		changed, pending, err = e.Reconfigure(c)
	}
	if p.Reloaded != nil {
		p.Reloaded(changed, pending, err)
	}
}

// recover undoes what is left. Whatever is wrong with it is told and does not keep
// the enforcer from starting: what could not be undone is tried again.
func (p Program) recover(e *Engine) {
	leases, err := e.Recover(context.Background())
	if len(leases) > 0 {
		p.Log.Warn("leases of an enforcer before this one were undone", keyCount, len(leases))
	}
	if err != nil {
		p.Log.Error("recovery is not complete", keyError, err)
	}
}

// close ends the engine. Records that could not be read until now are tried for the last
// time: a socket that was closed may have been what was missing.
func (p Program) close(e *Engine) error {
	e.Stop()
	var missing error
	if e.unread() != nil {
		_, told, left := e.recoverUntil(context.Background(), recoverBound)
		missing = errors.Join(told, left)
	}
	return errors.Join(missing, p.end(e))
}

func (p Program) end(e *Engine) error {
	ctx, cancel := context.WithTimeout(context.Background(), closeBound)
	defer cancel()
	return e.Close(ctx)
}
