package policy

import (
	_ "embed"
	"encoding/json"
	"fmt"
	"reflect"
	"strings"

	"github.com/breakerd/breakerd/model"
)

//go:generate go test . -run TestThePublishedSchemaAgreesWithTheInput -update

// inputSchema is the published schema of the input. A test holds it to the type.
//
//go:embed input.schema.json
var inputSchema []byte

// Schema returns the JSON schema of the input that policies are compiled against.
func Schema() []byte { return append([]byte(nil), inputSchema...) }

// schema is the part of JSON schema that describes an input.
type schema struct {
	Schema      string             `json:"$schema,omitempty"`
	Title       string             `json:"title,omitempty"`
	Description string             `json:"description,omitempty"`
	Unit        string             `json:"unit,omitempty"`  // an annotation; validators pass over it
	Kinds       []model.Kind       `json:"kinds,omitempty"` // the same: incidents that may have it; all, if empty
	Type        string             `json:"type"`
	Enum        []string           `json:"enum,omitempty"`
	Properties  map[string]*schema `json:"properties,omitempty"`
	Required    []string           `json:"required,omitempty"`
	// Additional is false for an object of fixed fields, and the schema of the
	// values for a free-form map.
	Additional any     `json:"additionalProperties,omitempty"`
	Items      *schema `json:"items,omitempty"`
}

// describeInput makes the schema from the Go type.
func describeInput() *schema {
	s := describe(reflect.TypeFor[Input]())
	s.Schema = "http://json-schema.org/draft-07/schema#"
	s.Title = "Input of a breakerd policy"
	s.Description = "What a policy sees as input. The same incident gives the same input, byte for byte."
	return s
}

func describe(t reflect.Type) *schema {
	switch t.Kind() {
	case reflect.Bool:
		return &schema{Type: "boolean", Unit: "true or false"}
	case reflect.String:
		return &schema{Type: "string", Unit: "text"}
	case reflect.Float64:
		return &schema{Type: "number"}
	case reflect.Int, reflect.Int32, reflect.Int64, reflect.Uint32, reflect.Uint64:
		return &schema{Type: "integer"}
	case reflect.Slice:
		return &schema{Type: "array", Items: describe(t.Elem())}
	case reflect.Map:
		return &schema{Type: "object", Additional: describe(t.Elem())}
	case reflect.Struct:
		s := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
		for i := range t.NumField() {
			f := t.Field(i)
			name := f.Tag.Get("json")
			p := describe(f.Type)
			if name == "evidence" {
				p = describeEvidence()
			}
			p.Description = f.Tag.Get("doc")
			if unit := f.Tag.Get("unit"); unit != "" {
				p.Unit = unit
			}
			if e := f.Tag.Get("enum"); e != "" {
				p.Enum, p.Unit = strings.Split(e, ","), "one of the words"
			}
			s.Properties[name] = p
			s.Required = append(s.Required, name)
		}
		return s
	}
	panic(fmt.Sprintf("no schema for %v", t)) // a test describes the whole input
}

// describeEvidence lists every figure by name, so that a slip in one is found.
func describeEvidence() *schema {
	s := &schema{Type: "object", Properties: map[string]*schema{}, Additional: false}
	for _, k := range model.Evidence {
		s.Properties[k.Name] = &schema{Type: "number", Description: k.Doc, Unit: k.Unit, Kinds: k.Kinds}
	}
	return s
}

// at is the schema of a part of the input, nil where it has none. The names of a path may
// leave out the index of an array.
func (s *schema) at(path ...string) *schema {
	for _, name := range path {
		if s == nil {
			return nil
		}
		if s.Items != nil {
			s = s.Items
		}
		s = s.Properties[name]
	}
	return s
}

func schemaJSON(s *schema) []byte {
	b, err := json.MarshalIndent(s, "", "  ")
	if err != nil {
		panic(err) // strings and maps of strings alone
	}
	return append(b, '\n')
}

// HasInput reports whether the input has a field of this path. What is in a list has none.
func HasInput(path ...string) bool {
	s := inputDescription
	for _, name := range path {
		if s = s.Properties[name]; s == nil {
			return false
		}
	}
	return len(path) > 0
}
