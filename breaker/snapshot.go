package breaker

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"time"

	"github.com/breakerd/breakerd/model"
)

// Version is that of the form in which breakers are kept. 2 has EasesAt and Eased, 3 has
// Policy; 1 and 2 are read, too.
const Version = 3

// snapshot is what outlives a program.
type snapshot struct {
	Version  int        `json:"version"`
	Quiet    time.Time  `json:"quiet_until"`
	Breakers []*breaker `json:"breakers"` // by their paths
}

// Snapshot is the set as it is. What is under way is not in it: its outcome will reach
// nobody.
func (s *Set) Snapshot() ([]byte, error) {
	out := snapshot{Version: Version, Quiet: s.quiet, Breakers: []*breaker{}}
	for _, path := range slices.Sorted(maps.Keys(s.byPath)) {
		if b := s.byPath[path]; b.Generation > 0 || len(b.Resting) > 0 {
			out.Breakers = append(out.Breakers, b)
		}
	}
	return json.Marshal(out)
}

// Load is a set as a snapshot has it. It accepts nothing that it does not know.
func Load(cfg Config, text []byte) (*Set, error) {
	var only struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(text, &only) == nil && only.Version > Version {
		return nil, fmt.Errorf("read breakers: they are of version %d, and this breakerd knows %d: a later one wrote them", only.Version, Version)
	}
	var in snapshot
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&in); err != nil {
		return nil, fmt.Errorf("read breakers: %w", err)
	}
	s := New(cfg)
	s.quiet = in.Quiet
	for _, b := range in.Breakers {
		if err := b.check(); err != nil {
			return nil, fmt.Errorf("read breakers: %w", err)
		}
		s.byPath[b.Cgroup] = b
	}
	if in.Version < 1 || len(s.byPath) != len(in.Breakers) || len(s.byPath) > most {
		return nil, fmt.Errorf("read breakers: version %d with %d breakers, of which %d are different ones: this is none of ours", in.Version, len(in.Breakers), len(s.byPath))
	}
	return s, nil
}

func (b *breaker) check() error {
	switch {
	case b == nil || b.Cgroup == "":
		return fmt.Errorf("one is of no cgroup")
	case !slices.Contains(model.BreakerStates, b.State), !slices.Contains(model.Effects, b.LastEffect):
		return fmt.Errorf("that of %q is %q with effect %q", b.Cgroup, b.State, b.LastEffect)
	case b.Opened < 0 || b.Rung < 0 || b.Left < 0:
		return fmt.Errorf("that of %q counts below 0", b.Cgroup)
	case len(b.Resting) > len(model.Kinds):
		return fmt.Errorf("that of %q rests for %d kinds of trouble", b.Cgroup, len(b.Resting))
	}
	return nil
}

// Restart begins anew at a time after the program was started: nothing is asked for for a
// while, and what was held is taken for let go of and is watched. If its lease runs on
// nevertheless, the enforcer holds nobody twice.
func (s *Set) Restart(now time.Time) {
	s.now = now
	s.quiet = now.Add(s.cfg.StartQuiet.D())
	for _, b := range s.byPath {
		if b.Since.After(now) { // the clock was set back meanwhile
			b.Since = now
		}
		b.Resting = slices.DeleteFunc(b.Resting, func(r model.Rest) bool { return r.Until.Sub(now) > s.cfg.RefutedFor.D() })
		if b.State != model.BreakerClosed {
			b.LastEnd, b.Eased = "", false // nobody knows
			b.turn(model.BreakerHalfOpen, now)
		}
	}
}
