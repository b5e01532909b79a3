package host

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/rogpeppe/go-internal/txtar"
)

// fixture unpacks kernel text from testdata and returns a reader of it.
func fixture(t *testing.T, name string) Reader {
	t.Helper()
	archive, err := txtar.ParseFile(filepath.Join("testdata", name+".txtar"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, f := range archive.Files {
		write(t, filepath.Join(dir, f.Name), string(f.Data))
	}
	return Reader{ProcRoot: filepath.Join(dir, "proc"), CgroupRoot: filepath.Join(dir, "cgroup")}
}

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func remove(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// needKernel skips a test that this machine cannot run, or fails it where every
// test must run.
func needKernel(t testing.TB, missing string) {
	t.Helper()
	if os.Getenv("BREAKERD_REQUIRE_KERNEL") == "1" {
		t.Fatalf("missing: %s", missing)
	}
	t.Skipf("missing: %s", missing)
}

// machine is a reader of the machine that the test runs on.
func machine(t testing.TB) Reader {
	t.Helper()
	r, err := NewReader()
	if err != nil {
		needKernel(t, err.Error())
	}
	return r
}

// scratch makes a cgroup for the test and removes it, and what is below, at its
// end.
func scratch(t testing.TB, r Reader) string {
	t.Helper()
	dir, err := os.MkdirTemp(r.CgroupRoot, "breakerd-test-")
	if err != nil {
		needKernel(t, "permission to make a cgroup: "+err.Error())
	}
	t.Cleanup(func() { removeCgroup(t, dir) })
	return "/" + filepath.Base(dir)
}

// removeCgroup removes directories alone, from the deepest: the files of a cgroup
// go with it.
func removeCgroup(t testing.TB, dir string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		return
	}
	for _, e := range entries {
		if e.IsDir() {
			removeCgroup(t, filepath.Join(dir, e.Name()))
		}
	}
	if err := os.Remove(dir); err != nil && !os.IsNotExist(err) {
		t.Errorf("remove the scratch cgroup: %v", err)
	}
}
