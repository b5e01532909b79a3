// Package daemon is breakerd: it reads the configuration, starts the parts in their
// order, joins them, and stops them. It decides nothing itself.
package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/bpf"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/host"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/observe"
	"github.com/breakerd/breakerd/recording"
	"github.com/breakerd/breakerd/systemd"
	"github.com/breakerd/breakerd/workload"
)

// Daemon is a running breakerd.
type Daemon struct {
	conf     conf
	version  string
	log      *slog.Logger
	journal  *systemd.Journal
	teller   *teller
	observer eyes
	enforcer enforcer
	pipeline *pipeline
	board    *board
	started  time.Time
	kernel   string
	shelf    shelf
	watched  watched
	bundled  bundled
	answers  decisions
	// promotions are asked for by a person, or by a trial that has gone well.
	promotions chan promotion
	allow      enforce.AllowConfig // who may ask for one
	memory     memory
	kept       keptError
	past       History
	// pastState is what was told of it last; its writer alone changes it.
	pastState model.HistoryState
	guards    error // why the guards of a dry run are not those of enforcer.yaml
}

// keptError is why the breakers could not be kept the last time; nil if they were.
type keptError struct {
	mu  sync.Mutex
	err error
}

func (k *keptError) set(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
}

func (k *keptError) get() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.err
}

// eyes is what watches the machine: *observe.Observer.
type eyes interface {
	source
	Reader() host.Reader
	Programs() []string
	Missing() []observe.Missing
	Privileges() string
	SetTick(time.Duration)
	Close() error
}

// Run runs breakerd until the context ends. A reload reads the settings and the policies
// again.
func Run(ctx context.Context, load Load, stateDir string, history OpenHistory, version string, log *slog.Logger, reload <-chan os.Signal) (err error) {
	beFrugal()
	cfg, err := load()
	if err != nil {
		return err
	}
	journal := systemd.OpenJournal("breakerd", os.Stderr)
	defer func() { err = errors.Join(err, journal.Close()) }()
	d := &Daemon{version: version, log: log, journal: journal, teller: &teller{journal: journal, log: log}, started: time.Now().UTC(), kernel: kernelRelease()}
	d.watched.changed, d.promotions = make(chan struct{}), make(chan promotion, 1)
	d.memory.dir = filepath.Join(stateDir, memoryDir)
	d.bundled.dir, d.bundled.keep, d.bundled.tell, d.bundled.changed = d.memory.dir, d.memory.write, d.bundleFailed, d.watched.changed
	d.conf.load, d.conf.now, d.conf.loadedAt = load, cfg, d.started
	defer d.startHistory(history)()
	d.answers.tell, d.answers.revision, d.answers.labels = d.teller.write, d.shelf.revisionOf, labelsOf(version)
	fetching, stopFetching := context.WithCancel(ctx)
	defer stopFetching()
	d.bundled.begin(fetching, cfg.Policies.Bundle)
	d.answers.begin(fetching, cfg.Policies.DecisionLog)
	if err := d.open(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, d.close()) }()

	// The socket comes before the work: two breakerds must not both watch and ask.
	if err := os.MkdirAll(cfg.RuntimeDir, 0o755); err != nil {
		return fmt.Errorf("make the runtime directory: %w", err)
	}
	socket := filepath.Join(cfg.RuntimeDir, api.SocketName)
	listener, err := api.Listen(socket)
	if err != nil {
		return err
	}
	defer os.Remove(socket)
	return d.serve(ctx, listener, reload)
}

// open attaches what sees, loads what decides and connects what acts. Nothing is left
// attached after an error.
func (d *Daemon) open() (err error) {
	cfg := d.conf.get()
	d.status("attaching the kernel programs")
	if d.observer, err = observe.Open(cfg.Tick.D(), bpf.DefaultSizes); err != nil {
		return err
	}
	// The same guards as breaker-enforcer's, or a dry run would say something else.
	var guards enforce.Config
	if guards, d.guards = enforce.LoadConfig(""); d.guards != nil {
		guards = enforce.DefaultConfig()
	}
	d.allow = guards.Allow
	dry := cfg.Mode
	if dry == model.Enforce {
		dry = model.DryRun // for the rules that their authors hold to it
	}
	here, err := newLocal(dry, guards, d.observer.Reader().CgroupRoot, recorders{enforce.NewJournalRecorder(d.journal, d.log), leasesOnly{d.past}})
	if err != nil {
		return errors.Join(err, d.observer.Close())
	}
	d.enforcer = here
	if cfg.Mode == model.Enforce {
		d.enforcer = &divided{acts: newRemote(cfg.RuntimeDir, d.enforcerChanged, d.past), tries: here}
	}
	d.board = newBoard(workload.Name)
	d.status("loading the policies")
	d.loadPolicies()
	debug.FreeOSMemory() // what it took to compile them, and the kernel programs
	d.pipeline = &pipeline{
		source:   d.observer,
		judge:    judge.New(cfg.Detect, d.shelf.inForce(), workload.Name),
		board:    d.board,
		enforcer: d.enforcer,
		teller:   d.teller,
		past:     d.past,
		log:      d.log,
		outcomes: make(chan model.Outcome),
		ends:     make(chan model.LeaseEnd),
		keep:     func(text []byte) { d.kept.set(d.memory.keep(text)) },
		rulings:  make(chan ruling),
		tapes:    make(chan *tape),
		asks:     make(chan func(*judge.Judge)),
		protects: protected(here.engine),
		passed:   d.passed,
		keepSeen: d.keepSeen,
	}
	d.pipeline.answers = &d.answers
	d.pipeline.judge.Try(d.shelf.trial)
	d.pipeline.judge.Log(d.answers.on())
	d.pipeline.judge.Remember(d.memory.recall(cfg.Breaker))
	return nil
}

func (d *Daemon) close() error {
	return errors.Join(d.enforcer.close(), d.observer.Close())
}

func (d *Daemon) enforcerChanged(err error) {
	if err != nil {
		d.teller.write(systemd.EnforcerLost(err))
		return
	}
	d.teller.write(systemd.EnforcerBack())
}

// serve runs everything until the context ends or a part fails.
func (d *Daemon) serve(ctx context.Context, listener net.Listener, reload <-chan os.Signal) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var parts sync.WaitGroup
	failed := make(chan error, 3)
	part := func(name string, run func(context.Context) error) {
		parts.Go(func() {
			defer cancel()
			if err := run(ctx); err != nil {
				failed <- fmt.Errorf("%s: %w", name, err)
			}
		})
	}
	part("enforcer", func(ctx context.Context) error { d.enforcer.run(ctx); return nil })
	part("watch", d.pipeline.run)
	part("api", func(ctx context.Context) error { return api.Serve(ctx, listener, (*view)(d)) })
	part("reload", func(ctx context.Context) error { d.reloads(ctx, reload); return nil })
	part("notify", d.notify)

	d.teller.write(systemd.Started("breakerd", d.version, d.conf.get().Mode))
	for _, m := range d.observer.Missing() {
		d.teller.write(systemd.MachineLacks(m.What, m.Text))
	}
	d.status("taking the first sample")
	parts.Wait()
	close(failed)
	var errs []error
	for err := range failed {
		errs = append(errs, err)
	}
	reason := "asked to stop"
	if len(errs) > 0 {
		reason = errs[0].Error()
	}
	d.teller.write(systemd.Stopped("breakerd", reason))
	return errors.Join(errs...)
}

// notify tells systemd when the first sample was taken, and then that samples go on
// being taken.
func (d *Daemon) notify(ctx context.Context) error {
	interval, err := systemd.WatchdogInterval()
	if err != nil {
		d.log.Warn("the watchdog is not served", "error", err)
	}
	if interval == 0 {
		interval = 10 * time.Second
	}
	wait := d.conf.get().Tick.D()
	ready := false
	var seen uint64
	for {
		select {
		case <-ctx.Done():
			if err := systemd.Stopping("letting the last entries out"); err != nil {
				d.log.Debug("systemd was not told", "error", err)
			}
			return nil
		case <-time.After(wait):
		}
		samples := d.pipeline.samples.Load()
		switch {
		case samples == seen: // a breakerd that sees nothing is not alive
		case !ready:
			ready, wait = true, interval
			err = systemd.Ready(d.statusLine())
		default:
			err = errors.Join(systemd.Watchdog(), systemd.Status(d.statusLine()))
		}
		seen = samples
		if err != nil {
			d.log.Debug("systemd was not told", "error", err)
		}
	}
}

func (d *Daemon) status(line string) {
	if err := systemd.Status(line); err != nil {
		d.log.Debug("systemd was not told", "error", err)
	}
}

// record writes a recording until the context ends.
func (d *Daemon) record(ctx context.Context, w io.Writer) error {
	thresholds, err := json.Marshal(d.conf.get().Detect)
	if err != nil {
		return err
	}
	learning, err := json.Marshal(d.conf.get().Breaker)
	if err != nil {
		return err
	}
	var breakers []byte
	if err := d.pipeline.ask(ctx, func(j *judge.Judge) { breakers, _ = j.Snapshot() }); err != nil {
		return err
	}
	var sources map[string]string
	if set := d.shelf.inForce(); set != nil {
		sources = set.Sources()
	}
	enc, err := recording.NewEncoder(w, recording.Header{Detect: thresholds, Policies: sources, Learning: learning, Breakers: breakers})
	if err != nil {
		return err
	}
	// This many samples, a minute at the default tick, may wait for a slow listener.
	t := &tape{records: make(chan recording.Record, 256), done: ctx.Done()}
	select {
	case d.pipeline.tapes <- t:
	case <-ctx.Done():
		return ctx.Err()
	}
	for {
		select {
		case <-ctx.Done():
			return enc.End()
		case r, ok := <-t.records:
			if !ok {
				return errors.New("the recording was read too slowly, or the policies were changed")
			}
			if err := enc.Encode(r); err != nil {
				return err
			}
		}
	}
}

func kernelRelease() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return ""
	}
	return unix.ByteSliceToString(u.Release[:])
}

// controllers are those that cgroup2 has, for a person.
func controllers(r host.Reader) []string {
	names, err := r.Controllers()
	if err != nil {
		return nil
	}
	return names
}
