package recording

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
)

// Whatever a file holds, reading it ends, and a recording that is read whole is the same
// when it is written and read again.
func FuzzDecoder(f *testing.F) {
	whole := string(encoded(f))
	lines := strings.SplitAfter(whole, "\n")
	for _, seed := range []string{
		whole, whole[:len(whole)/2], whole + whole, lines[0], lines[0] + lines[4], lines[0] + "\n", "", "\n", "{", "null\n",
		lines[0] + `{"end":{"records":-1}}` + "\n",
		lines[0] + `{"sample":null,"outcome":{}}` + "\n" + `{"end":{"records":1}}` + "\n",
		lines[0] + `{"sample":{"time":"0000-01-01T00:00:00+23:59","length_ns":-9223372036854775808}}` + "\n" + `{"end":{"records":1}}` + "\n",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		d, err := NewDecoder(bytes.NewReader(text), "fuzz")
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz:") {
				t.Fatalf("%q does not say which file", err)
			}
			return
		}
		first, err := readAll(d)
		if err != nil {
			if !strings.HasPrefix(err.Error(), "fuzz:") {
				t.Fatalf("%q does not say which file", err)
			}
			return
		}
		var b bytes.Buffer
		enc, err := NewEncoder(&b, d.Header())
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range first {
			if err := enc.Encode(r); err != nil {
				t.Fatal(err)
			}
		}
		if err := enc.End(); err != nil {
			t.Fatal(err)
		}
		if d, err = NewDecoder(&b, "again"); err != nil {
			t.Fatal(err)
		}
		again, err := readAll(d)
		if err != nil {
			t.Fatal(err)
		}
		x, _ := json.Marshal(first)
		y, _ := json.Marshal(again)
		if !bytes.Equal(x, y) {
			t.Fatalf("written again it is\n%s\nand was\n%s", y, x)
		}
	})
}
