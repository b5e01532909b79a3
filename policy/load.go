package policy

import (
	"cmp"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/open-policy-agent/opa/v1/ast"
)

// Bounds of what is loaded.
const (
	maxFileBytes = 1 << 20
	maxSetBytes  = 8 << 20
	maxFiles     = 4096
)

// Load compiles the policies in the given folders and files. Of a folder it takes
// every .rego file at any depth, without tests (_test.rego), every data.json, data.yaml
// and data.yml, which stand under data by the names of their folders, and no hidden
// files and folders. A symbolic link to a file is followed, as Kubernetes mounts a
// ConfigMap that way; one to a folder is refused, because a deny may be in there.
// A folder without policies, like no folder at all, is an empty set, which never
// asks for anything.
//
// Loading is all or nothing. The error is a *LoadError with every problem found. Files
// that change while they are read are one: half of an old set and half of a new one can
// be a set that nobody meant.
func Load(paths ...string) (*Set, error) { return Gather(paths...).Compile() }

// Gathered are the files of a set before they are compiled.
type Gathered struct{ r reader }

// Gather reads the policies in the given folders and files by the rules of [Load]. What is
// wrong is told by Compile.
func Gather(paths ...string) *Gathered {
	g := &Gathered{}
	g.r.readPaths(paths)
	g.r.sameAgain(paths)
	return g
}

// Add adds policies and data that stand elsewhere than in files, such as in a bundle, by
// their names there. What is wrong with them is told as of "from: name".
func (g *Gathered) Add(from string, sources map[string]string) {
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		g.r.take(name, from+": "+name, sources[name])
	}
}

// Hash is that of the set that Compile would make; "" where something is wrong with the
// files already.
func (g *Gathered) Hash() string {
	if len(g.r.problems) > 0 {
		return ""
	}
	return hash(byName(g.r.sources))
}

// Compile makes the set.
func (g *Gathered) Compile() (*Set, error) { return g.r.compile() }

// sameAgain reads the files a second time and compares.
func (r *reader) sameAgain(paths []string) {
	var again reader
	again.readPaths(paths)
	texts := make(map[string]string, len(again.sources))
	for _, s := range again.sources {
		texts[s.file] = s.text
	}
	for _, s := range r.sources {
		if text, there := texts[s.file]; !there || text != s.text {
			r.add(s.file, 0, 0, "has changed while it was read: load it again once it is whole")
		}
		delete(texts, s.file)
	}
	for file := range texts {
		r.add(file, 0, 0, "was made while the others were read: load them again once they are whole")
	}
}

// Files are policies, their tests and their data, as they are read and before they are
// compiled.
type Files struct {
	Texts   map[string]string // by file
	Modules map[string]*ast.Module
	Data    map[string]any
}

// Read reads policies with their tests.
func Read(paths ...string) (Files, error) {
	r := reader{tests: true}
	r.readPaths(paths)
	f := Files{Texts: map[string]string{}, Modules: map[string]*ast.Module{}}
	var d data
	for _, s := range r.sources {
		f.Texts[s.file] = s.text
		if isData(s.name) {
			d.add(s, &r.problems)
			continue
		}
		m, err := parseModule(s.file, s.text)
		if err != nil {
			r.addRego(s.file, err)
			continue
		}
		f.Modules[s.file] = m
		if isTest(s.name) {
			checkTest(m, s.file, &r.problems)
		}
	}
	f.Data = d.root
	return f, r.err()
}

// IsTest reports whether a file holds tests.
func IsTest(file string) bool { return isTest(file) }

// IsData reports whether a file holds data.
func IsData(file string) bool { return isData(filepath.ToSlash(file)) }

func (r *reader) readPaths(paths []string) {
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			r.add(p, 0, 0, "%v", bare(err))
			continue
		}
		dir, root := p, "."
		if !info.IsDir() {
			dir, root = filepath.Dir(p), filepath.Base(p)
		}
		r.read(os.DirFS(dir), root, func(name string) string { return filepath.Join(dir, name) })
	}
}

// LoadFS compiles the policies in a file system, such as [Shipped], by the rules of
// [Load].
func LoadFS(fsys fs.FS) (*Set, error) {
	var r reader
	r.read(fsys, ".", func(name string) string { return name })
	return r.compile()
}

// LoadSources compiles policies that are given as text by file name, as [Set.Sources]
// gave them.
func LoadSources(sources map[string]string) (*Set, error) {
	var r reader
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		r.take(name, name, sources[name])
	}
	return r.compile()
}

// source is one policy file.
type source struct {
	name string // below the folder it was found in
	file string // as it is called in messages
	text string
}

// reader collects the sources of a set, and what was wrong with them.
type reader struct {
	problems
	sources []source
	seen    map[string]bool // files by absolute path: a file given twice is read once
	bytes   int
	tests   bool // are read too
}

// read takes a folder or, where root is not ".", the file of that name.
func (r *reader) read(fsys fs.FS, root string, display func(name string) string) {
	if root != "." {
		r.readFile(fsys, root, display(root))
		return
	}
	err := fs.WalkDir(fsys, ".", func(name string, d fs.DirEntry, err error) error {
		file := display(name)
		hidden := name != "." && strings.HasPrefix(path.Base(name), ".")
		switch {
		case err != nil:
			r.add(file, 0, 0, "%v", bare(err))
			return nil
		case d.IsDir() && hidden:
			return fs.SkipDir
		case d.IsDir() || hidden:
			return nil
		}
		if d.Type()&fs.ModeSymlink != 0 {
			if info, err := fs.Stat(fsys, name); err == nil && info.IsDir() {
				r.add(file, 0, 0, "is a symbolic link to a folder: name that folder itself")
				return nil
			}
		}
		if r.takes(name) {
			r.readFile(fsys, name, file)
		}
		return nil
	})
	if err != nil {
		r.add(display("."), 0, 0, "%v", bare(err))
	}
}

// takes reports whether a file of a folder is of the set.
func (r *reader) takes(name string) bool {
	return strings.HasSuffix(name, ".rego") && (r.tests || !isTest(name)) || isData(name)
}

func isTest(name string) bool { return strings.HasSuffix(name, "_test.rego") }

// readFile takes one file, within the bounds.
func (r *reader) readFile(fsys fs.FS, name, file string) {
	if !r.takes(name) {
		r.add(file, 0, 0, "is no policy: a policy is a .rego file that does not end in _test.rego, and data stands in data.json or data.yaml")
		return
	}
	abs, err := filepath.Abs(file)
	if err != nil {
		r.add(file, 0, 0, "%v", err)
		return
	}
	if r.seen[abs] {
		return
	}
	if r.seen == nil {
		r.seen = map[string]bool{}
	}
	r.seen[abs] = true
	// Looked at before it is opened: opening a named pipe would wait for a writer.
	info, err := fs.Stat(fsys, name)
	if err != nil {
		r.add(file, 0, 0, "%v", bare(err))
		return
	}
	if !info.Mode().IsRegular() {
		r.add(file, 0, 0, "is not a regular file")
		return
	}
	f, err := fsys.Open(name)
	if err != nil {
		r.add(file, 0, 0, "%v", bare(err))
		return
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, maxFileBytes+1))
	if err != nil {
		r.add(file, 0, 0, "%v", bare(err))
		return
	}
	r.take(name, file, string(b))
}

// take adds a source to the set, within the bounds.
func (r *reader) take(name, file, text string) {
	switch {
	case len(r.sources) == maxFiles:
		r.add(file, 0, 0, "is one file too many: a set has at most %d", maxFiles)
		return
	case len(text) > maxFileBytes:
		r.add(file, 0, 0, "is larger than %d bytes", maxFileBytes)
		return
	case r.bytes+len(text) > maxSetBytes:
		r.add(file, 0, 0, "makes the set larger than %d bytes", maxSetBytes)
		return
	}
	if i := invalidUTF8(text); i >= 0 {
		line := 1 + strings.Count(text[:i], "\n")
		col := i - strings.LastIndexByte(text[:i], '\n')
		r.add(file, line, col, "is not UTF-8 text")
		return
	}
	r.bytes += len(text)
	r.sources = append(r.sources, source{name, file, text})
}

// invalidUTF8 is where s stops being UTF-8, -1 if it does not.
func invalidUTF8(s string) int {
	for i, c := range s {
		if c == utf8.RuneError {
			if _, n := utf8.DecodeRuneInString(s[i:]); n == 1 {
				return i
			}
		}
	}
	return -1
}

// bare is an error without the path, which stands in front of the message anyway.
func bare(err error) error {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err
	}
	return err
}

// byName gives each source a name of its own. Those of one name, of several
// folders, are numbered by their text, so that the order of the folders does not
// matter, and so that the result read again is the same.
func byName(sources []source) map[string]string {
	sorted := slices.Clone(sources)
	slices.SortFunc(sorted, func(a, b source) int {
		return cmp.Or(strings.Compare(a.name, b.name), strings.Compare(a.text, b.text))
	})
	m := make(map[string]string, len(sorted))
	for _, s := range sorted {
		name := s.name
		for i := 2; ; i++ {
			if _, taken := m[name]; !taken {
				break
			}
			name = fmt.Sprintf("%s#%d", s.name, i)
		}
		m[name] = s.text
	}
	return m
}

// hash is the hash of a set, by the names and texts of its sources.
func hash(sources map[string]string) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(sources)) {
		fmt.Fprintf(h, "%q %x\n", name, sha256.Sum256([]byte(sources[name])))
	}
	return fmt.Sprintf("sha256:%x", h.Sum(nil))
}
