// Package workshop helps people write policies: it makes a first one, runs their tests and
// formats them. Nothing of it is in the daemon.
package workshop

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/cover"
	"github.com/open-policy-agent/opa/v1/format"
	"github.com/open-policy-agent/opa/v1/storage"
	"github.com/open-policy-agent/opa/v1/storage/inmem"
	"github.com/open-policy-agent/opa/v1/tester"
	"github.com/open-policy-agent/opa/v1/topdown"

	"github.com/breakerd/breakerd/policy"
)

//go:embed starter/*.rego
var starter embed.FS

// Init writes a first policy and its tests into a folder, which is made if it is missing,
// and returns the files. It overwrites nothing.
func Init(dir string) (files []string, err error) {
	names, err := fs.Glob(starter, "starter/*.rego")
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, err
	}
	for _, name := range names {
		text, err := fs.ReadFile(starter, name)
		if err != nil {
			return files, err
		}
		file := filepath.Join(dir, filepath.Base(name))
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o644)
		if errors.Is(err, fs.ErrExist) {
			return files, fmt.Errorf("%s is there already, and nothing is overwritten: name another folder", file)
		}
		if err != nil {
			return files, err
		}
		_, err = f.Write(text)
		if err = errors.Join(err, f.Close()); err != nil {
			return files, err
		}
		files = append(files, file)
	}
	return files, nil
}

// Formatted is a policy file as it should be written.
type Formatted struct {
	File string
	Was  string
	Is   string
}

// Format gives the files that are not written as opa fmt writes them.
func Format(paths ...string) (changed []Formatted, err error) {
	files, err := policy.Read(paths...)
	if err != nil {
		return nil, err
	}
	for file := range files.Modules {
		text := files.Texts[file]
		is, err := format.SourceWithOpts(file, []byte(text), format.Opts{RegoVersion: ast.RegoV1})
		if err != nil {
			return nil, err
		}
		if string(is) != text {
			changed = append(changed, Formatted{file, text, string(is)})
		}
	}
	slices.SortFunc(changed, func(a, b Formatted) int { return strings.Compare(a.File, b.File) })
	return changed, nil
}

// Write puts the formatted text in the place of the old one, as a whole.
func (f *Formatted) Write() error {
	info, err := os.Stat(f.File)
	if err != nil {
		return err
	}
	next, err := os.CreateTemp(filepath.Dir(f.File), ".fmt-*")
	if err != nil {
		return err
	}
	defer os.Remove(next.Name()) // gone where it was renamed
	_, err = next.WriteString(f.Is)
	if err = errors.Join(err, next.Chmod(info.Mode().Perm()), next.Close()); err != nil {
		return err
	}
	return os.Rename(next.Name(), f.File)
}

// Report is what the tests of some policies gave.
type Report struct {
	Tests []Test     `json:"tests"`
	Files []Coverage `json:"files"`
	// Percent of the lines of all policies that some test goes through.
	Percent float64 `json:"coverage_percent"`
}

// Test is one rule whose name begins with test_.
type Test struct {
	Package string `json:"package"`
	Name    string `json:"name"`
	File    string `json:"file"`
	Line    int    `json:"line"`
	Result  string `json:"result"` // passed, failed, error or skipped
	Detail  string `json:"detail"` // where it failed, or what the error is
	TookUS  int64  `json:"took_us"`
}

// Coverage says which lines of a file the tests go through.
type Coverage struct {
	File       string  `json:"file"`
	Percent    float64 `json:"percent"`
	NotCovered []Lines `json:"not_covered"`
}

// Lines are some that follow each other.
type Lines struct {
	From int `json:"from"`
	To   int `json:"to"`
}

func (l Lines) String() string {
	if l.From == l.To {
		return fmt.Sprint(l.From)
	}
	return fmt.Sprintf("%d-%d", l.From, l.To)
}

// Passed reports whether there are tests and none failed.
func (r *Report) Passed() bool {
	return len(r.Tests) > 0 && !slices.ContainsFunc(r.Tests, func(t Test) bool { return t.Result == "failed" || t.Result == "error" })
}

// testBound is how long a single test may take.
const testBound = 10 * time.Second

// Run runs the tests whose names match an expression; all of them where it is "".
func Run(ctx context.Context, match string, paths ...string) (Report, error) {
	files, err := policy.Read(paths...)
	if err != nil {
		return Report{}, err
	}
	policies := slices.DeleteFunc(slices.Clone(paths), policy.IsTest)
	if _, err := policy.Load(policies...); err != nil {
		return Report{}, err
	}
	store := inmem.New()
	if files.Data != nil {
		store = inmem.NewFromObject(files.Data)
	}
	txn, err := store.NewTransaction(ctx, storage.WriteParams)
	if err != nil {
		return Report{}, err
	}
	defer store.Abort(ctx, txn)
	covered := cover.New()
	results, err := tester.NewRunner().
		SetCompiler(policy.TestCompiler()).
		SetDefaultRegoVersion(ast.RegoV1).
		SetStore(store).
		SetModules(files.Modules).
		SetCoverageQueryTracer(covered).
		SetTimeout(testBound).
		RaiseBuiltinErrors(true).
		Filter(match).
		RunTests(ctx, txn)
	if err != nil {
		return Report{}, err
	}
	r := Report{Tests: []Test{}, Files: []Coverage{}}
	for result := range results {
		r.Tests = append(r.Tests, testOf(result))
	}
	if err := whereFailed(ctx, txn, store, files.Modules, r.Tests); err != nil {
		return Report{}, err
	}
	slices.SortFunc(r.Tests, func(a, b Test) int {
		if c := strings.Compare(a.File, b.File); c != 0 {
			return c
		}
		return a.Line - b.Line
	})
	lines, all := 0, 0
	for file, of := range covered.Report(files.Modules).Files {
		if policy.IsTest(file) {
			continue
		}
		c := Coverage{File: file, NotCovered: []Lines{}, Percent: 100}
		for _, n := range of.NotCovered {
			c.NotCovered = append(c.NotCovered, Lines{n.Start.Row, n.End.Row})
		}
		if n := of.CoveredLines + of.NotCoveredLines; n > 0 {
			c.Percent = 100 * float64(of.CoveredLines) / float64(n)
			lines, all = lines+of.CoveredLines, all+n
		}
		r.Files = append(r.Files, c)
	}
	slices.SortFunc(r.Files, func(a, b Coverage) int { return strings.Compare(a.File, b.File) })
	if all > 0 {
		r.Percent = 100 * float64(lines) / float64(all)
	}
	return r, ctx.Err()
}

func testOf(r *tester.Result) Test {
	t := Test{Package: strings.TrimPrefix(r.Package, "data."), Name: r.Name, File: r.Location.File, Line: r.Location.Row, Result: "passed", TookUS: r.Duration.Microseconds()}
	switch {
	case r.Error != nil:
		t.Result, t.Detail = "error", r.Error.Error()
	case r.Skip:
		t.Result = "skipped"
	case r.Fail:
		t.Result = "failed"
	}
	return t
}

// whereFailed runs the tests that failed once more, and says what did not hold in each: what
// the tests go through and where they end cannot be told in one run.
func whereFailed(ctx context.Context, txn storage.Transaction, store storage.Store, modules map[string]*ast.Module, tests []Test) error {
	if !slices.ContainsFunc(tests, func(t Test) bool { return t.Result == "failed" }) {
		return nil
	}
	results, err := tester.NewRunner().
		SetCompiler(policy.TestCompiler()).
		SetDefaultRegoVersion(ast.RegoV1).
		SetStore(store).
		SetModules(modules).
		EnableTracing(true).
		SetTimeout(testBound).
		RaiseBuiltinErrors(true).
		RunTests(ctx, txn)
	if err != nil {
		return err
	}
	for result := range results {
		for i := range tests {
			t := &tests[i]
			if t.Result != "failed" || t.File != result.Location.File || t.Line != result.Location.Row {
				continue
			}
			for _, e := range result.Trace {
				if e.Op == topdown.FailOp && e.Location != nil && e.Location.File == t.File {
					t.Detail = fmt.Sprintf("%s:%d: %s", t.File, e.Location.Row, firstLine(string(e.Location.Text)))
				}
			}
		}
	}
	return nil
}

func firstLine(s string) string {
	line, _, more := strings.Cut(strings.TrimSpace(s), "\n")
	if more {
		return line + " …"
	}
	return line
}
