package enforce

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/model"
)

// records keeps leases as files, so that whoever comes after us can undo them. A
// record lies in active/ or, moved there by one rename, in ended/: never in both,
// never in neither. One that cannot be read lies in unreadable/. A nil *records
// keeps nothing.
type records struct {
	lock *os.File
	root *os.Root // the leases directory: held, so that nobody can exchange it

	mu   sync.Mutex
	kept []keptRecord // in ended/, the oldest first
}

type keptRecord struct {
	id string
	at time.Time
}

const (
	activeDir     = "active"
	endedDir      = "ended"
	unreadableDir = "unreadable"
	suffix        = ".json"
)

// What is kept in ended/: enough to tell whether a decision was carried out before.
const (
	maxEnded    = 1000
	maxEndedAge = 30 * 24 * time.Hour
	// minEndedAge keeps a record for longer than a decision is accepted, however many
	// there are, so that none can be carried out twice.
	minEndedAge = 2 * maxDecisionAge
)

// maxRecord bounds a record, in bytes; a decision that comes over the socket is
// smaller.
const maxRecord = 256 << 10

// durability says whether a record must be on the disk before we go on.
type durability bool

const (
	// durable waits for the disk. A record must not be lost while what it covers is
	// held, not even to a file system that fails.
	durable durability = true
	// quick does not: the next state of a record that is there. If it is lost, the
	// older state is undone just as well.
	quick durability = false
)

// openRecords takes the state directory's lock and opens the records in it.
func openRecords(stateDir string) (*records, error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(stateDir, "enforcer.lock"), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	r := &records{lock: lock}
	if err := unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("open state directory %s: another breaker-enforcer is running with it", stateDir)
		}
		return nil, fmt.Errorf("lock state directory %s: %w", stateDir, err)
	}
	if err := r.open(filepath.Join(stateDir, "leases")); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

func (r *records) open(dir string) error {
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make lease records: %w", err)
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return fmt.Errorf("open lease records: %w", err)
	}
	// The rest of the state directory may be breakerd's, which we do not trust.
	if owner := info.Sys().(*syscall.Stat_t).Uid; !info.IsDir() || int(owner) != os.Geteuid() || info.Mode()&0o022 != 0 {
		return fmt.Errorf("open lease records %s: it must be a directory that belongs to uid %d and that nobody else can write", dir, os.Geteuid())
	}
	if r.root, err = os.OpenRoot(dir); err != nil {
		return fmt.Errorf("open lease records: %w", err)
	}
	for _, sub := range []string{activeDir, endedDir, unreadableDir} {
		if err := r.root.Mkdir(sub, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return fmt.Errorf("make lease records: %w", err)
		}
	}
	entries, err := r.readDir(endedDir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			r.kept = append(r.kept, keptRecord{strings.TrimSuffix(e.Name(), suffix), info.ModTime()})
		}
	}
	slices.SortFunc(r.kept, func(a, b keptRecord) int { return a.at.Compare(b.at) })
	return nil
}

func (r *records) readDir(dir string) ([]fs.DirEntry, error) {
	d, err := r.root.Open(dir)
	if err != nil {
		return nil, fmt.Errorf("read lease records: %w", err)
	}
	defer d.Close()
	entries, err := d.ReadDir(-1)
	if err != nil {
		return nil, fmt.Errorf("read lease records: %w", err)
	}
	return entries, nil
}

func (r *records) close() error {
	if r == nil {
		return nil
	}
	var err error
	if r.root != nil {
		err = r.root.Close()
	}
	return errors.Join(err, r.lock.Close()) // the lock goes with the file
}

// write writes the record of a lease that has not been put away: whole or not at
// all, by a rename.
//
// The file is synced after the rename, not before: one commit of the journal then
// covers both on ext4, xfs and btrfs, which halves the time until the freeze (a sync
// took 7 ms beside eight busy processes on two CPUs). The order that this gives up
// matters only to a machine that loses power in between, and with the power its
// frozen cgroups are gone too.
func (r *records) write(l model.Lease, d durability) error {
	if r == nil {
		return nil
	}
	b, err := json.MarshalIndent(l, "", "\t")
	if err != nil {
		return fmt.Errorf("write record of lease %s: %w", l.ID, err)
	}
	// A dot cannot begin an ID.
	if err := r.replace(activeDir+"/."+l.ID+suffix, activeDir+"/"+l.ID+suffix, append(b, '\n'), d); err != nil {
		return fmt.Errorf("write record of lease %s: %w", l.ID, err)
	}
	return nil
}

func (r *records) replace(temp, name string, b []byte, d durability) error {
	f, err := r.root.OpenFile(temp, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err = f.Write(b); err == nil {
		err = r.root.Rename(temp, name)
	}
	if err != nil {
		r.root.Remove(temp)
		return err
	}
	if d == durable {
		return f.Sync()
	}
	return nil
}

// forget removes a record that covers nothing.
func (r *records) forget(id string) {
	if r != nil {
		r.root.Remove(activeDir + "/" + id + suffix)
	}
}

// putAway moves the record of an ended lease from active/ to ended/.
func (r *records) putAway(id string, now time.Time) error {
	if r == nil {
		return nil
	}
	err := r.root.Rename(activeDir+"/"+id+suffix, endedDir+"/"+id+suffix)
	if err != nil {
		if _, missing := r.root.Lstat(endedDir + "/" + id + suffix); missing != nil {
			return fmt.Errorf("put away record of lease %s: %w", id, err)
		}
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = append(r.kept, keptRecord{id, now})
	r.prune(now)
	return nil
}

// prune removes the oldest records: those beyond the count, and those too old.
func (r *records) prune(now time.Time) {
	for len(r.kept) > 0 {
		age := now.Sub(r.kept[0].at)
		if age <= minEndedAge || len(r.kept) <= maxEnded && age <= maxEndedAge {
			return
		}
		r.root.Remove(endedDir + "/" + r.kept[0].id + suffix)
		r.kept = r.kept[1:]
	}
}

// ended reads what became of a decision that was carried out before. The error is of
// a record that is there but cannot be read.
func (r *records) ended(id string) (model.Lease, bool, error) {
	if r == nil {
		return model.Lease{}, false, nil
	}
	if _, err := r.root.Lstat(unreadableDir + "/" + id + suffix); err == nil {
		return model.Lease{}, true, errors.New("its record was unreadable and was set aside")
	}
	l, err := r.read(endedDir, id)
	if errors.Is(err, fs.ErrNotExist) {
		return model.Lease{}, false, nil
	}
	return l, true, err
}

func (r *records) read(dir, id string) (model.Lease, error) {
	b, err := r.bytes(dir, id)
	if err != nil {
		return model.Lease{}, err
	}
	return parseRecord(id, b)
}

func (r *records) bytes(dir, id string) ([]byte, error) {
	f, err := r.root.Open(dir + "/" + id + suffix)
	if err != nil {
		return nil, fmt.Errorf("read record of lease %s: %w", id, err)
	}
	defer f.Close()
	b := make([]byte, maxRecord+1)
	n := 0
	for n < len(b) {
		m, err := f.Read(b[n:])
		n += m
		if err != nil {
			break
		}
	}
	if n > maxRecord {
		return b[:maxRecord], fmt.Errorf("read record of lease %s: more than %d bytes", id, maxRecord)
	}
	return b[:n], nil
}
