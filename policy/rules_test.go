package policy

import (
	"io/fs"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/tester"
)

func shippedFiles(t *testing.T) map[string]string {
	t.Helper()
	names, err := fs.Glob(Shipped(), "*.rego")
	if err != nil || len(names) == 0 {
		t.Fatalf("no shipped rules: %v", err)
	}
	texts := map[string]string{}
	for _, n := range names {
		b, err := fs.ReadFile(Shipped(), n)
		if err != nil {
			t.Fatal(err)
		}
		texts[n] = string(b)
	}
	return texts
}

func TestTheShippedRulesLoad(t *testing.T) {
	s, err := LoadFS(Shipped())
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"breaker.cpuhog", "breaker.crashloop", "breaker.drill", "breaker.forkstorm", "breaker.ladder", "breaker.maintenance", "breaker.memoryleak",
		"breaker.noisyneighbour", "breaker.novictim", "breaker.officehours", "breaker.optin",
	}
	if d := cmp.Diff(want, s.Packages()); d != "" {
		t.Error(d)
	}
}

func TestTheShippedRulesPassTheirTestsWhichCoverThem(t *testing.T) {
	modules := map[string]*ast.Module{}
	for name, text := range shippedFiles(t) {
		m, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			t.Fatal(err)
		}
		modules[name] = m
	}
	covered := cover.New()
	results, err := tester.NewRunner().SetDefaultRegoVersion(ast.RegoV1).
		SetModules(modules).SetCoverageQueryTracer(covered).RunTests(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	tests := map[string]int{}
	for r := range results {
		tests[r.Location.File]++
		if !r.Pass() {
			t.Errorf("%v", r)
		}
	}
	for name := range modules {
		if isTest(name) {
			continue
		}
		if tests[strings.TrimSuffix(name, ".rego")+"_test.rego"] == 0 {
			t.Errorf("%s has no test", name)
		}
		if r := covered.Report(modules).Files[name]; r == nil || len(r.NotCovered) > 0 {
			t.Errorf("%s is not covered: %+v", name, r)
		}
	}
}

func TestTheShippedRulesAreFormattedAndDescribed(t *testing.T) {
	for name, text := range shippedFiles(t) {
		b, err := format.SourceWithOpts(name, []byte(text), format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			t.Fatal(err)
		}
		if d := cmp.Diff(string(b), text); d != "" {
			t.Errorf("%s is not as opa fmt writes it:\n%s", name, d)
		}
		if isTest(name) {
			continue
		}
		m, err := ast.ParseModuleWithOpts(name, text, ast.ParserOptions{RegoVersion: ast.RegoV1, ProcessAnnotation: true})
		if err != nil {
			t.Fatal(err)
		}
		if len(m.Annotations) == 0 || m.Annotations[0].Title == "" || m.Annotations[0].Description == "" {
			t.Errorf("%s has no title and description", name)
		}
	}
}
