package policy

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/metrics"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/breakerd/breakerd/model"
)

// Request is an action that a policy asked for.
type Request struct {
	Policy string // the package
	Action model.Action
	DryRun bool // its author holds the rule to a dry run
}

// Denial is a reason that a policy gave for doing nothing.
type Denial struct {
	Policy string // the package
	Reason string
}

// Verdict is what the policies of a set want done about an incident.
type Verdict struct {
	// Action is what to do; its Kind is model.NoAction where nothing was asked for,
	// where a deny spoke, and where there was an error.
	Action model.Action
	// Policy is the package that asked for Action, where a deny spoke the one that
	// denied, and of an Error the one whose it is. "" if none did, or it cannot be told.
	Policy string
	// DryRun says that Action is to be gone through and never to be carried out: no rule
	// asked for anything but such as their authors hold to a dry run.
	DryRun bool
	Asked  []Request // all that was asked for, in the order in which they win
	Denied []Denial  // in alphabetical order
	// Elapsed is how long it took. It is not part of the answer: everything else
	// depends on the input alone, unless Limits.Time is reached.
	Elapsed time.Duration
	// Error says in one line why the policies could not be asked or not be
	// understood; "" if they could. There is no action then.
	Error string
}

// Reasons are the denials, each with its package.
func (v *Verdict) Reasons() []string {
	var rs []string
	for _, d := range v.Denied {
		rs = append(rs, d.Policy+": "+d.Reason)
	}
	return rs
}

// Decide asks every policy of the set. A deny wins over all that is asked for; of
// what is asked for, the highest priority wins and then the mildest action. An
// error in any package means no action.
//
// Decide returns within twice the time limit, also where OPA cannot be stopped: it
// then leaves the evaluation behind, and the set refuses every later input until
// that evaluation has ended.
func (s *Set) Decide(ctx context.Context, in Input) Verdict {
	start := time.Now()
	v := Verdict{Action: model.Action{Kind: model.NoAction}}
	a := s.ask(in.Incident.Kind)
	if a == nil {
		return v
	}
	result, err := s.evaluate(ctx, a, &in)
	if err == nil {
		err = v.read(a, result)
	}
	if err != nil {
		v = Verdict{Action: model.Action{Kind: model.NoAction}, Error: oneLine(err)}
		if f, ok := errors.AsType[*fault](err); ok {
			v.Policy = f.policy
		}
	}
	v.Elapsed = time.Since(start)
	return v
}

// fault is an error that is one policy's.
type fault struct {
	policy string
	err    error
}

func (f *fault) Error() string { return f.policy + ": " + f.err.Error() }

// ask is the query about a kind of incident, nil where no policy can have anything to say.
func (s *Set) ask(k model.Kind) *asked {
	if a, known := s.byKind[k]; known {
		return a
	}
	return s.all
}

// oneLine keeps an error fit for a log: a policy may have put anything into it.
func oneLine(err error) string {
	s := strings.Join(strings.Fields(err.Error()), " ")
	return cut(strings.ToValidUTF8(s, "\uFFFD"), 1024)
}

// read takes the sets that the packages gave.
func (v *Verdict) read(a *asked, result topdown.QueryResult) error {
	for _, d := range a.docs {
		err := each(result, d.variable, func(t *ast.Term) error {
			if d.rule == "deny" {
				return v.addDenial(d, t)
			}
			return v.addRequest(d, t)
		})
		if err != nil {
			rule := d.rule
			if rule == dryAction {
				rule = "action"
			}
			return &fault{d.policy, fmt.Errorf("%s: %w", rule, err)}
		}
	}
	sortRequests(v.Asked)
	slices.SortFunc(v.Denied, func(a, b Denial) int {
		return strings.Compare(a.Policy+" "+a.Reason, b.Policy+" "+b.Reason)
	})
	switch {
	case len(v.Denied) > 0:
		v.Policy = v.Denied[0].Policy
	case len(v.Asked) > 0:
		v.Action, v.Policy, v.DryRun = v.Asked[0].Action, v.Asked[0].Policy, v.Asked[0].DryRun
	}
	return nil
}

func (v *Verdict) addRequest(d doc, t *ast.Term) error {
	a, err := readAction(t)
	if err != nil {
		return err
	}
	if v.Asked = append(v.Asked, Request{d.policy, a, d.rule == dryAction}); len(v.Asked) > maxRequests {
		return fmt.Errorf("is one too many: a set may ask for %d", maxRequests)
	}
	return nil
}

func (v *Verdict) addDenial(d doc, t *ast.Term) error {
	reason, err := readReason(t)
	if err != nil {
		return err
	}
	if v.Denied = append(v.Denied, Denial{d.policy, reason}); len(v.Denied) > maxRequests {
		return fmt.Errorf("is one too many: a set may give %d reasons", maxRequests)
	}
	return nil
}

// each goes through the set that a variable of the query holds. A package without
// the rule has no variable.
func each(result topdown.QueryResult, variable string, f func(*ast.Term) error) error {
	t := result[ast.Var(variable)]
	if t == nil {
		return nil
	}
	set, ok := t.Value.(ast.Set)
	if !ok {
		return fmt.Errorf("is %s, not a set", article(t))
	}
	if set.Len() == 0 {
		return nil
	}
	var err error
	set.Until(func(t *ast.Term) bool { err = f(t); return err != nil })
	return err
}

// evaluate runs the query in a goroutine of its own, as there are loops within an
// expression at which OPA does not ask whether to go on.
func (s *Set) evaluate(ctx context.Context, a *asked, in *Input) (topdown.QueryResult, error) {
	if since := s.stuckSince.Load(); since != 0 {
		return nil, fmt.Errorf("an evaluation given up %v ago has not ended yet", time.Since(time.Unix(0, since)).Round(time.Second))
	}
	input, err := in.value(a.need)
	if err != nil {
		return nil, err
	}
	m := &meter{limits: s.limits, deadline: time.Now().Add(s.limits.Time), done: ctx.Done()}
	type answer struct {
		result topdown.QueryResult
		err    error
	}
	answered := make(chan answer, 1)
	go func() {
		growStack(false)
		result, err := s.run(ctx, a, ast.NewTerm(input), in, m)
		answered <- answer{result, err}
	}()
	giveUp := time.NewTimer(2 * s.limits.Time)
	defer giveUp.Stop()
	select {
	case a := <-answered:
		return a.result, a.err
	case <-giveUp.C:
	}
	s.stuckSince.Store(time.Now().UnixNano())
	go func() {
		<-answered
		s.stuckSince.Store(0)
	}()
	return nil, fmt.Errorf("evaluation took longer than %v and could not be stopped", s.limits.Time)
}

// growStack makes the stack of a new goroutine as large as an evaluation needs, at
// once: growing it step by step, with ever more frames to copy, took a third of the
// whole time. It is the entry that grows it; to clear the room would take as long as
// a sixth of an evaluation, so nobody fills it.
//
//go:noinline
func growStack(fill bool) {
	if fill {
		var b [48 << 10]byte
		keep(&b)
	}
}

//go:noinline
func keep(*[48 << 10]byte) {}

// run evaluates the query to its end, or to the meter's.
func (s *Set) run(ctx context.Context, a *asked, input *ast.Term, in *Input, m *meter) (result topdown.QueryResult, err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("evaluation panicked: %v", p)
		}
	}()
	txn, err := s.store.NewTransaction(ctx)
	if err != nil {
		return nil, err
	}
	defer s.store.Abort(ctx, txn)
	rows := 0
	q := topdown.NewQuery(a.query).
		WithCompiler(s.compiler).
		WithQueryCompiler(a.queryQC).
		WithBuiltins(evalBuiltins).
		WithStore(s.store).
		WithTransaction(txn).
		WithInput(input).
		WithTime(time.Unix(0, in.TimeNS)).
		WithSeed(strings.NewReader("")). // nothing is drawn from it
		WithCancel(m).
		WithMetrics(metrics.NoOp()).
		WithStrictBuiltinErrors(true).
		WithStackTraces(true)
	if m.trace != nil {
		q = q.WithQueryTracer(m.trace).WithIndexing(false)
	}
	err = q.Iter(ctx, func(r topdown.QueryResult) error {
		rows++
		result = r
		return nil
	})
	switch {
	case err != nil:
		return nil, s.blame(err, m)
	case rows != 1: // sets are never undefined
		return nil, fmt.Errorf("the policies gave %d results instead of one", rows)
	}
	return result, nil
}

// blame says whose policy an error is, and where.
func (s *Set) blame(err error, m *meter) error {
	message := err.Error()
	var at *ast.Location
	if e, ok := errors.AsType[*topdown.Error](err); ok {
		message, at = e.Message, e.Location
		for _, frame := range e.StackTrace {
			if at == nil || at.File == "" {
				at = frame.Location
			}
		}
	}
	if m.stopped != "" {
		message = "evaluation " + m.stopped
	}
	if at == nil || at.File == "" {
		return errors.New(message)
	}
	return &fault{s.owner[at.File], fmt.Errorf("%s:%d:%d: %s", filepath.Base(at.File), at.Row, at.Col, message)}
}
