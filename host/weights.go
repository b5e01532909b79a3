package host

import (
	"slices"
	"strconv"
	"strings"

	"github.com/breakerd/breakerd/model"
)

// CPUWeights reads the cpu.weight of each cgroup on the way to one, the outermost first and its
// own last; see model.CgroupSample. path is below the mount.
func (r Reader) CPUWeights(path string) ([]uint32, error) {
	c, err := r.openCgroup(path)
	if err != nil {
		return nil, err
	}
	defer c.close()

	var weights []uint32
	set := false
	for level := range c.lineage(path) {
		weight, err := readOptional(level, "cpu.weight", parseCPUWeight)
		if err != nil {
			return nil, err
		}
		if weight == nil {
			weight = new(uint32(model.DefaultCPUWeight))
		}
		set = set || *weight != model.DefaultCPUWeight
		weights = append(weights, *weight)
	}
	switch {
	case c.lacking && !c.alive():
		return nil, c.gone()
	case !set:
		return nil, nil
	}
	slices.Reverse(weights)
	return weights, nil
}

// parseCPUWeight reads cpu.weight: 1 to 10,000, and 0 where cpu.idle is set (since 5.15).
//
//	100
func parseCPUWeight(text []byte) (*uint32, error) {
	n, err := strconv.ParseUint(strings.TrimSuffix(string(text), "\n"), 10, 32)
	if err != nil || n > 10_000 {
		return nil, malformed(1, "%q is no weight", clip(text))
	}
	return new(uint32(n)), nil
}
