package config

import (
	"fmt"
	"reflect"
	"strconv"
	"strings"

	"gopkg.in/yaml.v3"
)

// Key is a key of a configuration as the tags of its struct tell of it:
//
//	Tick config.Duration `yaml:"tick" doc:"How often a sample is taken." range:"50ms..2s"`
//
// From these come the checks of the values, the commented default file, the manual page
// and breakerctl config, so that none of them can say something else than another.
type Key struct {
	Name  string // from the outermost on, joined by dots
	Type  string // for people: "duration", "list", …; "group" of one that only holds others
	Doc   string // one sentence
	Least string // bounds, with their units; "" where there are none
	Most  string
	Value string // as YAML, on one line; "" of a group
}

// Depth is how many groups the key is in.
func (k Key) Depth() int { return strings.Count(k.Name, ".") }

// Last is the name without its groups.
func (k Key) Last() string { return k.Name[strings.LastIndexByte(k.Name, '.')+1:] }

// Group says that it only holds other keys.
func (k Key) Group() bool { return k.Type == "group" }

// Keys are the keys of a struct, or of what is pointed to, with the values it has, in the
// order in which they are declared: groups before what is in them.
func Keys(v any) []Key {
	var all []Key
	walk(reflect.Indirect(reflect.ValueOf(v)), "", func(k Key, _ reflect.Value) { all = append(all, k) })
	return all
}

func walk(v reflect.Value, prefix string, visit func(Key, reflect.Value)) {
	for i := range v.NumField() {
		field := v.Type().Field(i)
		name, inline, ok := keyOf(field)
		switch {
		case !ok:
			continue
		case inline:
			walk(v.Field(i), prefix, visit)
			continue
		}
		k := Key{Name: join(prefix, name), Doc: field.Tag.Get("doc"), Type: typeWord(field.Type)}
		k.Least, k.Most, _ = strings.Cut(field.Tag.Get("range"), "..")
		if !k.Group() {
			k.Value = oneLine(v.Field(i).Interface())
		}
		visit(k, v.Field(i))
		if k.Group() {
			walk(v.Field(i), k.Name, visit)
		}
	}
}

func typeWord(t reflect.Type) string {
	switch t {
	case reflect.TypeFor[Duration]():
		return "duration"
	case reflect.TypeFor[Size]():
		return "size"
	}
	switch t.Kind() {
	case reflect.Struct:
		return "group"
	case reflect.Slice:
		return "list"
	}
	return strings.TrimPrefix(goWord(t), "a ")
}

// oneLine writes a value as YAML on one line.
func oneLine(v any) string {
	var node yaml.Node
	if err := node.Encode(v); err != nil {
		return fmt.Sprint(v) // our own types all have a form
	}
	node.Style = yaml.FlowStyle
	text, err := yaml.Marshal(&node)
	if err != nil {
		return fmt.Sprint(v)
	}
	return strings.TrimSuffix(string(text), "\n")
}

// CheckRanges refuses the first value that is not within the range of its tag. The prefix
// is that of the keys' names, for the *BadValue that it returns.
func CheckRanges(prefix string, v any) (err error) {
	walk(reflect.Indirect(reflect.ValueOf(v)), prefix, func(k Key, value reflect.Value) {
		if err != nil || k.Most == "" {
			return
		}
		is := number(value.Interface())
		least, most := bound(value.Type(), k.Least), bound(value.Type(), k.Most)
		if !(is >= least && is <= most) { // also where it is no number
			err = &BadValue{k.Name, fmt.Sprintf("%v is not between %s and %s", value.Interface(), k.Least, k.Most)}
		}
	})
	return err
}

// number is a value in its smallest unit. Durations of years lose nothing that a bound
// could be about.
func number(v any) float64 {
	switch v := v.(type) {
	case Duration:
		return float64(v)
	case Size:
		return float64(v)
	case float64:
		return v
	case int:
		return float64(v)
	}
	panic(fmt.Sprintf("a range of a %T", v)) // a tag that no test has seen
}

// bound reads one side of a range.
func bound(t reflect.Type, text string) float64 {
	var v float64
	var err error
	switch t {
	case reflect.TypeFor[Duration]():
		var d Duration
		d, err = ParseDuration(text)
		v = float64(d)
	case reflect.TypeFor[Size]():
		var s Size
		s, err = ParseSize(text)
		v = float64(s)
	default:
		v, err = strconv.ParseFloat(text, 64)
	}
	if err != nil {
		panic(err) // a tag that no test has seen
	}
	return v
}
