package enforce

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Pause says that nothing new is begun. What is held goes on to its end.
type Pause struct {
	By    string     `json:"by"`
	At    time.Time  `json:"at"`
	Until *time.Time `json:"until"` // nil is until somebody resumes
}

// over reports whether it has ended by itself.
func (p *Pause) over(now time.Time) bool { return p.Until != nil && !now.Before(*p.Until) }

func (p *Pause) String() string {
	if p.Until == nil {
		return fmt.Sprintf("paused by %s, until somebody says breakerctl resume", p.By)
	}
	return fmt.Sprintf("paused by %s until %s", p.By, p.Until.Format(time.RFC3339))
}

// MaxPause bounds a pause that has an end: a longer one is one without.
const MaxPause = 30 * 24 * time.Hour

// pauseFile lies beside the records, so that a pause outlives a restart.
const pauseFile = "pause.json"

// Pause has nothing new begun for so long, or until somebody resumes where it is 0. It is on
// disk before it is said to hold.
func (e *Engine) Pause(long time.Duration, by string) (Pause, error) {
	if long < 0 || long > MaxPause {
		return Pause{}, fmt.Errorf("pause for %s: it must be between 0 and %s", long, MaxPause)
	}
	p := Pause{By: by, At: e.now()}
	if long > 0 {
		until := p.At.Add(long)
		p.Until = &until
	}
	// In force first: a disk that is full does not keep anybody from pausing.
	e.mu.Lock()
	e.paused = &p
	e.mu.Unlock()
	if err := e.records.writePause(&p); err != nil {
		return p, fmt.Errorf("it is paused, but only until the enforcer is started again: %w", err)
	}
	return p, nil
}

// Resume ends a pause.
func (e *Engine) Resume() error {
	if err := e.records.writePause(nil); err != nil {
		return fmt.Errorf("resume: %w", err)
	}
	e.mu.Lock()
	e.paused = nil
	e.mu.Unlock()
	return nil
}

// pauseLocked is why nothing is begun; "" if it may be.
func (e *Engine) pauseLocked(now time.Time) string {
	switch {
	case e.forbidden != "":
		return e.forbidden
	case e.paused != nil && !e.paused.over(now):
		return e.paused.String()
	}
	return ""
}

// forbid has nothing begun, and everything let go, for as long as there is a reason.
func (e *Engine) forbid(why string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.forbidden = why
	if why == "" {
		return
	}
	for _, l := range e.active {
		if !l.claimed {
			l.addNote(why)
		}
		e.endLocked(l, model.EndReleased)
	}
}

// writePause puts a pause on disk, or takes it away.
func (r *records) writePause(p *Pause) error {
	if r == nil {
		return nil
	}
	r.pausing.Lock() // one at a time: whoever waits for a disk takes a thread
	defer r.pausing.Unlock()
	if p == nil {
		if err := r.root.Remove(pauseFile); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		return nil
	}
	b, err := json.Marshal(p)
	if err != nil {
		return err
	}
	return r.replace("."+pauseFile, pauseFile, append(b, '\n'), durable)
}

// readPause reads the pause of before. One that cannot be read is one without an end: whoever
// paused must not be overruled by a disk.
func (r *records) readPause() *Pause {
	if r == nil {
		return nil
	}
	f, err := r.root.Open(pauseFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	unreadable := &Pause{By: "somebody, who cannot be read any more"}
	if err != nil {
		return unreadable
	}
	defer f.Close()
	var p Pause
	if json.NewDecoder(f).Decode(&p) != nil || p.By == "" {
		return unreadable
	}
	return &p
}

// ReleaseFile is a file in the runtime directory, or in the state directory: as long as it is
// there nothing is held and nothing begun. It needs no socket and no program. The runtime
// directory is breakerd's, who could take it away there; the state directory is root's.
const ReleaseFile = "RELEASE"

// releaseFileEvery is how often it is looked for.
const releaseFileEvery = 250 * time.Millisecond

// watchReleaseFile lets everything go while the file is there.
func (p Program) watchReleaseFile(ctx context.Context, e *Engine) {
	names := []string{filepath.Join(p.StateDir, ReleaseFile), filepath.Join(p.RuntimeDir, ReleaseFile)}
	looks := make(chan look)
	for _, name := range names {
		// The state directory is on a disk, which may not answer; the other is not.
		go p.lookFor(ctx, name, looks)
	}
	there := map[string]bool{}
	found := ""
	for {
		select {
		case <-ctx.Done():
			return
		case l := <-looks:
			there[l.name] = l.there
		}
		now := ""
		if i := slices.IndexFunc(names, func(name string) bool { return there[name] }); i >= 0 {
			now = names[i]
		}
		if now == found {
			continue
		}
		why, name := "", found
		if found = now; found != "" {
			why, name = fmt.Sprintf("the file %s is there, which lets everything go", found), found
		}
		e.forbid(why)
		p.Log.Warn("the release file has come or gone", keyPath, name, keyFound, found != "")
	}
}

// look says whether a file is there.
type look struct {
	name  string
	there bool
}

// lookFor says again and again whether a file is there.
func (p Program) lookFor(ctx context.Context, name string, looks chan<- look) {
	lstat := p.lstat
	if lstat == nil {
		lstat = os.Lstat
	}
	tick := time.NewTicker(releaseFileEvery)
	defer tick.Stop()
	for {
		_, err := lstat(name)
		select {
		case <-ctx.Done():
			return
		case looks <- look{name, err == nil}:
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}
