package history

import (
	"database/sql"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"

	"github.com/breakerd/breakerd/model"
)

// incidentBody is what is packed of an incident. Its triage lies apart, and what was
// decided are its verdicts.
type incidentBody struct {
	model.Incident
	Host *model.Host `json:"host,omitempty"`
}

// batch is what is written at once.
type batch struct {
	entries []taken
	holds   []takenHold
}

// taken is what is to be written of an incident, with the revisions that it is of.
type taken struct {
	of       *entry
	revision uint64
	row      int64
	body     *incidentBody // nil if it is not known
	triage   *model.Triage // nil if it is written
	asked    *takenInputs  // nil if they are written
	verdicts []takenPart[model.Verdict]
	moments  []takenPart[model.Moment]
	numbered struct{ verdicts, moments numbering }
}

type takenInputs struct {
	revision uint64
	inputs   []json.RawMessage
}

type takenPart[T any] struct {
	of       *part[T]
	revision uint64
	items    []T
}

type takenHold struct {
	of       *hold
	revision uint64
	row      int64
	hold     model.Hold
	incident *entry
}

func (b *batch) empty() bool { return len(b.entries)+len(b.holds) == 0 }

// take takes what waits. It copies nothing that is large: what it points to does not
// change any more.
func (s *Store) take() *batch {
	s.mu.Lock()
	defer s.mu.Unlock()
	b := &batch{}
	for _, id := range slices.Sorted(maps.Keys(s.changed)) { // in one order, for whoever compares files
		e := s.changed[id]
		t := taken{of: e, revision: e.now, row: e.row}
		t.numbered.verdicts, t.numbered.moments = e.verdicts.numbering, e.moments.numbering
		if e.incident != nil {
			t.body = &incidentBody{*e.incident, e.host}
			if !e.triaged {
				t.triage = e.incident.Triage
			}
			t.body.Triage = nil
			t.body.OpenedAt = kept(t.body.OpenedAt)
			if t.body.ClosedAt != nil {
				at := kept(*t.body.ClosedAt)
				t.body.ClosedAt = &at
			}
			t.body.Decisions = nil
		}
		if !e.asked.isWritten() {
			t.asked = &takenInputs{e.asked.now, e.asked.inputs}
		}
		t.verdicts = takeParts(&e.verdicts)
		t.moments = takeParts(&e.moments)
		b.entries = append(b.entries, t)
	}
	for _, id := range slices.Sorted(maps.Keys(s.stale)) {
		h := s.stale[id]
		b.holds = append(b.holds, takenHold{of: h, revision: h.now, row: h.row, hold: h.Hold, incident: s.entries[h.Decision.IncidentID]})
	}
	s.changed, s.stale = make(map[string]*entry), make(map[string]*hold)
	return b
}

func takeParts[T any](r *series[T]) (all []takenPart[T]) {
	for _, p := range r.parts {
		if !p.isWritten() {
			all = append(all, takenPart[T]{p, p.now, slices.Clone(p.items)})
		}
	}
	return all
}

// putBack lets what was taken wait again.
func (s *Store) putBack(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range b.entries {
		s.changed[t.of.id] = t.of
	}
	for _, t := range b.holds {
		s.stale[t.of.ID] = t.of
	}
}

// settle notes what is written, and forgets what is over.
func (s *Store) settle(b *batch) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, t := range b.entries {
		e := t.of
		if e.row = t.row; e.row == 0 {
			// It is about an incident that nobody has told: there is nothing to hang it on.
			s.state.Dropped += uint64(len(t.verdicts))
		}
		e.triaged = e.triaged || t.triage != nil
		e.wrote(t.revision)
		if t.asked != nil {
			e.asked.wrote(t.asked.revision)
		}
		e.verdicts.numbering, e.moments.numbering = t.numbered.verdicts, t.numbered.moments
		for _, p := range t.verdicts {
			p.of.wrote(p.revision)
		}
		for _, p := range t.moments {
			p.of.wrote(p.revision)
		}
		e.verdicts.settle()
		e.moments.settle()
		if e.done() {
			delete(s.entries, e.id)
		}
	}
	for _, t := range b.holds {
		t.of.wrote(t.revision)
		t.of.row = t.row
		if t.of.State == model.LeaseEnded && t.of.isWritten() {
			delete(s.holds, t.of.ID)
			if e := s.entries[t.of.Decision.IncidentID]; e != nil && e.done() {
				delete(s.entries, e.id)
			}
		}
	}
	s.waiting = 0
	for _, e := range s.changed {
		for _, p := range e.verdicts.parts {
			if !p.isWritten() {
				s.waiting += len(p.items)
			}
		}
	}
}

// write writes a batch, as a whole.
func (f *file) write(b *batch) error {
	return f.transact(func(tx *sql.Tx) error {
		w := writer{tx: tx, packs: f.packs}
		for i := range b.entries {
			if err := w.entry(&b.entries[i]); err != nil {
				return err
			}
		}
		for i := range b.holds {
			if err := w.hold(&b.holds[i], b.entries); err != nil {
				return err
			}
		}
		return nil
	})
}

// writer writes within a transaction.
type writer struct {
	tx    *sql.Tx
	packs *packer
}

func (w writer) entry(t *taken) error {
	if t.body != nil {
		if err := w.incident(t); err != nil {
			return err
		}
	} else if t.row == 0 {
		row, err := w.rowOf(t.of.id)
		if err != nil || row == 0 {
			return err
		}
		t.row = row
	}
	if t.asked != nil {
		if err := w.body("inputs", t.row, t.asked.inputs); err != nil {
			return err
		}
	}
	if err := writeParts(w, "verdicts", t.row, &t.numbered.verdicts, t.verdicts, func(part []model.Verdict) any { return lean(t.of.id, part) }); err != nil {
		return err
	}
	return writeParts(w, "moments", t.row, &t.numbered.moments, t.moments, func(part []model.Moment) any { return part })
}

func (w writer) incident(t *taken) error {
	in := &t.body.Incident
	seen, closed := in.OpenedAt, 0
	if in.ClosedAt != nil {
		seen, closed = *in.ClosedAt, 1
	} else if t.of.from != nil && t.of.from.Time.After(seen) {
		seen = t.of.from.Time
	}
	err := w.tx.QueryRow(`INSERT INTO incidents (id, kind, cgroup, unit, opened, seen, closed) VALUES (?, ?, ?, ?, ?, ?, ?)
ON CONFLICT (id) DO UPDATE SET cgroup = excluded.cgroup, unit = excluded.unit, opened = excluded.opened, seen = excluded.seen, closed = excluded.closed RETURNING row`,
		in.ID, string(in.Kind), in.Culprit.Cgroup, in.Culprit.Unit, in.OpenedAt.UnixMilli(), seen.UnixMilli(), closed).Scan(&t.row)
	if err != nil {
		return fmt.Errorf("write incident %s: %w", in.ID, err)
	}
	if err := w.body("bodies", t.row, t.body); err != nil || t.triage == nil {
		return err
	}
	return w.body("triages", t.row, t.triage)
}

// body writes what a table has of an incident.
func (w writer) body(table string, row int64, of any) error {
	body, err := w.packs.pack(of)
	if err != nil {
		return err
	}
	return w.exec("INSERT INTO "+table+" (incident, body) VALUES (?, ?) ON CONFLICT (incident) DO UPDATE SET body = excluded.body", row, body)
}

// rowOf is the row of an incident; 0 if it is not in the file.
func (w writer) rowOf(id string) (row int64, err error) {
	err = w.tx.QueryRow("SELECT row FROM incidents WHERE id = ?", id).Scan(&row)
	if errors.Is(err, sql.ErrNoRows) {
		return 0, nil
	}
	return row, err
}

// A part's key is the row of its incident, and a number.
const (
	partBits = 20
	maxPart  = 1<<partBits - 1
)

// writeParts writes parts of verdicts or moments.
func writeParts[T any](w writer, table string, row int64, n *numbering, parts []takenPart[T], form func([]T) any) error {
	if len(parts) == 0 {
		return nil
	}
	if !n.found {
		if err := w.tx.QueryRow("SELECT coalesce(max(part) + 1 - ?1, 0) FROM "+table+" WHERE part BETWEEN ?1 AND ?1 + ?2", row<<partBits, maxPart).Scan(&n.offset); err != nil {
			return err
		}
		n.found = true
	}
	for _, p := range parts {
		body, err := w.packs.pack(form(p.items))
		if err != nil {
			return err
		}
		number := min(n.offset+p.of.no, maxPart) // which takes 33 million of them
		if err := w.exec("INSERT INTO "+table+" (part, body) VALUES (?, ?) ON CONFLICT (part) DO UPDATE SET body = excluded.body", row<<partBits+int64(number), body); err != nil {
			return err
		}
	}
	return nil
}

func (w writer) hold(t *takenHold, entries []taken) error {
	var row int64
	if t.incident != nil {
		row = t.incident.row
		for i := range entries {
			if entries[i].of == t.incident {
				row = entries[i].row
			}
		}
	}
	if row == 0 {
		var err error
		// A lease of an incident that is not kept would never be deleted with it.
		if row, err = w.rowOf(t.hold.Decision.IncidentID); err != nil || row == 0 {
			return err
		}
	}
	body, err := w.packs.pack(leanHold(t.hold))
	if err != nil {
		return err
	}
	ended := 0
	if t.hold.State == model.LeaseEnded {
		ended = 1
	}
	if t.row != 0 {
		return w.exec("UPDATE holds SET incident = ?, ended = ?, body = ? WHERE row = ?", row, ended, body, t.row)
	}
	return w.tx.QueryRow("INSERT INTO holds (incident, ended, body) VALUES (?, ?, ?) RETURNING row", row, ended, body).Scan(&t.row)
}

func (w writer) exec(text string, args ...any) error {
	_, err := w.tx.ExecContext(background, text, args...)
	return err
}
