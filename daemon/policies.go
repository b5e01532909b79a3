package daemon

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/bundle"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/policy/watch"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

// shelf holds the policies in force.
type shelf struct {
	mu       sync.Mutex
	set      *policy.Set // nil before any was
	revision string      // of the bundle that is part of it; "" where none is, or it says none
	since    time.Time   // when it came into force

	err       error // why a newer one is not in force
	refusedAt time.Time

	tried         *policy.Set // nil where none is on trial
	triedRevision string
	trial         *judge.Trial
}

// take puts a set in force.
func (s *shelf) take(set *policy.Set, revision string, now time.Time) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set, s.revision, s.since, s.err = set, revision, now, nil
}

// revisionOf is that of the bundle of the set in force, if it is the one of this hash: an answer
// of the set before may be told a moment too late, and no revision is better than another's.
func (s *shelf) revisionOf(hash string) string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil || s.set.Hash() != hash {
		return ""
	}
	return s.revision
}

// mends reports whether a set is in force already, and forgets what was refused since.
func (s *shelf) mends(hash, revision string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil || s.set.Hash() != hash {
		return false
	}
	s.revision, s.err = revision, nil
	return true
}

// inForce are the policies that decide.
func (s *shelf) inForce() *policy.Set {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.set
}

// refuse notes why a newer set is not in force, and reports whether that is news.
func (s *shelf) refuse(err error, now time.Time) (news bool, kept string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	news = s.err == nil || s.err.Error() != err.Error()
	if news {
		s.err, s.refusedAt = err, now
	}
	if s.set != nil {
		kept = s.set.Hash()
	}
	return news, kept
}

// is reports whether a set of this hash is what the files say, in force or on trial, and
// nothing newer was refused. Its bundle may have another revision by now.
func (s *shelf) is(hash, revision string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil || s.set == nil:
		return false
	case s.tried != nil && s.tried.Hash() == hash:
		s.triedRevision = revision
		return true
	case s.tried == nil && s.set.Hash() == hash:
		s.revision = revision
		return true
	}
	return false
}

// dropTrial ends a trial without a result, and reports whether there was one.
func (s *shelf) dropTrial() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	had := s.tried != nil
	s.tried, s.trial = nil, nil
	return had
}

// loadPolicies loads the policies, or keeps those that are in force and says so loudly.
// With none in force nothing is ever done. It reports whether others are in force, or on
// trial, now.
func (d *Daemon) loadPolicies() (changed bool) { return d.takePolicies(d.readPolicies()) }

// loadSettled loads the policies unless their files are still changing: what has been read may
// be half of what is to come, and they are told of again once they are left alone.
func (d *Daemon) loadSettled() (changed bool) {
	set, revision, err := d.readPolicies()
	if d.watched.restless() {
		return false
	}
	return d.takePolicies(set, revision, err)
}

// takePolicies puts in force, or on trial, what was read.
func (d *Daemon) takePolicies(set *policy.Set, revision string, err error) (changed bool) {
	now := time.Now().UTC()
	if err != nil {
		news, kept := d.shelf.refuse(err, now)
		if news {
			d.teller.write(systemd.PoliciesRefused(err, kept))
		}
		// What is kept of it stays: a start that finds the files mended goes on with it.
		return d.shelf.dropTrial()
	}
	if set == nil {
		d.keepBundle()
		return false
	}
	// A trial is kept before the bundle that is tried, and forgotten after another is kept: a
	// start between the two must not put in force what is on trial.
	first := d.shelf.inForce() == nil
	switch shadow := d.shadow(set); {
	case d.shelf.mends(set.Hash(), revision):
		d.keepBundle()
		return d.dropTrial()
	case first && d.resumeTrial(set, revision, now):
		d.keepBundle()
	case shadow > 0:
		d.beginTrial(set, revision, now, shadow)
		d.keepBundle()
	default:
		d.keepBundle()
		d.dropTrial()
		d.shelf.take(set, revision, now)
		d.teller.write(systemd.PoliciesLoaded(set.Hash(), len(set.Packages())))
	}
	return true
}

// keepBundle keeps the bundle that was loaded, for the next start.
func (d *Daemon) keepBundle() {
	if err := d.bundled.loaded(); err != nil {
		d.log.Warn("a start without the server would be one without its policies", "error", err)
	}
}

// readPolicies makes the set of what the files say now, and gives the revision of the bundle that
// is part of it; nil where the set is known.
func (d *Daemon) readPolicies() (set *policy.Set, revision string, err error) {
	if writing := d.watched.writing(); len(writing) > 0 {
		return nil, "", fmt.Errorf("%s: is being written; what is there is loaded once it is closed", strings.Join(writing, ", "))
	}
	cfg := d.conf.get()
	gathered := policy.Gather(cfg.PolicyPaths()...)
	b, err := d.bundled.now(cfg.Policies.Bundle)
	if err != nil {
		return nil, "", err
	}
	if b != nil {
		gathered.Add(cfg.Policies.Bundle.Source, b.Files)
		revision = b.Revision
	}
	if d.shelf.is(gathered.Hash(), revision) {
		return nil, "", nil
	}
	set, err = gathered.Compile()
	return set, revision, err
}

// watched follows the files of the policies.
type watched struct {
	changed chan struct{} // told that something has changed and is whole again

	mu   sync.Mutex
	of   settings.Policies
	w    *watch.Watch // nil where nothing is watched
	stop context.CancelFunc
}

// begin watches what the settings name, if that is not watched yet.
func (w *watched) begin(ctx context.Context, of settings.Policies) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.stop != nil && w.of.Settle == of.Settle && w.of.Bundle.Source == of.Bundle.Source && slices.Equal(w.of.Paths, of.Paths) {
		return
	}
	if w.stop != nil {
		w.stop()
	}
	w.of, w.w = of, nil
	ctx, w.stop = context.WithCancel(ctx)
	if of.Settle == 0 {
		return
	}
	paths := of.Paths
	if of.Bundle.Source != "" && !bundle.IsURL(of.Bundle.Source) {
		paths = append(slices.Clone(paths), of.Bundle.Source)
	}
	w.w = watch.New(of.Settle.D(), paths...)
	go w.w.Run(ctx, func() {
		select {
		case w.changed <- struct{}{}:
		case <-ctx.Done():
		}
	})
}

func (w *watched) get() *watch.Watch {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.w
}

// writing are the files that somebody writes to now, as far as that is watched.
func (w *watched) writing() []string {
	if w := w.get(); w != nil {
		return w.Writing()
	}
	return nil
}

// restless reports whether files are changing now, as far as that is watched.
func (w *watched) restless() bool {
	is := w.get()
	return is != nil && is.Restless()
}

// problem is why changes are not noticed.
func (w *watched) problem() string {
	if w := w.get(); w != nil && w.Err() != nil {
		return w.Err().Error()
	}
	return ""
}

func (v *view) policies() api.Policies {
	p := api.Policies{Bundle: v.bundled.state(), DecisionLog: v.answers.state(), Packages: []string{}, Writing: append([]string{}, v.watched.writing()...), WatchError: v.watched.problem()}
	v.shelf.mu.Lock()
	defer v.shelf.mu.Unlock()
	if p.Bundle != nil {
		p.Bundle.Revision = v.shelf.revision
	}
	if v.shelf.set != nil {
		p.Hash, p.Packages, p.LoadedAt = v.shelf.set.Hash(), v.shelf.set.Packages(), v.shelf.since
	}
	if v.shelf.err != nil {
		at := v.shelf.refusedAt
		p.Error, p.RefusedAt = v.shelf.err.Error(), &at
	}
	if is := v.pipeline.trial.Load(); is != nil && v.shelf.tried != nil && is.Hash == v.shelf.tried.Hash() {
		p.Trial = is
	}
	return p
}
