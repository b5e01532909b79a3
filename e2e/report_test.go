package e2e

import (
	"context"
	"fmt"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// browser is a headless Chromium that reaches nothing but what it is given: what it asks
// others for comes to a proxy, which notes it.
type browser struct {
	program string
	proxy   *httptest.Server

	mu    sync.Mutex
	asked []string // hosts
}

func newBrowser(t *testing.T) *browser {
	b := &browser{program: tool(t, "chromium-headless-shell")}
	b.proxy = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b.mu.Lock()
		defer b.mu.Unlock()
		b.asked = append(b.asked, r.Host)
		w.WriteHeader(http.StatusNotFound)
	}))
	t.Cleanup(b.proxy.Close)
	return b
}

// open lets the browser open a page, and do something with it.
func (b *browser) open(t *testing.T, page string, flags ...string) {
	t.Helper()
	page, err := filepath.Abs(page)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	cmd := exec.CommandContext(ctx, b.program, slices.Concat([]string{
		"--no-sandbox", // which root cannot have
		"--disable-gpu", "--disable-background-networking", "--user-data-dir=" + t.TempDir(),
		"--proxy-server=" + b.proxy.URL, "--proxy-bypass-list=<-loopback>",
		"--force-color-profile=srgb", "--hide-scrollbars", "--window-size=1200,5000",
	}, flags, []string{"file://" + page})...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("open %s: %v\n%s", page, err, out)
	}
}

// loaded gives what was asked for since, and forgets it.
func (b *browser) loaded() []string {
	b.mu.Lock()
	defer b.mu.Unlock()
	was := b.asked
	b.asked = nil
	return was
}

// The golden file of the report is what the program writes.
const reportPage = "../report/testdata/day.html"

func TestTheReportIsDrawnByABrowserAndLoadsNothing(t *testing.T) {
	b := newBrowser(t)
	dir := t.TempDir()

	// What would load something is noticed.
	bad := filepath.Join(dir, "bad.html")
	if err := os.WriteFile(bad, []byte(`<img src="http://tracker.example/x.png">`), 0o600); err != nil {
		t.Fatal(err)
	}
	b.open(t, bad, "--screenshot="+filepath.Join(dir, "bad.png"))
	if asked := b.loaded(); !slices.Contains(asked, "tracker.example") {
		t.Fatalf("a page with a picture from elsewhere asked for %q", asked)
	}

	shot := filepath.Join(dir, "day.png")
	b.open(t, reportPage, "--screenshot="+shot)
	if asked := b.loaded(); len(asked) > 0 {
		t.Errorf("the report asked for %q", asked)
	}
	counts := coloursOf(t, shot)
	for name, want := range map[string]struct {
		colour color.RGBA // of report.html, for a light screen
		least  int        // pixels: a square of the legend has 121
	}{
		"the bars of informational incidents": {color.RGBA{0x9b, 0xb8, 0xd3, 255}, 150},
		"the bars of warnings":                {color.RGBA{0xe3, 0xa3, 0x2b, 255}, 300},
		"the bars of critical incidents":      {color.RGBA{0xc8, 0x40, 0x2f, 255}, 300},
		"the bars of what would be held":      {color.RGBA{0x79, 0xb8, 0xa4, 255}, 300},
		"the lines of pressure":               {color.RGBA{0x2b, 0x5d, 0x8a, 255}, 300},
	} {
		if counts[want.colour] < want.least {
			t.Errorf("%s: %d pixels, want %d or more", name, counts[want.colour], want.least)
		}
	}

	pdf := filepath.Join(dir, "day.pdf")
	b.open(t, reportPage, "--print-to-pdf="+pdf)
	text, err := os.ReadFile(pdf)
	if err != nil || len(text) < 10_000 || string(text[:5]) != "%PDF-" {
		t.Errorf("on paper it has %d bytes, error %v", len(text), err)
	}
}

// coloursOf counts the pixels of each colour of a picture.
func coloursOf(t *testing.T, file string) map[color.RGBA]int {
	t.Helper()
	f, err := os.Open(file)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	picture, err := png.Decode(f)
	if err != nil {
		t.Fatal(fmt.Errorf("%s: %w", file, err))
	}
	counts := make(map[color.RGBA]int)
	size := picture.Bounds()
	at := image.Point{}
	for at.Y = size.Min.Y; at.Y < size.Max.Y; at.Y++ {
		for at.X = size.Min.X; at.X < size.Max.X; at.X++ {
			counts[color.RGBAModel.Convert(picture.At(at.X, at.Y)).(color.RGBA)]++
		}
	}
	return counts
}
