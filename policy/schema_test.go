package policy

import (
	"bytes"
	"encoding/json"
	"flag"
	"os"
	"reflect"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/breakerd/breakerd/model"
)

var update = flag.Bool("update", false, "rewrite the golden files and the published schema")

func TestThePublishedSchemaAgreesWithTheInput(t *testing.T) {
	want := schemaJSON(describeInput())
	if *update {
		if err := os.WriteFile("input.schema.json", want, 0o644); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile("../docs/policy-input.md", FieldTable(), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if doc, err := os.ReadFile("../docs/policy-input.md"); err != nil || string(doc) != string(FieldTable()) {
		t.Errorf("docs/policy-input.md is not what the Go type says: run go generate ./policy (%v)", err)
	}
	if d := cmp.Diff(string(want), string(Schema())); d != "" {
		t.Errorf("input.schema.json is not what the Go type says: run go generate ./policy\n%s", d)
	}
}

func TestEveryFieldOfTheInputHasADescriptionAndAUnit(t *testing.T) {
	var walk func(path string, s *schema)
	walk = func(path string, s *schema) {
		if path != "input" && s.Description == "" {
			t.Errorf("%s has no description", path)
		}
		if s.Type != "object" && s.Type != "array" && s.Unit == "" {
			t.Errorf("%s has no unit", path)
		}
		if s.Items != nil {
			for name, p := range s.Items.Properties {
				walk(path+"."+name, p)
			}
		}
		for name, p := range s.Properties {
			walk(path+"."+name, p)
		}
	}
	walk("input", describeInput())
}

func TestTheValueIsTheJSONOfTheInput(t *testing.T) {
	for _, in := range []Input{stormInput(), {}} {
		if in.Incident.Evidence == nil { // JSON has null there; InputOf never does
			in.Incident.Evidence, in.Incident.Victims = map[string]float64{}, []Victim{}
		}
		b, err := json.Marshal(in)
		if err != nil {
			t.Fatal(err)
		}
		want, err := ast.ValueFromReader(bytes.NewReader(b))
		if err != nil {
			t.Fatal(err)
		}
		got, err := in.value(everything)
		if err != nil {
			t.Fatal(err)
		}
		if got.Compare(want) != 0 {
			t.Errorf("got  %v\nwant %v", got, want)
		}
	}
}

func TestEveryFieldIsFilledFromTheIncident(t *testing.T) {
	var walk func(path string, v reflect.Value)
	walk = func(path string, v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for i := range v.NumField() {
				walk(path+"."+v.Type().Field(i).Name, v.Field(i))
			}
		case reflect.Slice:
			if v.Len() == 0 {
				t.Errorf("%s is empty", path)
				return
			}
			walk(path, v.Index(0))
		default:
			if v.IsZero() {
				t.Errorf("%s is not filled", path)
			}
		}
	}
	walk("Input", reflect.ValueOf(stormInput()))
}

func TestTheWordsOfABreakerAreAllThereAre(t *testing.T) {
	all := func(words ...string) string { return strings.Join(words, ",") }
	want := map[string]string{
		"State": all(textsOf(model.BreakerStates)...), "LastEffect": all(textsOf(model.Effects)...),
		"LastEnd": all(append([]string{""}, textsOf(model.EndReasons)...)...),
	}
	for name, words := range want {
		field, _ := reflect.TypeFor[Breaker]().FieldByName(name)
		if got := field.Tag.Get("enum"); got != words {
			t.Errorf("%s is one of %s, want %s", name, got, words)
		}
	}
}

func textsOf[T ~string](all []T) (texts []string) {
	for _, v := range all {
		texts = append(texts, string(v))
	}
	return texts
}

func TestTheKindsOfTheInputAreAllKinds(t *testing.T) {
	field, _ := reflect.TypeFor[Incident]().FieldByName("Kind")
	var want []string
	for _, k := range model.Kinds {
		want = append(want, string(k))
	}
	if got := field.Tag.Get("enum"); got != strings.Join(want, ",") {
		t.Errorf("the input knows the kinds %s, want %s", got, strings.Join(want, ","))
	}
}
