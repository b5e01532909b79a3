package history

import (
	"database/sql"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"modernc.org/sqlite"
	sqlite3 "modernc.org/sqlite/lib"

	"github.com/breakerd/breakerd/model"
)

// Names within the directory.
const (
	fileName = "history.db"
	lockName = "history.lock"
	// asideName is where a damaged file goes. There is one: another damage replaces it, so
	// that a disk which damages files does not fill up.
	asideName = "history.db.damaged"
)

// Version is that of the tables, and of what is packed in them. A file of an older one is
// brought up to it, and one of a newer one is refused.
const Version = 2

// application marks the file as ours ("brkr"), for file(1) and for us.
const application = 0x62726b72

// schemas are what each version added to the one before it, from an empty file on.
var schemas = [Version]string{schema1, schema2}

// schema1 is the tables of version 1. Times are in ms since 1970, bodies are packed. What
// is long lies apart from what is searched. Keys are integers that grow, so that pages are
// filled to their end: a key of two columns leaves a third of each empty.
const schema1 = `
CREATE TABLE incidents (
	row    INTEGER PRIMARY KEY,
	id     TEXT NOT NULL UNIQUE,
	kind   TEXT NOT NULL,
	cgroup TEXT NOT NULL,
	unit   TEXT NOT NULL,
	opened INTEGER NOT NULL,
	seen   INTEGER NOT NULL, -- when it closed, or was last seen
	closed INTEGER NOT NULL  -- 1 if it is over
) STRICT;
CREATE INDEX incidents_seen ON incidents (seen);
CREATE INDEX incidents_going_on ON incidents (row) WHERE closed = 0;
CREATE TABLE bodies (
	incident INTEGER PRIMARY KEY,
	body     BLOB NOT NULL
) STRICT;
CREATE TABLE triages (
	incident INTEGER PRIMARY KEY,
	body     BLOB NOT NULL
) STRICT;
CREATE TABLE verdicts (
	part INTEGER PRIMARY KEY, -- the incident's row, and 20 bits of a number
	body BLOB NOT NULL
) STRICT;
CREATE TABLE moments (
	part INTEGER PRIMARY KEY, -- likewise
	body BLOB NOT NULL
) STRICT;
CREATE TABLE holds (
	row      INTEGER PRIMARY KEY,
	incident INTEGER NOT NULL,
	ended    INTEGER NOT NULL, -- 1 if it has
	body     BLOB NOT NULL
) STRICT;
CREATE INDEX holds_incident ON holds (incident);
CREATE INDEX holds_going_on ON holds (row) WHERE ended = 0;
`

// schema2 keeps what the policies were asked.
const schema2 = `
CREATE TABLE inputs (
	incident INTEGER PRIMARY KEY,
	body     BLOB NOT NULL
) STRICT;
`

// errForGood says that trying again would not help.
var errForGood = errors.New("for good")

// newer says that the file is of a version that this program does not know.
type newer struct{ version int }

func (n newer) Error() string {
	return fmt.Sprintf("it is of version %d, and this program knows %d: install the package that wrote it, or move the file away", n.version, Version)
}

func (newer) Is(target error) bool { return target == errForGood }

// foreign says that the file is somebody else's.
type foreign struct{}

func (foreign) Error() string {
	return "it is a database of another program: name another folder under history.dir, or move the file away"
}

func (foreign) Is(target error) bool { return target == errForGood }

// file is the writer's connection.
type file struct {
	db    *sql.DB
	conn  *sql.Conn
	lock  *os.File
	path  string
	packs *packer
	trims trims
}

// openFile opens the file, and makes it where it is missing.
func openFile(dir string) (_ *file, err error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the folder: %w", err)
	}
	f := &file{path: filepath.Join(dir, fileName), packs: newPacker()}
	defer func() {
		if err != nil {
			f.close()
		}
	}()
	// It has another name than the file, so that it is still the lock of whatever is there
	// once a damaged one was set aside.
	if f.lock, err = os.OpenFile(filepath.Join(dir, lockName), os.O_RDWR|os.O_CREATE|unix.O_NOFOLLOW, 0o600); err != nil {
		return nil, err
	}
	if err := unix.Flock(int(f.lock.Fd()), unix.LOCK_EX|unix.LOCK_NB); err != nil {
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, errors.New("another breakerd writes it: give this one a folder of its own (--state-dir)")
		}
		return nil, fmt.Errorf("lock: %w", err)
	}
	if err := checkKind(f.path); err != nil {
		return nil, err
	}
	// What a writer that was killed left is whole, if the disk kept its word. Where it was
	// left, it is worth the look.
	left, _ := os.Stat(f.path + "-wal")
	if f.db, err = openDB(f.path, "rwc"); err != nil {
		return nil, err
	}
	if f.conn, err = f.db.Conn(background); err != nil {
		return nil, err
	}
	version, err := f.version() // before anything is changed
	if err != nil {
		return nil, err
	}
	if left != nil && left.Size() > 0 {
		if err := f.check(); err != nil {
			return nil, err
		}
	}
	if err := f.migrate(version); err != nil {
		return nil, err
	}
	if err := f.closeOpen(); err != nil {
		return nil, err
	}
	return f, nil
}

// checkKind refuses what is no plain file: a link would lead elsewhere.
func checkKind(path string) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return err
	case !info.Mode().IsRegular():
		return fmt.Errorf("%s is no plain file: move it away", fileName)
	}
	return nil
}

func openDB(path, mode string, pragmas ...string) (*sql.DB, error) {
	q := url.Values{"mode": {mode}, "_pragma": append([]string{"busy_timeout(2000)"}, pragmas...)}
	db, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Opaque: (&url.URL{Path: path}).EscapedPath(), RawQuery: q.Encode()}).String())
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(1)
	return db, nil
}

// check looks at the whole file.
func (f *file) check() error {
	var said string
	if err := f.conn.QueryRowContext(background, "PRAGMA quick_check(1)").Scan(&said); err != nil {
		return err
	}
	if said != "ok" {
		return fmt.Errorf("%w: %s", errDamaged, said)
	}
	return nil
}

// version is that of the file, 0 of a new one, if it is ours.
func (f *file) version() (version int, err error) {
	var of, tables int
	for _, q := range []struct {
		to  *int
		sql string
	}{{&version, "PRAGMA user_version"}, {&of, "PRAGMA application_id"}, {&tables, "SELECT count(*) FROM sqlite_schema"}} {
		if err := f.conn.QueryRowContext(background, q.sql).Scan(q.to); err != nil {
			return 0, err
		}
	}
	switch {
	case tables > 0 && of != application:
		return 0, foreign{}
	case version > Version:
		return 0, newer{version}
	case version < 0 || version == 0 && tables > 0:
		return 0, fmt.Errorf("%w: it is of version %d", errDamaged, version)
	}
	return version, nil
}

// migrate brings a file of a version up to ours.
func (f *file) migrate(version int) error {
	// Pages that become free are given back to the disk step by step. It takes effect before
	// anything is written to a new file only, and so comes first.
	//
	// With a log (WAL) a transaction is whole or not at all, also where breakerd is killed.
	// synchronous = normal waits for the disk once in a checkpoint and not for each second:
	// power that fails may cost the last seconds, and never the file.
	for _, pragma := range []string{"page_size = 8192", "auto_vacuum = incremental", "journal_mode = wal", "synchronous = normal", "journal_size_limit = 4194304"} {
		if _, err := f.conn.ExecContext(background, "PRAGMA "+pragma); err != nil {
			return err
		}
	}
	if version == Version {
		return nil
	}
	return f.transact(func(tx *sql.Tx) error {
		_, err := tx.Exec(strings.Join(schemas[version:], "") + fmt.Sprintf("PRAGMA application_id = %d; PRAGMA user_version = %d;", application, Version))
		return err
	})
}

func (f *file) transact(do func(*sql.Tx) error) error {
	tx, err := f.conn.BeginTx(background, nil)
	if err != nil {
		return err
	}
	if err := do(tx); err != nil {
		return errors.Join(err, ignoreDone(tx.Rollback()))
	}
	return tx.Commit()
}

// ignoreDone: SQLite rolls back by itself where the disk is full.
func ignoreDone(err error) error {
	if code, ok := codeOf(err); ok && code == sqlite3.SQLITE_ERROR || errors.Is(err, sql.ErrTxDone) {
		return nil
	}
	return err
}

// closeOpen ends what a breakerd that stopped had left open: as of when it was last seen.
func (f *file) closeOpen() error {
	type row struct {
		n, seen int64
		in      model.Incident
	}
	var all []row
	var u unpacker
	rows, err := f.conn.QueryContext(background, "SELECT i.row, i.seen, b.body FROM incidents i JOIN bodies b ON b.incident = i.row WHERE i.closed = 0")
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var r row
		var body []byte
		if err := rows.Scan(&r.n, &r.seen, &body); err != nil {
			return err
		}
		var b incidentBody
		if err := u.unpack(body, &b); err != nil {
			return err
		}
		r.in = b.Incident
		all = append(all, r)
	}
	if err := rows.Err(); err != nil {
		return err
	}
	holds, rowsOf, err := f.heldStill()
	if err != nil || len(all)+len(holds) == 0 {
		return err
	}
	return f.transact(func(tx *sql.Tx) error {
		for _, r := range all {
			at := time.UnixMilli(r.seen).UTC()
			r.in.State, r.in.ClosedAt, r.in.Unfinished = model.Closed, &at, true
			body, err := f.packs.pack(incidentBody{Incident: r.in})
			if err != nil {
				return err
			}
			if _, err := tx.Exec("UPDATE bodies SET body = ? WHERE incident = ?", body, r.n); err != nil {
				return err
			}
			if _, err := tx.Exec("UPDATE incidents SET closed = 1 WHERE row = ?", r.n); err != nil {
				return err
			}
		}
		for i, h := range holds {
			body, err := f.packs.pack(h)
			if err != nil {
				return err
			}
			if _, err := tx.Exec("UPDATE holds SET ended = 1, body = ? WHERE row = ?", body, rowsOf[i]); err != nil {
				return err
			}
		}
		return nil
	})
}

// heldStill are the leases that ran when breakerd stopped, as they must have ended.
func (f *file) heldStill() (all []model.Hold, rowsOf []int64, err error) {
	rows, err := f.conn.QueryContext(background, "SELECT h.row, h.body, coalesce(i.seen, 0) FROM holds h LEFT JOIN incidents i ON i.row = h.incident WHERE h.ended = 0")
	if err != nil {
		return nil, nil, err
	}
	defer rows.Close()
	var u unpacker
	for rows.Next() {
		var body []byte
		var row, seen int64
		var h model.Hold
		if err := rows.Scan(&row, &body, &seen); err != nil {
			return nil, nil, err
		}
		if err := u.unpack(body, &h); err != nil {
			return nil, nil, err
		}
		at := h.ExpiresAt
		if h.DryRun && seen > 0 && time.UnixMilli(seen).Before(at) {
			at = time.UnixMilli(seen).UTC() // it lived and died with breakerd
		}
		h.State, h.EndedAt, h.Note = model.LeaseEnded, &at, "breakerd stopped meanwhile, so that its end was not seen"
		all, rowsOf = append(all, h), append(rowsOf, row)
	}
	return all, rowsOf, rows.Err()
}

func (f *file) bytes() (sum int64) {
	for _, name := range []string{f.path, f.path + "-wal", f.path + "-shm"} {
		if info, err := os.Stat(name); err == nil {
			sum += info.Size()
		}
	}
	return sum
}

func (f *file) close() error {
	var errs []error
	if f.conn != nil {
		errs = append(errs, f.conn.Close())
	}
	if f.db != nil {
		errs = append(errs, f.db.Close())
	}
	if f.lock != nil {
		errs = append(errs, f.lock.Close())
	}
	return errors.Join(errs...)
}

// setAside renames the file, so that another one can begin.
func setAside(dir string) (where string, err error) {
	where = filepath.Join(dir, asideName)
	path := filepath.Join(dir, fileName)
	// Its log belongs to it: SQLite finds it by the name.
	for _, tail := range []string{"-wal", "-shm", ""} {
		switch err := os.Rename(path+tail, where+tail); {
		case errors.Is(err, fs.ErrNotExist):
			if err := os.Remove(where + tail); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return "", err
			}
		case err != nil:
			return "", err
		}
	}
	return where, nil
}

// codeOf is SQLite's primary result code.
func codeOf(err error) (code int, ok bool) {
	var e *sqlite.Error
	if !errors.As(err, &e) {
		return 0, false
	}
	return e.Code() & 0xff, true
}

// damaged reports whether an error says that the file is.
func damaged(err error) bool {
	if errors.Is(err, errDamaged) {
		return true
	}
	code, ok := codeOf(err)
	return ok && (code == sqlite3.SQLITE_CORRUPT || code == sqlite3.SQLITE_NOTADB)
}

// explain says what is wrong, and what a person can do about it.
func explain(dir string, err error) string {
	advice := ""
	code, _ := codeOf(err)
	switch {
	case code == sqlite3.SQLITE_FULL, errors.Is(err, unix.ENOSPC), errors.Is(err, unix.EDQUOT):
		advice = ": the disk is full. It goes on by itself when there is room again"
	case code == sqlite3.SQLITE_IOERR, code == sqlite3.SQLITE_READONLY, code == sqlite3.SQLITE_CANTOPEN,
		errors.Is(err, fs.ErrPermission), errors.Is(err, unix.EROFS):
		advice = ": can breakerd write there, and is the disk well? It is tried again"
	}
	return fmt.Sprintf("history %s: %v%s", filepath.Join(dir, fileName), err, advice)
}
