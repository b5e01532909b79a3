// Package policy asks the operator's Rego policies what to do about an incident.
//
// A policy is a Rego v1 module in a package under breaker. Two of its rules count,
// both partial sets: action holds what is asked for, deny holds reasons against
// doing anything. [Load] compiles a set of them, [Set.Decide] evaluates it. The
// answer is a pure function of the [Input]: there is no clock, no network, no
// environment and no file to read, and a bound on how long and how large an
// evaluation may get. Doubt means no action: any error of any policy of the set,
// also in a package that asks for nothing, leaves everything as it is.
package policy

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage"

	"github.com/breakerd/breakerd/model"
)

// Set is a compiled set of policies. It does not change, and is safe for use by
// many goroutines at once.
type Set struct {
	hash     string
	packages []string          // sorted; those with an action or a deny
	sources  map[string]string // by the names from which they can be read again
	texts    map[string]string // the same by file, for people
	data     *data

	rules map[place]*Rule // every action and deny

	// The queries and what they need, prepared once; nil where nobody has anything to say.
	compiler *ast.Compiler
	all      *asked
	byKind   map[model.Kind]*asked
	store    storage.Store
	owner    map[string]string // file to package, to say whose an error is

	limits Limits
	// stuckSince is when an evaluation was given up that did not stop when asked
	// (Unix nanoseconds), 0 where there is none.
	stuckSince *atomic.Int64
}

// Limits bound one evaluation. Steps counts what the policies do, so that the same
// input is stopped at the same place on every machine. Time is the last resort, for
// what cannot be counted.
type Limits struct {
	// Steps are expressions tried, and as many for the data that builtins take and
	// make. 100,000 of them take about 50 ms of a CPU.
	Steps int
	Time  time.Duration // by the clock on the wall
}

// DefaultLimits are what Load gives to a set. The shipped rules take some seventy
// steps. The time is far longer than they could need, because it passes also while
// breakerd waits for a CPU, and that is when it has to decide: with eight busy
// goroutines on two CPUs an evaluation of 60 µs was seen to take 200 ms.
var DefaultLimits = Limits{Steps: 100_000, Time: time.Second}

// WithLimits returns the same set under other limits. A limit of 0 is the default.
func (s *Set) WithLimits(l Limits) *Set {
	c := *s
	c.limits = l
	if l.Steps <= 0 {
		c.limits.Steps = DefaultLimits.Steps
	}
	if l.Time <= 0 {
		c.limits.Time = DefaultLimits.Time
	}
	return &c
}

// Hash names the sources of the set: the same files under the same names give the
// same hash, whatever folder they lie in and in whatever order they were given.
func (s *Set) Hash() string { return s.hash }

// Packages lists the packages that have an action or a deny, in alphabetical order.
func (s *Set) Packages() []string { return slices.Clone(s.packages) }

// Rules describes the actions and denials of the set, by file and line.
func (s *Set) Rules() []Rule {
	var all []Rule
	for _, r := range s.rules {
		all = append(all, *r)
	}
	slices.SortFunc(all, func(a, b Rule) int {
		return cmp.Or(strings.Compare(a.File, b.File), a.Line-b.Line, strings.Compare(a.Name, b.Name))
	})
	return all
}

// Empty reports whether no package can ask for anything or deny anything.
func (s *Set) Empty() bool { return len(s.packages) == 0 }

// Acts reports whether any rule can ask for something that is not held to a dry run.
func (s *Set) Acts() bool {
	for _, r := range s.rules {
		if r.Name == "action" && !r.DryRun {
			return true
		}
	}
	return false
}

// Sources are the files of the set by name, from which the same set can be made again
// with LoadFS.
func (s *Set) Sources() map[string]string { return maps.Clone(s.sources) }
