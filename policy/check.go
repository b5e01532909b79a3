package policy

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/breakerd/breakerd/model"
)

// checkModule finds what OPA's compiler accepts and a policy must not have, in a
// module as it was written.
func checkModule(m *ast.Module, file string, d *data, ps *problems) {
	at := func(l *ast.Location, format string, args ...any) {
		ps.add(file, l.Row, l.Col, format, args...)
	}
	if p := m.Package.Path; len(p) < 3 || !p[1].Equal(ast.StringTerm("breaker")) {
		at(m.Package.Location, "package %s is not below breaker: name it breaker.something", packageName(m))
	}
	for _, r := range m.Rules {
		name := ruleName(r)
		if name != "action" && name != "deny" {
			continue
		}
		if r.Default || len(r.Head.Ref()) != 1 || r.Head.RuleKind() != ast.MultiValue {
			at(r.Location, "%s must be a set: write %q", name, name+" contains … if { … }")
			continue
		}
		if name == "action" {
			checkLiteral(r.Head.Key, at)
		} else {
			checkReason("deny:", r.Head.Key, at)
		}
	}
	types := typeChecker{data: d, at: at}
	ast.WalkExprs(m, func(x *ast.Expr) bool {
		checkWords(x, at)
		types.expr(x)
		return false
	})
}

// checkLiteral finds at load time what is wrong with an action that is written out.
func checkLiteral(t *ast.Term, at func(*ast.Location, string, ...any)) {
	o, ok := t.Value.(ast.Object)
	if !ok {
		if k := literalKinds(t); k&isObject == 0 {
			at(t.Location, "action: is %v, not an object with kind, scope, for and reason", k)
		}
		return
	}
	if ast.IsConstant(o) {
		if _, err := readAction(t); err != nil {
			at(t.Location, "action: %v", err)
		}
		return
	}
	checkKeys(o, at)
	then := o.Get(ast.StringTerm("then"))
	if then == nil {
		return
	}
	rungs, ok := then.Value.(*ast.Array)
	if !ok {
		return // a rule gives it
	}
	rungs.Foreach(func(rung *ast.Term) {
		o, ok := rung.Value.(ast.Object)
		switch {
		case !ok:
		case ast.IsConstant(o):
			// Scope and reason may be those of the first, which are not known yet.
			if _, err := readRung(rung, model.Action{Scope: model.ScopeTree, Reason: "given by a rule"}); err != nil {
				at(rung.Location, "action: then: %v", err)
			}
		default:
			checkKeys(o, at)
		}
	})
}

func checkKeys(o ast.Object, at func(*ast.Location, string, ...any)) {
	o.Foreach(func(k, v *ast.Term) {
		s, ok := k.Value.(ast.String)
		if !ok {
			return
		}
		key := string(s)
		if err := knownKey(key); err != nil {
			at(k.Location, "action: %v", err)
			return
		}
		if key == "then" {
			return // it goes by what the first action says
		}
		if ast.IsConstant(v.Value) {
			if err := setKey(&model.Action{}, key, v); err != nil {
				at(v.Location, "action: %v", err)
			}
			return
		}
		want := isString
		if !slices.Contains(textKeys, key) {
			want = isNumber
		}
		if have := literalKinds(v); have&want == 0 && slices.Contains(plainKeys, key) {
			at(v.Location, "action: %s is %v, not %v", key, have, want)
		}
	})
}

// textKeys are the keys of an action that are texts, plainKeys those and the numbers.
var (
	textKeys  = []string{"kind", "scope", "for", "reason"}
	plainKeys = append([]string{"priority", "cpu_percent", "memory_high", "io_percent", "pids_max"}, textKeys...)
)

// checkReason finds at load time what can be no text for a person.
func checkReason(what string, t *ast.Term, at func(*ast.Location, string, ...any)) {
	if ast.IsConstant(t.Value) {
		if _, err := readReason(t); err != nil {
			at(t.Location, "%s %v", what, err)
		}
		return
	}
	if k := literalKinds(t); k&isString == 0 {
		at(t.Location, "%s is %v, not a text", what, k)
	}
}

// literalKinds are the types that a term can have, as it is written.
func literalKinds(t *ast.Term) kindSet {
	c := typeChecker{}
	if call, ok := t.Value.(ast.Call); ok {
		if b := ast.BuiltinMap[call[0].String()]; b != nil && b.Decl.Result() != nil {
			return kindsOfType(b.Decl.Result())
		}
	}
	return c.kinds(t)
}

// checkTest finds where a test sets a part of the input that there is not: it would test
// something else than it says.
func checkTest(m *ast.Module, file string, ps *problems) {
	ast.WalkExprs(m, func(x *ast.Expr) bool {
		for _, w := range x.With {
			ref, ok := w.Target.Value.(ast.Ref)
			if !ok || !ref[0].Equal(ast.InputRootDocument) || !ref.IsGround() {
				continue
			}
			for n := 2; n <= len(ref); n++ {
				parent := schemaOf(ref[:n-1])
				if parent == nil || parent.Items != nil || schemaOf(ref[:n]) != nil {
					continue
				}
				near := ""
				if name, ok := ref[n-1].Value.(ast.String); ok {
					near = didYouMean(string(name), slices.Sorted(maps.Keys(parent.Properties)))
				}
				ps.add(file, w.Location.Row, w.Location.Col, "%v has no %v%s", ref[:n-1], ref[n-1], near)
				break
			}
		}
		return false
	})
}

// checkWords refuses a comparison that no input can ever pass, such as of
// input.incident.kind with a slip.
func checkWords(x *ast.Expr, at func(*ast.Location, string, ...any)) {
	terms, ok := x.Terms.([]*ast.Term)
	if !ok || len(terms) < 3 {
		return
	}
	switch terms[0].String() {
	case "eq", "equal", "neq", "internal.member_2":
	default:
		return
	}
	for i, t := range terms[1:3] {
		ref, ok := t.Value.(ast.Ref)
		if !ok {
			continue
		}
		words := wordsOf(ref)
		if words == nil {
			continue
		}
		check := func(c *ast.Term) {
			if s, ok := c.Value.(ast.String); ok && !slices.Contains(words, string(s)) {
				near := didYouMean(string(s), words)
				if near == "" {
					near = ": it is one of " + strings.Join(words, ", ")
				}
				at(c.Location, "%v is never %s%s", ref, s, near)
			}
		}
		switch other := terms[2-i].Value.(type) {
		case ast.String:
			check(terms[2-i])
		case ast.Set:
			other.Foreach(check)
		case *ast.Array:
			other.Foreach(check)
		}
	}
}

// wordsOf lists the words that a part of the input can be, nil where it is free.
func wordsOf(ref ast.Ref) []string {
	if !ref[0].Equal(ast.InputRootDocument) {
		return nil
	}
	s := inputDescription
	for _, t := range ref[1:] {
		if s.Items != nil {
			s = s.Items
			continue
		}
		name, ok := t.Value.(ast.String)
		if !ok || s.Properties[string(name)] == nil {
			return nil
		}
		s = s.Properties[string(name)]
	}
	return s.Enum
}

var inputDescription = describeInput()

// references lists every name that a rule refers to.
func references(modules map[string]*ast.Module) map[string]bool {
	used := map[string]bool{}
	for _, m := range modules {
		for _, r := range m.Rules {
			ast.WalkRefs(r, func(ref ast.Ref) bool {
				for _, t := range ref {
					switch v := t.Value.(type) {
					case ast.Var:
						used[string(v)] = true
					case ast.String:
						used[string(v)] = true
					}
				}
				return false
			})
			ast.WalkVars(r.Body, func(v ast.Var) bool { used[string(v)] = true; return false })
		}
	}
	return used
}

// checkNames finds, in a compiled module, rules and references that mean nothing.
// Either would make a deny silent.
func checkNames(c *ast.Compiler, m *ast.Module, d *data, used map[string]bool, ps *problems) {
	file := m.Package.Location.File
	for _, r := range m.Rules {
		name := ruleName(r)
		if meant := slip(name); meant != "" && !used[name] {
			ps.add(file, r.Location.Row, r.Location.Col, "rule %s is used by nothing: did you mean %s?", name, meant)
		}
	}
	ast.WalkTerms(m, func(t *ast.Term) bool {
		ref, ok := t.Value.(ast.Ref)
		if !ok || !ref[0].Equal(ast.DefaultRootDocument) || t.Location == nil {
			return false
		}
		path := ref.GroundPrefix() // of the package clause, the package itself
		if len(path) > 1 && len(c.GetRules(path)) == 0 && !path.Equal(m.Package.Path) && len(d.find(path)) == 0 {
			ps.add(file, t.Location.Row, t.Location.Col, "%v is not in this set of policies%s", path, d.missing(path))
		}
		return false
	})
	ast.WalkExprs(m, func(x *ast.Expr) bool {
		for _, w := range x.With {
			if name := w.Target.String(); ast.BuiltinMap[name] != nil {
				ps.add(file, w.Location.Row, w.Location.Col, "with may replace %s in a test only", name)
			}
		}
		return false
	})
}

// slip returns what a rule's name was probably meant to be, "" if it is a name of
// its own.
func slip(name string) string {
	for _, meant := range []string{"action", "deny"} {
		if name != meant && distance(name, meant) == 1 {
			return meant
		}
	}
	switch name {
	case "denied", "denies", "denials":
		return "deny"
	}
	return ""
}

// knownKey refuses a key that no action has.
func knownKey(key string) error {
	if slices.Contains(actionKeys, key) {
		return nil
	}
	if near := didYouMean(key, actionKeys); near != "" {
		return fmt.Errorf("unknown key %q%s", key, near)
	}
	return fmt.Errorf("unknown key %q: an action has %s", key, strings.Join(actionKeys, ", "))
}
