package config

import (
	"fmt"
	"strings"
	"time"

	"gopkg.in/yaml.v3"
)

// Duration is a length of time that is written with its unit: 250ms, 10s, 1h30m.
// A bare number is refused, because no two programs agree on what it means.
type Duration time.Duration

// D is the value as the time package has it.
func (d Duration) D() time.Duration { return time.Duration(d) }

// String writes it as shortly as a person would: 10m, and not 10m0s.
func (d Duration) String() string {
	text := time.Duration(d).String()
	if strings.HasSuffix(text, "m0s") {
		text = strings.TrimSuffix(text, "0s")
	}
	if strings.HasSuffix(text, "h0m") {
		text = strings.TrimSuffix(text, "0m")
	}
	return text
}

// ParseDuration reads a duration of 0 or more that has a unit.
func ParseDuration(s string) (Duration, error) {
	if s != "" && strings.Trim(s, "+-.0123456789") == "" {
		return 0, fmt.Errorf("%s has no unit: write %ss or %sms", s, s, s)
	}
	d, err := time.ParseDuration(s)
	switch {
	case err != nil:
		return 0, fmt.Errorf("%q is no duration: write a number and its unit, as in 250ms, 10s, 1h30m", s)
	case d < 0:
		return 0, fmt.Errorf("duration %s is negative", s)
	}
	return Duration(d), nil
}

// MarshalText writes the duration with its unit, for YAML and JSON.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText reads a duration from JSON, where it is a string.
func (d *Duration) UnmarshalText(text []byte) error {
	parsed, err := ParseDuration(string(text))
	if err != nil {
		return err
	}
	*d = parsed
	return nil
}

// UnmarshalYAML reads a duration, quoted or not. The error is yaml.v3's own, so
// that it is told beside the others and with its line.
func (d *Duration) UnmarshalYAML(node *yaml.Node) error {
	refuse := func(err error) error {
		return &yaml.TypeError{Errors: []string{fmt.Sprintf("line %d column %d: %v", node.Line, node.Column, err)}}
	}
	if node.Kind != yaml.ScalarNode {
		return refuse(fmt.Errorf("a duration is a number and its unit, as in 250ms, 10s, 1h30m"))
	}
	parsed, err := ParseDuration(node.Value)
	if err != nil {
		return refuse(err)
	}
	*d = parsed
	return nil
}
