package policy

import (
	"slices"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/breakerd/breakerd/model"
)

func modelKind(k string) model.Kind { return model.Kind(k) }

var kindRef = ast.MustParseRef("input.incident.kind")

// kindsOfRule lists the kinds of incidents that a rule can be true for, as its own body
// says; nil where it does not say, and none where it contradicts itself.
func kindsOfRule(r *ast.Rule, known aliases) []string {
	var kinds []string
	for _, x := range r.Body {
		only := kindsOfExpr(x, known)
		switch {
		case only == nil:
		case kinds == nil:
			kinds = only
		default:
			kinds = slices.DeleteFunc(kinds, func(k string) bool { return !slices.Contains(only, k) })
		}
	}
	if kinds == nil {
		return nil
	}
	slices.Sort(kinds)
	return slices.Compact(kinds)
}

// kindsOfExpr are the kinds for which an expression is true; nil if it is about something
// else.
func kindsOfExpr(x *ast.Expr, known aliases) []string {
	terms, ok := x.Terms.([]*ast.Term)
	if !ok || x.Negated || len(x.With) > 0 || len(terms) < 3 {
		return nil
	}
	isKind := func(t *ast.Term) bool {
		switch v := t.Value.(type) {
		case ast.Ref:
			return known.resolve(v).Equal(kindRef)
		case ast.Var:
			return known[v] != nil && known.resolve(known[v]).Equal(kindRef)
		}
		return false
	}
	kinds := []string{}
	add := func(t *ast.Term) {
		if s, ok := t.Value.(ast.String); ok {
			kinds = append(kinds, string(s))
		}
	}
	switch terms[0].String() {
	case "eq", "equal":
		for i := range 2 {
			if _, text := terms[2-i].Value.(ast.String); text && isKind(terms[1+i]) {
				add(terms[2-i])
				return kinds
			}
		}
	case "internal.member_2":
		if !isKind(terms[1]) {
			return nil
		}
		switch v := terms[2].Value.(type) {
		case *ast.Array:
			if !v.IsGround() {
				return nil
			}
			v.Foreach(add)
		case ast.Set:
			if !v.IsGround() {
				return nil
			}
			v.Foreach(add)
		default:
			return nil
		}
		return kinds
	}
	return nil
}
