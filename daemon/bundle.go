package daemon

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/bundle"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

// bundled is the bundle that policies come from.
type bundled struct {
	tell    func(error) // of what is news about why there is none
	keep    func(name string, text []byte) error
	dir     string        // where the last one is kept; "" keeps none
	changed chan struct{} // told that another is there

	mu      sync.Mutex
	of      settings.Bundle
	stop    context.CancelFunc
	last    *bundle.Bundle    // of a server, that can be used; nil before there was any
	archive []byte            // of last, where it is not kept yet
	sum     [sha256.Size]byte // of last's archive
	etag    string
	askedAt time.Time
	err     error // why there was no other when it was asked for last
}

// begin fetches what the settings name, if that is not done yet: what was kept of it is
// there at once.
func (b *bundled) begin(ctx context.Context, of settings.Bundle) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.stop != nil && b.of == of {
		return
	}
	if b.stop != nil {
		b.stop()
	}
	if b.of != of {
		b.last, b.archive, b.etag, b.err, b.askedAt = nil, nil, "", nil, time.Time{}
		b.of = of
	}
	ctx, b.stop = context.WithCancel(ctx)
	if bundle.IsURL(of.Source) {
		if b.last == nil {
			b.recall()
		}
		go b.poll(ctx, of)
	}
}

// poll asks a server again and again, until the context ends.
func (b *bundled) poll(ctx context.Context, of settings.Bundle) {
	f := &bundle.Fetcher{URL: of.Source, TokenFile: of.TokenFile}
	for {
		b.mu.Lock()
		etag := b.etag
		b.mu.Unlock()
		got, err := f.Fetch(ctx, etag)
		if ctx.Err() != nil {
			return
		}
		if b.fetched(of, got, err) {
			select {
			case b.changed <- struct{}{}:
			case <-ctx.Done():
				return
			}
		}
		select {
		case <-time.After(of.Poll.D()):
		case <-ctx.Done():
			return
		}
	}
}

// fetched takes in an answer, and reports whether it is another bundle.
func (b *bundled) fetched(of settings.Bundle, got bundle.Fetched, err error) bool {
	var next *bundle.Bundle
	var sum [sha256.Size]byte
	if err == nil && got.Archive != nil {
		sum = sha256.Sum256(got.Archive)
		next, err = readBundle(got.Archive, of)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of != of {
		return false // of what nobody asks for any more
	}
	b.noteLocked(err)
	if next == nil {
		return false
	}
	if b.etag = got.ETag; b.last != nil && sum == b.sum { // of a server without ETags
		return false
	}
	b.last, b.archive, b.sum = next, got.Archive, sum
	return true
}

// noteLocked notes how asking went.
func (b *bundled) noteLocked(err error) {
	was := b.err
	b.err, b.askedAt = err, time.Now().UTC()
	if err != nil && (was == nil || was.Error() != err.Error()) {
		b.tell(fmt.Errorf("bundle %s: %w", b.of.Source, err))
	}
}

func readBundle(archive []byte, of settings.Bundle) (*bundle.Bundle, error) {
	key, err := bundle.ReadKey(of.PublicKey, of.Algorithm)
	if err != nil {
		return nil, err
	}
	return bundle.Read(archive, key)
}

// now is the bundle to be loaded; nil where the settings name none. One on the disk is read
// each time.
func (b *bundled) now(of settings.Bundle) (*bundle.Bundle, error) {
	switch {
	case of.Source == "":
		return nil, nil
	case bundle.IsURL(of.Source):
		b.mu.Lock()
		defer b.mu.Unlock()
		if b.of != of || b.last == nil {
			return nil, fmt.Errorf("bundle %s: it was not had yet, and what it denies is not known without it", of.Source)
		}
		return b.last, nil
	}
	key, err := bundle.ReadKey(of.PublicKey, of.Algorithm)
	var read *bundle.Bundle
	if err == nil {
		read, err = bundle.ReadPath(of.Source, key)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.err, b.askedAt = err, time.Now().UTC()
	if err != nil {
		return nil, fmt.Errorf("bundle %s: %w", of.Source, err)
	}
	return read, nil
}

// bundleVersion is that of the file beside the archive.
const bundleVersion = 1

// The files in which the last bundle that was loaded is kept, for a start without the server.
const (
	bundleFile     = "bundle.tar.gz"
	bundleInfoFile = "bundle.json"
)

// keptBundle says what the kept archive is.
type keptBundle struct {
	Version int    `json:"version"`
	Source  string `json:"source"`
	ETag    string `json:"etag"`
	SHA256  string `json:"sha256"` // of the archive: both files are not written at once
}

// loaded keeps the bundle that was loaded.
func (b *bundled) loaded() error {
	b.mu.Lock()
	archive, info := b.archive, keptBundle{Version: bundleVersion, Source: b.of.Source, ETag: b.etag}
	b.archive = nil
	b.mu.Unlock()
	if archive == nil || b.dir == "" {
		return nil
	}
	info.SHA256 = fmt.Sprintf("%x", sha256.Sum256(archive))
	text, err := json.Marshal(info)
	if err == nil {
		err = errors.Join(b.keep(filepath.Join(b.dir, bundleFile), archive), b.keep(filepath.Join(b.dir, bundleInfoFile), text))
	}
	if err != nil {
		return fmt.Errorf("keep the bundle: %w", err)
	}
	return nil
}

// recall takes up the bundle that was kept, if it is of this source, whole, and signed as the
// settings want it now.
func (b *bundled) recall() {
	if b.dir == "" {
		return
	}
	text, err := os.ReadFile(filepath.Join(b.dir, bundleInfoFile))
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	var info keptBundle
	if err == nil {
		err = json.Unmarshal(text, &info)
	}
	if err == nil && info.Version > bundleVersion {
		err = fmt.Errorf("it is of version %d, and this breakerd knows %d", info.Version, bundleVersion)
	}
	if err == nil && info.Source != b.of.Source {
		return
	}
	var archive []byte
	if err == nil {
		archive, err = os.ReadFile(filepath.Join(b.dir, bundleFile))
	}
	sum := sha256.Sum256(archive)
	if err == nil && fmt.Sprintf("%x", sum) != info.SHA256 {
		return // breakerd ended between the two: it is fetched again
	}
	var last *bundle.Bundle
	if err == nil {
		last, err = readBundle(archive, b.of)
	}
	if err != nil {
		b.err = fmt.Errorf("the one that was kept: %w", err)
		return
	}
	b.last, b.sum, b.etag = last, sum, info.ETag
}

// state is how asking for the bundle goes; nil where there is none.
func (b *bundled) state() *api.Bundle {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.of.Source == "" {
		return nil
	}
	s := &api.Bundle{Source: b.of.Source}
	if !b.askedAt.IsZero() {
		at := b.askedAt
		s.AskedAt = &at
	}
	if b.err != nil {
		s.Error = b.err.Error()
	}
	return s
}

// bundleFailed tells why there is no other bundle.
func (d *Daemon) bundleFailed(err error) {
	kept := ""
	if set := d.shelf.inForce(); set != nil {
		kept = set.Hash()
	}
	d.teller.write(systemd.PoliciesRefused(err, kept))
}
