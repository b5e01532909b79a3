package enforce

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
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
	lock     *os.File
	root     *os.Root // the leases directory: held, so that nobody can exchange it
	unlisted error    // why it is not known what is in ended/
	refused  error    // why these records are not for this enforcer
	unsaid   bool     // the version of these records is to be said yet

	pausing sync.Mutex // held while a pause is written
	mu      sync.Mutex
	kept    []keptRecord // in ended/, the oldest first
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

// maxRecord bounds a record that is written, in bytes. The guard feasibility bounds the
// words of a decision, so that no record comes near it.
const maxRecord = 256 << 10

// maxRead bounds what is read of a record: more than anybody ever wrote, so that
// nothing which covers a freeze is too long to be undone.
const maxRead = 4 << 20

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

// openRecords takes the state directory's lock, for which it waits so long, and opens the records
// in it. It writes nothing that is there already: on a file system that is read-only a write is
// refused, on one that is frozen for a snapshot it waits, and what was held is to be undone first.
func openRecords(stateDir string, wait time.Duration) (*records, error) {
	if err := os.MkdirAll(stateDir, 0o755); err != nil {
		return nil, fmt.Errorf("make state directory: %w", err)
	}
	state, err := os.OpenRoot(stateDir)
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	defer state.Close()
	// Whoever can write it can exchange the records in it. Other users than root are
	// only in tests, whose directories are theirs.
	if os.Geteuid() == 0 {
		if err := onlyOurs(state); err != nil {
			return nil, fmt.Errorf("open state directory %s: %w", stateDir, err)
		}
	}
	const lockName = "enforcer.lock"
	// Reading is enough for flock(2), but for where NFS makes a lock of bytes of it (EBADF). A FIFO
	// would have the open wait.
	lock, err := state.OpenFile(lockName, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	writable := func() {
		lock, err = state.OpenFile(lockName, os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0o600)
	}
	if errors.Is(err, fs.ErrNotExist) {
		writable()
	}
	if err != nil {
		return nil, fmt.Errorf("open state directory: %w", err)
	}
	err = takeLock(lock, wait)
	if errors.Is(err, unix.EBADF) {
		lock.Close()
		if writable(); err == nil {
			err = takeLock(lock, wait)
		}
	}
	r := &records{lock: lock}
	if err != nil {
		lock.Close()
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("open state directory %s: another breaker-enforcer is running with it", stateDir)
		}
		return nil, fmt.Errorf("lock state directory %s: %w", stateDir, err)
	}
	if err := r.open(state); err != nil {
		r.close()
		return nil, err
	}
	return r, nil
}

// takeLock waits so long for whoever has it: one that was killed keeps it until the disk answers
// for which it waits.
func takeLock(f *os.File, wait time.Duration) error {
	for until := time.Now().Add(wait); ; time.Sleep(lockRetry) {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if !errors.Is(err, unix.EWOULDBLOCK) || !time.Now().Before(until) {
			return err
		}
	}
}

const lockRetry = 20 * time.Millisecond

// makeDir makes a directory that is not there.
func makeDir(in *os.Root, name string) error {
	if _, err := in.Lstat(name); err == nil {
		return nil
	}
	if err := in.Mkdir(name, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return fmt.Errorf("make lease records: %w", err)
	}
	return nil
}

// leasesDir holds the records, within the state directory.
const leasesDir = "leases"

// onlyOurs refuses a directory that somebody else could have filled. It judges the one
// that is open, so that none can be put in its place afterwards.
func onlyOurs(dir *os.Root) error {
	info, err := dir.Stat(".")
	if err != nil {
		return err
	}
	if owner := info.Sys().(*syscall.Stat_t).Uid; int(owner) != os.Geteuid() || info.Mode()&0o022 != 0 {
		return fmt.Errorf("it must be a directory that belongs to uid %d and that nobody else can write", os.Geteuid())
	}
	return nil
}

func (r *records) open(state *os.Root) error {
	if err := makeDir(state, leasesDir); err != nil {
		return err
	}
	if info, err := state.Lstat(leasesDir); err != nil || !info.IsDir() {
		return fmt.Errorf("open lease records: %s is no directory (%v)", leasesDir, err)
	}
	var err error
	if r.root, err = state.OpenRoot(leasesDir); err != nil {
		return fmt.Errorf("open lease records: %w", err)
	}
	if err := onlyOurs(r.root); err != nil {
		return fmt.Errorf("open lease records %s: %w", r.root.Name(), err)
	}
	for _, sub := range []string{activeDir, endedDir, unreadableDir} {
		if err := makeDir(r.root, sub); err != nil {
			return err
		}
	}
	// Not errors yet: what is held is undone first. See Engine.Recover and Program.Run.
	r.refused = r.checkVersion()
	r.unlisted = r.list()
	return nil
}

// list finds out what is in ended/.
func (r *records) list() error {
	entries, err := r.readDir(endedDir)
	if err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = nil
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
	b, err := formatRecord(l)
	if err != nil {
		return fmt.Errorf("write record of lease %s: %w", l.ID, err)
	}
	// A dot cannot begin an ID.
	if err := r.replace(activeDir+"/."+l.ID+suffix, activeDir+"/"+l.ID+suffix, b, d); err != nil {
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

// endedSince are the records that were put away since then.
func (r *records) endedSince(since time.Time) []keptRecord {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []keptRecord
	for _, k := range r.kept {
		if !k.at.Before(since) {
			out = append(out, k)
		}
	}
	return out
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

// bytes is what a record holds. The error is one of reading, and may pass; a record that
// is too long is cut off, which parseRecord will find.
func (r *records) bytes(dir, id string) ([]byte, error) {
	// Without waiting: a FIFO would keep us from undoing anything until somebody writes to it.
	f, err := r.root.OpenFile(dir+"/"+id+suffix, os.O_RDONLY|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, fmt.Errorf("read record of lease %s: %w", id, err)
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Mode().Type()&fs.ModeNamedPipe != 0 {
		return nil, nil // it says nothing, and is spoilt
	}
	b, err := io.ReadAll(io.LimitReader(f, maxRead))
	if err != nil {
		return nil, fmt.Errorf("read record of lease %s: %w", id, err)
	}
	return b, nil
}
