package daemon

import (
	"context"
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

// Load reads the settings, from files and whatever is above them.
type Load func() (settings.Settings, error)

// conf holds the settings in force.
type conf struct {
	load Load

	mu       sync.Mutex
	now      settings.Settings
	loadedAt time.Time
	err      error    // why those that were read last are not in force
	pending  []string // keys that were changed and need a restart
}

func (c *conf) get() settings.Settings {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *conf) state() api.Config {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := api.Config{LoadedAt: c.loadedAt, NeedsRestart: append([]string{}, c.pending...)}
	if c.err != nil {
		s.Error = c.err.Error()
	}
	return s
}

// again reads the settings again and puts in force what can be.
func (c *conf) again() systemd.Entry {
	is, err := c.load()
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.err = err; err != nil {
		return systemd.ConfigRefused("breakerd", err)
	}
	was := c.now
	c.now, c.loadedAt = settings.Applied(was, is), time.Now().UTC()
	c.pending = changed(c.now, is)
	return systemd.ConfigLoaded("breakerd", changed(was, c.now), c.pending)
}

// changed names the keys in which two settings differ.
func changed(was, is settings.Settings) (keys []string) {
	for _, c := range settings.Changes(was, is) {
		keys = append(keys, c.Key)
	}
	return keys
}

// ruling is what decides: it changes between two samples and as a whole.
type ruling struct {
	policies   *policy.Set
	trial      *judge.Trial // nil where none is on trial
	thresholds detect.Config
	learning   breaker.Config
}

// reloads reads the configuration and the policies again whenever it is asked to, and the
// policies when they have changed. What is refused leaves the old in force; each for
// itself, because a slip in one policy should not keep a threshold from being changed.
func (d *Daemon) reloads(ctx context.Context, reload <-chan os.Signal) {
	d.follow(ctx)
	for {
		select {
		case <-ctx.Done():
			return
		case <-reload:
			d.reload(ctx)
		case <-d.watched.changed:
			if d.loadSettled() {
				d.rule(ctx)
			}
		case p := <-d.promotions:
			hash, err := d.promote(p.hash, p.by)
			if err == nil {
				d.rule(ctx)
			}
			if p.answer != nil {
				p.answer <- promoted{hash, err}
			}
		}
	}
}

// follow begins to watch, to fetch and to send what the settings name, and ends what they
// name no more.
func (d *Daemon) follow(ctx context.Context) {
	p := d.conf.get().Policies
	d.watched.begin(ctx, p)
	d.bundled.begin(ctx, p.Bundle)
	d.answers.begin(ctx, p.DecisionLog)
}

// reload does what systemctl reload asks for.
func (d *Daemon) reload(ctx context.Context) {
	if err := systemd.Reloading(); err != nil {
		d.log.Warn("systemd was not told", "error", err)
	}
	d.status("reading the configuration and the policies again")
	tick := d.conf.get().Tick
	d.teller.write(d.conf.again())
	d.past.SetBounds(d.conf.get().History.MaxAge.D(), int64(d.conf.get().History.MaxSize))
	if now := d.conf.get().Tick; now != tick {
		d.observer.SetTick(now.D())
	}
	d.follow(ctx) // what was kept of a bundle is to be loaded
	d.loadPolicies()
	d.rule(ctx)
	if err := systemd.Ready(d.statusLine()); err != nil {
		d.log.Warn("systemd was not told", "error", err)
	}
}

// rule has the pipeline decide by what is in force now.
func (d *Daemon) rule(ctx context.Context) {
	cfg := d.conf.get()
	d.shelf.mu.Lock()
	r := ruling{d.shelf.set, d.shelf.trial, cfg.Detect, cfg.Breaker}
	d.shelf.mu.Unlock()
	select {
	case d.pipeline.rulings <- r:
	case <-ctx.Done():
	}
}

// passed has the set put in force whose trial went well. The pipeline, which tells it, does
// not wait: where another promotion is on its way the trial is looked at again afterwards.
func (d *Daemon) passed(t *model.PolicyTrial) {
	select {
	case d.promotions <- promotion{hash: t.Hash, by: "its trial"}:
	default:
	}
}

// statusLine is what systemctl status shows: how it is, and what is wrong.
func (d *Daemon) statusLine() string {
	open, total := d.board.counts()
	parts := []string{fmt.Sprintf("%s; %d incidents open, %d since the start", d.conf.get().Mode, open, total)}
	var missing []string
	for _, m := range d.observer.Missing() {
		missing = append(missing, m.What)
	}
	if len(missing) > 0 {
		parts = append(parts, "not on this machine: "+strings.Join(missing, ", "))
	}
	d.shelf.mu.Lock()
	refused := d.shelf.err != nil
	d.shelf.mu.Unlock()
	if refused {
		parts = append(parts, "policies refused")
	}
	state := d.conf.state()
	if state.Error != "" {
		parts = append(parts, "configuration refused")
	}
	if len(state.NeedsRestart) > 0 {
		parts = append(parts, "needs a restart: "+strings.Join(state.NeedsRestart, ", "))
	}
	if d.past.State().Problem != "" {
		parts = append(parts, "no history")
	}
	if d.enforcer.state().State == "unreachable" {
		parts = append(parts, "breaker-enforcer does not answer")
	}
	if len(parts) > 1 {
		parts = append(parts, "see breakerctl doctor")
	}
	return strings.Join(parts, "; ")
}
