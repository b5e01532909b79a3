package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"strings"
	"time"
	"unicode"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/breakerd/breakerd/model"
)

// Bounds of an action. A guard would not hold anything longer than MaxFor either,
// but an operator who writes an hour should hear of it, not get ten minutes.
const (
	MinFor      = 100 * time.Millisecond
	MaxFor      = 10 * time.Minute
	maxReason   = 256  // bytes; longer ones are cut
	maxPriority = 1000 // either way
	maxRequests = 64   // of all packages; as many denials
)

// actionKeys are the keys of an action, those that it must have first.
var actionKeys = []string{
	"kind", "scope", "for", "reason", "priority",
	"cpu_percent", "memory_high", "io_percent", "pids_max",
}

// readAction takes what a policy asked for. It accepts nothing that it does not
// understand: whoever wrote a key that we do not know meant something by it.
func readAction(t *ast.Term) (model.Action, error) {
	var a model.Action
	o, ok := t.Value.(ast.Object)
	if !ok {
		return a, fmt.Errorf("is %s, not an object with kind, scope, for and reason", article(t))
	}
	var err error
	o.Until(func(k, v *ast.Term) bool {
		key, ok := k.Value.(ast.String)
		if !ok {
			err = fmt.Errorf("has %s as a key", article(k))
			return true
		}
		if err = knownKey(string(key)); err == nil {
			err = setKey(&a, string(key), v)
		}
		return err != nil
	})
	if err != nil {
		return model.Action{}, err
	}
	for _, key := range actionKeys[:4] {
		if o.Get(ast.InternedTerm(key)) == nil {
			return model.Action{}, fmt.Errorf("%s is missing", key)
		}
	}
	limits := a.CPUPercent != 0 || a.MemoryHigh != 0 || a.IOPercent != 0 || a.PIDsMax != 0
	switch {
	case a.Kind == model.Freeze && limits:
		return model.Action{}, errors.New("a freeze has no limits: cpu_percent, memory_high, io_percent and pids_max belong to a throttle")
	case a.Kind == model.Throttle && !limits:
		return model.Action{}, errors.New("a throttle needs at least one of cpu_percent, memory_high, io_percent, pids_max")
	}
	return a, nil
}

// setKey puts the value of one key into the action.
func setKey(a *model.Action, key string, v *ast.Term) (err error) {
	var s string
	switch key {
	case "kind":
		s, err = oneOf(v, string(model.Freeze), string(model.Throttle))
		a.Kind = model.ActionKind(s)
	case "scope":
		s, err = oneOf(v, string(model.ScopeTree), string(model.ScopeCgroup))
		a.Scope = model.Scope(s)
	case "for":
		a.ForMS, err = readFor(v)
	case "reason":
		a.Reason, err = readReason(v)
	case "priority":
		var f float64
		f, err = number(v, -maxPriority, maxPriority, true)
		a.Priority = int(f)
	case "cpu_percent": // of one CPU, so a big machine has far more than 100
		a.CPUPercent, err = number(v, 1, 1e6, false)
	case "io_percent":
		a.IOPercent, err = number(v, 1, 100, false)
	case "memory_high":
		var f float64
		f, err = number(v, 1<<20, 1<<53, true)
		a.MemoryHigh = uint64(f)
	case "pids_max":
		var f float64
		f, err = number(v, 1, 1<<22, true) // the kernel has no more pids
		a.PIDsMax = uint64(f)
	}
	if err != nil {
		return fmt.Errorf("%s %w", key, err)
	}
	return nil
}

func oneOf(v *ast.Term, words ...string) (string, error) {
	s, ok := v.Value.(ast.String)
	if !ok {
		return "", fmt.Errorf("is %s, not a string", article(v))
	}
	for _, w := range words {
		if string(s) == w {
			return w, nil
		}
	}
	return "", fmt.Errorf("is %q, not %s", cut(string(s), 40), strings.Join(words, " or "))
}

func readFor(v *ast.Term) (int64, error) {
	s, ok := v.Value.(ast.String)
	if !ok {
		return 0, fmt.Errorf(`is %s, not a duration such as "60s"`, article(v))
	}
	d, err := time.ParseDuration(string(s))
	if err != nil {
		return 0, fmt.Errorf(`is %q, not a duration such as "60s" or "5m"`, cut(string(s), 40))
	}
	if d < MinFor || d > MaxFor {
		return 0, fmt.Errorf("is %q, not between %v and %v", cut(string(s), 40), MinFor, MaxFor)
	}
	return d.Milliseconds(), nil
}

// readReason takes a text that a person will read. Control characters are replaced
// and what is too long is cut, not refused: a policy may quote a process's name,
// and a process must not be able to escape an action by what it calls itself.
func readReason(v *ast.Term) (string, error) {
	s, ok := v.Value.(ast.String)
	if !ok {
		return "", fmt.Errorf("is %s, not a string", article(v))
	}
	r := strings.TrimSpace(strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return ' '
	}, string(s)))
	if r == "" {
		return "", errors.New("is empty")
	}
	if len(r) > maxReason {
		r = cut(r, maxReason-len("…")) + "…"
	}
	return r, nil
}

func number(v *ast.Term, least, most float64, whole bool) (float64, error) {
	n, ok := v.Value.(ast.Number)
	if !ok {
		return 0, fmt.Errorf("is %s, not a number", article(v))
	}
	f, err := json.Number(n).Float64()
	if err != nil || f < least || f > most || math.IsNaN(f) {
		return 0, fmt.Errorf("is %s, not between %.0f and %.0f", cut(string(n), 40), least, most)
	}
	if whole && f != math.Trunc(f) {
		return 0, fmt.Errorf("is %s, not a whole number", cut(string(n), 40))
	}
	return f, nil
}

// article names the type of a value in a sentence.
func article(t *ast.Term) string {
	name := ast.ValueName(t.Value)
	switch {
	case name == "null":
		return name
	case strings.ContainsRune("aeiou", rune(name[0])):
		return "an " + name
	}
	return "a " + name
}
