package bpf

import (
	"errors"
	"fmt"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// drainChunk is how many entries one system call takes out of a table.
const drainChunk = 4096

// drain empties a kernel table that is added to, so that what is in it is what was added
// since it was last emptied. A table of pairs is mostly pairs that do not meet again:
// at 2,000 cgroups a tick adds to a few thousand of 32,768, and reading them all and
// remembering each took more than half of the tick's time.
//
// What a program adds to an entry that it found just before that was taken out is lost,
// or is another's that took its place: within some ns, and at the most 1 ms of a wait
// (GATHER_NS in sched.h) or one request's time at a disk.
type drain[K, V any] struct {
	table *ebpf.Map
	keys  []K
	vals  []V
}

func newDrain[K, V any](table *ebpf.Map) *drain[K, V] {
	n := min(table.MaxEntries(), drainChunk)
	return &drain[K, V]{table: table, keys: make([]K, n), vals: make([]V, n)}
}

// each calls it for every entry, and leaves the table empty.
func (d *drain[K, V]) each(take func(K, V)) error {
	var cursor ebpf.MapBatchCursor
	for {
		n, err := d.table.BatchLookupAndDelete(&cursor, d.keys, d.vals, nil) // of hash tables since 5.6
		for i, key := range d.keys[:n] {
			take(key, d.vals[i])
		}
		switch {
		case errors.Is(err, ebpf.ErrKeyNotExist): // that was all
			return nil
		case errors.Is(err, unix.ENOSPC): // a bucket is taken whole, and has more than there is room for
			d.keys, d.vals = make([]K, 2*len(d.keys)), make([]V, 2*len(d.vals))
		case err != nil:
			return fmt.Errorf("empty kernel table %s: %w", d.table, err)
		}
	}
}
