package model

import (
	"fmt"
	"time"
)

// Duration is a time.Duration that is written as text with its unit ("250ms", "10s"),
// in configuration as well as in JSON. A bare number is refused: nobody can see
// whether it was meant in seconds.
type Duration time.Duration

// D is the duration as Go's own type.
func (d Duration) D() time.Duration { return time.Duration(d) }

func (d Duration) String() string { return time.Duration(d).String() }

// MarshalText implements encoding.TextMarshaler.
func (d Duration) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Duration) UnmarshalText(text []byte) error {
	v, err := time.ParseDuration(string(text))
	if err != nil {
		return fmt.Errorf("%q is no duration: write a number with its unit, such as 250ms, 10s or 5m", text)
	}
	*d = Duration(v)
	return nil
}
