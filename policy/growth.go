package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// maxGrowth bounds how often a value may stand within another, over all the
// literals that are built of it.
const maxGrowth = 10_000

// growth finds values that are doubled over and over, as in
//
//	b := [a, a]
//	c := [b, b]
//
// and so on. OPA binds a variable to such a literal as it stands and writes it out
// at once when it is needed. After forty lines that is more than there is memory,
// and nothing asks the meter meanwhile. So it is refused when it is loaded.
type growth struct {
	compiler *ast.Compiler
	rules    map[*ast.Rule]int // how much of its parts a rule's value holds
}

// check adds a problem for each rule that is the first to grow too much.
func (g *growth) check(m *ast.Module, ps *problems) {
	for _, r := range m.Rules {
		if g.rule(r) > maxGrowth {
			ps.add(r.Location.File, r.Location.Row, r.Location.Col,
				"rule %s puts a value into itself too often: it would hold it more than %d times", ruleName(r), maxGrowth)
			g.rules[r] = 1 // those that use it are not to blame
		}
	}
}

// rule tells how large the largest value gets that a rule builds of its parts.
func (g *growth) rule(r *ast.Rule) int {
	if n, ok := g.rules[r]; ok {
		return n
	}
	largest := 1
	for e := r; e != nil; e = e.Else {
		env := map[ast.Var]int{}
		largest = max(largest, g.body(e.Body, env), g.term(e.Head.Key, env), g.term(e.Head.Value, env))
	}
	g.rules[r] = largest
	return largest
}

// body follows the variables through expressions, which the compiler has put into
// the order of their evaluation, and returns the largest value on the way.
func (g *growth) body(b ast.Body, env map[ast.Var]int) int {
	largest := 1
	for _, x := range b {
		for _, inner := range innerBodies(x) {
			largest = max(largest, g.body(inner, env))
		}
		terms, ok := x.Terms.([]*ast.Term)
		if !ok {
			continue
		}
		n := 0
		for _, t := range terms[1:] {
			n = capped(n + g.term(t, env))
		}
		largest = max(largest, n)
		switch op := terms[0].Value.(ast.Ref); {
		case x.IsEquality():
			for i, t := range terms[1:3] {
				if v, ok := t.Value.(ast.Var); ok {
					env[v] = max(env[v], g.term(terms[2-i], env))
				}
			}
		case op[0].Equal(ast.DefaultRootDocument): // a function; the last term takes the result
			if v, ok := terms[len(terms)-1].Value.(ast.Var); ok {
				env[v] = capped(n * g.ref(op))
			}
		}
	}
	return largest
}

// term tells how large a value is in parts that are there already.
func (g *growth) term(t *ast.Term, env map[ast.Var]int) int {
	if t == nil {
		return 0
	}
	n := 0
	add := func(e *ast.Term) { n = capped(n + g.term(e, env)) }
	switch v := t.Value.(type) {
	case ast.Var:
		return max(1, env[v])
	case ast.Ref:
		return g.ref(v)
	case *ast.Array:
		if v.IsGround() {
			return 1
		}
		v.Foreach(add)
	case ast.Set:
		if v.IsGround() {
			return 1
		}
		v.Foreach(add)
	case ast.Object:
		if v.IsGround() {
			return 1
		}
		v.Foreach(func(k, e *ast.Term) { add(k); add(e) })
	}
	return max(1, n)
}

func (g *growth) ref(ref ast.Ref) int {
	n := 1
	if ref[0].Equal(ast.DefaultRootDocument) {
		for _, r := range g.compiler.GetRules(ref.GroundPrefix()) {
			n = max(n, g.rule(r))
		}
	}
	return n
}

// innerBodies are the bodies within an expression, of comprehensions and every.
func innerBodies(x *ast.Expr) (bodies []ast.Body) {
	v := ast.NewGenericVisitor(func(n any) bool {
		switch n := n.(type) {
		case *ast.ArrayComprehension:
			bodies = append(bodies, n.Body)
		case *ast.SetComprehension:
			bodies = append(bodies, n.Body)
		case *ast.ObjectComprehension:
			bodies = append(bodies, n.Body)
		case *ast.Every:
			bodies = append(bodies, n.Body)
		default:
			return false
		}
		return true
	})
	v.Walk(x)
	return bodies
}

// capped keeps products of growth within an int.
func capped(n int) int { return min(n, 1<<30) }
