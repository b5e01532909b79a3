package policy

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const onCall = policyHead + "deny contains \"on call\" if input.incident.culprit.uid in data.oncall.uids\n"

func TestPoliciesSeeTheDataBesideThem(t *testing.T) {
	for name, files := range map[string][]string{
		"JSON":                {"data.json", `{"oncall": {"uids": [1000]}}`},
		"YAML":                {"data.yaml", "oncall:\n  uids: [1000]\n"},
		"a folder":            {"oncall/data.yml", "uids:\n- 1000\n"},
		"two files":           {"data.json", `{"oncall": {"names": ["anna"]}}`, "oncall/data.json", `{"uids": [1000]}`},
		"an empty one beside": {"data.yaml", "", "oncall/data.json", `{"uids": [1000]}`},
	} {
		s := mustLoad(t, append(files, "x.rego", onCall)...)
		in := stormInput()
		if v := s.Decide(t.Context(), in); !cmp.Equal(v.Reasons(), []string{"breaker.x: on call"}) {
			t.Errorf("%s: got %+v", name, v)
		}
		in.Incident.Culprit.UID = 7
		if v := s.Decide(t.Context(), in); len(v.Denied) != 0 || v.Error != "" {
			t.Errorf("%s: got %+v", name, v)
		}
		again, err := LoadSources(s.Sources())
		if err != nil || again.Hash() != s.Hash() {
			t.Errorf("%s: read again it is another set, error %v", name, err)
		}
	}
}

func TestWhatIsWrongWithDataIsSaidWithItsPlace(t *testing.T) {
	for _, tt := range []struct {
		name  string
		files []string
		want  string
	}{
		{"texts where numbers are compared", []string{"data.yaml", "oncall:\n  uids: [\"1000\"]\n"},
			`x.rego:5:58: input.incident.culprit.uid is a number, and is looked for among what is a text, data.oncall.uids (of data.yaml)`},
		{"a slip in a name", []string{"data.yaml", "oncall:\n  uidss: [1000]\n"},
			`x.rego:5:58: data.oncall.uids is not in this set of policies: did you mean uidss?`},
		{"half a file", []string{"data.json", "{\n  \"oncall\": {\n"},
			`data.json:3:1: is no JSON: unexpected EOF`},
		{"a slip in JSON", []string{"data.json", "{\n  \"oncall\": {\"uids\": [1000,]}\n}"},
			`data.json:2:28: is no JSON: invalid character ']' looking for beginning of value`},
		{"a slip in YAML", []string{"data.yaml", "oncall:\n  uids: [1000\nx: 1\n"},
			`data.yaml:1: is no YAML: yaml: line 1: did not find expected ',' or ']'`},
		{"a list", []string{"data.json", "[1000]"},
			`data.json: holds an array: data must be an object, with a name for each part`},
		{"the same in two files", []string{"data.json", `{"oncall": {"uids": [1000]}}`, "data.yaml", "oncall: {uids: [7]}\n"},
			`data.yaml: says data.oncall.uids once more: it stands in another file already`},
		{"a folder below what is no object", []string{"data.json", `{"oncall": 7}`, "oncall/data.json", `{"uids": [1000]}`},
			`oncall/data.json: stands under data.oncall, which is a number in another file`},
		{"data in the place of a rule", []string{"data.json", `{"oncall": {"uids": [1000]}, "breaker": {"x": {"deny": []}}}`},
			`x.rego:5:1: data.breaker.x.deny is a rule here, and data (of data.json) too`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			_, err := LoadFS(files(append(tt.files, "x.rego", onCall)...))
			if err == nil {
				t.Fatal("it was loaded")
			}
			if d := cmp.Diff(tt.want, err.Error()); d != "" {
				t.Error(d)
			}
		})
	}
}

func TestDataOfAWrongTypeIsNoOperand(t *testing.T) {
	_, err := LoadFS(files("data.json", `{"prefix": 7}`,
		"x.rego", policyHead+"deny contains \"no\" if startswith(input.incident.culprit.cgroup, data.prefix)\n"))
	want := "x.rego:5:65: data.prefix is a number (of data.json), and startswith takes a text"
	if err == nil || !strings.HasPrefix(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
}
