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
)

// compile makes a set of the sources that were read, if nothing is wrong.
func (r *reader) compile() (*Set, error) {
	modules := map[string]*ast.Module{}
	for _, s := range r.sources {
		m, err := ast.ParseModuleWithOpts(s.file, s.text, ast.ParserOptions{
			RegoVersion:       ast.RegoV1,
			Capabilities:      capabilities,
			ProcessAnnotation: true,
		})
		if err != nil {
			r.addRego(s.file, err)
			continue
		}
		modules[s.file] = m
		checkModule(m, s.file, &r.problems)
	}
	if err := r.err(); err != nil {
		return nil, err // what is missing would only be reported once more
	}
	used := references(modules)
	c := newCompiler()
	c.Compile(modules)
	if c.Failed() {
		r.addRego("", c.Errors)
	} else {
		g := growth{c, map[*ast.Rule]int{}}
		for _, file := range slices.Sorted(maps.Keys(c.Modules)) {
			checkNames(c, c.Modules[file], used, &r.problems)
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
	}
	paths := map[string]ast.Ref{}
	for file, m := range c.Modules {
		name := packageName(m)
		s.owner[file] = name
		for _, rule := range m.Rules {
			if n := ruleName(rule); n == "action" || n == "deny" {
				paths[name] = m.Package.Path
			}
		}
		bindBuiltins(m)
	}
	s.packages = slices.Sorted(maps.Keys(paths))
	if err := s.prepare(paths); err != nil {
		return nil, fmt.Errorf("prepare the query of the policies: %w", err)
	}
	return s, nil
}

// prepare makes the one query that asks every package.
func (s *Set) prepare(paths map[string]ast.Ref) error {
	if s.Empty() {
		return nil
	}
	var body ast.Body
	for i, name := range s.packages {
		for _, rule := range []string{"action", "deny"} {
			doc := paths[name].Append(ast.StringTerm(rule))
			if len(s.compiler.GetRulesExact(doc)) == 0 {
				continue
			}
			body = append(body, ast.Equality.Expr(ast.VarTerm(resultVar(rule, i)), ast.NewTerm(doc)))
		}
	}
	for i := range body {
		body[i].Index = i
	}
	s.queryQC = s.compiler.QueryCompiler()
	var err error
	s.query, err = s.queryQC.Compile(body)
	return err
}

// resultVar names the variable of the query that holds a rule of package i.
func resultVar(rule string, i int) string { return fmt.Sprintf("%s_%d", rule, i) }

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
			message += " (" + strings.Join(d.Lines(), ", ") + ")"
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
