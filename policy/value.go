package policy

import (
	"fmt"
	"math"
	"slices"
	"strconv"

	"github.com/open-policy-agent/opa/v1/ast"
)

// value builds what the policies see, field by field: through JSON it would take
// ten times as long as the policies themselves. A test holds it to the JSON form. What
// no policy that is asked refers to is left out: it was half of the time.
func (in *Input) value(asked *need) (ast.Value, error) {
	inc, c, r := &in.Incident, &in.Incident.Culprit, &in.Incident.Culprit.Root
	if err := in.check(); err != nil {
		return nil, err
	}
	var v values
	at := func(path ...string) { v.need = asked.at(path...) }
	var victims []*ast.Term
	if asked.at("incident", "victims") != nil {
		victims = make([]*ast.Term, len(inc.Victims))
	}
	for i := range victims {
		w := &inc.Victims[i]
		at("incident", "victims", "workload")
		workload := v.workload(&w.Workload)
		at("incident", "victims")
		victims[i] = v.object(
			v.text("cgroup", w.Cgroup),
			v.count("cgroup_id", uint64(w.CgroupID)),
			v.text("unit", w.Unit),
			v.text("resource", string(w.Resource)),
			v.figure("stall_ms", w.StallMS),
			v.term("workload", workload),
		)
	}
	at("incident", "evidence")
	evidence := v.evidence(inc.Evidence)
	at("incident", "culprit", "root")
	root := v.object(
		v.whole("pid", int64(r.PID)),
		v.count("start_time", r.StartTime),
		v.text("comm", r.Comm),
		v.text("cmdline", r.Cmdline),
	)
	at("incident", "culprit", "workload")
	workload := v.workload(&c.Workload)
	at("incident", "culprit")
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
		v.term("workload", workload),
	)
	at("breaker")
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
	at("incident")
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
		v.term("evidence", evidence),
		v.flag("estimated", inc.Estimated),
		v.figure("confidence", inc.Confidence),
		v.figure("margin", inc.Margin),
	)
	at("host")
	host := v.object(
		v.whole("cpus", int64(in.Host.CPUs)),
		v.whole("processes", int64(in.Host.Processes)),
		v.count("mem_total_bytes", in.Host.MemTotalBytes),
		v.count("mem_available_bytes", in.Host.MemAvailableBytes),
	)
	at()
	all := v.object(
		v.term("incident", incident),
		v.term("breaker", breaker),
		v.term("host", host),
		v.text("time", in.Time),
		v.whole("time_ns", in.TimeNS),
	)
	return all.Value, nil
}

// check refuses what is no number instead of leaving it out: a deny that went by it would
// be silent.
func (in *Input) check() error {
	inc := &in.Incident
	bad := ""
	look := func(key string, f float64) {
		if math.IsNaN(f) || math.IsInf(f, 0) {
			bad = key
		}
	}
	look("severity", inc.Severity)
	look("confidence", inc.Confidence)
	look("margin", inc.Margin)
	look("share", inc.Culprit.Share)
	for i := range inc.Victims {
		look("stall_ms", inc.Victims[i].StallMS)
	}
	for k, f := range inc.Evidence {
		look(k, f)
	}
	if bad != "" {
		return fmt.Errorf("%s of the incident is not a number", bad)
	}
	return nil
}

// values makes the terms of one object after the other, those that are needed.
type values struct {
	need *need
	// room is for the terms to come: one at a time they were a quarter of all that an
	// evaluation allocates.
	room []ast.Term
}

// of makes a term.
func (v *values) of(value ast.Value) *ast.Term {
	if len(v.room) == cap(v.room) {
		v.room = make([]ast.Term, 0, 32)
	}
	v.room = append(v.room, ast.Term{Value: value})
	return &v.room[len(v.room)-1]
}

// object makes an object of the fields that are needed.
func (v *values) object(fields ...[2]*ast.Term) *ast.Term {
	if v.need == nil {
		return nil
	}
	fields = slices.DeleteFunc(fields, func(f [2]*ast.Term) bool { return f[0] == nil })
	if len(fields) == 0 { // each of many victims, where it only counts how many they are
		return ast.InternedEmptyObject
	}
	return v.of(ast.NewObject(fields...))
}

func (v *values) workload(w *Workload) *ast.Term {
	if v.need == nil {
		return nil
	}
	return v.object(
		v.text("kind", string(w.Kind)),
		v.text("unit", w.Unit),
		v.text("slice", w.Slice),
		v.text("manager", w.Manager),
		v.text("container", w.Container),
		v.text("runtime", w.Runtime),
		v.text("pod_uid", w.PodUID),
	)
}

func (v *values) evidence(figures map[string]float64) *ast.Term {
	if v.need == nil {
		return nil
	}
	fields := make([][2]*ast.Term, 0, len(figures))
	for k, f := range figures { // in any order: an object sorts its keys
		fields = append(fields, v.figure(k, f))
	}
	return v.object(fields...)
}

func (v *values) term(key string, t *ast.Term) (field [2]*ast.Term) {
	if v.need.at(key) == nil {
		return field
	}
	k := keyTerms[key]
	if k == nil { // a name of the evidence that is not listed
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

func (v *values) text(key, s string) (field [2]*ast.Term) {
	if v.need.at(key) == nil {
		return field
	}
	return v.term(key, v.of(ast.String(s)))
}

func (v *values) flag(key string, b bool) [2]*ast.Term { return v.term(key, ast.InternedTerm(b)) }

func (v *values) whole(key string, n int64) (field [2]*ast.Term) {
	if v.need.at(key) == nil {
		return field
	}
	return v.term(key, v.of(ast.Number(strconv.FormatInt(n, 10))))
}

func (v *values) count(key string, n uint64) (field [2]*ast.Term) {
	if v.need.at(key) == nil {
		return field
	}
	return v.term(key, v.of(ast.Number(strconv.FormatUint(n, 10))))
}

func (v *values) figure(key string, f float64) (field [2]*ast.Term) {
	if v.need.at(key) == nil {
		return field
	}
	return v.term(key, ast.FloatNumberTerm(f))
}
