package config

import (
	"strings"

	"gopkg.in/yaml.v3"
)

// BadValue is a value that cannot be, with the key that has it: names from the outermost
// on, joined by dots.
type BadValue struct{ Key, What string }

func (e *BadValue) Error() string { return e.Key + ": " + e.What }

// lineOf finds the line of a key, or of as much of it as is there; 1 if nothing is.
func lineOf(text []byte, key string) int {
	var doc yaml.Node
	if yaml.Unmarshal(text, &doc) != nil || len(doc.Content) == 0 {
		return 1
	}
	node, line := doc.Content[0], 1
	for name := range strings.SplitSeq(key, ".") {
		var next *yaml.Node
		for i := 0; i+1 < len(node.Content); i += 2 {
			if node.Content[i].Value == name {
				next, line = node.Content[i+1], node.Content[i].Line
			}
		}
		if next == nil {
			return line
		}
		node = next
	}
	return line
}
