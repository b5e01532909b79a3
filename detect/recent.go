package detect

import (
	"strings"
	"unicode/utf8"

	"github.com/breakerd/breakerd/model"
)

// Of the processes that were made, and that became other programs, the last are kept
// for the triage of an incident. A storm of forks does not push out the execs.
const (
	keptEvents = 256 // of each
	keptText   = 160 // characters of a command line or a path
)

// recent are the last forks and execs.
type recent struct{ forks, execs events }

// events is a ring, the oldest first from next on.
type events struct {
	ring []event
	next int
}

type event struct {
	model.ProcessEvent
	bootNS int64
}

func (e *events) add(ev event) {
	if len(e.ring) < keptEvents {
		e.ring = append(e.ring, ev)
		return
	}
	e.ring[e.next] = ev
	e.next = (e.next + 1) % keptEvents
}

// newest goes through the ring from the newest event on.
func (e *events) newest(yield func(event) bool) {
	for i := range e.ring {
		if !yield(e.ring[(e.next+len(e.ring)-1-i)%len(e.ring)]) {
			return
		}
	}
}

// learn takes in a sample that the table has been through.
func (r *recent) learn(s *model.Sample, t *table) {
	forked := s.Procs.Forked
	for _, p := range forked[max(0, len(forked)-keptEvents):] {
		if p.Found {
			continue
		}
		r.forks.add(event{model.ProcessEvent{At: s.Time, PID: p.PID, ParentPID: p.Parent.PID, Comm: cut(p.Comm), CgroupID: p.Cgroup}, s.BootNS})
	}
	execed := s.Procs.Execed
	execed = execed[max(0, len(execed)-keptEvents):]
	var short map[model.ProcID]model.CgroupID // of those that ended in the tick that made them
	for _, e := range execed {
		ev := event{model.ProcessEvent{At: s.Time, PID: e.PID, Comm: cut(e.Comm), Cmdline: cut(e.Cmdline)}, s.BootNS}
		if n := t.nodes[e.ProcID]; n != nil {
			ev.CgroupID = n.Cgroup
		} else {
			if short == nil {
				short = make(map[model.ProcID]model.CgroupID, len(forked))
				for _, p := range forked {
					short[p.ProcID] = p.Cgroup
				}
			}
			ev.CgroupID = short[e.ProcID]
		}
		r.execs.add(ev)
	}
}

// cut bounds a text that somebody else chose. It counts characters, and a byte that is
// none as one, so that it comes to the same after it went through a recording.
func cut(s string) string {
	if len(s) <= keptText && utf8.ValidString(s) {
		return s // nearly all, of 20,000 processes
	}
	runes := []rune(s)
	if len(runes) <= keptText {
		return string(runes)
	}
	var b strings.Builder
	for _, r := range runes[:keptText-1] {
		b.WriteRune(r)
	}
	return b.String() + "…"
}
