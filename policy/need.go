package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// need is the part of the input that some rules look at, as a tree of names. A nil need is
// of nothing.
type need struct {
	whole bool // everything below
	parts map[string]*need
}

// everything is the whole input.
var everything = &need{whole: true}

// at is what is needed of a part; nil if nothing is. The index of an array has no name.
func (n *need) at(path ...string) *need {
	for _, name := range path {
		if n == nil || n.whole {
			return n
		}
		n = n.parts[name]
	}
	return n
}

// add adds a part of the input, and all that is below it if it is looked at as a whole.
func (n *need) add(path []string, whole bool) {
	for _, name := range path {
		if n.whole {
			return
		}
		if n.parts == nil {
			n.parts = map[string]*need{}
		}
		if n.parts[name] == nil {
			n.parts[name] = &need{}
		}
		n = n.parts[name]
	}
	n.whole = n.whole || whole
}

// addRule adds what a compiled rule looks at itself.
func (n *need) addRule(r *ast.Rule) {
	known := aliases{}
	known.of(r)
	vis := ast.NewGenericVisitor(nil)
	vis = ast.NewGenericVisitor(func(x any) bool {
		switch x := x.(type) {
		case *ast.Expr:
			// What a variable stands for is counted where the variable is used.
			if v, ref := known.binding(x); v != "" {
				n.addRef(known.resolve(ref), false)
				for _, t := range ref[1:] {
					vis.Walk(t)
				}
				for _, w := range x.With {
					vis.Walk(w)
				}
				return true
			}
		case ast.Ref:
			n.addRef(known.resolve(x), true)
			for _, t := range x[1:] {
				vis.Walk(t)
			}
			return true
		case ast.Var:
			if ref := known[x]; ref != nil {
				n.addRef(known.resolve(ref), true)
			}
		}
		return false
	})
	vis.Walk(r)
}

// addRef adds what a reference leads to, as far as it can be told beforehand.
func (n *need) addRef(ref ast.Ref, whole bool) {
	if !ref[0].Equal(ast.InputRootDocument) {
		return
	}
	var path []string
	s := inputDescription
	for _, t := range ref[1:] {
		if s.Items != nil {
			s = s.Items
			continue
		}
		name, ok := t.Value.(ast.String)
		if !ok || s.Properties[string(name)] == nil {
			n.add(path, true) // which part, the evaluation will tell
			return
		}
		path = append(path, string(name))
		s = s.Properties[string(name)]
	}
	n.add(path, whole || s.Properties == nil && s.Items == nil)
}

// aliases are the variables of a rule that stand for a part of the input or of the data.
type aliases map[ast.Var]ast.Ref

// of finds them, in comprehensions too. The compiler has given each variable of a rule a
// name of its own.
func (a aliases) of(r *ast.Rule) {
	for e := r; e != nil; e = e.Else {
		ast.WalkExprs(e, func(x *ast.Expr) bool {
			if v, ref := a.bind(x); v != "" {
				if _, twice := a[v]; !twice {
					a[v] = ref
				}
			}
			return false
		})
	}
}

// binding is the variable that an expression lets stand for a reference, if it is the one
// that was found.
func (a aliases) binding(x *ast.Expr) (ast.Var, ast.Ref) {
	v, ref := a.bind(x)
	if v == "" || !ref.Equal(a[v]) {
		return "", nil
	}
	return v, ref
}

func (a aliases) bind(x *ast.Expr) (ast.Var, ast.Ref) {
	if x.Negated || len(x.With) > 0 || !x.IsEquality() {
		return "", nil
	}
	for i := range 2 {
		v, ok := x.Operand(i).Value.(ast.Var)
		ref, isRef := x.Operand(1 - i).Value.(ast.Ref)
		if ok && isRef {
			return v, ref
		}
	}
	return "", nil
}

// resolve puts what the variables stand for in the place of the first name.
func (a aliases) resolve(ref ast.Ref) ast.Ref {
	for range 32 { // no rule goes through more, and a cycle would never end
		v, ok := ref[0].Value.(ast.Var)
		if !ok || a[v] == nil {
			return ref
		}
		ref = a[v].Concat(ref[1:])
	}
	return ref
}
