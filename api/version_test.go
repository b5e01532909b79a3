package api

import (
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

func TestAnAnswerOfALaterVersionIsRefusedAndOneOfAnOlderIsRead(t *testing.T) {
	for version, refused := range map[string]bool{"": false, "0": false, strconv.Itoa(Version): false, strconv.Itoa(Version + 1): true} {
		dir := t.TempDir()
		l, err := net.Listen("unix", filepath.Join(dir, SocketName))
		if err != nil {
			t.Fatal(err)
		}
		srv := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set(versionHeader, version)
			w.Write([]byte(`{"version":"x"}`))
		})}
		go srv.Serve(l)
		s, err := NewClient(dir).Status(t.Context())
		if (err != nil) != refused || !refused && s.Version != "x" || refused && !strings.Contains(err.Error(), "this program knows 1: use the one of the same package") {
			t.Errorf("version %q: %+v, %v", version, s, err)
		}
		srv.Close()
	}
}

func TestEveryAnswerSaysOfWhichVersionItIs(t *testing.T) {
	w := httptest.NewRecorder()
	versioned(http.NotFoundHandler()).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/nothing", nil))
	if got := w.Header().Get(versionHeader); got != strconv.Itoa(Version) {
		t.Errorf("%s: %q", versionHeader, got)
	}
}
