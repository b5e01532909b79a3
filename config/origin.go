package config

import (
	"fmt"
	"reflect"
	"strings"

	"gopkg.in/yaml.v3"
)

// Origin is where a value stands.
type Origin struct {
	File         string
	Line, Column int // from 1
}

func (o Origin) String() string { return fmt.Sprintf("%s:%d:%d", o.File, o.Line, o.Column) }

// Origins says where the value of each key stands that a file sets: names from the
// outermost on, joined by dots. Of several files it is the last that sets it.
type Origins map[string]Origin

// nearest is where a key stands, or the group that it is in, as far as there is one.
func (o Origins) nearest(key string) (Origin, bool) {
	for key != "" {
		if at, known := o[key]; known {
			return at, true
		}
		key = key[:max(0, strings.LastIndexByte(key, '.'))]
	}
	return Origin{}, false
}

// note writes down where the values of a node stand. A key without a value keeps what it
// had, so that is none of its; but for a list, which is then an empty one.
func (o Origins) note(path, key string, node *yaml.Node, t reflect.Type) {
	for t != nil && t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	switch {
	case node.Kind == yaml.DocumentNode:
		for _, child := range node.Content {
			o.note(path, key, child, t)
		}
	case node.Kind == yaml.MappingNode && t != nil && t.Kind() == reflect.Struct:
		for i := 0; i+1 < len(node.Content); i += 2 {
			name, value := node.Content[i], node.Content[i+1]
			if field, known := fieldNamed(t, name.Value); known {
				o.note(path, join(key, name.Value), value, field)
			}
		}
	case node.Tag == "!!null" && (t == nil || t.Kind() != reflect.Slice):
	case key != "":
		o[key] = Origin{path, node.Line, node.Column}
	}
}

func join(key, name string) string {
	if key == "" {
		return name
	}
	return key + "." + name
}

// fieldNamed is the type of the field that has this key.
func fieldNamed(t reflect.Type, name string) (reflect.Type, bool) {
	for i := range t.NumField() {
		field := t.Field(i)
		key, inline, ok := keyOf(field)
		switch {
		case !ok:
		case inline:
			if found, known := fieldNamed(field.Type, name); known {
				return found, true
			}
		case key == name:
			return field.Type, true
		}
	}
	return nil, false
}

// keyOf is the key of a field, as yaml.v3 has it.
func keyOf(field reflect.StructField) (key string, inline, ok bool) {
	key, options, _ := strings.Cut(field.Tag.Get("yaml"), ",")
	switch {
	case !field.IsExported(), key == "-":
		return "", false, false
	case strings.Contains(options, "inline"):
		return "", true, true
	case key == "":
		return strings.ToLower(field.Name), false, true
	}
	return key, false, true
}

// borrowed finds a value that stands elsewhere in the file: *name. Where such a one
// stands could not be told.
func borrowed(node *yaml.Node) *yaml.Node {
	if node.Kind == yaml.AliasNode {
		return node
	}
	for _, child := range node.Content {
		if found := borrowed(child); found != nil {
			return found
		}
	}
	return nil
}
