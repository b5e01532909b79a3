package enforce

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strconv"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// versionFile says which version of the records lies in the leases directory.
const versionFile = "version"

// checkVersion refuses records of a newer enforcer than this one: what they forbid, such
// as to carry a decision out again, it could not know.
func (r *records) checkVersion() error {
	text, err := r.readVersion()
	if version, bad := strconv.Atoi(text); err == nil && (text == "" || bad == nil && version < model.LeaseVersion) {
		r.unsaid = true
		return nil
	}
	if err != nil {
		return fmt.Errorf("read version of lease records: %w", err)
	}
	version, err := strconv.Atoi(text)
	switch {
	case err != nil:
		return fmt.Errorf("read version of lease records: %s says %q, which is no version: remove the file if no newer breaker-enforcer has ever run here", r.name(versionFile), text)
	case version > model.LeaseVersion:
		return fmt.Errorf("open lease records: they are of version %d, from a newer breaker-enforcer, and this one knows %d at most: install the newer one again, or move %s away", version, model.LeaseVersion, r.root.Name())
	}
	return nil
}

// sayVersion says the version of this enforcer where none is said, or an older one. That waits for
// a disk, so whatever is to be undone comes first.
func (r *records) sayVersion() {
	if r.unsaid {
		// Where it cannot be written now, no lease can be either: nothing is claimed by that.
		_ = r.replace("."+versionFile, versionFile, fmt.Appendf(nil, "%d\n", model.LeaseVersion), durable)
		r.unsaid = false
	}
}

// readVersion is what the file says; "" where there is none, or where power was lost
// before anything was in it.
func (r *records) readVersion() (string, error) {
	f, err := r.root.Open(versionFile)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	defer f.Close()
	const longest = 32 // bytes, far more than a number needs
	b, err := io.ReadAll(io.LimitReader(f, longest))
	return strings.TrimSpace(string(b)), err
}

func (r *records) name(file string) string { return r.root.Name() + "/" + file }

// unusable is why nothing new may be begun with the records that are there; nil if it may.
func (e *Engine) unusable() error {
	if e.records == nil {
		return nil
	}
	return e.records.refused
}
