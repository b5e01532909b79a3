package policy

import (
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/topdown"
)

// A policy may call what is listed here and nothing else: a builtin that a later
// OPA adds is not there until somebody has looked at it. Left out are all that
// reach outside the input (http.send, net.*, opa.runtime, time.now_ns, rand.intn,
// uuid.rfc4122, io.jwt.* and crypto.x509.*, which look at the clock), that leave
// traces (trace), and those whose cost cannot be told beforehand (yaml.*,
// graphql.*, json.patch, json.match_schema, graph.reachable_paths,
// regex.globs_match, strings.render_template, object.subset). print may stand in a
// policy while it is being written; it is left out when the policy is compiled.

// plainBuiltins make nothing larger than an operand and look at each once, so they
// are called as they are.
var plainBuiltins = []string{
	"eq", "assign", "equal", "neq", "gt", "gte", "lt", "lte",
	"internal.member_2", "internal.member_3", "internal.print", "print",
	"count", "object.get",
	"is_array", "is_boolean", "is_null", "is_number", "is_object", "is_set", "is_string", "type_name",
}

// boundedBuiltins are called with an eye on their operands and results. The
// estimate says how large a result could get where that is not in proportion to the
// operands; without one, it is.
var boundedBuiltins = map[string]estimate{
	// Numbers. No operand has more digits than maxDigits.
	"plus": nil, "minus": nil, "mul": nil, "div": nil, "rem": nil,
	"abs": nil, "ceil": nil, "floor": nil, "round": nil,
	"bits.and": nil, "bits.or": nil, "bits.xor": nil, "bits.negate": nil, "bits.rsh": nil,
	"bits.lsh":      shiftSize,
	"numbers.range": rangeSize, "numbers.range_step": rangeSize,
	"format_int": nil, "to_number": numberText, "units.parse": numberText, "units.parse_bytes": numberText,
	"sum": nil, "product": nil, "max": nil, "min": nil, "sort": nil,

	// Strings.
	"concat": concatSize, "sprintf": sprintfSize, "internal.template_string": nil,
	"replace": replaceSize, "strings.replace_n": replaceNSize,
	"contains": nil, "startswith": nil, "endswith": nil, "indexof": nil, "indexof_n": nil,
	"lower": nil, "upper": nil, "split": nil, "substring": nil, "strings.split_n": nil,
	"strings.count": nil, "strings.reverse": nil,
	"strings.any_prefix_match": pairsSize, "strings.any_suffix_match": pairsSize,
	"trim": nil, "trim_left": nil, "trim_prefix": nil, "trim_right": nil, "trim_space": nil, "trim_suffix": nil,
	"regex.is_valid": nil, "regex.match": nil, "regex.split": nil, "regex.find_n": nil,
	"regex.find_all_string_submatch_n": submatchSize, "regex.replace": regexReplaceSize,
	"regex.template_match": nil,
	"glob.match":           globSize, "glob.quote_meta": nil,
	"base64.encode": nil, "base64.decode": nil, "base64.is_valid": nil,
	"semver.compare": nil, "semver.is_valid": nil,

	// Collections.
	"array.concat": nil, "array.flatten": nil, "array.reverse": nil, "array.slice": nil,
	"and": nil, "or": nil, "union": nil, "intersection": nil,
	"object.filter": nil, "object.keys": nil, "object.remove": nil, "object.union": nil, "object.union_n": nil,
	"json.filter": nil, "json.is_valid": nil, "json.marshal": nil, "json.remove": nil, "json.unmarshal": nil,
	"walk": nil, "graph.reachable": nil,

	// Time, all of a given time in a given zone.
	"time.add_date": localTime, "time.clock": localTime, "time.date": localTime, "time.diff": localTime,
	"time.format": localTime, "time.weekday": localTime,
	"time.parse_duration_ns": nil, "time.parse_ns": nil, "time.parse_rfc3339_ns": nil,
}

// capabilities are what the parser and the compiler accept.
var capabilities = func() *ast.Capabilities {
	all := ast.CapabilitiesForThisVersion()
	c := &ast.Capabilities{
		Features:       all.Features,
		FutureKeywords: all.FutureKeywords,
		AllowNet:       []string{}, // no host at all; nil would be every host
	}
	for _, b := range all.Builtins {
		if _, ok := boundedBuiltins[b.Name]; ok || slices.Contains(plainBuiltins, b.Name) {
			c.Builtins = append(c.Builtins, b)
		}
	}
	return c
}()

// boundedName is what a bounded builtin is called once compiled. A policy cannot
// write it.
func boundedName(builtin string) string { return "bounded " + builtin }

// evalBuiltins are the bounded builtins as the evaluation finds them.
var evalBuiltins = func() map[string]*topdown.Builtin {
	m := make(map[string]*topdown.Builtin, len(boundedBuiltins))
	for _, b := range capabilities.Builtins {
		est, ok := boundedBuiltins[b.Name]
		if !ok {
			continue
		}
		f := topdown.GetBuiltin(b.Name)
		if f == nil {
			panic("no builtin " + b.Name) // a test starts the package
		}
		decl := *b
		decl.Name = boundedName(b.Name)
		decl.CanSkipBctx = false // the meter comes in the context
		m[decl.Name] = &topdown.Builtin{Decl: &decl, Func: bounded(b.Name, b.Decl.Arity(), f, est)}
	}
	return m
}()

// bindBuiltins makes the calls in a compiled module go to the bounded builtins.
// It comes after the compiler, whose checks and rule indices know the builtins by
// their own names.
func bindBuiltins(m *ast.Module) {
	terms := map[string]*ast.Term{}
	ast.WalkExprs(m, func(x *ast.Expr) bool {
		call, ok := x.Terms.([]*ast.Term)
		if !ok {
			return false
		}
		op, ok := call[0].Value.(ast.Ref)
		if !ok {
			return false
		}
		name := op.String()
		if _, ok := boundedBuiltins[name]; !ok {
			return false
		}
		if terms[name] == nil {
			terms[name] = ast.RefTerm(ast.VarTerm(boundedName(name)))
		}
		call[0] = terms[name]
		return false
	})
}

// outside says why a builtin of OPA is not available to a policy.
func outside(builtin string) string {
	first, _, _ := strings.Cut(builtin, ".")
	switch {
	case builtin == "time.now_ns":
		return "use input.time_ns, which is the same when a recording is replayed"
	case builtin == "http.send" || first == "net" || first == "providers":
		return "a policy reaches no network"
	case builtin == "opa.runtime":
		return "a policy sees no environment"
	case first == "rand" || builtin == "uuid.rfc4122":
		return "the same incident must give the same answer"
	}
	return "a policy sees its input and nothing else, and its cost must be known beforehand"
}
