package history

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"time"

	"github.com/breakerd/breakerd/model"
)

// background is for what the writer does: it ends when it is done.
var background = context.Background()

// readers are the connections of those who ask.
type readers struct{ db *sql.DB }

func openReaders(dir string) (*readers, error) {
	// The writer has the file open already, so that nothing is made here.
	db, err := openDB(filepath.Join(dir, fileName), "rw", "query_only(on)")
	if err != nil {
		return nil, err
	}
	db.SetMaxOpenConns(2)
	db.SetMaxIdleConns(0) // a connection takes 2 MB and is asked once in a while
	return &readers{db}, nil
}

func (r *readers) close() { _ = r.db.Close() }

// ask puts a question to the file, once what was told before is in it.
func (s *Store) ask(ctx context.Context, question func(context.Context, *sql.Conn) error) error {
	done := make(chan struct{})
	bound := time.NewTimer(readBound)
	defer bound.Stop()
	select {
	case s.asks <- done:
		select {
		case <-done:
		case <-bound.C: // a disk that takes its time: what is there is told
		}
	case <-bound.C:
	case <-s.ended:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.mu.Lock()
	r, problem := s.readers, s.state.Problem
	s.mu.Unlock()
	if r == nil {
		if problem == "" {
			problem = "it is not open"
		}
		return fmt.Errorf("%w: %s", model.ErrNoHistory, problem)
	}
	conn, err := r.db.Conn(ctx)
	if err == nil {
		err = errors.Join(question(ctx, conn), conn.Close())
	}
	if damaged(err) {
		s.mu.Lock()
		s.damage = err
		s.mu.Unlock()
		s.ring()
		return fmt.Errorf("%w: the file is damaged, is set aside, and a new one begins: %w", model.ErrNoHistory, err)
	}
	return err
}

// Incidents are the incidents that a filter asks for, the newest first, without their
// triages and with the last of their decisions.
func (s *Store) Incidents(ctx context.Context, f model.IncidentFilter) (all []model.Incident, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *sql.Conn) error {
		text, args := where(f, time.Now().Add(-time.Duration(s.maxAge.Load())))
		limit := ""
		if f.Most > 0 {
			limit = fmt.Sprintf(" LIMIT %d", f.Most)
		}
		// Which are meant is found out in the small table, and only their bodies are read.
		t := teller{ctx: ctx, q: conn}
		var rows []int64
		err := t.each("SELECT i.row, b.body FROM (SELECT row, opened FROM incidents i WHERE "+text+" ORDER BY opened DESC, row DESC"+limit+
			") i JOIN bodies b ON b.incident = i.row ORDER BY i.opened DESC, i.row DESC", args, func(row int64, body []byte) error {
			story, err := t.begin(body)
			rows, all = append(rows, row), append(all, story.Incident)
			return err
		})
		for i := 0; i < len(rows) && err == nil; i++ {
			in := &all[i]
			err = t.each("SELECT ?1, body FROM verdicts WHERE part BETWEEN ?1 << 20 AND (?1 << 20) + 1048575 ORDER BY part DESC LIMIT 1", []any{rows[i]}, func(_ int64, body []byte) error {
				var part []leanVerdict
				if err := t.u.unpack(body, &part); err != nil {
					return err
				}
				verdicts := whole(in.ID, part)
				in.Decisions = []model.DecisionRecord{verdicts[len(verdicts)-1].DecisionRecord}
				return nil
			})
		}
		return err
	})
	return all, err
}

func where(f model.IncidentFilter, oldest time.Time) (string, []any) {
	since := oldest
	if f.Since.After(since) {
		since = f.Since
	}
	where, args := []string{"seen >= ?"}, []any{since.UnixMilli()}
	and := func(text string, values ...any) {
		where, args = append(where, text), append(args, values...)
	}
	if !f.Until.IsZero() {
		and("opened <= ?", f.Until.UnixMilli())
	}
	if f.Kind != "" {
		and("kind = ?", string(f.Kind))
	}
	if f.Cgroup != "" {
		below := strings.TrimSuffix(f.Cgroup, "/")
		and("(cgroup = ? OR substr(cgroup, 1, ?) = ?)", f.Cgroup, len([]rune(below))+1, below+"/")
	}
	if f.Unit != "" {
		and("unit = ?", f.Unit)
	}
	return strings.Join(where, " AND "), args
}

// Story is all that is kept of one incident.
func (s *Store) Story(ctx context.Context, id string) (story model.Story, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *sql.Conn) error {
		t := teller{ctx: ctx, q: conn}
		const one = "SELECT row FROM incidents WHERE id = ?"
		rows, stories, err := t.chapter(one, one, []any{id})
		if err != nil {
			return err
		}
		if len(rows) == 0 {
			return fmt.Errorf("incident %q: %w", id, model.ErrNotKept)
		}
		story = stories[0]
		return t.each("SELECT incident, body FROM inputs WHERE incident = ?", []any{rows[0]}, func(_ int64, body []byte) error {
			return t.u.unpack(body, &story.Inputs)
		})
	})
	return story, err
}

// teller puts stories together.
type teller struct {
	ctx context.Context
	q   querier
	u   unpacker
}

func (t *teller) begin(body []byte) (model.Story, error) {
	var b incidentBody
	err := t.u.unpack(body, &b)
	return model.Story{Incident: b.Incident, Host: b.Host}, err
}

// keptDecisions is how many decisions an incident tells, the first and the last of them.
const keptDecisions = 16

func decisionsOf(story *model.Story) []model.DecisionRecord {
	if len(story.Verdicts) == 0 {
		return story.Decisions
	}
	var all []model.DecisionRecord
	for i := range story.Verdicts {
		all = append(all, story.Verdicts[i].DecisionRecord)
	}
	if old := len(all) - keptDecisions; old > 0 {
		all = append(all[:keptDecisions/2], all[keptDecisions/2+old:]...)
	}
	return all
}

// storiesAtOnce are read together: enough that a query is worth it, and few enough that a
// report over weeks takes no memory.
const storiesAtOnce = 256

// Stories hands out all that is kept of the incidents that were open in a stretch of time,
// in the order in which they were told. Their triages and moments are those of incidents
// about which something was held. It says how far back history reaches.
func (s *Store) Stories(ctx context.Context, since, until time.Time, take func(*model.Story)) (began time.Time, err error) {
	err = s.ask(ctx, func(ctx context.Context, conn *sql.Conn) error {
		// One moment of the file, whatever is written meanwhile.
		tx, err := conn.BeginTx(ctx, &sql.TxOptions{ReadOnly: true})
		if err != nil {
			return err
		}
		defer tx.Rollback()
		var first sql.NullInt64
		if err := tx.QueryRowContext(ctx, "SELECT min(opened) FROM (SELECT opened FROM incidents ORDER BY seen LIMIT 100)").Scan(&first); err != nil {
			return err
		}
		if first.Valid {
			began = time.UnixMilli(first.Int64).UTC()
		}
		where, args := where(model.IncidentFilter{Since: since, Until: until}, time.Now().Add(-time.Duration(s.maxAge.Load())))
		t := teller{ctx: ctx, q: tx}
		// Rows were told in the order of time, and nearly closed in it.
		var oldest sql.NullInt64
		if err := tx.QueryRowContext(ctx, "SELECT min(row) FROM incidents WHERE seen >= ?", args[0]).Scan(&oldest); err != nil || !oldest.Valid {
			return err
		}
		for after := oldest.Int64 - 1; ; {
			which := fmt.Sprintf("SELECT row FROM incidents WHERE %s AND row > ? ORDER BY row LIMIT %d", where, storiesAtOnce)
			held := "SELECT incident FROM holds WHERE incident IN (" + which + ")"
			rows, stories, err := t.chapter(which, held, append(args[:len(args):len(args)], after))
			if err != nil || len(rows) == 0 {
				return err
			}
			for i := range stories {
				take(&stories[i])
			}
			after = rows[len(rows)-1]
		}
	})
	return began, err
}

// chapter puts stories together: of the incidents that a query names, and with triage and
// moments those that another one names. Both take the same arguments.
func (t *teller) chapter(which, details string, args []any) (rows []int64, stories []model.Story, err error) {
	at := make(map[int64]int)
	err = t.each("SELECT i.row, b.body FROM incidents i JOIN bodies b ON b.incident = i.row WHERE i.row IN ("+which+") ORDER BY i.row", args, func(row int64, body []byte) error {
		story, err := t.begin(body)
		at[row] = len(stories)
		rows, stories = append(rows, row), append(stories, story)
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	for _, part := range []struct {
		query string
		take  func(story *model.Story, body []byte) error
	}{
		{"SELECT i.row, p.body FROM (" + which + ") i CROSS JOIN verdicts p ON " + partOf + " ORDER BY p.part", func(story *model.Story, body []byte) error {
			var part []leanVerdict
			err := t.u.unpack(body, &part)
			story.Verdicts = append(story.Verdicts, whole(story.ID, part)...)
			return err
		}},
		{"SELECT incident, body FROM holds WHERE incident IN (" + which + ") ORDER BY incident, row", func(story *model.Story, body []byte) error {
			var h model.Hold
			err := t.u.unpack(body, &h)
			story.Holds = append(story.Holds, wholeHold(story.ID, h, story.Verdicts))
			return err
		}},
		{"SELECT incident, body FROM triages WHERE incident IN (" + details + ")", func(story *model.Story, body []byte) error {
			story.Triage = &model.Triage{}
			return t.u.unpack(body, story.Triage)
		}},
		{"SELECT i.row, p.body FROM (SELECT row FROM incidents WHERE row IN (" + details + ")) i CROSS JOIN moments p ON " + partOf + " ORDER BY p.part", func(story *model.Story, body []byte) error {
			var part []model.Moment
			err := t.u.unpack(body, &part)
			story.Moments = append(story.Moments, part...)
			return err
		}},
	} {
		err := t.each(part.query, args, func(row int64, body []byte) error { return part.take(&stories[at[row]], body) })
		if err != nil {
			return nil, nil, err
		}
	}
	for i := range stories {
		stories[i].Decisions = decisionsOf(&stories[i])
	}
	return rows, stories, nil
}

func (t *teller) each(query string, args []any, take func(row int64, body []byte) error) error {
	return each(t.ctx, t.q, query, args, func(scan func(...any) error) error {
		var row int64
		var body []byte
		if err := scan(&row, &body); err != nil {
			return err
		}
		return take(row, body)
	})
}

// querier is a connection or a transaction.
type querier interface {
	QueryContext(context.Context, string, ...any) (*sql.Rows, error)
}

// each runs a query, and hands out its rows.
func each(ctx context.Context, q querier, query string, args []any, take func(scan func(...any) error) error) error {
	rows, err := q.QueryContext(ctx, query, args...)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		if err := take(rows.Scan); err != nil {
			return err
		}
	}
	return rows.Err()
}
