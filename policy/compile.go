package policy

import (
	"bytes"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync/atomic"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/storage/inmem"

	"github.com/breakerd/breakerd/model"
)

// compile makes a set of the sources that were read, if nothing is wrong.
func (r *reader) compile() (*Set, error) {
	modules := map[string]*ast.Module{}
	var d data
	for _, s := range r.sources {
		if isData(s.name) {
			d.add(s, &r.problems)
			continue
		}
		m, err := parseModule(s.file, s.text)
		if err != nil {
			r.addRego(s.file, err)
			continue
		}
		modules[s.file] = m
		checkModule(m, s.file, &d, &r.problems)
	}
	notes := annotations(modules, &r.problems)
	if err := r.err(); err != nil {
		return nil, err // what is missing would only be reported once more
	}
	rules := describeRules(modules, notes, &r.problems)
	used := references(modules)
	c := newCompiler()
	c.Compile(modules)
	if c.Failed() {
		r.addRego("", c.Errors)
	} else {
		g := growth{c, map[*ast.Rule]int{}}
		for _, file := range slices.Sorted(maps.Keys(c.Modules)) {
			checkNames(c, c.Modules[file], &d, used, &r.problems)
			checkCompiled(c, c.Modules[file], &d, rules, &r.problems)
			g.check(c.Modules[file], &r.problems)
		}
	}
	if err := r.err(); err != nil {
		return nil, err
	}

	sources := byName(r.sources)
	s := &Set{
		hash:       hash(sources),
		compiler:   c,
		store:      inmem.New(),
		owner:      map[string]string{},
		limits:     DefaultLimits,
		stuckSince: new(atomic.Int64),
		sources:    sources,
		texts:      map[string]string{},
		rules:      rules,
		data:       &d,
	}
	for _, src := range r.sources {
		s.texts[src.file] = src.text
	}
	if d.root != nil {
		s.store = inmem.NewFromObjectWithOpts(d.root, inmem.OptRoundTripOnWrite(false), inmem.OptReturnASTValuesOnRead(true))
	}
	paths := map[string]ast.Ref{}
	for file, m := range c.Modules {
		name := packageName(m)
		s.owner[file] = name
		for _, rule := range m.Rules {
			if n := ruleName(rule); n == "action" || n == "deny" || n == dryAction {
				paths[name] = m.Package.Path
			}
		}
	}
	s.packages = slices.Sorted(maps.Keys(paths))
	if err := s.prepare(paths); err != nil {
		return nil, fmt.Errorf("prepare the query of the policies: %w", err)
	}
	inlineConstants(c)
	for _, m := range c.Modules {
		bindBuiltins(m)
	}
	return s, nil
}

func parseModule(file, text string) (*ast.Module, error) {
	return ast.ParseModuleWithOpts(file, text, ast.ParserOptions{
		RegoVersion:       ast.RegoV1,
		Capabilities:      capabilities,
		ProcessAnnotation: true,
	})
}

// checkCompiled finds what only shows once the compiler has put the rules in order, and
// notes what kinds of incidents they are about.
func checkCompiled(c *ast.Compiler, m *ast.Module, d *data, rules map[place]*Rule, ps *problems) {
	file := m.Package.Location.File
	types := typeChecker{env: c.TypeEnv, data: d, at: func(l *ast.Location, format string, args ...any) {
		ps.add(file, l.Row, l.Col, format, args...)
	}}
	for _, r := range m.Rules {
		types.rule(r)
		types.evidence(r)
		if known := rules[placeOf(r.Location)]; known != nil {
			known.Kinds = kindsOfRule(r, types.known)
		}
	}
	d.clash(m, ps)
}

// doc is a document that the policies are asked for.
type doc struct {
	policy   string
	rule     string // action, deny or the name of actions that are held to a dry run
	variable string // of the query
}

// asked is the query that is put to the policies about one kind of incident, with all that
// it needs.
type asked struct {
	docs    []doc
	query   ast.Body
	queryQC ast.QueryCompiler
	need    *need
}

// prepare makes the one query that asks every package, and for each kind of incident one
// that asks those which have anything to say about it.
func (s *Set) prepare(paths map[string]ast.Ref) error {
	var docs []doc
	var refs []ast.Ref
	var rules [][]*ast.Rule
	for i, name := range s.packages {
		for _, rule := range []string{"action", dryAction, "deny"} {
			ref := paths[name].Append(ast.StringTerm(rule))
			if of := s.compiler.GetRulesExact(ref); len(of) > 0 {
				docs = append(docs, doc{name, rule, fmt.Sprintf("d%d_%d", i, len(docs))})
				refs = append(refs, ref)
				rules = append(rules, of)
			}
		}
	}
	made := map[string]*asked{}
	ask := func(wanted func(i int) bool) (*asked, error) {
		a := &asked{need: &need{}}
		key := ""
		for i := range docs {
			if !wanted(i) {
				continue
			}
			key += docs[i].variable + " "
			a.docs = append(a.docs, docs[i])
			a.query = append(a.query, ast.Equality.Expr(ast.VarTerm(docs[i].variable), ast.NewTerm(refs[i])))
		}
		if len(a.docs) == 0 {
			return nil, nil
		}
		if made[key] != nil {
			return made[key], nil
		}
		seen := map[*ast.Rule]bool{}
		for i := range docs {
			if wanted(i) {
				for _, r := range rules[i] {
					s.needOf(r, seen, a.need)
				}
			}
		}
		for i := range a.query {
			a.query[i].Index = i
		}
		a.queryQC = s.compiler.QueryCompiler()
		var err error
		a.query, err = a.queryQC.Compile(a.query)
		made[key] = a
		return a, err
	}
	var err error
	if s.all, err = ask(func(int) bool { return true }); err != nil {
		return err
	}
	s.byKind = map[model.Kind]*asked{}
	for _, k := range model.Kinds {
		if s.byKind[k], err = ask(func(i int) bool { return s.speaks(rules[i], k) }); err != nil {
			return err
		}
	}
	return nil
}

// speaks reports whether one of the rules can be true for a kind of incident.
func (s *Set) speaks(rules []*ast.Rule, k model.Kind) bool {
	for _, r := range rules {
		d := s.rules[placeOf(r.Location)]
		if d == nil || d.Kinds == nil || slices.Contains(d.Kinds, string(k)) {
			return true
		}
	}
	return false
}

// needOf adds what a rule looks at, itself and through others.
func (s *Set) needOf(r *ast.Rule, seen map[*ast.Rule]bool, n *need) {
	if seen[r] {
		return
	}
	seen[r] = true
	for e := r; e != nil; e = e.Else {
		for of := range s.compiler.Graph.Dependencies(e) {
			if other, ok := of.(*ast.Rule); ok {
				s.needOf(other, seen, n)
			}
		}
	}
	n.addRule(r)
}

func newCompiler() *ast.Compiler {
	schemas := ast.NewSchemaSet()
	schemas.Put(ast.SchemaRootRef, inputSchemaValue)
	return ast.NewCompiler().
		WithCapabilities(capabilities).
		WithDefaultRegoVersion(ast.RegoV1).
		WithSchemas(schemas).
		WithStrict(true).
		WithEnablePrintStatements(false).
		SetErrorLimit(0)
}

// inputSchemaValue is the published schema as the compiler takes it.
var inputSchemaValue = func() any {
	var v any
	d := json.NewDecoder(bytes.NewReader(inputSchema))
	if err := d.Decode(&v); err != nil {
		panic(err) // embedded, and held to the Go type by a test
	}
	return v
}()

func packageName(m *ast.Module) string {
	return strings.TrimPrefix(m.Package.Path.String(), "data.")
}

func ruleName(r *ast.Rule) string {
	if v, ok := r.Head.Ref()[0].Value.(ast.Var); ok {
		return string(v)
	}
	return ""
}

// addRego adds errors of OPA's parser and compiler in words of ours.
func (ps *problems) addRego(file string, err error) {
	var list ast.Errors
	switch e := err.(type) {
	case ast.Errors:
		list = e
	case *ast.Error:
		list = ast.Errors{e}
	default:
		ps.add(file, 0, 0, "%v", err)
	}
	for _, e := range list {
		f, line, col := file, 0, 0
		if e.Location != nil {
			f, line, col = e.Location.File, e.Location.Row, e.Location.Col
		}
		message := e.Message
		switch d := e.Details.(type) {
		case *ast.RefErrInvalidDetail:
			if at := d.Ref[d.Pos].Location; at != nil && at.Row > 0 {
				line, col = at.Row, at.Col
			}
			message = badRef(d)
		case *ast.ArgErrDetail:
			message += " (" + strings.Join(d.Lines(), ", ") + ")"
		case *ast.UnificationErrDetail:
			if left, right := kindsOfType(d.Left), kindsOfType(d.Right); left&right == 0 {
				message = fmt.Sprintf("never true: %v is never equal to %v", left, right)
			} else {
				message += " (" + strings.Join(d.Lines(), ", ") + ")"
			}
		}
		if name, ok := strings.CutPrefix(message, "undefined function "); ok && ast.BuiltinMap[name] != nil {
			message = fmt.Sprintf("%s is not available: %s", name, outside(name))
		}
		ps.add(f, line, col, "%s", message)
	}
}

// badRef says which part of a reference does not exist, and what is meant.
func badRef(d *ast.RefErrInvalidDetail) string {
	have, ok := d.Ref[d.Pos].Value.(ast.String)
	if !ok {
		return fmt.Sprintf("undefined ref: %v", d.Ref)
	}
	names := make([]string, 0, len(d.OneOf))
	for _, v := range d.OneOf {
		if s, ok := v.(ast.String); ok {
			names = append(names, string(s))
		}
	}
	message := fmt.Sprintf("%v has no %s", d.Ref[:d.Pos], have)
	if near := didYouMean(string(have), names); near != "" {
		return message + near
	}
	slices.Sort(names)
	return message + ": it has " + strings.Join(names, ", ")
}

// TestCompiler compiles policies together with their tests, which have no other builtins
// than the policies.
func TestCompiler() *ast.Compiler {
	return ast.NewCompiler().
		WithCapabilities(capabilities).
		WithDefaultRegoVersion(ast.RegoV1).
		WithEnablePrintStatements(false)
}
