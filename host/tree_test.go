package host

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

func mkdir(t testing.TB, path string) {
	t.Helper()
	if err := os.Mkdir(path, 0o755); err != nil {
		t.Fatal(err)
	}
}

func refresh(t testing.TB, tree *Tree) {
	t.Helper()
	if err := tree.Refresh(); err != nil {
		t.Fatal(err)
	}
}

func idOf(t testing.TB, tree *Tree, path string) model.CgroupID {
	t.Helper()
	id, err := tree.ID(path)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestTreeFindsEveryCgroup(t *testing.T) {
	r := fixture(t, "debian-6.1")
	if err := os.Symlink("system.slice", filepath.Join(r.CgroupRoot, "link")); err != nil {
		t.Fatal(err)
	}
	tree := r.Tree()
	if tree.Len() != 0 || tree.Complete() {
		t.Error("it knows something before it looked")
	}
	refresh(t, tree)
	paths := []string{"/", "/system.slice", "/system.slice/capped.service"}
	if tree.Len() != len(paths) || !tree.Complete() {
		t.Errorf("%d cgroups, complete %v", tree.Len(), tree.Complete())
	}
	for _, path := range paths {
		if got, ok := tree.Path(idOf(t, tree, path)); !ok || got != path {
			t.Errorf("%s: got %q, %v", path, got, ok)
		}
	}
	if _, ok := tree.Path(0); ok {
		t.Error("found a cgroup that does not exist")
	}
	if _, err := tree.ID("/cpu.stat"); err == nil {
		t.Error("a file has the id of a cgroup")
	}
}

func TestTreeFollowsChanges(t *testing.T) {
	r := fixture(t, "debian-6.1")
	tree := r.Tree()
	refresh(t, tree)
	gone := idOf(t, tree, "/system.slice/capped.service")
	mkdir(t, filepath.Join(r.CgroupRoot, "system.slice/new.service"))
	remove(t, filepath.Join(r.CgroupRoot, "system.slice/capped.service"))
	if _, ok := tree.Path(gone); !ok {
		t.Error("it forgot before it looked again")
	}
	refresh(t, tree)
	if path, ok := tree.Path(gone); ok && path != "/system.slice/new.service" {
		t.Errorf("still knows %s", path)
	}
	if path, _ := tree.Path(idOf(t, tree, "/system.slice/new.service")); path != "/system.slice/new.service" {
		t.Errorf("the new one is %q", path)
	}
}

func TestTreeIsBoundedAndKeepsTheShallowOnes(t *testing.T) {
	r := fixture(t, "debian-6.1")
	tree := r.Tree()
	tree.limit = 2
	refresh(t, tree)
	if tree.Len() != 2 || tree.Complete() {
		t.Errorf("%d cgroups, complete %v", tree.Len(), tree.Complete())
	}
	if path, _ := tree.Path(idOf(t, tree, "/system.slice")); path != "/system.slice" {
		t.Errorf("the shallow one is %q", path)
	}
}

// Whoever may make cgroups, as every user may below user@.service, can nest them until no
// path leads to them any more, or fill the memory with their names.
func TestTreeStandsCgroupsThatNoPathLeadsTo(t *testing.T) {
	r := fixture(t, "debian-6.1")
	fd, err := unix.Open(r.CgroupRoot, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	for level := 0; err == nil && level < 20; level++ {
		name := strings.Repeat("d", 250)
		if err = unix.Mkdirat(fd, name, 0o755); err != nil {
			break
		}
		above := fd
		fd, err = unix.Openat(above, name, unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
		unix.Close(above)
	}
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	tree := r.Tree()
	refresh(t, tree)
	if tree.Complete() {
		t.Error("it claims to have seen all of them")
	}
	if path, _ := tree.Path(idOf(t, tree, "/system.slice")); path != "/system.slice" {
		t.Errorf("another one is %q", path)
	}
}

func TestTreeBoundsTheBytesOfAllPaths(t *testing.T) {
	w := walk{limit: maxCgroups, found: cgroupPaths{paths: map[model.CgroupID]string{}, complete: true}}
	long := strings.Repeat("d", 4000)
	for ino := range uint64(maxCgroups) {
		w.add(ino, fmt.Sprint("/", long, ino))
	}
	if n := len(w.found.paths); n*len(long) > maxPaths || n < maxPaths/len(long)*9/10 || w.found.complete {
		t.Errorf("%d paths are kept, complete %v", n, w.found.complete)
	}
}

func TestTreeKeepsWhatItKnowsWhenItCannotLook(t *testing.T) {
	r := fixture(t, "debian-6.1")
	tree := r.Tree()
	refresh(t, tree)
	id := idOf(t, tree, "/system.slice")
	remove(t, r.CgroupRoot)
	if err := tree.Refresh(); err == nil {
		t.Error("no error without the mount")
	}
	if path, ok := tree.Path(id); !ok || path != "/system.slice" {
		t.Errorf("got %q, %v", path, ok)
	}
}

func TestTreeIDsAreTheKernels(t *testing.T) {
	r := machine(t)
	path := scratch(t, r)
	mkdir(t, filepath.Join(r.CgroupRoot, path, "below"))
	tree := r.Tree()
	refresh(t, tree)
	for _, p := range []string{"/", path, path + "/below"} {
		if got, ok := tree.Path(idOf(t, tree, p)); !ok || got != p {
			t.Errorf("%s: got %q, %v", p, got, ok)
		}
	}
	// A cgroup that is made again under its name is another.
	below := filepath.Join(r.CgroupRoot, path, "below")
	before := idOf(t, tree, path+"/below")
	if err := os.Remove(below); err != nil {
		t.Fatal(err)
	}
	if _, err := tree.ID(path + "/below"); !errors.Is(err, ErrGone) {
		t.Errorf("removed: %v", err)
	}
	mkdir(t, below)
	if after := idOf(t, tree, path+"/below"); after == before {
		t.Errorf("id %d came back", after)
	}
}

func TestTreeStandsCgroupsThatComeAndGo(t *testing.T) {
	r := machine(t)
	path := scratch(t, r)
	stop, stopped := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(stopped)
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			outer := filepath.Join(r.CgroupRoot, path, fmt.Sprint("job", i%8))
			_ = os.Mkdir(outer, 0o755)
			_ = os.Mkdir(filepath.Join(outer, "step"), 0o755)
			_ = os.Remove(filepath.Join(outer, "step"))
			_ = os.Remove(outer)
		}
	}()
	tree := r.Tree()
	for range 200 {
		refresh(t, tree)
	}
	close(stop)
	<-stopped
	if got, ok := tree.Path(idOf(t, tree, path)); !ok || got != path {
		t.Errorf("lost the one that stayed: %q, %v", got, ok)
	}
}

// 2,000 cgroups as on a large machine: 40 slices of 49 services.
func BenchmarkTreeRefresh(b *testing.B) {
	r := machine(b)
	root := filepath.Join(r.CgroupRoot, scratch(b, r))
	for i := range 40 {
		slice := filepath.Join(root, fmt.Sprintf("bench%d.slice", i))
		mkdir(b, slice)
		for j := range 49 {
			mkdir(b, filepath.Join(slice, fmt.Sprintf("service-number-%d.service", j)))
		}
	}
	tree := r.Tree()
	for b.Loop() {
		refresh(b, tree)
	}
	b.ReportMetric(float64(tree.Len()), "cgroups")
}
