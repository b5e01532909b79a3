// Package bundle reads and fetches OPA bundles: policies and data in one archive with a
// revision, signed where that is wanted. Reading and verifying is OPA's own code; what comes
// out are texts by name, which package policy compiles like any others.
//
// OPA's plugins for downloads are not used: they bring its plugin manager, server metrics and a
// second store into the program, for a request with an ETag.
package bundle

import (
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/bundle"
	"github.com/open-policy-agent/opa/v1/util"
)

// Bounds of a bundle: of the archive, and of what is in it.
const (
	MaxPacked   = 8 << 20
	maxUnpacked = 16 << 20
)

// Bundle is what a bundle holds.
type Bundle struct {
	Revision string            // as its manifest says; "" where it says nothing
	Files    map[string]string // policies and data, by their path in it
}

// Key verifies signatures.
type Key struct {
	Text      string // PEM of a public key, or the secret of an HMAC
	Algorithm string // of JSON Web Signatures: RS256, ES256, HS256, …
}

// Algorithms that a signature can have.
var Algorithms = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "HS256", "HS384", "HS512"}

// ReadKey reads a key from a file; nil where no file is named.
func ReadKey(file, algorithm string) (*Key, error) {
	if file == "" {
		return nil, nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("read the key of the bundle: %w", err)
	}
	k := &Key{strings.TrimSpace(string(text)), algorithm}
	if k.Text == "" { // with which anybody could sign
		return nil, fmt.Errorf("read the key of the bundle from %s: it is empty", file)
	}
	return k, nil
}

// Read reads an archive (.tar.gz). With a key it must be signed by it, and every file must be
// as it was signed. Nothing of it is returned with an error.
func Read(archive []byte, key *Key) (*Bundle, error) {
	if err := unpacks(archive); err != nil {
		return nil, err
	}
	return read(bundle.NewTarballLoaderWithBaseURL(bytes.NewReader(archive), ""), key)
}

// ReadPath reads an archive or a folder with the files of a bundle.
func ReadPath(name string, key *Key) (*Bundle, error) {
	info, err := os.Stat(name)
	if err != nil {
		return nil, err
	}
	if info.IsDir() {
		if err := onlyFiles(name); err != nil {
			return nil, err
		}
		return read(bundle.NewDirectoryLoader(name).WithFollowSymlinks(true).WithSizeLimitBytes(maxUnpacked).WithFilter(exchanged), key)
	}
	if !info.Mode().IsRegular() {
		return nil, fmt.Errorf("%s is neither a folder nor a regular file", name)
	}
	f, err := os.Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	archive, err := io.ReadAll(io.LimitReader(f, MaxPacked+1))
	if err != nil {
		return nil, err
	}
	if len(archive) > MaxPacked {
		return nil, fmt.Errorf("is larger than %d MiB, which is the most: is it the right file?", MaxPacked>>20)
	}
	return Read(archive, key)
}

// exchanged reports whether a file or folder is one of those through which Kubernetes exchanges
// all the others at once (..data): what is to be read are links into them.
func exchanged(name string, _ fs.FileInfo, _ int) bool {
	base := path.Base(name)
	return base != ".." && strings.HasPrefix(base, "..")
}

// onlyFiles refuses a folder with anything in it that cannot be read to its end: opening a named
// pipe would wait for a writer, and nobody could stop that.
func onlyFiles(dir string) error {
	return filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		switch {
		case err != nil:
			return err
		case name != dir && exchanged(filepath.ToSlash(name), nil, 0):
			if d.IsDir() {
				return fs.SkipDir
			}
			return nil
		case d.IsDir():
			return nil
		}
		info, err := os.Stat(name) // a link is followed
		if err == nil && !info.Mode().IsRegular() && !info.IsDir() {
			err = fmt.Errorf("%s is not a regular file", name)
		}
		return err
	})
}

// unpacks looks whether an archive is whole and how large it is inside, before anybody keeps
// what comes out: a few kilobytes can be gigabytes of zeros.
func unpacks(archive []byte) error {
	z, err := gzip.NewReader(bytes.NewReader(archive))
	if err != nil {
		return fmt.Errorf("is no .tar.gz: %w", err)
	}
	n, err := io.Copy(io.Discard, io.LimitReader(z, maxUnpacked+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return errors.New("breaks off: it is half an archive")
	case err != nil:
		return fmt.Errorf("is damaged: %w", err)
	case n > maxUnpacked:
		return fmt.Errorf("is larger than %d MiB once it is unpacked, which is the most", maxUnpacked>>20)
	}
	return nil
}

func read(from bundle.DirectoryLoader, key *Key) (*Bundle, error) {
	// Lazily: data is not parsed, because package policy says better what is wrong with it.
	r := bundle.NewCustomReader(from).WithLazyLoadingMode(true).WithSizeLimitBytes(maxUnpacked)
	if key != nil {
		// Not by keys.NewKeyConfig, which takes a key for the name of a file if it can be one.
		config := &bundle.KeyConfig{Key: key.Text, Algorithm: key.Algorithm}
		r = r.WithBundleVerificationConfig(bundle.NewVerificationConfig(map[string]*bundle.KeyConfig{keyName: config}, keyName, "", nil))
	}
	b, err := r.Read()
	switch {
	case err != nil && key == nil && strings.Contains(err.Error(), "verification key not provided"):
		return nil, errors.New("is signed, and no key is known: name it in policies.bundle.public_key")
	case err != nil && key != nil && strings.Contains(err.Error(), "missing .signatures.json"):
		return nil, errors.New("is not signed, and policies.bundle.public_key asks for a signature")
	case err != nil:
		return nil, err
	case b.Type() != bundle.SnapshotBundleType:
		return nil, errors.New("is a delta, which only changes another: whole ones are read")
	case len(b.WasmModules)+len(b.PlanModules) > 0:
		return nil, errors.New("holds compiled policies (WebAssembly or plans), which breakerd does not run: build it with -t rego")
	}
	out := &Bundle{Revision: b.Manifest.Revision, Files: map[string]string{}}
	for _, raw := range b.Raw {
		name := strings.TrimPrefix(raw.Path, "/")
		if strings.HasSuffix(name, "_test.rego") {
			continue
		}
		if !strings.HasSuffix(name, ".rego") {
			if at := outsideRoots(*b.Manifest.Roots, name, raw.Value); at != "" {
				return nil, fmt.Errorf("%s: data.%s is outside of the bundle's roots, which are %s", name, strings.ReplaceAll(at, "/", "."), strings.Join(*b.Manifest.Roots, ", "))
			}
		}
		if _, twice := out.Files[name]; twice {
			return nil, fmt.Errorf("%s: stands in it twice", name)
		}
		out.Files[name] = string(raw.Value)
	}
	return out, nil
}

// keyName is what the only key is called; what a signature calls it does not matter.
const keyName = "breakerd"

// outsideRoots is the path of data in a file that the bundle's manifest does not let it say;
// "" if there is none.
func outsideRoots(roots []string, name string, text []byte) string {
	var content any
	if util.Unmarshal(text, &content) != nil {
		return "" // whoever compiles it says what is wrong with it
	}
	at := path.Dir(name)
	if at == "." {
		at = ""
	}
	return outside(roots, at, content)
}

func outside(roots []string, at string, content any) string {
	if bundle.RootPathsContain(roots, at) {
		return ""
	}
	object, ok := content.(map[string]any)
	if !ok || !leads(roots, at) {
		return at
	}
	for k, v := range object {
		if bad := outside(roots, strings.TrimPrefix(at+"/"+k, "/"), v); bad != "" {
			return bad
		}
	}
	return ""
}

// leads reports whether there is a root below a path.
func leads(roots []string, at string) bool {
	return at == "" || slices.ContainsFunc(roots, func(root string) bool { return strings.HasPrefix(root, at+"/") })
}
