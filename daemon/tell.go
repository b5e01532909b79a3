package daemon

import (
	"fmt"
	"log/slog"

	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/systemd"
)

// teller writes every change of state to the journal, or as JSON lines where there is
// none.
type teller struct {
	journal interface{ Write(systemd.Entry) error }
	log     *slog.Logger
}

func (t *teller) write(e systemd.Entry) {
	if err := t.journal.Write(e); err != nil {
		t.log.Warn("a journal entry was lost", "error", err)
	}
}

func (t *teller) event(e judge.Event) {
	switch e.Type {
	case judge.Opened:
		t.write(systemd.IncidentOpened(e.Incident))
	case judge.Closed:
		t.write(systemd.IncidentClosed(e.Incident))
	case judge.Decided:
		t.write(systemd.Decided(e.Incident, *e.Record))
	}
}

func (t *teller) degraded(l model.Lost) {
	t.write(systemd.ObservationDegraded(fmt.Sprintf(
		"lost in one tick: %d fork, exec and exit records, %d waits, %d cgroup counts; the machine slept %.1f s",
		l.Events, l.Cells, l.Cgroups, float64(l.SuspendedNS)/1e9)))
}
