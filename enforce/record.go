package enforce

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strconv"

	"github.com/breakerd/breakerd/cgroupctl"
	"github.com/breakerd/breakerd/model"
)

// formatRecord writes the record of a lease, and refuses one that is too long: what
// cannot be read again must not cover anything.
func formatRecord(l model.Lease) ([]byte, error) {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetIndent("", "\t")
	enc.SetEscapeHTML(false) // it is for no browser, and makes six bytes of one
	if err := enc.Encode(l); err != nil {
		return nil, err
	}
	if b.Len() > maxRecord {
		return nil, fmt.Errorf("it would have %d bytes, and %d is the most", b.Len(), maxRecord)
	}
	return b.Bytes(), nil
}

// parseRecord reads the record of a lease as we write it. It accepts nothing that it
// does not know: a record says what will be written to a cgroup.
func parseRecord(id string, b []byte) (model.Lease, error) {
	// The version comes first: a later one may have anything else.
	var only struct {
		Version int `json:"version"`
	}
	if json.Unmarshal(b, &only) == nil && only.Version > model.LeaseVersion {
		return model.Lease{}, fmt.Errorf("read record of lease %s: it is of version %d, and this enforcer knows %d: a later breaker-enforcer wrote it", id, only.Version, model.LeaseVersion)
	}
	var l model.Lease
	dec := json.NewDecoder(bytes.NewReader(b))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&l); err != nil {
		return model.Lease{}, fmt.Errorf("read record of lease %s: %w", id, err)
	}
	var err error
	switch {
	case dec.More():
		err = errors.New("something follows it")
	case l.Version < 1 || l.Version == 1 && (l.Inside != "" || slices.ContainsFunc(l.Writes, func(w model.FileWrite) bool { return w.Unit != "" })):
		err = fmt.Errorf("it is of version %d, and this enforcer knows %d", l.Version, model.LeaseVersion)
	case l.ID != id || l.Decision.ID != id:
		err = fmt.Errorf("it is of lease %q", l.ID)
	case len(l.Writes) == 0:
		err = errors.New("it has no writes")
	case l.Decision.Target.CgroupID == 0:
		err = errors.New("it has no cgroup id")
	default:
		err = cgroupctl.CheckPath(l.Decision.Target.Cgroup)
		for _, w := range l.Writes {
			err = errors.Join(err, cgroupctl.CheckWrite(w))
		}
		if l.Inside != "" {
			err = errors.Join(err, cgroupctl.CheckInside(l.Inside))
		}
	}
	if err != nil {
		return model.Lease{}, fmt.Errorf("read record of lease %s: %w", id, err)
	}
	return l, nil
}

// The target in a record, whatever became of the rest of it:
//
//	"target": {
//		"cgroup": "/system.slice/batch.service",
//		"cgroup_id": 4711,
var recordTarget = regexp.MustCompile(`"target"\s*:\s*\{\s*"cgroup"\s*:\s*("(?:[^"\\]|\\.)*")\s*,\s*"cgroup_id"\s*:\s*([0-9]+)`)

// recordWrites is where the writes of a record begin.
var recordWrites = regexp.MustCompile(`"writes"\s*:\s*\[`)

// recordFreeze is in a record of a freeze, which has no limits.
var recordFreeze = regexp.MustCompile(`"action"\s*:\s*\{\s*"kind"\s*:\s*"freeze"`)

// salvageLimits finds the limits that a spoilt record says were set, as far as it can be
// read, and whether these are all. None of them can do harm: an undo compares first, and only
// ever loosens.
func salvageLimits(b []byte) (writes []model.FileWrite, all bool) {
	freeze := recordFreeze.Match(b)
	at := recordWrites.FindIndex(b)
	if at == nil {
		return nil, freeze
	}
	all = true
	dec := json.NewDecoder(bytes.NewReader(b[at[1]-1:]))
	if _, err := dec.Token(); err != nil {
		return nil, freeze
	}
	for dec.More() {
		var w model.FileWrite
		if dec.Decode(&w) != nil {
			all = false
			break
		}
		switch {
		case cgroupctl.IsLimit(w) && cgroupctl.CheckWrite(w) == nil:
			writes = append(writes, w)
		case w.File != cgroupctl.FreezeWrite().File:
			all = false
		}
	}
	if _, err := dec.Token(); err != nil { // the bracket that ends them
		all = false
	}
	return writes, all || freeze
}

// salvage finds out of a record that is cut off, spoilt or of another version which
// cgroup it was about. A path and an id are all that a thaw needs; a cgroup that was made
// below has the name of the record. Limits need what they were: see salvageLimits.
func salvage(b []byte) (cgroupctl.Ref, bool) {
	m := recordTarget.FindSubmatch(b)
	if m == nil {
		return cgroupctl.Ref{}, false
	}
	var r cgroupctl.Ref
	if json.Unmarshal(m[1], &r.Path) != nil || cgroupctl.CheckPath(r.Path) != nil {
		return cgroupctl.Ref{}, false
	}
	// Digits cut off at the end of a file would be another cgroup's id; then the path
	// has a cgroup with a different id, and nothing is touched.
	id, err := strconv.ParseUint(string(m[2]), 10, 64)
	if err != nil || id == 0 {
		return cgroupctl.Ref{}, false
	}
	r.ID = model.CgroupID(id)
	return r, true
}
