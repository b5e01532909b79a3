package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
)

const (
	// idleTicks is how long an entry may stay unchanged before its place in a full kernel
	// table is given to somebody else: a minute at the default tick, and four on a calm
	// machine.
	idleTicks = 240
	// idleLooks is how often within that time such entries are looked for.
	idleLooks = 32
	// crowdedTicks is the same for a table that is nearly full: anybody who may make cgroups
	// could fill it once a minute, and nobody else would be counted.
	crowdedTicks = 4
)

// totals reads a kernel table whose values only grow, and tells the growth since it
// was last read. Entries that have not grown for long are taken out of the kernel's
// table, so that a machine that makes and removes cgroups for months does not fill it.
type totals[K, V comparable] struct {
	table *ebpf.Map
	idle  uint64         // ticks
	minus func(a, b V) V // a-b, field by field
	seen  map[K]total[V]
	tick  uint64
	keys  []K
	vals  []V
}

type total[V any] struct {
	last    V
	changed uint64 // tick
}

func newTotals[K, V comparable](table *ebpf.Map, idle uint64, minus func(a, b V) V) *totals[K, V] {
	n := table.MaxEntries()
	return &totals[K, V]{
		table: table,
		idle:  idle,
		minus: minus,
		seen:  make(map[K]total[V]),
		keys:  make([]K, n),
		vals:  make([]V, n),
	}
}

// growth calls each for every entry that has grown.
func (t *totals[K, V]) growth(each func(K, V)) error {
	t.tick++
	var cursor ebpf.MapBatchCursor
	n, err := t.table.BatchLookup(&cursor, t.keys, t.vals, nil)
	if err != nil && !errors.Is(err, ebpf.ErrKeyNotExist) { // not exist: that was all
		return fmt.Errorf("read kernel table %s: %w", t.table, err)
	}
	for i, key := range t.keys[:n] {
		t.take(key, t.vals[i], each)
	}
	idle := t.idle
	if n > len(t.keys)*7/8 {
		idle = min(idle, crowdedTicks)
	} else if t.tick%max(1, t.idle/idleLooks) != 0 {
		return nil
	}
	for key, e := range t.seen {
		if t.tick-e.changed >= idle {
			t.drop(key, each)
		}
	}
	return nil
}

func (t *totals[K, V]) take(key K, val V, each func(K, V)) {
	e, known := t.seen[key]
	var none V
	diff := t.minus(val, e.last)
	if !known || diff != none {
		t.seen[key] = total[V]{val, t.tick}
	}
	if diff != none {
		each(key, diff)
	}
}

// drop removes an entry and takes what it gained until that moment.
func (t *totals[K, V]) drop(key K, each func(K, V)) {
	var val V
	err := t.table.LookupAndDelete(key, &val) // of hash tables since 5.14
	if errors.Is(err, ebpf.ErrNotSupported) {
		if err = t.table.Lookup(key, &val); err == nil {
			err = t.table.Delete(key)
		}
	}
	switch {
	case err == nil:
		t.take(key, val, each)
	case !errors.Is(err, ebpf.ErrKeyNotExist):
		return // it is still there: to forget it would be to count it again
	}
	delete(t.seen, key)
}

func minusCounts(a, b collectorCgroupCounts) collectorCgroupCounts {
	return collectorCgroupCounts{
		Run:        a.Run - b.Run,
		Wait:       a.Wait - b.Wait,
		WaitSelf:   a.WaitSelf - b.WaitSelf,
		WaitKernel: a.WaitKernel - b.WaitKernel,
		WaitAsked:  a.WaitAsked - b.WaitAsked,
		Forks:      a.Forks - b.Forks,
		Execs:      a.Execs - b.Execs,
		Exits:      a.Exits - b.Exits,
		ShortExits: a.ShortExits - b.ShortExits,
		IoHeld:     a.IoHeld - b.IoHeld,
		IoRequests: a.IoRequests - b.IoRequests,
		IoBytes:    a.IoBytes - b.IoBytes,
	}
}
