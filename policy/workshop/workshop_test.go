package workshop

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/breakerd/breakerd/policy"
)

func TestTheStarterLoadsPassesItsTestsAndIsFormatted(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "new")
	files, err := Init(dir)
	if err != nil || len(files) != 2 {
		t.Fatalf("files %v, error %v", files, err)
	}
	set, err := policy.Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range set.Rules() {
		if r.Title == "" || r.Description == "" || r.Name == "action" && !r.DryRun {
			t.Errorf("rule %+v is not described, or acts", r)
		}
	}
	r, err := Run(t.Context(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	if !r.Passed() || r.Percent != 100 || len(r.Tests) != 6 {
		t.Errorf("the report is %+v", r)
	}
	if changed, err := Format(dir); err != nil || len(changed) != 0 {
		t.Errorf("%d files are not formatted, error %v", len(changed), err)
	}
	if _, err := Init(dir); err == nil || !strings.Contains(err.Error(), "nothing is overwritten") {
		t.Errorf("a second time: %v", err)
	}
}

func TestWhatTestsFindIsSaidWithItsPlace(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"x.rego": "package breaker.x\n\ndeny contains \"no\" if input.host.cpus > data.limits.cpus\n\ndeny contains \"never tried\" if input.host.cpus > 100\n",
		"x_test.rego": "package breaker.x_test\n\nimport data.breaker.x\n\ntest_passes if count(x.deny) == 1 with input.host.cpus as 9\n\n" +
			"test_fails if count(x.deny) == 1 with input.host.cpus as 1\n\ntodo_test_later if false\n\ntest_breaks if to_number(\"x\") == 1\n",
		"data.yaml": "limits:\n  cpus: 8\n",
	} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r, err := Run(t.Context(), "", dir)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, test := range r.Tests {
		got = append(got, test.Name+" "+test.Result)
	}
	if want := "test_passes passed,test_fails failed,todo_test_later skipped,test_breaks error"; strings.Join(got, ",") != want {
		t.Errorf("the tests are %v, want %s", got, want)
	}
	if d := r.Tests[1].Detail; !strings.HasSuffix(d, "x_test.rego:7: count(x.deny) == 1 with input.host.cpus as 1") {
		t.Errorf("the test that failed says %q", d)
	}
	if r.Passed() || len(r.Files) != 1 {
		t.Errorf("the report is %+v", r)
	}
	only, err := Run(t.Context(), "test_passes", dir)
	if err != nil || !only.Passed() || len(only.Tests) != 1 {
		t.Errorf("with an expression it is %+v, error %v", only, err)
	}
}

func TestASlipInTheInputOfATestIsFound(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x_test.rego")
	text := "package breaker.x_test\n\ntest_a if input.incident.severity == 1 with input.incident.sevrity as 1\n"
	if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	_, err := Run(t.Context(), "", dir)
	want := file + `:3:40: input.incident has no "sevrity": did you mean severity?`
	if err == nil || err.Error() != want {
		t.Errorf("got %v, want %s", err, want)
	}
}

func TestFormatChangesWhatIsNotFormattedAndNothingElse(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "x.rego")
	if err := os.WriteFile(file, []byte("package breaker.x\ndeny  contains   \"no\"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	changed, err := Format(dir)
	if err != nil || len(changed) != 1 {
		t.Fatalf("%d files, error %v", len(changed), err)
	}
	if err := changed[0].Write(); err != nil {
		t.Fatal(err)
	}
	if changed, err = Format(dir); err != nil || len(changed) != 0 {
		t.Errorf("%d files are not formatted, error %v", len(changed), err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the file is %v, error %v", info.Mode(), err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("%d files are left, error %v", len(left), err)
	}
}
