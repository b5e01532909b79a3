package policy

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
)

// data is what the data files of a set say, as policies see it under data.
type data struct {
	root  map[string]any
	files []dataFile
}

// dataFile is a file and where its content stands.
type dataFile struct {
	file string
	at   []string
	keys []string
}

// dataNames are the files of data that a set may have in each of its folders.
var dataNames = []string{"data.json", "data.yaml", "data.yml"}

// isData reports whether a file holds data. Of files of the same name, the later have a
// number behind it.
func isData(name string) bool {
	base, _, _ := strings.Cut(path.Base(name), "#")
	return slices.Contains(dataNames, base)
}

// add puts a file where its folder says: what is in oncall/data.yaml stands under
// data.oncall.
func (d *data) add(s source, ps *problems) {
	var content any
	if err := parseData(s, &content); err != nil {
		line, col := err.line, err.col
		ps.add(s.file, line, col, "%s", err.message)
		return
	}
	object, ok := content.(map[string]any)
	if !ok {
		ps.add(s.file, 0, 0, "holds %v: data must be an object, with a name for each part", kindsOfJSON(content))
		return
	}
	var at []string
	if dir := path.Dir(s.name); dir != "." {
		at = strings.Split(dir, "/")
	}
	if d.root == nil {
		d.root = map[string]any{}
	}
	to := d.root
	for _, name := range at {
		if to[name] == nil {
			to[name] = map[string]any{}
		}
		below, ok := to[name].(map[string]any)
		if !ok {
			ps.add(s.file, 0, 0, "stands under data.%s, which is %v in another file", strings.Join(at, "."), kindsOfJSON(to[name]))
			return
		}
		to = below
	}
	if twice := merge(to, object, nil); twice != nil {
		ps.add(s.file, 0, 0, "says data.%s once more: it stands in another file already", strings.Join(append(at, twice...), "."))
		return
	}
	f := dataFile{file: s.file, at: at}
	for k := range object {
		f.keys = append(f.keys, k)
	}
	d.files = append(d.files, f)
}

// merge adds what is new; it returns the name of what both have.
func merge(to, from map[string]any, path []string) []string {
	for k, v := range from {
		have, both := to[k]
		if !both {
			to[k] = v
			continue
		}
		a, ok1 := have.(map[string]any)
		b, ok2 := v.(map[string]any)
		if !ok1 || !ok2 {
			return append(path, k)
		}
		if twice := merge(a, b, append(slices.Clone(path), k)); twice != nil {
			return twice
		}
	}
	return nil
}

type dataError struct {
	line, col int
	message   string
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// parseData reads JSON or YAML.
func parseData(s source, into *any) *dataError {
	base, _, _ := strings.Cut(path.Base(s.name), "#")
	if base == "data.json" {
		err := util.UnmarshalJSON([]byte(s.text), into)
		if err == nil {
			return nil
		}
		e := &dataError{message: "is no JSON: " + err.Error()}
		if at, ok := errors.AsType[*json.SyntaxError](err); ok {
			before := s.text[:min(len(s.text), max(0, int(at.Offset)-1))]
			e.line = 1 + strings.Count(before, "\n")
			e.col = len(before) - strings.LastIndexByte(before, '\n')
		} else if errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, io.EOF) {
			e.line = 1 + strings.Count(s.text, "\n")
			e.col = len(s.text) - strings.LastIndexByte(s.text, '\n')
		}
		return e
	}
	if strings.TrimSpace(s.text) == "" {
		*into = map[string]any{}
		return nil
	}
	err := util.Unmarshal([]byte(s.text), into)
	if err == nil {
		return nil
	}
	e := &dataError{message: "is no YAML: " + strings.TrimPrefix(strings.Join(strings.Fields(err.Error()), " "), "error converting YAML to JSON: ")}
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		e.line, _ = strconv.Atoi(m[1])
	}
	return e
}

func kindsOfJSON(v any) kindSet {
	switch v.(type) {
	case nil:
		return isNull
	case bool:
		return isBoolean
	case string:
		return isString
	case []any:
		return isArray
	case map[string]any:
		return isObject
	}
	return isNumber
}

// find gives everything in the data that a reference can lead to.
func (d *data) find(ref ast.Ref) []any {
	if d == nil || d.root == nil || !ref[0].Equal(ast.DefaultRootDocument) || len(ref) < 2 {
		return nil
	}
	found := []any{map[string]any(d.root)}
	for _, t := range ref[1:] {
		var next []any
		for _, v := range found {
			switch v := v.(type) {
			case map[string]any:
				if name, ok := t.Value.(ast.String); ok {
					if e, ok := v[string(name)]; ok {
						next = append(next, e)
					}
				} else if !isConstant(t) {
					for _, e := range v {
						next = append(next, e)
					}
				}
			case []any:
				if i, ok := t.Value.(ast.Number); ok {
					if n, ok := i.Int(); ok && n >= 0 && n < len(v) {
						next = append(next, v[n])
					}
				} else if !isConstant(t) {
					next = append(next, v...)
				}
			}
		}
		found = next
	}
	return found
}

func isConstant(t *ast.Term) bool { return ast.IsConstant(t.Value) }

// kinds are the types of what a reference leads to, 0 where that is not in the data.
func (d *data) kinds(ref ast.Ref) (k kindSet) {
	for _, v := range d.find(ref) {
		k |= kindsOfJSON(v)
	}
	return k
}

// origin names the file in which something stands, as the middle of a message.
func (d *data) origin(ref ast.Ref) string {
	if len(d.find(ref)) == 0 {
		return ""
	}
	var names []string
	for _, t := range ref[1:] {
		s, ok := t.Value.(ast.String)
		if !ok {
			break
		}
		names = append(names, string(s))
	}
	for _, f := range d.files {
		if n := len(f.at); n < len(names) && slices.Equal(f.at, names[:n]) && slices.Contains(f.keys, names[n]) {
			return fmt.Sprintf(" (of %s)", f.file)
		}
	}
	return ""
}

// missing says which part of a reference is not in the data, and what is meant.
func (d *data) missing(path ast.Ref) string {
	for n := len(path) - 1; n >= 1; n-- {
		var names []string
		for _, v := range d.find(path[:n]) {
			if o, ok := v.(map[string]any); ok {
				for k := range o {
					names = append(names, k)
				}
			}
		}
		if n == 1 && d != nil {
			for k := range d.root {
				names = append(names, k)
			}
		}
		if len(names) > 0 {
			if name, ok := path[n].Value.(ast.String); ok {
				return didYouMean(string(name), names)
			}
		}
	}
	return ""
}

// clash finds a rule in the place of data.
func (d *data) clash(m *ast.Module, ps *problems) {
	for _, r := range m.Rules {
		ref := m.Package.Path.Extend(r.Head.Ref().GroundPrefix())
		for n := 2; n <= len(ref); n++ {
			v := d.find(ref[:n])
			if len(v) == 0 {
				break
			}
			if _, object := v[0].(map[string]any); !object || n == len(ref) {
				ps.add(r.Location.File, r.Location.Row, r.Location.Col, "%v is a rule here, and data%s too", ref[:n], d.origin(ref[:n]))
				break
			}
		}
	}
}
