package config

import (
	"fmt"
	"math"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Size is an amount of memory in bytes that is written with its unit: 64MiB, 2GB. A bare
// number is refused, and so is a bare M, because no two programs agree on what it means.
type Size uint64

// sizeUnits are the units, the largest of each family first.
var sizeUnits = []struct {
	name  string
	bytes uint64
}{
	{"TiB", 1 << 40}, {"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10},
	{"TB", 1e12}, {"GB", 1e9}, {"MB", 1e6}, {"kB", 1e3},
	{"B", 1},
}

// String writes it in the largest unit that it is a whole number of, of the powers of two
// if there is one.
func (s Size) String() string {
	for _, u := range sizeUnits {
		if s != 0 && uint64(s)%u.bytes == 0 {
			return strconv.FormatUint(uint64(s)/u.bytes, 10) + u.name
		}
	}
	return "0B"
}

// ParseSize reads a number of 0 or more and its unit, also 1.5GiB.
func ParseSize(s string) (Size, error) {
	for _, u := range sizeUnits {
		number, found := strings.CutSuffix(s, u.name)
		if !found {
			continue
		}
		if whole, err := strconv.ParseUint(number, 10, 64); err == nil && whole <= math.MaxUint64/u.bytes {
			return Size(whole * u.bytes), nil
		}
		v, err := strconv.ParseFloat(number, 64)
		if bytes := v * float64(u.bytes); err == nil && strings.Trim(number, ".0123456789") == "" && bytes < 1<<63 {
			return Size(bytes), nil
		}
		return 0, fmt.Errorf("%q is no size: write a number and its unit, as in 64MiB, 2GB", s)
	}
	if number := strings.TrimRight(s, "KMGTkmgt"); number != "" && strings.Trim(number, ".0123456789") == "" {
		return 0, fmt.Errorf("%s has no unit: write %sMiB, %[2]sMB, or another of B, kB, KiB, GB, GiB, TB, TiB", s, number)
	}
	return 0, fmt.Errorf("%q is no size: write a number and its unit, as in 64MiB, 2GB", s)
}

// MarshalText writes the size with its unit, for YAML and JSON.
func (s Size) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// UnmarshalText reads a size from JSON, where it is a string.
func (s *Size) UnmarshalText(text []byte) error {
	parsed, err := ParseSize(string(text))
	if err != nil {
		return err
	}
	*s = parsed
	return nil
}

// UnmarshalYAML reads a size as Duration does.
func (s *Size) UnmarshalYAML(node *yaml.Node) error {
	parsed, err := ParseSize(node.Value)
	if node.Kind != yaml.ScalarNode {
		err = fmt.Errorf("a size is a number and its unit, as in 64MiB, 2GB")
	}
	if err != nil {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d column %d: %v", node.Line, node.Column, err)}}
	}
	*s = parsed
	return nil
}
