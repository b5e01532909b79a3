package history

import (
	"database/sql"
	"time"
)

const (
	// trimEvery is how often it is looked for what is too old or too much.
	trimEvery = 10 * time.Minute
	// trimmedTo leaves some room, so that it is not each time.
	trimmedTo = 0.9
	// deletedAtOnce bounds a transaction, and with it the log and the wait of the next.
	deletedAtOnce = 500
	// detailsOf is how many of the newest incidents keep what was seen when they opened and
	// around them, and what the policies were asked: 3 KB each as a rule, and up to ten times
	// that.
	detailsOf = 5000
)

// trims says when it was last looked for what is too old or too much.
type trims struct{ at time.Time }

// trim deletes what is older than it may be, and the oldest where there is too much.
func (f *file) trim(maxAge time.Duration, maxBytes int64, now time.Time) error {
	if since := now.Sub(f.trims.at); since >= 0 && since < trimEvery && f.bytes() <= maxBytes+8<<20 {
		return nil
	}
	f.trims.at = now
	deleted, err := f.deleteOlder(now.Add(-maxAge).UnixMilli())
	if err != nil {
		return err
	}
	details, err := f.deleteDetails()
	if err != nil {
		return err
	}
	deleted += details
	n, err := f.deleteOldest(maxBytes)
	if err != nil {
		return err
	}
	deleted += n
	if deleted == 0 {
		return nil
	}
	return f.giveBack()
}

// deleteOldest deletes the oldest while more is in use than may be.
func (f *file) deleteOldest(maxBytes int64) (deleted int64, err error) {
	most := maxBytes
	for {
		used, err := f.used()
		if err != nil || used <= most {
			return deleted, err
		}
		most = int64(trimmedTo * float64(maxBytes))
		var rows int64
		if err := f.conn.QueryRowContext(background, "SELECT count(*) FROM incidents").Scan(&rows); err != nil {
			return deleted, err
		}
		n, err := f.deleteRows("SELECT row FROM incidents ORDER BY seen LIMIT ?", min(deletedAtOnce, 1+rows*(used-most)/used))
		deleted += n
		if err != nil || n == 0 {
			return deleted, err
		}
	}
}

// used is how much of the file is in use.
func (f *file) used() (int64, error) {
	var pages, free, size int64
	err := f.conn.QueryRowContext(background, "SELECT page_count, freelist_count, page_size FROM pragma_page_count, pragma_freelist_count, pragma_page_size").Scan(&pages, &free, &size)
	return (pages - free) * size, err
}

func (f *file) deleteOlder(than int64) (deleted int64, err error) {
	for {
		n, err := f.deleteRows("SELECT row FROM incidents WHERE seen < ? ORDER BY seen LIMIT ?", than, deletedAtOnce)
		deleted += n
		if err != nil || n == 0 {
			return deleted, err
		}
	}
}

// partOf joins the parts p of verdicts or moments to the rows i of incidents.
const partOf = "p.part BETWEEN i.row << 20 AND (i.row << 20) + 1048575"

// deleteRows deletes the incidents that a query names, with all that hangs on them.
func (f *file) deleteRows(which string, args ...any) (deleted int64, err error) {
	err = f.transact(func(tx *sql.Tx) error {
		for _, table := range []string{"bodies", "triages", "inputs", "holds"} {
			if _, err := tx.Exec("DELETE FROM "+table+" WHERE incident IN ("+which+")", args...); err != nil {
				return err
			}
		}
		for _, table := range []string{"verdicts", "moments"} {
			if _, err := tx.Exec("DELETE FROM "+table+" WHERE part IN (SELECT p.part FROM ("+which+") i JOIN "+table+" p ON "+partOf+")", args...); err != nil {
				return err
			}
		}
		r, err := tx.Exec("DELETE FROM incidents WHERE row IN ("+which+")", args...)
		if err != nil {
			return err
		}
		deleted, err = r.RowsAffected()
		return err
	})
	return deleted, err
}

// deleteDetails forgets what was seen around incidents that are not among the newest.
func (f *file) deleteDetails() (deleted int64, err error) {
	err = f.transact(func(tx *sql.Tx) error {
		const oldest = "(SELECT row FROM incidents ORDER BY row DESC LIMIT 1 OFFSET ?)"
		for _, which := range []string{"triages WHERE incident <= " + oldest, "inputs WHERE incident <= " + oldest, "moments WHERE part < (1 + " + oldest + ") << 20"} {
			r, err := tx.Exec("DELETE FROM "+which, detailsOf)
			if err != nil {
				return err
			}
			n, err := r.RowsAffected()
			if deleted += n; err != nil {
				return err
			}
		}
		return nil
	})
	return deleted, err
}

// giveBack gives free pages back to the disk.
func (f *file) giveBack() error {
	for {
		before, err := f.free()
		if err != nil || before == 0 {
			return err
		}
		// A step is a row: all have to be asked for.
		rows, err := f.conn.QueryContext(background, "PRAGMA incremental_vacuum(1024)")
		if err != nil {
			return err
		}
		for rows.Next() {
		}
		if err := rows.Close(); err != nil {
			return err
		}
		after, err := f.free()
		if err != nil || after >= before {
			return err
		}
	}
}

func (f *file) free() (pages int64, err error) {
	err = f.conn.QueryRowContext(background, "PRAGMA freelist_count").Scan(&pages)
	return pages, err
}
