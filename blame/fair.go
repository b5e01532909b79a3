package blame

import (
	"cmp"
	"slices"

	"github.com/breakerd/breakerd/model"
)

// Entitled divides what the CPUs gave among those who wanted it, as if nobody came
// before anybody else: who wanted less than an equal share gets all of it, and what is
// left is divided equally among the others (max-min fairness). All are nanoseconds of
// CPU time within one span.
//
// It says which way a fight goes. Waiting alone does not: while a service runs, every
// queued task of a crowd waits for it.
func Entitled(wanted map[model.CgroupID]uint64, given uint64) map[model.CgroupID]uint64 {
	ids := make([]model.CgroupID, 0, len(wanted))
	for id := range wanted {
		ids = append(ids, id)
	}
	slices.SortFunc(ids, func(x, y model.CgroupID) int {
		return cmp.Or(cmp.Compare(wanted[x], wanted[y]), cmp.Compare(x, y))
	})
	entitled := make(map[model.CgroupID]uint64, len(ids))
	for i, id := range ids { // those who want least first
		share := min(wanted[id], given/uint64(len(ids)-i))
		entitled[id] = share
		given -= share
	}
	return entitled
}
