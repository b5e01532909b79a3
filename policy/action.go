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
	maxThen     = 3    // further actions

	// The last part of a throttle, in which its limits are loosened half way: less shows nothing
	// of the victims. A hold that says nothing of it has defaultEase if it is easedFrom or longer.
	MinEase     = 2 * time.Second
	defaultEase = 10 * time.Second
	easedFrom   = 30 * time.Second

	// A person's yes is worth nothing before anybody can have read the question, nor to a
	// question of yesterday.
	MinApproval = 10 * time.Second
	MaxApproval = 24 * time.Hour
)

// actionKeys are the keys of an action, those that it must have first.
var actionKeys = []string{
	"kind", "scope", "for", "reason", "priority",
	"cpu_percent", "memory_high", "io_percent", "pids_max", "ease", "approval", "then",
}

// notInThen are keys that only the first action of a ladder has.
var notInThen = []string{"priority", "then"}

// readAction takes what a policy asked for. It accepts nothing that it does not
// understand: whoever wrote a key that we do not know meant something by it.
func readAction(t *ast.Term) (model.Action, error) {
	a, o, err := readKeys(t, model.Action{})
	if err != nil {
		return model.Action{}, err
	}
	for _, key := range actionKeys[:4] {
		if o.Get(ast.InternedTerm(key)) == nil {
			return model.Action{}, fmt.Errorf("%s is missing", key)
		}
	}
	if err := settle(&a, o); err != nil {
		return model.Action{}, err
	}
	if then := o.Get(ast.InternedTerm("then")); then != nil {
		if a.Then, err = readThen(then, a); err != nil {
			return model.Action{}, fmt.Errorf("then %w", err)
		}
	}
	return a, nil
}

// readThen takes the actions that follow the first, milder ones first: each has to be more
// than the one before, and has its scope and its reason where it does not say others.
func readThen(t *ast.Term, first model.Action) ([]model.Action, error) {
	rungs, ok := t.Value.(*ast.Array)
	if !ok {
		return nil, fmt.Errorf("is %s, not an array of actions", article(t))
	}
	if n := rungs.Len(); n == 0 || n > maxThen {
		return nil, fmt.Errorf("has %d actions, not 1 to %d", n, maxThen)
	}
	var then []model.Action
	before := first
	for i := range rungs.Len() {
		a, err := readRung(rungs.Elem(i), first)
		if err == nil && compareForce(&before, &a) >= 0 {
			err = errors.New("it is no more than the one before: the milder one comes first")
		}
		if err != nil {
			return nil, fmt.Errorf("number %d: %w", i+1, err)
		}
		then = append(then, a)
		before = a
	}
	return then, nil
}

func readRung(t *ast.Term, first model.Action) (model.Action, error) {
	a, o, err := readKeys(t, model.Action{Scope: first.Scope, Reason: first.Reason})
	if err != nil {
		return model.Action{}, err
	}
	for _, key := range notInThen {
		if o.Get(ast.InternedTerm(key)) != nil {
			return model.Action{}, fmt.Errorf("%s belongs to the first action", key)
		}
	}
	for _, key := range []string{"kind", "for"} {
		if o.Get(ast.InternedTerm(key)) == nil {
			return model.Action{}, fmt.Errorf("%s is missing", key)
		}
	}
	return a, settle(&a, o)
}

// readKeys puts what an object says into an action.
func readKeys(t *ast.Term, a model.Action) (model.Action, ast.Object, error) {
	o, ok := t.Value.(ast.Object)
	if !ok {
		return a, nil, fmt.Errorf("is %s, not an object with kind, scope, for and reason", article(t))
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
	return a, o, err
}

// settle checks what belongs together in an action, and says what was left open.
func settle(a *model.Action, o ast.Object) error {
	if err := checkLimits(a); err != nil {
		return err
	}
	eased := a.CPUPercent+a.IOPercent > 0 || a.MemoryHigh > 0
	switch said := o.Get(ast.InternedTerm("ease")) != nil; {
	case !said && eased && a.For() >= easedFrom:
		a.EaseMS = defaultEase.Milliseconds()
	case a.EaseMS > 0 && !eased:
		return errors.New("ease needs cpu_percent, memory_high or io_percent: nothing else is loosened half way")
	case a.Ease() > a.For()/2:
		return fmt.Errorf("ease is %v, more than half of for (%v)", a.Ease(), a.For())
	}
	return nil
}

func checkLimits(a *model.Action) error {
	limits := limitCount(a) > 0
	switch {
	case a.Kind == model.Freeze && limits:
		return errors.New("a freeze has no limits: cpu_percent, memory_high, io_percent and pids_max belong to a throttle")
	case a.Kind == model.Throttle && !limits:
		return errors.New("a throttle needs at least one of cpu_percent, memory_high, io_percent, pids_max")
	}
	return nil
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
		a.ForMS, err = readFor(v, MinFor, MaxFor)
	case "ease":
		a.EaseMS, err = readEase(v)
	case "approval":
		a.ApprovalMS, err = readFor(v, MinApproval, MaxApproval)
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

func readFor(v *ast.Term, least, most time.Duration) (int64, error) {
	s, ok := v.Value.(ast.String)
	if !ok {
		return 0, fmt.Errorf(`is %s, not a duration such as "60s"`, article(v))
	}
	d, err := time.ParseDuration(string(s))
	if err != nil {
		return 0, fmt.Errorf(`is %q, not a duration such as "60s" or "5m"`, cut(string(s), 40))
	}
	if d < least || d > most {
		return 0, fmt.Errorf("is %q, not between %v and %v", cut(string(s), 40), least, most)
	}
	return d.Milliseconds(), nil
}

// readEase takes a duration, or none at all.
func readEase(v *ast.Term) (int64, error) {
	if s, ok := v.Value.(ast.String); ok && s == "0s" {
		return 0, nil
	}
	return readFor(v, MinEase, MaxFor/2)
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
