package daemon

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/systemd"
)

// shadow is how long a new set has to be tried before it comes into force. Where nothing is
// in force that it could be compared with there is nothing to wait for.
func (d *Daemon) shadow(set *policy.Set) time.Duration {
	if now := d.shelf.inForce(); now == nil || now.Empty() {
		return 0
	}
	return d.shadowOf(set)
}

// shadowOf is how long it would be tried beside any other; 0 where nothing can be done by it.
func (d *Daemon) shadowOf(set *policy.Set) time.Duration {
	cfg := d.conf.get()
	if cfg.Mode == model.Monitor || !set.Acts() {
		return 0
	}
	return cfg.Policies.Shadow.D()
}

// beginTrial tries a set beside the one in force, or goes on with its trial where a restart, or
// files that could not be loaded, have interrupted it.
func (d *Daemon) beginTrial(set *policy.Set, revision string, now time.Time, shadow time.Duration) {
	kept := keptTrial{Version: trialVersion, Hash: set.Hash()}
	var t *judge.Trial
	if seen := d.memory.seenOf(set.Hash()); seen != nil {
		t = judge.ResumeTrial(set, now, now.Add(shadow), seen)
	} else {
		t = judge.NewTrial(set, now, now.Add(shadow), d.culprits(now))
	}
	kept.Seen = t.Seen()
	d.shelf.mu.Lock()
	if d.shelf.tried != nil {
		kept.Before = d.shelf.tried.Hash()
	}
	d.shelf.tried, d.shelf.triedRevision, d.shelf.trial, d.shelf.err = set, revision, t, nil
	kept.InForce, kept.Revision = d.shelf.set.Sources(), d.shelf.revision
	d.shelf.mu.Unlock()
	if err := d.memory.keepTrial(&kept); err != nil {
		d.log.Warn("a restart would put the policies in force that are on trial", "error", err)
	}
	if is := t.Is(); is.Withheld != "" {
		d.teller.write(systemd.PoliciesWithheld(*is))
	} else {
		d.teller.write(systemd.PoliciesTried(set.Hash(), is.Until))
	}
}

// keepSeen keeps what the trial of a set has seen.
func (d *Daemon) keepSeen(hash string, seen *judge.TrialSeen) {
	if err := d.memory.keepSeen(hash, seen); err != nil {
		d.log.Warn("a restart would forget what the trial of the policies has seen", "error", err)
	}
}

// dropTrial ends a trial for good, and reports whether one was under way.
func (d *Daemon) dropTrial() bool {
	had := d.shelf.dropTrial()
	if err := d.memory.keepTrial(nil); err != nil {
		d.log.Warn("what was on trial is not forgotten", "error", err)
	}
	return had
}

// promote puts the set in force that is on trial; hash is which one is meant, "" for any.
func (d *Daemon) promote(hash, by string) (string, error) {
	d.shelf.mu.Lock()
	set, revision := d.shelf.tried, d.shelf.triedRevision
	d.shelf.mu.Unlock()
	switch {
	case set == nil:
		return "", fmt.Errorf("%w: no set of policies is on trial: what the files say is in force, or was refused (breakerctl status)", api.ErrBadRequest)
	case hash != "" && set.Hash() != hash:
		return "", fmt.Errorf("%w: %s is on trial, and not %s: look at it (breakerctl status) before you put it in force", api.ErrBadRequest, set.Hash(), hash)
	}
	d.dropTrial()
	d.shelf.take(set, revision, time.Now().UTC())
	d.teller.write(systemd.PoliciesPromoted(set.Hash(), len(set.Packages()), by))
	return set.Hash(), nil
}

// promotion asks for the set on trial to be put in force.
type promotion struct {
	hash, by string
	answer   chan<- promoted // has room; nil where nobody waits
}

type promoted struct {
	hash string
	err  error
}

// Promote implements api.Source. Whoever may say yes to an action may say yes to a set of
// them: root, and whom allow.approvers names.
func (v *view) Promote(ctx context.Context, who api.Caller, hash string) (string, error) {
	if !v.allow.MayApprove(who.UID) {
		return "", fmt.Errorf("%w: %s may not put policies in force; only root may, and whom allow.approvers names in enforcer.yaml", api.ErrForbidden, who)
	}
	answer := make(chan promoted, 1)
	select {
	case v.promotions <- promotion{hash: hash, by: who.String(), answer: answer}:
	case <-ctx.Done():
		return "", ctx.Err()
	}
	select {
	case a := <-answer:
		return a.hash, a.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// culprits are the cgroups of which there was an incident lately.
func (d *Daemon) culprits(now time.Time) (all []string) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	kept, err := d.past.Incidents(ctx, model.IncidentFilter{Until: now, Most: api.MaxIncidents})
	if err != nil && !noneKept(err) {
		d.log.Warn("the history cannot say of whom there was an incident before", "error", err)
	}
	for _, in := range append(kept, d.board.all()...) {
		all = append(all, in.Culprit.Cgroup)
	}
	return all
}

// protected asks the guards whether somebody is protected, as far as it can be told from
// here. In doubt he is.
func protected(guards *enforce.Engine) func(context.Context, *model.Decision) string {
	return func(ctx context.Context, d *model.Decision) string {
		ctx, cancel := context.WithTimeout(ctx, proposeBound)
		defer cancel()
		why, err := guards.Protected(ctx, d)
		if err != nil {
			return "nobody could say whether it is: " + err.Error()
		}
		return why
	}
}

// trialVersion is that of the file.
const trialVersion = 1

// trialFile holds what is in force while another set is on trial: without it a restart
// would put that in force.
const trialFile = "trial.json"

// maxTrialFile is more than the largest set takes.
const maxTrialFile = 32 << 20

// keptTrial is a trial as it outlives a restart.
type keptTrial struct {
	Version  int               `json:"version"`
	Hash     string            `json:"hash"`             // of the set on trial
	Before   string            `json:"before,omitempty"` // of one that was before it; its bundle may be the one that is kept
	InForce  map[string]string `json:"in_force"`
	Revision string            `json:"revision,omitempty"` // of the bundle that is part of InForce
	Seen     *judge.TrialSeen  `json:"seen,omitempty"`
}

// keepTrial writes a trial, or removes it where it is nil.
func (m *memory) keepTrial(t *keptTrial) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.trial = t
	return m.writeTrial()
}

// keepSeen adds what a trial has seen, if it is the one that is kept: it may have ended meanwhile.
func (m *memory) keepSeen(hash string, seen *judge.TrialSeen) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trial == nil || m.trial.Hash != hash {
		return nil
	}
	m.trial.Seen = seen
	return m.writeTrial()
}

// writeTrial has on the disk what is kept.
func (m *memory) writeTrial() error {
	if m.dir == "" {
		return nil
	}
	name := filepath.Join(m.dir, trialFile)
	if m.trial == nil {
		if err := os.Remove(name); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget the trial: %w", err)
		}
		return nil
	}
	text, err := json.Marshal(m.trial)
	if err == nil {
		err = m.write(name, text)
	}
	if err != nil {
		return fmt.Errorf("keep the trial: %w", err)
	}
	return nil
}

// seenOf is what the trial of a set has seen that is kept; nil where none is.
func (m *memory) seenOf(hash string) *judge.TrialSeen {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.trial == nil || m.trial.Hash != hash {
		return nil
	}
	return m.trial.Seen
}

// recallTrial is the set that was in force while the one of this hash was on trial, and the
// revision of its bundle; nil where that was not.
func (m *memory) recallTrial(hash string) (before *policy.Set, revision string, err error) {
	if m.dir == "" {
		return nil, "", nil
	}
	name := filepath.Join(m.dir, trialFile)
	text, err := readKept(name, maxTrialFile)
	if text == nil && err == nil {
		return nil, "", nil
	}
	var t keptTrial
	if err == nil {
		err = json.Unmarshal(text, &t)
	}
	if err == nil && t.Version > trialVersion {
		err = fmt.Errorf("%s is of version %d, and this breakerd knows %d: use the one that wrote it, or remove the file", name, t.Version, trialVersion)
	}
	if err != nil {
		return nil, "", fmt.Errorf("read the trial: %w", err)
	}
	if hash != t.Hash && hash != t.Before {
		return nil, "", nil
	}
	m.mu.Lock()
	m.trial = &t
	m.mu.Unlock()
	before, err = policy.LoadSources(t.InForce)
	return before, t.Revision, err
}

// resumeTrial goes on with the trial of a set that a restart has interrupted. It reports whether
// there was one.
func (d *Daemon) resumeTrial(set *policy.Set, revision string, now time.Time) bool {
	before, was, err := d.memory.recallTrial(set.Hash())
	shadow := d.shadowOf(set)
	if err != nil && shadow > 0 {
		// It may be this set that was on trial: better nothing is done until it has been tried.
		d.log.Warn("no policies are in force until the new ones have been tried, because it is not known which were", "error", err)
		before, err = policy.LoadSources(nil)
	}
	if err != nil || before == nil {
		return false
	}
	d.shelf.take(before, was, now)
	d.teller.write(systemd.PoliciesLoaded(before.Hash(), len(before.Packages())))
	if shadow == 0 { // another mode, or another setting
		return false
	}
	d.beginTrial(set, revision, now, shadow)
	return true
}
