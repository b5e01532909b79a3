package policy

import (
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

// value builds what the policies see, field by field: through JSON it would take
// ten times as long as the policies themselves. A test holds it to the JSON form.
func (in *Input) value() (ast.Value, error) {
	inc, c, r := &in.Incident, &in.Incident.Culprit, &in.Incident.Culprit.Root
	var v values
	victims := make([]*ast.Term, len(inc.Victims))
	for i := range inc.Victims {
		w := &inc.Victims[i]
		victims[i] = v.object(
			v.text("cgroup", w.Cgroup),
			v.count("cgroup_id", uint64(w.CgroupID)),
			v.text("unit", w.Unit),
			v.text("resource", string(w.Resource)),
			v.figure("stall_ms", w.StallMS),
		)
	}
	evidence := make([][2]*ast.Term, 0, len(inc.Evidence))
	for _, k := range slices.Sorted(maps.Keys(inc.Evidence)) {
		evidence = append(evidence, v.figure(k, inc.Evidence[k]))
	}
	root := v.object(
		v.whole("pid", int64(r.PID)),
		v.count("start_time", r.StartTime),
		v.text("comm", r.Comm),
		v.text("cmdline", r.Cmdline),
	)
	culprit := v.object(
		v.text("cgroup", c.Cgroup),
		v.count("cgroup_id", uint64(c.CgroupID)),
		v.text("unit", c.Unit),
		v.text("scope", string(c.Scope)),
		v.term("root", root),
		v.whole("processes", int64(c.Processes)),
		v.whole("uid", int64(c.UID)),
		v.whole("outside", int64(c.Outside)),
		v.figure("share", c.Share),
	)
	b := &in.Breaker
	breaker := v.object(
		v.text("state", string(b.State)),
		v.count("generation", b.Generation),
		v.whole("since_ms", b.SinceMS),
		v.whole("opened", int64(b.Opened)),
		v.whole("rung", int64(b.Rung)),
		v.term("refuted", ast.BooleanTerm(b.Refuted)),
		v.text("last_effect", string(b.LastEffect)),
		v.text("last_end", string(b.LastEnd)),
	)
	incident := v.object(
		v.text("id", inc.ID),
		v.text("kind", string(inc.Kind)),
		v.figure("severity", inc.Severity),
		v.text("level", string(inc.Level)),
		v.text("summary", inc.Summary),
		v.text("opened_at", inc.OpenedAt),
		v.whole("age_ms", inc.AgeMS),
		v.term("culprit", culprit),
		v.term("victims", ast.ArrayTerm(victims...)),
		v.term("evidence", v.object(evidence...)),
	)
	host := v.object(
		v.whole("cpus", int64(in.Host.CPUs)),
		v.whole("processes", int64(in.Host.Processes)),
		v.count("mem_total_bytes", in.Host.MemTotalBytes),
		v.count("mem_available_bytes", in.Host.MemAvailableBytes),
	)
	all := v.object(
		v.term("incident", incident),
		v.term("breaker", breaker),
		v.term("host", host),
		v.text("time", in.Time),
		v.whole("time_ns", in.TimeNS),
	)
	return all.Value, v.err
}

// values makes terms and keeps the first thing that is no JSON value.
type values struct{ err error }

func (*values) object(fields ...[2]*ast.Term) *ast.Term { return ast.ObjectTerm(fields...) }

func (*values) term(key string, t *ast.Term) [2]*ast.Term {
	k := keyTerms[key]
	if k == nil { // a name of the evidence
		k = ast.StringTerm(key)
	}
	return [2]*ast.Term{k, t}
}

// keyTerms are the keys of the input, made once.
var keyTerms = func() map[string]*ast.Term {
	m := map[string]*ast.Term{}
	var walk func(s *schema)
	walk = func(s *schema) {
		for name, p := range s.Properties {
			m[name] = ast.StringTerm(name)
			walk(p)
		}
		if s.Items != nil {
			walk(s.Items)
		}
	}
	walk(inputDescription)
	return m
}()

func (v *values) text(key, s string) [2]*ast.Term { return v.term(key, ast.StringTerm(s)) }

func (v *values) whole(key string, n int64) [2]*ast.Term {
	return v.term(key, ast.NewTerm(ast.Number(strconv.FormatInt(n, 10))))
}

func (v *values) count(key string, n uint64) [2]*ast.Term {
	return v.term(key, ast.NewTerm(ast.Number(strconv.FormatUint(n, 10))))
}

// figure refuses what is no number instead of leaving it out: a deny that went by
// it would be silent.
func (v *values) figure(key string, f float64) [2]*ast.Term {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		if v.err == nil {
			v.err = fmt.Errorf("%s of the incident is not a number", key)
		}
		f = 0
	}
	return v.term(key, ast.FloatNumberTerm(f))
}
