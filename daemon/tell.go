package daemon

import (
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/systemd"
)

// teller writes every change of state to the journal, or as JSON lines where there is
// none.
type teller struct {
	journal interface{ Write(systemd.Entry) error }
	log     *slog.Logger

	mu     sync.Mutex
	recent []api.Told
	lost   uint64
}

// keptTold is how many warnings and errors are kept, for status and doctor.
const keptTold = 20

func (t *teller) write(e systemd.Entry) {
	t.keep(e)
	if err := t.journal.Write(e); err != nil {
		t.mu.Lock()
		t.lost++
		t.mu.Unlock()
		t.log.Warn("a journal entry was lost", "error", err)
	}
}

// keep keeps what tells that breakerd itself is in trouble. That somebody else is, is what
// incidents are for; what the machine lacks stands in the status for itself.
func (t *teller) keep(e systemd.Entry) {
	if e.Priority > systemd.Warning || e.MessageID == systemd.MsgIncidentOpened || e.MessageID == systemd.MsgMachineLacks {
		return
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if len(t.recent) == keptTold {
		t.recent = slices.Delete(t.recent, 0, 1)
	}
	t.recent = append(t.recent, api.Told{At: time.Now().UTC(), Priority: int(e.Priority), MessageID: string(e.MessageID), Message: e.Message})
}

// told is what was kept, the oldest first, and how many entries found no place.
func (t *teller) told() ([]api.Told, uint64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	return append([]api.Told{}, t.recent...), t.lost
}

func (t *teller) event(e judge.Event) {
	switch e.Type {
	case judge.Opened:
		t.write(systemd.IncidentOpened(e.Incident))
	case judge.Closed:
		t.write(systemd.IncidentClosed(e.Incident))
	case judge.Decided:
		t.write(systemd.Decided(e.Incident, *e.Record))
	case judge.Switched:
		t.write(systemd.BreakerSwitched(*e.Breaker))
	case judge.Measured:
		t.write(systemd.BreakerMeasured(*e.Breaker))
	}
}

func (t *teller) degraded(l model.Lost) {
	t.write(systemd.ObservationDegraded(fmt.Sprintf(
		"lost in one tick: %d fork, exec and exit records, %d waits, %d cgroup counts; the machine slept %.1f s",
		l.Events, l.Cells, l.Cgroups, float64(l.SuspendedNS)/1e9)))
}
