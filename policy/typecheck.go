package policy

import (
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/types"
)

// OPA compares values of any types with each other, by the order of their types: a number
// is always less than a text. A rule that does so has been thought of differently, so such
// a comparison is refused when it is loaded.

// kindSet is a set of types of values.
type kindSet uint8

const (
	isNull kindSet = 1 << iota
	isBoolean
	isNumber
	isString
	isArray
	isObject
	isSet
	isAnything kindSet = 1<<iota - 1
)

var kindNames = []string{"null", "true or false", "a number", "a text", "an array", "an object", "a set"}

func (k kindSet) String() string {
	var names []string
	for i, name := range kindNames {
		if k&(1<<i) != 0 {
			names = append(names, name)
		}
	}
	return strings.Join(names, " or ")
}

func kindsOfType(t types.Type) kindSet {
	switch t := t.(type) {
	case types.Null:
		return isNull
	case types.Boolean:
		return isBoolean
	case types.Number:
		return isNumber
	case types.String:
		return isString
	case *types.Array:
		return isArray
	case *types.Object:
		return isObject
	case *types.Set:
		return isSet
	case types.Any:
		k := kindSet(0)
		for _, of := range t {
			k |= kindsOfType(of)
		}
		if k != 0 {
			return k
		}
	case *types.NamedType:
		return kindsOfType(t.Type)
	}
	return isAnything
}

func kindsOfValue(v ast.Value) kindSet {
	switch v.(type) {
	case ast.Null:
		return isNull
	case ast.Boolean:
		return isBoolean
	case ast.Number:
		return isNumber
	case ast.String:
		return isString
	case *ast.Array, *ast.ArrayComprehension:
		return isArray
	case ast.Object, *ast.ObjectComprehension:
		return isObject
	case ast.Set, *ast.SetComprehension:
		return isSet
	}
	return isAnything
}

// kinds of a part of the input, by its schema.
func (s *schema) kinds() kindSet {
	switch s.Type {
	case "string":
		return isString
	case "number", "integer":
		return isNumber
	case "boolean":
		return isBoolean
	case "array":
		return isArray
	}
	return isObject
}

// typeChecker knows what the terms of a rule are.
type typeChecker struct {
	env   *ast.TypeEnv // of the compiler; nil before it has run
	data  *data
	known aliases
	at    func(*ast.Location, string, ...any)
}

// kinds are the types that a term can have.
func (c *typeChecker) kinds(t *ast.Term) kindSet {
	switch v := t.Value.(type) {
	case ast.Var:
		if ref := c.known[v]; ref != nil {
			return c.refKinds(c.known.resolve(ref))
		}
		return isAnything
	case ast.Ref:
		return c.refKinds(c.known.resolve(v))
	}
	return kindsOfValue(t.Value)
}

func (c *typeChecker) refKinds(ref ast.Ref) kindSet {
	switch {
	case ref[0].Equal(ast.InputRootDocument):
		if s := schemaOf(ref); s != nil {
			return s.kinds()
		}
	case ref[0].Equal(ast.DefaultRootDocument):
		if k := c.data.kinds(ref); k != 0 {
			return k
		}
		if c.env != nil {
			if t := c.env.GetByRef(ref); t != nil {
				return kindsOfType(t)
			}
		}
	}
	return isAnything
}

// elements are the types of what a collection holds.
func (c *typeChecker) elements(t *ast.Term) kindSet {
	k := kindSet(0)
	add := func(e *ast.Term) { k |= c.kinds(e) }
	switch v := t.Value.(type) {
	case ast.Var:
		if ref := c.known[v]; ref != nil {
			return c.refElements(c.known.resolve(ref))
		}
		return isAnything
	case ast.Ref:
		return c.refElements(c.known.resolve(v))
	case *ast.Array:
		v.Foreach(add)
	case ast.Set:
		v.Foreach(add)
	case ast.Object:
		v.Foreach(func(_, e *ast.Term) { add(e) })
	default:
		return isAnything
	}
	if k == 0 {
		return isAnything
	}
	return k
}

func (c *typeChecker) refElements(ref ast.Ref) kindSet {
	if ref[0].Equal(ast.InputRootDocument) && schemaOf(ref) == nil {
		return isAnything
	}
	if c.env != nil && len(c.data.find(ref)) == 0 {
		if t := c.env.GetByRef(ref); t != nil {
			if of := types.Values(t); of != nil {
				return kindsOfType(of)
			}
		}
		return isAnything
	}
	return c.refKinds(append(slices.Clone(ref), ast.VarTerm("_")))
}

// schemaOf describes the part of the input that a reference leads to, nil if it cannot be
// told.
func schemaOf(ref ast.Ref) *schema {
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
	return s
}

// expr refuses a comparison of values that can never be of one type.
func (c *typeChecker) expr(x *ast.Expr) {
	terms, ok := x.Terms.([]*ast.Term)
	if !ok || len(terms) < 3 {
		return
	}
	switch op := terms[0].String(); op {
	case "eq", "equal", "neq", "gt", "gte", "lt", "lte":
		c.compare(terms[1], terms[2], c.kinds(terms[1]), c.kinds(terms[2]), "compared with")
	case "internal.member_2":
		c.compare(terms[1], terms[2], c.kinds(terms[1]), c.elements(terms[2]), "looked for among")
	default:
		c.call(op, terms[1:])
	}
}

// call refuses data of a wrong type as an operand: what else has a wrong type, the compiler
// finds.
func (c *typeChecker) call(op string, operands []*ast.Term) {
	b := ast.BuiltinMap[op]
	if b == nil {
		return
	}
	if op == ast.ObjectGet.Name {
		c.getField(operands[0], operands[1])
	}
	for i, want := range b.Decl.FuncArgs().Args {
		if i >= len(operands) {
			return
		}
		ref := c.ref(operands[i])
		if ref == nil || len(c.data.find(ref)) == 0 {
			continue
		}
		if have := c.refKinds(ref); have&kindsOfType(want) == 0 {
			c.at(operands[i].Location, "%s is %v%s, and %s takes %v", written(ref), have, c.data.origin(ref), op, kindsOfType(want))
		}
	}
}

// getField refuses object.get of a field that the input has not: it would always give the
// default, and a deny would be silent for ever.
func (c *typeChecker) getField(object, key *ast.Term) {
	ref := c.ref(object)
	if ref == nil || !ref[0].Equal(ast.InputRootDocument) {
		return
	}
	path, isPath := key.Value.(*ast.Array)
	if !isPath {
		path = ast.NewArray(key)
	}
	for i := range path.Len() {
		s, name := schemaOf(ref), path.Elem(i)
		field, ok := name.Value.(ast.String)
		if s == nil || s.Properties == nil || !ok {
			return // it cannot be told
		}
		if s.Properties[string(field)] == nil {
			at := key.Location
			if at == nil || at.Row == 0 {
				at = object.Location
			}
			c.at(at, "%s has no %v%s", written(ref), name, didYouMean(string(field), slices.Sorted(maps.Keys(s.Properties))))
			return
		}
		ref = append(slices.Clone(ref), name)
	}
}

// ref is what a term refers to, nil if it is something else.
func (c *typeChecker) ref(t *ast.Term) ast.Ref {
	switch v := t.Value.(type) {
	case ast.Var:
		if ref := c.known[v]; ref != nil {
			return c.known.resolve(ref)
		}
	case ast.Ref:
		return c.known.resolve(v)
	}
	return nil
}

func (c *typeChecker) compare(a, b *ast.Term, ka, kb kindSet, how string) {
	if ka&kb != 0 {
		return
	}
	field, other := a, b
	if c.ref(a) == nil && c.ref(b) != nil && how == "compared with" {
		field, other, ka, kb = b, a, kb, ka
	}
	ref := c.ref(field)
	if ref == nil {
		return // both are written out, and nobody is misled
	}
	what, place := other.String(), ""
	if r := c.ref(other); r != nil {
		what, place = written(r), c.data.origin(r)
	}
	at := other.Location
	if at == nil || at.Row == 0 {
		at = field.Location
	}
	if how == "compared with" {
		c.at(at, "%s is %v, and is compared with %v, %s%s%s", written(ref), ka, kb, what, place, meant(ref, other))
		return
	}
	c.at(at, "%s is %v, and is looked for among what is %v, %s%s%s", written(ref), ka, kb, what, place, meant(ref, other))
}

var generated = regexp.MustCompile(`__local\d+__`)

// written is a reference as a person would write it.
func written(ref ast.Ref) string { return generated.ReplaceAllString(ref.String(), "_") }

// meant guesses what was to be compared, as the end of a message.
func meant(ref ast.Ref, other *ast.Term) string {
	s := schemaOf(ref)
	if !ref[0].Equal(ast.InputRootDocument) || s == nil {
		return ""
	}
	switch v := other.Value.(type) {
	case ast.String:
		if beside := schemaOf(ref[:len(ref)-1]); beside != nil {
			for name, p := range beside.Properties {
				if slices.Contains(p.Enum, string(v)) {
					return fmt.Sprintf(": did you mean %v?", append(slices.Clone(ref[:len(ref)-1]), ast.StringTerm(name)))
				}
			}
		}
		if _, err := strconv.ParseFloat(string(v), 64); err == nil && s.kinds() == isNumber {
			return fmt.Sprintf(": did you mean %s?", string(v))
		}
	case ast.Number:
		if s.kinds() == isString {
			return fmt.Sprintf(": did you mean %q?", string(v))
		}
	}
	return ""
}

// checkTypes looks at the comparisons of a compiled rule.
func (c *typeChecker) rule(r *ast.Rule) {
	c.known = aliases{}
	c.known.of(r)
	ast.WalkExprs(r, func(x *ast.Expr) bool {
		if v, _ := c.known.binding(x); v == "" {
			c.expr(x)
		}
		return false
	})
}

// checkEvidence refuses a figure that no incident of the kinds has of which a rule speaks:
// the rule would be silent for ever.
func (c *typeChecker) evidence(r *ast.Rule) {
	kinds := kindsOfRule(r, c.known)
	if kinds == nil {
		return
	}
	seen := map[string]bool{}
	ast.WalkRefs(r, func(ref ast.Ref) bool {
		full := c.known.resolve(ref)
		if len(full) < 4 || !full[0].Equal(ast.InputRootDocument) || !full[1].Equal(ast.StringTerm("incident")) || !full[2].Equal(ast.StringTerm("evidence")) {
			return false
		}
		name, ok := full[3].Value.(ast.String)
		s := inputDescription.at("incident", "evidence", string(name))
		if !ok || s == nil || len(s.Kinds) == 0 || seen[string(name)] {
			return false
		}
		for _, k := range kinds {
			if slices.Contains(s.Kinds, modelKind(k)) {
				return false
			}
		}
		seen[string(name)] = true
		var of []string
		for _, k := range s.Kinds {
			of = append(of, string(k))
		}
		at := ref[len(ref)-1].Location
		if at == nil || at.Row == 0 {
			at = r.Location
		}
		c.at(at, "evidence of %s has no %s: that is of %s", strings.Join(kinds, " or "), string(name), strings.Join(of, ", "))
		return false
	})
}
