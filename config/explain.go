package config

import (
	"errors"
	"fmt"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Errors is every mistake in a file, one a line.
type Errors []error

func (e Errors) Error() string { return errors.Join(e...).Error() }

// Unwrap lets errors.Is and errors.As look at each.
func (e Errors) Unwrap() []error { return e }

// explain turns what yaml.v3 says into what the operator needs. Its errors are
// text only:
//
//	yaml: line 3: mapping values are not allowed in this context
//	line 3: field mdoe not found in type daemon.Config
//	line 4: cannot unmarshal !!str `many` into int
//	line 5: mapping key "mode" already defined at line 2
//
// The column it does not say: it is looked up in doc, the same text as nodes. Where that
// is nil, because the text is no YAML, there is no column to be had.
func explain(path string, doc *yaml.Node, v any, err error) error {
	var types *yaml.TypeError
	if !errors.As(err, &types) {
		message := strings.TrimPrefix(err.Error(), "yaml: ")
		return Errors{place(path, nil, message, "this is no YAML: "+message)}
	}
	var all Errors
	for _, message := range types.Errors {
		all = append(all, place(path, doc, message, inPlainWords(message, reflect.TypeOf(v))))
	}
	return all
}

// Our own types say the column, too.
var lineNumber = regexp.MustCompile(`^line (\d+)(?: column (\d+))?: `)

// place puts path, line and column before what is said about a message.
func place(path string, doc *yaml.Node, message, said string) error {
	m := lineNumber.FindStringSubmatch(message)
	if m == nil {
		return fmt.Errorf("%s: %s", path, said)
	}
	said = strings.Replace(said, m[0], "", 1)
	line, _ := strconv.Atoi(m[1])
	column, err := strconv.Atoi(m[2])
	if err != nil {
		column = columnOf(doc, line, message)
	}
	if column > 0 {
		return fmt.Errorf("%s:%d:%d: %s", path, line, column, said)
	}
	return fmt.Errorf("%s:%d: %s", path, line, said)
}

// columnOf finds the node that a message is about among those of its line; 0 if there is
// none.
func columnOf(doc *yaml.Node, line int, message string) (column int) {
	is := func(*yaml.Node, bool) bool { return false }
	if m := unknownKey.FindStringSubmatch(message); m != nil {
		is = func(node *yaml.Node, isKey bool) bool { return isKey && node.Value == m[1] }
	} else if m := twice.FindStringSubmatch(message); m != nil {
		is = func(node *yaml.Node, isKey bool) bool { return isKey && strconv.Quote(node.Value) == m[1] }
	} else if m := wrongType.FindStringSubmatch(message); m != nil {
		begins := strings.TrimSuffix(m[2], "...") // yaml.v3 shortens long values
		is = func(node *yaml.Node, isKey bool) bool {
			return !isKey && strings.TrimPrefix(node.ShortTag(), "!!") == m[1] && strings.HasPrefix(node.Value, begins)
		}
	}
	var look func(node *yaml.Node, isKey bool)
	look = func(node *yaml.Node, isKey bool) {
		if node == nil || column != 0 {
			return
		}
		if node.Kind != yaml.DocumentNode && node.Line == line && is(node, isKey) {
			column = node.Column
			return
		}
		for i, child := range node.Content {
			look(child, node.Kind == yaml.MappingNode && i%2 == 0)
		}
	}
	look(doc, false)
	return column
}

var (
	unknownKey = regexp.MustCompile(`(?s)field (.*) not found in type (\S+)$`)
	wrongType  = regexp.MustCompile("(?s)cannot unmarshal !!(\\w+)(?: `(.*)`)? into (\\S+)$")
	twice      = regexp.MustCompile(`(?s)mapping key (".*") already defined at line (\d+)$`)
)

func inPlainWords(message string, t reflect.Type) string {
	if m := unknownKey.FindStringSubmatchIndex(message); m != nil {
		key, owner := message[m[2]:m[3]], message[m[4]:m[5]]
		return message[:m[0]] + fmt.Sprintf("unknown key %q; %s", key, advise(key, structKeys(typeNamed(t, owner))))
	}
	if m := wrongType.FindStringSubmatch(message); m != nil {
		head, _, _ := strings.Cut(message, "cannot unmarshal")
		is := yamlWord(m[1])
		if m[2] != "" {
			is += fmt.Sprintf(" (%q)", m[2])
		}
		return head + fmt.Sprintf("this is %s, and should be %s", is, goWord(typeNamed(t, m[3])))
	}
	if m := twice.FindStringSubmatchIndex(message); m != nil {
		return message[:m[0]] + fmt.Sprintf("key %s is already set in line %s; keep one of them",
			message[m[2]:m[3]], message[m[4]:m[5]])
	}
	return message
}

func yamlWord(tag string) string {
	switch tag {
	case "str":
		return "text"
	case "int", "float":
		return "a number"
	case "bool":
		return "true or false"
	case "seq":
		return "a list"
	case "map":
		return "a group of keys"
	}
	return "a " + tag
}

func goWord(t reflect.Type) string {
	if t == nil {
		return "of another type"
	}
	switch t.Kind() {
	case reflect.Slice, reflect.Array:
		return "a list"
	case reflect.Map, reflect.Struct:
		return "a group of keys"
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		return "a whole number, 0 or more"
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		return "a whole number"
	case reflect.Float32, reflect.Float64:
		return "a number"
	case reflect.Bool:
		return "true or false"
	case reflect.String:
		return "text"
	}
	return "of another type"
}

// advise names the nearest key if one is near, and otherwise all of them.
func advise(key string, known []string) string {
	nearest, distance := "", len(key)/2+1
	for _, k := range known {
		if d := edits(strings.ToLower(key), k); d < distance && d <= 3 {
			nearest, distance = k, d
		}
	}
	switch {
	case nearest != "":
		return fmt.Sprintf("did you mean %q?", nearest)
	case len(known) == 0:
		return "remove it"
	}
	return "known here: " + strings.Join(known, ", ")
}

// typeNamed finds a type by its name within another, nil if it is not there.
func typeNamed(within reflect.Type, name string) reflect.Type {
	seen := map[reflect.Type]bool{}
	var find func(reflect.Type) reflect.Type
	find = func(t reflect.Type) reflect.Type {
		if t == nil || seen[t] {
			return nil
		}
		seen[t] = true
		if t.String() == name {
			return t
		}
		switch t.Kind() {
		case reflect.Pointer, reflect.Slice, reflect.Array, reflect.Map:
			return find(t.Elem())
		case reflect.Struct:
			for i := range t.NumField() {
				if found := find(t.Field(i).Type); found != nil {
					return found
				}
			}
		}
		return nil
	}
	return find(within)
}

// structKeys lists the keys of a struct.
func structKeys(t reflect.Type) (keys []string) {
	if t == nil || t.Kind() != reflect.Struct {
		return nil
	}
	for i := range t.NumField() {
		key, inline, ok := keyOf(t.Field(i))
		switch {
		case !ok:
		case inline:
			keys = append(keys, structKeys(t.Field(i).Type)...)
		default:
			keys = append(keys, key)
		}
	}
	slices.Sort(keys)
	return keys
}

// edits counts the letters to insert, remove, change, or swap with the next, to
// get from one word to the other.
func edits(a, b string) int {
	before, last, next := make([]int, len(b)+1), make([]int, len(b)+1), make([]int, len(b)+1)
	for j := range last {
		last[j] = j
	}
	for i := range len(a) {
		next[0] = i + 1
		for j := range len(b) {
			changed := last[j]
			if a[i] != b[j] {
				changed++
			}
			next[j+1] = min(last[j+1]+1, next[j]+1, changed)
			if i > 0 && j > 0 && a[i] == b[j-1] && a[i-1] == b[j] {
				next[j+1] = min(next[j+1], before[j-1]+1)
			}
		}
		before, last, next = last, next, before
	}
	return last[len(b)]
}
