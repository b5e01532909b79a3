package config

import (
	"fmt"
	"strings"
)

// Write writes keys as a file that gives them their values, each line with what comment
// says about it, if that is not "".
func Write(keys []Key, comment func(Key) string) string {
	var b strings.Builder
	for _, k := range keys {
		line := indent(k) + k.Last() + ":"
		if !k.Group() {
			line += " " + k.Value
		}
		if c := comment(k); c != "" {
			line += " # " + c
		}
		b.WriteString(line + "\n")
	}
	return b.String()
}

// Example writes a file that changes nothing: every key with its meaning and its bounds,
// and, behind a # at the beginning of its line, with its value.
func Example(head string, keys []Key) string {
	var b strings.Builder
	for paragraph := range strings.SplitSeq(head, "\n") {
		b.WriteString(strings.TrimRight("# "+paragraph, " ") + "\n")
	}
	for _, k := range keys {
		b.WriteString("\n")
		for _, line := range wrap(k.Meaning(), 78-len(indent(k))) {
			b.WriteString(indent(k) + "# " + line + "\n")
		}
		b.WriteString("#" + strings.TrimSuffix(Write([]Key{k}, func(Key) string { return "" }), "\n") + "\n")
	}
	return b.String()
}

// Meaning is what a key is for, and what it may be.
func (k Key) Meaning() string {
	text := k.Doc
	switch {
	case k.Most != "":
		text += fmt.Sprintf(" A %s from %s to %s.", k.Type, k.Least, k.Most)
	case k.Type == "duration", k.Type == "size", k.Type == "list":
		text += fmt.Sprintf(" A %s.", k.Type)
	}
	return text
}

func indent(k Key) string { return strings.Repeat("  ", k.Depth()) }

// wrap breaks a text into lines of so many bytes, where its words are not longer.
func wrap(text string, width int) (lines []string) {
	line := ""
	for _, word := range strings.Fields(text) {
		if line != "" && len(line)+1+len(word) > width {
			lines, line = append(lines, line), ""
		}
		line = strings.TrimSpace(line + " " + word)
	}
	return append(lines, line)
}
