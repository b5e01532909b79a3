package systemd

import (
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// catalog reads the explanation of each message from breakerd.catalog.
func catalog(t *testing.T) map[MessageID]string {
	t.Helper()
	text, err := os.ReadFile("breakerd.catalog")
	if err != nil {
		t.Fatal(err)
	}
	all := map[MessageID]string{}
	for part := range strings.SplitSeq(string(text), "\n-- ") {
		if strings.HasPrefix(part, "#") {
			continue
		}
		id, body, _ := strings.Cut(part, "\n")
		if all[MessageID(id)] != "" {
			t.Errorf("%s is explained twice", id)
		}
		all[MessageID(id)] = body
	}
	return all
}

func TestCatalogExplainsEachMessageAndNoOther(t *testing.T) {
	var explained []MessageID
	for id, body := range catalog(t) {
		explained = append(explained, id)
		head, text, _ := strings.Cut(body, "\n\n")
		for _, line := range []string{"Subject: ", "Defined-By: breakerd", "Support: "} {
			if !strings.Contains(head, line) {
				t.Errorf("%s: no line %q", id, line)
			}
		}
		if strings.TrimSpace(text) == "" {
			t.Errorf("%s: no text", id)
		}
	}
	want := MessageIDs()
	slices.Sort(explained)
	slices.Sort(want)
	if diff := cmp.Diff(want, explained); diff != "" {
		t.Error(diff)
	}
}

func TestMessageIDsAreDistinctAndListed(t *testing.T) {
	text, err := os.ReadFile("messages.go")
	if err != nil {
		t.Fatal(err)
	}
	declared := regexp.MustCompile(`MessageID = "([0-9a-f]{32})"`).FindAllSubmatch(text, -1)
	if len(declared) != len(MessageIDs()) {
		t.Errorf("%d declared, %d listed", len(declared), len(MessageIDs()))
	}
	ids := MessageIDs()
	slices.Sort(ids)
	if n := len(slices.Compact(ids)); n != len(declared) {
		t.Errorf("%d distinct of %d", n, len(declared))
	}
}

// journalctl shows the name of a field that an entry does not have, so a text
// may only name those that are always there.
func TestEntriesHaveTheFieldsThatTheirTextNames(t *testing.T) {
	texts := catalog(t)
	told := map[MessageID]bool{}
	for name, e := range everyEntry() {
		told[e.MessageID] = true
		for _, m := range regexp.MustCompile(`@([^@\n]*)@`).FindAllStringSubmatch(texts[e.MessageID], -1) {
			if e.Fields[Field(m[1])] == "" {
				t.Errorf("%s: the text names %s, the entry has none", name, m[1])
			}
		}
		if e.Message == "" || e.Priority < Err || e.Priority > Info {
			t.Errorf("%s: priority %d, message %q", name, e.Priority, e.Message)
		}
		if err := e.check(); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	for _, id := range MessageIDs() {
		if !told[id] {
			t.Errorf("nobody tells %s", id)
		}
	}
}

// What a text tells people to type must be there.
func TestTheCatalogNamesNoCommandThatThereIsNot(t *testing.T) {
	commands := map[string]bool{}
	files, err := filepath.Glob("../cmd/breakerctl/*.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range regexp.MustCompile(`Use:\s+"([a-z-]+)`).FindAllSubmatch(text, -1) {
			commands[string(m[1])] = true
		}
	}
	named := 0
	for id, body := range catalog(t) {
		for _, m := range regexp.MustCompile(`breakerctl ([a-z-]+)(?: (check|show|diff))?`).FindAllStringSubmatch(body, -1) {
			named++
			if !commands[m[1]] || m[2] != "" && !commands[m[2]] {
				t.Errorf("%s: there is no command %q", id, m[0])
			}
		}
	}
	if named < 8 {
		t.Errorf("found %d commands in the catalog", named)
	}
}
