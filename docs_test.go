package breakerd_test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/breakerd/breakerd/policy"
)

func documents(t *testing.T) map[string]string {
	t.Helper()
	names, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	texts := make(map[string]string)
	for _, name := range append(names, "README.md", "SAFETY.md", "CHANGELOG.md", "bench/README.md") {
		text, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		texts[name] = string(text)
	}
	return texts
}

func TestEveryPolicyInTheDocumentsCompiles(t *testing.T) {
	block := regexp.MustCompile("(?s)```rego\n(.*?)```")
	seen := 0
	for name, text := range documents(t) {
		for i, m := range block.FindAllStringSubmatch(text, -1) {
			seen++
			if _, err := policy.LoadSources(map[string]string{fmt.Sprintf("%s#%d.rego", name, i+1): m[1]}); err != nil {
				t.Error(err)
			}
		}
	}
	if seen < 2 {
		t.Errorf("found %d policies in the documents, want those of README.md and docs/policies.md", seen)
	}
}

func TestEveryLinkInTheDocumentsLeadsSomewhere(t *testing.T) {
	link := regexp.MustCompile(`\]\(([^)#]+)\)`)
	for name, text := range documents(t) {
		for _, m := range link.FindAllStringSubmatch(text, -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join(filepath.Dir(name), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", name, m[1], err)
			}
		}
	}
}

// Every promise has a number, in order, and names at least one test that is there.
func TestEveryPromiseOfSafetyNamesItsTests(t *testing.T) {
	text, err := os.ReadFile("SAFETY.md")
	if err != nil {
		t.Fatal(err)
	}
	tests := declaredTests(t)
	promises := regexp.MustCompile(`(?m)^\*\*S(\d+)\.`).FindAllStringSubmatchIndex(string(text), -1)
	if len(promises) == 0 {
		t.Fatal("SAFETY.md makes no promise")
	}
	for i, at := range promises {
		if number := string(text[at[2]:at[3]]); number != fmt.Sprint(i+1) {
			t.Errorf("promise %d has the number S%s", i+1, number)
		}
		end := len(text)
		if i+1 < len(promises) {
			end = promises[i+1][0]
		}
		named := regexp.MustCompile("`((?:Test|Fuzz)[A-Za-z0-9_]+)`").FindAllStringSubmatch(string(text[at[0]:end]), -1)
		if len(named) == 0 {
			t.Errorf("S%d names no test", i+1)
		}
		for _, m := range named {
			if !tests[m[1]] {
				t.Errorf("S%d names %s, and there is no such test", i+1, m[1])
			}
		}
	}
}

// declaredTests are the names of all tests and fuzz targets of the module.
func declaredTests(t *testing.T) map[string]bool {
	t.Helper()
	declared := regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`)
	tests := make(map[string]bool)
	err := filepath.WalkDir(".", func(path string, _ fs.DirEntry, err error) error {
		if err != nil || !strings.HasSuffix(path, "_test.go") {
			return err
		}
		text, err := os.ReadFile(path)
		for _, m := range declared.FindAllSubmatch(text, -1) {
			tests[string(m[1])] = true
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return tests
}
