package main

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
)

func (a *app) blame() *cobra.Command {
	var window time.Duration
	most, by, key := 20, "cgroup", "stall"
	c := &cobra.Command{
		Use: "blame", Short: "Say who made whom wait", Args: cobra.NoArgs,
		Long: `Say who made whom wait. For a CPU that is measured in the scheduler: whose tasks ran while
a task of the victim was ready to run. For memory and io it is estimated from
circumstances, and each row says which. A fight has two rows, one for each side: who took
more than its share of it is what breakerctl incidents says.

The second table says where each one's whole wait went; what a cgroup waits for its own
tasks, or because of its own quota, is nobody else's.`,
		RunE: func(c *cobra.Command, _ []string) error {
			if most < 0 || window < 0 {
				return errors.New("--most and --window cannot be negative")
			}
			group, known := groupings[by]
			if !known {
				return fmt.Errorf("--by %s: by cgroup, unit or container", by)
			}
			if !slices.Contains(blameKeys, key) {
				return fmt.Errorf("--sort %s: the keys are %s", key, strings.Join(blameKeys, ", "))
			}
			b, err := a.client().Blame(c.Context(), window)
			if err != nil {
				return err
			}
			if group != nil {
				b = grouped(b, group)
			}
			sortPairs(b.Pairs, key)
			if a.output == jsonText {
				return writeJSON(c.OutOrStdout(), b)
			}
			writeBlame(c.OutOrStdout(), b, most)
			return nil
		},
	}
	c.Flags().DurationVar(&window, "window", 0, "only the last `DURATION`, such as 30s, at most 5m (default: since breakerd started)")
	c.Flags().StringVar(&by, "by", by, "`NAME` them by cgroup, unit or container, and add up those with one name")
	c.Flags().StringVar(&key, "sort", key, "sort the first table by `KEY`: "+strings.Join(blameKeys, ", "))
	c.Flags().IntVar(&most, "most", most, "rows of a table at the most")
	completeValues(c, "by", "cgroup", "unit", "container")
	completeValues(c, "sort", blameKeys...)
	return c
}

var blameKeys = []string{"stall", "victim", "offender"}

// groupings name a cgroup more coarsely; nil leaves it as it is.
var groupings = map[string]func(api.Cgroup) string{
	"cgroup": nil,
	"unit": func(c api.Cgroup) string {
		unit := or(c.Workload.Unit, c.Unit)
		if unit != "" && c.Workload.Manager != "" {
			return c.Workload.Manager + "/" + unit // a user's own, whatever its name
		}
		return or(unit, name(c))
	},
	"container": func(c api.Cgroup) string {
		if id := c.Workload.Container; id != "" {
			return strings.TrimSpace(c.Workload.Runtime + " " + id[:min(12, len(id))])
		}
		return name(c)
	},
}

// countedAgain tells which victims are within another one of the same name: the stalls of memory and
// io are those of a cgroup with all that is below it.
func countedAgain(b api.Blame, group func(api.Cgroup) string) func(api.Cgroup, model.Resource) bool {
	type key struct {
		name, path string
		resource   model.Resource
	}
	there := make(map[key]bool)
	for _, v := range b.Victims {
		there[key{group(v.Cgroup), v.Cgroup.Cgroup, v.Resource}] = true
	}
	return func(c api.Cgroup, r model.Resource) bool {
		if r == model.CPU {
			return false
		}
		name := group(c)
		for dir := c.Cgroup; len(dir) > 1; {
			if dir = path.Dir(dir); there[key{name, dir, r}] {
				return true
			}
		}
		return false
	}
}

// grouped adds up the cgroups that have one name. What these made each other wait is
// their own then, and no neighbour's.
func grouped(b api.Blame, group func(api.Cgroup) string) api.Blame {
	type pair struct {
		offender, victim string
		resource         model.Resource
		estimated        bool
	}
	type victim struct {
		name      string
		resource  model.Resource
		estimated bool
	}
	pairs, own := make(map[pair]float64), make(map[victim]float64)
	again := countedAgain(b, group)
	for _, p := range b.Pairs {
		if again(p.Victim, p.Resource) {
			continue
		}
		k := pair{group(p.Offender), group(p.Victim), p.Resource, p.Estimated}
		if k.offender == k.victim {
			own[victim{k.victim, k.resource, k.estimated}] += p.StallMS
			continue
		}
		pairs[k] += p.StallMS
	}
	victims := make(map[victim]*api.VictimShares)
	for _, v := range b.Victims {
		if again(v.Cgroup, v.Resource) {
			continue
		}
		k := victim{group(v.Cgroup), v.Resource, v.Estimated}
		sum := victims[k]
		if sum == nil {
			sum = &api.VictimShares{Cgroup: api.Cgroup{Cgroup: k.name}, Resource: k.resource, Estimated: k.estimated}
			victims[k] = sum
		}
		sum.WaitMS += v.WaitMS
		sum.NeighbourMS += v.NeighbourMS
		sum.SelfMS += v.SelfMS
		sum.OwnQuotaMS += v.OwnQuotaMS
		sum.OurThrottleMS += v.OurThrottleMS
		sum.KernelMS += v.KernelMS
		sum.StealMS += v.StealMS
		sum.UnknownMS += v.UnknownMS
	}
	out := api.Blame{Since: b.Since, Until: b.Until, Pairs: []api.Pair{}, Victims: []api.VictimShares{}}
	for k, ms := range pairs {
		out.Pairs = append(out.Pairs, api.Pair{Offender: api.Cgroup{Cgroup: k.offender}, Victim: api.Cgroup{Cgroup: k.victim}, Resource: k.resource, Estimated: k.estimated, StallMS: ms})
	}
	for k, v := range victims {
		part := min(own[k], v.NeighbourMS)
		v.NeighbourMS -= part
		v.SelfMS += part
		out.Victims = append(out.Victims, *v)
	}
	slices.SortFunc(out.Victims, func(x, y api.VictimShares) int {
		return cmp.Or(cmp.Compare(y.NeighbourMS, x.NeighbourMS), cmp.Compare(y.WaitMS, x.WaitMS), cmp.Compare(name(x.Cgroup), name(y.Cgroup)))
	})
	return out
}

func sortPairs(pairs []api.Pair, key string) {
	slices.SortStableFunc(pairs, func(x, y api.Pair) int {
		first := 0
		switch key {
		case "victim":
			first = cmp.Compare(name(x.Victim), name(y.Victim))
		case "offender":
			first = cmp.Compare(name(x.Offender), name(y.Offender))
		}
		return cmp.Or(first, cmp.Compare(y.StallMS, x.StallMS), cmp.Compare(name(x.Victim), name(y.Victim)), cmp.Compare(name(x.Offender), name(y.Offender)))
	})
}

func writeBlame(w io.Writer, b api.Blame, most int) {
	fmt.Fprintf(w, "from %s to %s\n\n", clock(b.Since), clock(b.Until))
	if len(b.Victims) == 0 {
		fmt.Fprintln(w, "nobody waited for a CPU")
		return
	}
	g := &grid{titles: []string{"STALL MS", "FOR", "HOW", "VICTIM", "WAITED FOR"}, texts: 2}
	for _, p := range b.Pairs[:min(most, len(b.Pairs))] {
		g.add(figure(p.StallMS), string(p.Resource), how(p.Estimated), name(p.Victim), name(p.Offender))
	}
	g.write(w, "")
	if left := len(b.Pairs) - most; left > 0 {
		fmt.Fprintf(w, "and %d more: --most shows them\n", left)
	}
	fmt.Fprintln(w, "\nWhere each one's whole wait went, in ms")
	g = &grid{titles: []string{"WAIT", "OTHERS", "SELF", "QUOTA", "OURS", "KERNEL", "STEAL", "UNKNOWN", "FOR", "CGROUP"}, texts: 1}
	for _, v := range b.Victims[:min(most, len(b.Victims))] {
		g.add(figure(v.WaitMS), figure(v.NeighbourMS), figure(v.SelfMS), figure(v.OwnQuotaMS), figure(v.OurThrottleMS), figure(v.KernelMS),
			figure(v.StealMS), figure(v.UnknownMS), string(v.Resource), name(v.Cgroup))
	}
	g.write(w, "")
	if left := len(b.Victims) - most; left > 0 {
		fmt.Fprintf(w, "and %d more: --most shows them\n", left)
	}
}

// millis says milliseconds with their unit.
func millis(ms float64) string { return fmt.Sprintf("%.1f ms", ms) }

func name(c api.Cgroup) string { return or(c.Cgroup, fmt.Sprintf("cgroup %d", c.CgroupID)) }
