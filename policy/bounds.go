package policy

import (
	"errors"
	"fmt"
	"math/big"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
	"github.com/open-policy-agent/opa/v1/topdown/builtins"
)

// Bounds of what a builtin takes and makes. The input at its largest stays below.
const (
	maxString = 64 << 10 // bytes of one string
	maxValue  = 1 << 20  // bytes of one value, by weight
	maxDigits = 400      // of a number; a float64 has at most 309 before the point
	maxRange  = 10_000   // numbers of numbers.range
	// termWeight is what an element costs in memory beside its text: a term, its
	// interface and its place in the collection, about.
	termWeight = 64
	// stepBytes of data count as a step: the slowest regular expression goes through
	// them in 4 µs, ten times as long as an expression takes.
	stepBytes = 64
)

// meter counts what an evaluation does and tells OPA when to stop. OPA asks it
// before each expression, always from the goroutine that evaluates.
type meter struct {
	steps    int
	nextLook int // at the clock, in steps
	limits   Limits
	deadline time.Time
	done     <-chan struct{} // of the context
	stopped  string          // why; "" while it goes on
	trace    *tracer         // nil where nobody wants to know
}

// Cancel is part of topdown.Cancel; nobody calls it.
func (m *meter) Cancel() {}

// Cancelled counts a step.
func (m *meter) Cancelled() bool {
	m.spend(1)
	return m.stopped != ""
}

// spend counts steps. It looks at the clock every 64 steps, because a look costs
// about as much as a step.
func (m *meter) spend(steps int) {
	m.steps += steps
	if m.steps >= m.nextLook {
		m.nextLook = m.steps + 64
		m.look()
	}
	if m.steps > m.limits.Steps {
		m.stop("took more than %d steps", m.limits.Steps)
	}
}

func (m *meter) look() {
	select {
	case <-m.done:
		m.stop("was called off")
	default:
	}
	if time.Now().After(m.deadline) {
		m.stop("took longer than %v", m.limits.Time)
	}
}

func (m *meter) stop(format string, args ...any) {
	if m.stopped == "" {
		m.stopped = fmt.Sprintf(format, args...)
	}
}

// estimate says how large the result of a builtin may get, or why it is refused.
// A wrong type gives 0: the builtin itself says what is wrong.
type estimate func(operands []*ast.Term) (int, error)

// bounded is a builtin that refuses operands and results over the bounds. Such a
// refusal ends the evaluation: a rule that is undefined instead could be a deny.
func bounded(name string, arity int, f topdown.BuiltinFunc, est estimate) topdown.BuiltinFunc {
	return func(ctx topdown.BuiltinContext, operands []*ast.Term, iter func(*ast.Term) error) error {
		m := ctx.Cancel.(*meter)
		at := ctx.Location // a function that holds the context itself makes a copy of it, 400 bytes
		halt := func(err error) error {
			return topdown.Halt{Err: &topdown.Error{
				Code: topdown.BuiltinErr, Location: at, Message: name + ": " + err.Error(),
			}}
		}
		total := 0
		for i, o := range operands[:min(arity, len(operands))] {
			w, err := weigh(o)
			if err != nil {
				return halt(fmt.Errorf("operand %d %w", i+1, err))
			}
			total += w
		}
		if est != nil {
			n, err := est(operands)
			if err == nil && n > maxValue {
				err = fmt.Errorf("result could be larger than %d bytes", maxValue)
			}
			if err != nil {
				return halt(err)
			}
			total += n
		}
		if m.spend(total / stepBytes); m.stopped != "" {
			return halt(errors.New(m.stopped))
		}
		return f(ctx, operands, func(t *ast.Term) error {
			w, err := weigh(t)
			if err != nil {
				return halt(fmt.Errorf("result %w", err))
			}
			if m.spend(w / stepBytes); m.stopped != "" {
				return halt(errors.New(m.stopped))
			}
			return iter(t)
		})
	}
}

// weigh tells how much memory a value takes, about. It stops at the bounds, also
// where a value holds another many times over and is far larger than its memory.
func weigh(t *ast.Term) (int, error) { return addWeight(0, t) }

// addWeight adds a value's weight to what was weighed before.
func addWeight(w int, t *ast.Term) (int, error) {
	w += termWeight
	switch v := t.Value.(type) {
	case ast.String:
		if len(v) > maxString {
			return w, fmt.Errorf("is a text of more than %d bytes", maxString)
		}
		w += len(v)
	case ast.Number:
		return w, numberBounds(string(v))
	case *ast.Array, ast.Set, ast.Object:
		var err error
		if w, err = addParts(w, v); err != nil {
			return w, err
		}
	}
	if w > maxValue {
		return w, fmt.Errorf("is larger than %d bytes", maxValue)
	}
	return w, nil
}

// addParts adds what a collection holds. It is apart from the rest because what it needs is
// allocated, and most operands are texts and numbers.
func addParts(w int, of ast.Value) (int, error) {
	var err error
	add := func(e *ast.Term) (stop bool) {
		w, err = addWeight(w, e)
		return err != nil
	}
	switch v := of.(type) {
	case *ast.Array:
		for i := 0; i < v.Len() && !add(v.Elem(i)); i++ {
		}
	case ast.Set:
		v.Until(add)
	case ast.Object:
		v.Until(func(k, e *ast.Term) bool { return add(k) || add(e) })
	}
	return w, err
}

// numberBounds refuses numbers that are short to write and endless to work with,
// such as 1e999999999.
func numberBounds(n string) error {
	i := strings.IndexAny(n, "eE")
	if i < 0 {
		i = len(n)
	}
	if i > maxDigits || len(strings.TrimLeft(n[i:], "eE+-0")) > 3 {
		return fmt.Errorf("is a number of more than %d digits", maxDigits)
	}
	return nil
}

// operand returns operand i if it is of the type V.
func operand[V ast.Value](operands []*ast.Term, i int) (v V, ok bool) {
	if i >= len(operands) {
		return v, false
	}
	v, ok = operands[i].Value.(V)
	return v, ok
}

// whole returns operand i as an integer, if it is one.
func whole(operands []*ast.Term, i int) (*big.Int, bool) {
	n, ok := operand[ast.Number](operands, i)
	if !ok {
		return nil, false
	}
	w, err := builtins.NumberToInt(n)
	return w, err == nil
}
