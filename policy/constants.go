package policy

import (
	"github.com/open-policy-agent/opa/v1/ast"
)

// inlineConstants puts the values of rules such as min_stall_ms := 500 where they are used:
// each such rule cost a twentieth of an evaluation. The modules are compiled already.
func inlineConstants(c *ast.Compiler) {
	values := map[string]ast.Value{}
	replaced := false
	for _, m := range c.Modules {
		ast.WalkExprs(m, func(x *ast.Expr) bool {
			for _, w := range x.With {
				ref, ok := w.Target.Value.(ast.Ref)
				replaced = replaced || ok && ref[0].Equal(ast.DefaultRootDocument)
			}
			return false
		})
		for _, r := range m.Rules {
			if v := constant(r); v != nil {
				if ref := r.Ref(); len(c.GetRulesExact(ref)) == 1 {
					values[ref.String()] = v
				}
			}
		}
	}
	if replaced || len(values) == 0 {
		return // a with may put something else in their place
	}
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			ast.WalkTerms(r.Body, func(t *ast.Term) bool {
				if ref, ok := t.Value.(ast.Ref); ok && ref[0].Equal(ast.DefaultRootDocument) && ref.IsGround() {
					if v := values[ref.String()]; v != nil {
						t.Value = v
						return true
					}
				}
				return false
			})
		}
	}
}

// constant is the value of a rule that is always the same, nil if it is not.
func constant(r *ast.Rule) ast.Value {
	h := r.Head
	if r.Default || r.Else != nil || len(h.Args) > 0 || h.RuleKind() != ast.SingleValue || h.Value == nil || len(h.Ref()) != 1 || !ast.IsConstant(h.Value.Value) {
		return nil
	}
	if len(r.Body) != 1 || !r.Body[0].Equal(ast.NewExpr(ast.BooleanTerm(true))) {
		return nil
	}
	return h.Value.Value
}
