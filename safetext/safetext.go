// Package safetext makes text that somebody else chose fit to be shown. Whoever
// starts a process chooses its name, and it ends up in terminals and journals.
package safetext

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

// Printable returns s with everything that is not plain visible text written as
// an escape: control characters, and with them terminal escapes, newlines and
// tabs (\x1b, \x0a), bytes that are not UTF-8 (\xff), and what changes text
// around it without being seen, such as bidirectional overrides and zero-width
// characters (\u202e). Text that needs none of this comes back as it is.
//
// It is for people: backslashes are left alone, as systemd's unit names have
// them, so the original cannot be told from the outcome.
func Printable(s string) string {
	if strings.IndexFunc(s, hidden) < 0 && utf8.ValidString(s) {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); {
		r, size := utf8.DecodeRuneInString(s[i:])
		switch {
		case r == utf8.RuneError && size == 1, hidden(r) && r < 0x80:
			fmt.Fprintf(&out, `\x%02x`, s[i])
		case hidden(r) && r <= 0xffff:
			fmt.Fprintf(&out, `\u%04x`, r)
		case hidden(r):
			fmt.Fprintf(&out, `\U%08x`, r)
		default:
			out.WriteString(s[i : i+size])
		}
		i += size
	}
	return out.String()
}

// hidden is wider than the control characters: of spaces only the ordinary one
// is printable, and format characters (bidirectional marks, joiners, tags),
// separators, private and unassigned ones are not.
func hidden(r rune) bool { return !unicode.IsPrint(r) }
