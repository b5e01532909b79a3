package decisionlog

import (
	"encoding/json"
	"fmt"
	"slices"
	"unicode/utf16"
)

// Text is the entry as JSON in ASCII, in which nothing has to be made fit to be shown. Where
// that is more than limit bytes it is left without the input, and then without what was asked for and denied
// besides the action; Erased says so.
func (e Entry) Text(limit int) ([]byte, error) {
	text, err := e.ascii()
	if err != nil || len(text) <= limit {
		return text, err
	}
	e.Input, e.Erased = nil, append(slices.Clip(e.Erased), "/input")
	if text, err = e.ascii(); err != nil || len(text) <= limit {
		return text, err
	}
	e.Result.Asked, e.Result.Denied = []Asked{}, []Denied{}
	e.Erased = append(e.Erased, "/result/asked", "/result/denied")
	if text, err = e.ascii(); err == nil && len(text) > limit {
		err = fmt.Errorf("write decision %s: it takes %d bytes and may have %d", e.DecisionID, len(text), limit)
	}
	return text, err
}

func (e Entry) ascii() ([]byte, error) {
	text, err := json.Marshal(e)
	if err != nil {
		return nil, fmt.Errorf("write decision %s: %w", e.DecisionID, err)
	}
	out := make([]byte, 0, len(text))
	for _, r := range string(text) { // valid UTF-8, and control characters are escaped already
		switch {
		case r < 0x7f:
			out = append(out, byte(r))
		case r <= 0xffff:
			out = fmt.Appendf(out, `\u%04x`, r)
		default:
			high, low := utf16.EncodeRune(r)
			out = fmt.Appendf(out, `\u%04x\u%04x`, high, low)
		}
	}
	return out, nil
}
