package bundle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	opa "github.com/open-policy-agent/opa/v1/bundle"
	"golang.org/x/sys/unix"
)

const rule = "package breaker.a\n\ndeny contains \"no\" if input.incident.culprit.uid in data.oncall.uids\n"

var files = map[string]string{
	".manifest":        `{"revision": "r7", "roots": ["breaker", "oncall"]}`,
	"a.rego":           rule,
	"a_test.rego":      "package breaker.a_test\n\ntest_a if true\n",
	"oncall/data.yaml": "uids: [1000]\n",
}

// archive packs files.
func archive(t testing.TB, files map[string]string) []byte {
	t.Helper()
	var b bytes.Buffer
	z := gzip.NewWriter(&b)
	w := tar.NewWriter(z)
	for _, name := range slices.Sorted(maps.Keys(files)) {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o644, Size: int64(len(files[name]))}); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write([]byte(files[name])); err != nil {
			t.Fatal(err)
		}
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	if err := z.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func with(name, text string) map[string]string {
	all := maps.Clone(files)
	all[name] = text
	return all
}

// pair is a new key, to sign and to verify with.
func pair(t testing.TB) (private string, public *Key) {
	t.Helper()
	k, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(&k.PublicKey)
	if err != nil {
		t.Fatal(err)
	}
	private = string(pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(k)}))
	return private, &Key{string(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})), "RS256"}
}

// signed packs files with a signature of others by OPA's own code.
func signed(t testing.TB, signed, files map[string]string, private string) []byte {
	t.Helper()
	b, err := opa.NewReader(bytes.NewReader(archive(t, signed))).Read()
	if err != nil {
		t.Fatal(err)
	}
	if err := b.GenerateSignature(opa.NewSigningConfig(private, "RS256", ""), "theirs", false); err != nil {
		t.Fatal(err)
	}
	// OPA signs data.json as it writes it.
	var out bytes.Buffer
	if err := opa.NewWriter(&out).DisableFormat(true).Write(b); err != nil {
		t.Fatal(err)
	}
	if files == nil {
		return out.Bytes()
	}
	sig := map[string]string{".signatures.json": fmt.Sprintf(`{"signatures": [%q]}`, b.Signatures.Signatures[0])}
	maps.Copy(sig, files)
	return archive(t, sig)
}

func TestABundleIsItsPoliciesAndDataWithoutTests(t *testing.T) {
	want := &Bundle{Revision: "r7", Files: map[string]string{"a.rego": rule, "oncall/data.yaml": "uids: [1000]\n"}}
	got, err := Read(archive(t, files), nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
	dir := t.TempDir()
	for name, text := range files {
		if err := os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if got, err = ReadPath(dir, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("of a folder: %s", diff)
	}
	file := filepath.Join(dir, "b.tar.gz")
	if err := os.WriteFile(file, archive(t, files), 0o644); err != nil {
		t.Fatal(err)
	}
	if got, err = ReadPath(file, nil); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("of a file: %s", diff)
	}
}

func TestWhatIsWrongWithABundleIsSaid(t *testing.T) {
	private, public := pair(t)
	_, another := pair(t)
	whole := archive(t, files)
	for _, tt := range []struct {
		name    string
		archive []byte
		key     *Key
		want    string // part of the error; "" where it is read
	}{
		{"signed, and as it was signed", signed(t, files, nil, private), public, ""},
		{"signed by somebody else", signed(t, files, nil, private), another, "verif"},
		{"changed since it was signed", signed(t, files, with("a.rego", rule+"# more\n"), private), public, "a.rego: digest mismatch"},
		{"a file more than was signed", signed(t, files, with("b.rego", "package breaker.b\n"), private), public, "b.rego not included in bundle signature"},
		{"not signed, and it must be", whole, public, "is not signed, and policies.bundle.public_key asks for a signature"},
		{"signed, and nobody knows the key", signed(t, files, nil, private), nil, "is signed, and no key is known: name it in policies.bundle.public_key"},
		{"not signed, and the key is longer than a file's name can be", whole, &Key{strings.Repeat("k", 300), "HS256"}, "is not signed"},
		{"not signed, and the key is the name of a folder", whole, &Key{"/", "HS256"}, "is not signed"},
		{"half of it", whole[:len(whole)/2], nil, "breaks off: it is half an archive"},
		{"no archive", []byte("<html>404</html>"), nil, "is no .tar.gz: gzip: invalid header"},
		{"nothing", nil, nil, "is no .tar.gz: EOF"},
		{"huge once unpacked", archive(t, with("z/data.json", strings.Repeat(" ", maxUnpacked+1))), nil, "is larger than 16 MiB once it is unpacked, which is the most"},
		{"data outside of its roots", archive(t, with("other/data.json", `{"x": 1}`)), nil, "other/data.json: data.other is outside of the bundle's roots, which are breaker, oncall"},
		{"data far outside of its roots", archive(t, with("other/data.json", strings.Repeat(`{"x": `, 9000)+"1"+strings.Repeat("}", 9000))), nil, "other/data.json: data.other is outside of the bundle's roots"},
		{"a file twice", archive(t, with("/a.rego", "package breaker.b\n")), nil, "a.rego: stands in it twice"},
		{"a policy outside of its roots", archive(t, with("b.rego", "package other\n")), nil, "manifest roots [breaker oncall] do not permit 'package other' in module"},
		{"a manifest that is none", archive(t, with(".manifest", `{"revision": 7}`)), nil, "bundle load failed on manifest decode"},
		{"a delta", archive(t, map[string]string{"patch.json": `{"data": [{"op": "upsert", "path": "/oncall/uids", "value": []}]}`}), nil, "is a delta, which only changes another"},
		{"a policy with a slip", archive(t, with("b.rego", "package breaker.b\n\nslip")), nil, "b.rego:3"},
		{"compiled policies", archive(t, with("policy.wasm", "\x00asm")), nil, "holds compiled policies"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			b, err := Read(tt.archive, tt.key)
			switch {
			case tt.want == "" && (err != nil || b.Revision != "r7"):
				t.Errorf("got %+v, %v", b, err)
			case tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want) || b != nil):
				t.Errorf("got %+v, error %v, want %q", b, err, tt.want)
			}
		})
	}
}

func TestAKeyThatIsNoneIsSaidWithItsFile(t *testing.T) {
	if _, err := ReadKey(filepath.Join(t.TempDir(), "none.pem"), "RS256"); err == nil || !strings.Contains(err.Error(), "none.pem: no such file") {
		t.Errorf("error %v", err)
	}
	file := filepath.Join(t.TempDir(), "empty")
	if err := os.WriteFile(file, []byte("\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadKey(file, "HS256"); err == nil || err.Error() != "read the key of the bundle from "+file+": it is empty" {
		t.Errorf("an empty one: %v", err)
	}
}

func TestABundleIsFetchedWhereItIsAnother(t *testing.T) {
	body := archive(t, files)
	token := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(token, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer secret" {
			http.Error(w, "who are you", http.StatusUnauthorized)
			return
		}
		if r.Header.Get("If-None-Match") == `"1"` {
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("ETag", `"1"`)
		_, _ = w.Write(body)
	}))
	defer server.Close()
	f := &Fetcher{URL: server.URL, TokenFile: token}
	got, err := f.Fetch(t.Context(), "")
	if diff := cmp.Diff(Fetched{body, `"1"`}, got); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
	got, err = f.Fetch(t.Context(), `"1"`)
	if diff := cmp.Diff(Fetched{nil, `"1"`}, got); err != nil || diff != "" {
		t.Errorf("%v: %s", err, diff)
	}
	if _, err := (&Fetcher{URL: server.URL}).Fetch(t.Context(), ""); err == nil || err.Error() != "answered 401 Unauthorized" {
		t.Errorf("without a token: %v", err)
	}
}

func TestADownloadIsCutOff(t *testing.T) {
	for _, tt := range []struct {
		name   string
		answer func(http.ResponseWriter, *http.Request)
		want   string
	}{
		{"endless", func(w http.ResponseWriter, r *http.Request) {
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 1<<20)); err != nil {
					return
				}
			}
		}, "sends more than 8 MiB, which is the most: the download was cut off"},
		{"that never goes on", func(w http.ResponseWriter, r *http.Request) {
			_, _ = w.Write([]byte("x"))
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, "took longer than 200ms"},
		{"that breaks off", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Length", "1000")
			_, _ = w.Write([]byte("x"))
		}, "broke off in the middle"},
		{"that is not there", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", http.StatusNotFound) }, "answered 404 Not Found"},
		{"not modified, since never", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusNotModified) }, "answered 304 Not Modified to a request without an ETag"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			server := httptest.NewServer(http.HandlerFunc(tt.answer))
			defer server.Close()
			f := &Fetcher{URL: server.URL, bound: 200 * time.Millisecond}
			if tt.name == "endless" {
				f.bound = 10 * time.Second
			}
			got, err := f.Fetch(context.Background(), "")
			if err == nil || err.Error() != tt.want || got.Archive != nil {
				t.Errorf("%d bytes, error %v, want %q", len(got.Archive), err, tt.want)
			}
		})
	}
}

func TestATokenIsNotSentWithoutTLSByARedirect(t *testing.T) {
	plain := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { t.Error("asked without TLS") }))
	defer plain.Close()
	safe := httptest.NewTLSServer(http.RedirectHandler(plain.URL, http.StatusFound))
	defer safe.Close()
	f := &Fetcher{URL: safe.URL}
	_, _ = f.Fetch(t.Context(), "") // makes the client
	f.client.Transport = safe.Client().Transport
	if _, err := f.Fetch(t.Context(), ""); err == nil || !strings.Contains(err.Error(), "leads from https to http") {
		t.Errorf("error %v", err)
	}
}

func TestAFolderIsReadAsKubernetesMountsAConfigMap(t *testing.T) {
	dir := t.TempDir()
	errs := []error{os.Mkdir(filepath.Join(dir, "..2026_01_02"), 0o700), os.Symlink("..2026_01_02", filepath.Join(dir, "..data"))}
	for name, text := range map[string]string{".manifest": `{"revision": "r7"}`, "a.rego": rule, "data.yaml": "oncall: {uids: [1000]}\n"} {
		errs = append(errs, os.WriteFile(filepath.Join(dir, "..2026_01_02", name), []byte(text), 0o600), os.Symlink(filepath.Join("..data", name), filepath.Join(dir, name)))
	}
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
	b, err := ReadPath(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&Bundle{"r7", map[string]string{"a.rego": rule, "data.yaml": "oncall: {uids: [1000]}\n"}}, b); diff != "" {
		t.Error(diff)
	}
}

func TestANamedPipeInAFolderIsRefusedAndNotWaitedFor(t *testing.T) {
	for _, how := range []string{"itself", "a link to it"} {
		dir, at := t.TempDir(), "pipe.rego"
		errs := []error{os.WriteFile(filepath.Join(dir, "a.rego"), []byte(rule), 0o600)}
		if how == "itself" {
			errs = append(errs, unix.Mkfifo(filepath.Join(dir, at), 0o600))
		} else {
			pipe := filepath.Join(t.TempDir(), "pipe")
			errs = append(errs, unix.Mkfifo(pipe, 0o600), os.Symlink(pipe, filepath.Join(dir, at)))
		}
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
		if _, err := ReadPath(dir, nil); err == nil || !strings.Contains(err.Error(), at+" is not a regular file") {
			t.Errorf("%s: error %v", how, err)
		}
	}
}
