// Package manual writes manual pages: of commands from what they say with --help, of
// documents from their Markdown. Only tests use it: they compare what it writes with what
// is committed, and write it again with -update (make man).
//
// Pages carry no date, so that the same sources give the same bytes.
package manual

import (
	"bytes"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

var update = flag.Bool("update", false, "write the files that are generated, instead of comparing them")

// Committed fails unless the file is what is generated now.
func Committed(t testing.TB, path string, now []byte) {
	t.Helper()
	if *update {
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, now, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	was, err := os.ReadFile(path)
	if err != nil {
		t.Fatalf("%v: run make man and commit", err)
	}
	if !bytes.Equal(was, now) {
		t.Errorf("%s is not what is generated from the sources: run make man and commit", path)
	}
}

// Page is a manual page under way.
type Page struct{ b strings.Builder }

// New begins a page: its name, its section, and what it is in a few words.
func New(name string, section int, what string) *Page {
	p := &Page{}
	p.b.WriteString(".\\\" Generated: change the sources and run make man.\n")
	p.line(".TH " + quote(strings.ToUpper(name)) + fmt.Sprintf(" %d \"\" breakerd \"breakerd manual\"", section))
	p.line(".nh") // paths and commands are not to be broken
	p.line(".ad l")
	p.Section("Name")
	p.line(escape(name) + ` \- ` + escape(what))
	return p
}

// Bytes are the page.
func (p *Page) Bytes() []byte { return []byte(p.b.String()) }

func (p *Page) line(text string) { p.b.WriteString(text + "\n") }

// Section begins a section.
func (p *Page) Section(title string) { p.line(".SH " + quote(strings.ToUpper(title))) }

// Text writes a paragraph.
func (p *Page) Text(text string) {
	p.line(".PP")
	p.words(text)
}

// words writes text a line a sentence or so, as it comes.
func (p *Page) words(text string) {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			p.line(inline(line))
		}
	}
}

// Block writes lines as they are.
func (p *Page) Block(lines []string) {
	p.line(".PP")
	p.line(".RS 4")
	p.line(".nf")
	for _, l := range lines {
		p.line(escape(l))
	}
	p.line(".fi")
	p.line(".RE")
}

// Item writes a term and what it means.
func (p *Page) Item(term string, meaning ...string) {
	p.line(".TP")
	p.line(term)
	for i, text := range meaning {
		if i > 0 {
			p.line(".br")
		}
		p.words(text)
	}
}

// See writes the last section.
func (p *Page) See(pages ...string) {
	p.Section("See also")
	for i, page := range pages {
		name, section, _ := strings.Cut(strings.TrimSuffix(page, ")"), "(")
		comma := ""
		if i+1 < len(pages) {
			comma = ","
		}
		p.line(Bold(name) + "(" + section + ")" + comma)
	}
}

// Bold and Italic are a word in that form.
func Bold(word string) string { return `\fB` + escape(word) + `\fR` }

// Italic is a word in italics.
func Italic(word string) string { return `\fI` + escape(word) + `\fR` }

var special = strings.NewReplacer(`\`, `\e`, "-", `\-`, "'", `\(aq`, "`", `\(ga`, "^", `\(ha`, "~", `\(ti`, "…", "...", "→", `\(->`, "▶", ">", "é", `\('e`)

// escape makes a line of text mean nothing to roff.
func escape(line string) string {
	line = special.Replace(line)
	if strings.HasPrefix(line, ".") {
		line = `\&` + line
	}
	return line
}

func quote(word string) string { return `"` + strings.ReplaceAll(escape(word), `"`, `\(dq`) + `"` }

// inline is a line of our Markdown: `code`, **bold** and [text](link).
func inline(line string) string {
	var out strings.Builder
	link := regexp.MustCompile(`^\[([^\]]*)\]\(([^)]*)\)`)
	for line != "" {
		switch {
		case line[0] == '`' && strings.IndexByte(line[1:], '`') >= 0:
			code, rest, _ := strings.Cut(line[1:], "`")
			out.WriteString(Bold(code))
			line = rest
		case strings.HasPrefix(line, "**") && strings.Contains(line[2:], "**"):
			bold, rest, _ := strings.Cut(line[2:], "**")
			out.WriteString(Bold(bold))
			line = rest
		case link.MatchString(line):
			m := link.FindStringSubmatch(line)
			out.WriteString(inline(m[1]))
			if strings.Contains(m[2], "://") {
				out.WriteString(" (" + escape(m[2]) + ")")
			}
			line = line[len(m[0]):]
		default:
			end := 1
			for end < len(line) && !strings.ContainsRune("`*[", rune(line[end])) {
				end++
			}
			out.WriteString(special.Replace(line[:end]))
			line = line[end:]
		}
	}
	text := out.String()
	if strings.HasPrefix(text, ".") {
		text = `\&` + text
	}
	return text
}

// Help writes what a command says about itself: paragraphs, blocks that are indented, and
// headings, which are short lines that end with a colon and stand before a block.
func (p *Page) Help(text string) {
	lines := strings.Split(text, "\n")
	for i := 0; i < len(lines); {
		switch line := lines[i]; {
		case line == "":
			i++
		case strings.HasPrefix(line, "  "):
			end := i
			for end < len(lines) && (strings.HasPrefix(lines[end], "  ") || lines[end] == "" && end+1 < len(lines) && strings.HasPrefix(lines[end+1], "  ")) {
				end++
			}
			block := make([]string, 0, end-i)
			for _, l := range lines[i:end] {
				block = append(block, strings.TrimPrefix(l, "  "))
			}
			if prose(block) {
				p.Text(strings.Join(block, "\n"))
			} else {
				p.Block(block)
			}
			i = end
		case strings.HasSuffix(line, ":") && strings.Count(line, " ") < 3 && i+1 < len(lines) && strings.HasPrefix(lines[i+1], "  "):
			p.Section(strings.TrimSuffix(line, ":"))
			i++
		default:
			end := i
			for end < len(lines) && lines[end] != "" && !strings.HasPrefix(lines[end], "  ") {
				end++
			}
			p.Text(strings.Join(lines[i:end], "\n"))
			i = end
		}
	}
}

// prose says that a block has neither columns nor indented lines, so that it may be filled.
func prose(block []string) bool {
	for _, line := range block {
		if strings.Contains(line, "  ") || line == "" {
			return false
		}
	}
	return len(block) > 1
}

// Command writes the page of a command; see are the pages to look at besides.
func Command(c *cobra.Command, section int, see ...string) []byte {
	c.InitDefaultHelpFlag()
	name := strings.ReplaceAll(c.CommandPath(), " ", "-")
	p := New(name, section, strings.ToLower(c.Short[:1])+c.Short[1:])
	p.Section("Synopsis")
	if c.Runnable() {
		p.line(synopsis(c))
	}
	for _, sub := range visible(c) {
		if c.Runnable() || sub != visible(c)[0] {
			p.line(".br")
		}
		p.line(synopsis(sub))
	}
	p.Section("Description")
	p.Help(first(c.Long, c.Short+"."))
	if len(visible(c)) > 0 {
		p.Section("Commands")
		for _, sub := range visible(c) {
			page := strings.ReplaceAll(sub.CommandPath(), " ", "-")
			p.Item(Bold(page)+fmt.Sprintf("(%d)", section), sub.Short+".")
		}
	}
	options(p, "Options", c.NonInheritedFlags())
	options(p, "Options of every command", c.InheritedFlags())
	if c.Example != "" {
		p.Section("Examples")
		p.Block(strings.Split(strings.Trim(c.Example, "\n"), "\n"))
	}
	p.See(see...)
	return p.Bytes()
}

func first(texts ...string) string {
	for _, text := range texts {
		if text != "" {
			return text
		}
	}
	return ""
}

func visible(c *cobra.Command) (subs []*cobra.Command) {
	for _, sub := range c.Commands() {
		if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
			subs = append(subs, sub)
		}
	}
	return subs
}

func synopsis(c *cobra.Command) string {
	words := []string{Bold(strings.TrimSuffix(c.CommandPath(), " "+c.Name()))}
	use := strings.Fields(c.Use)
	if c.HasParent() {
		words = append(words, Bold(use[0]))
	} else {
		words = []string{Bold(use[0])}
	}
	if c.HasAvailableFlags() || c.HasAvailableInheritedFlags() {
		words = append(words, "["+Italic("OPTION")+"...]")
	}
	for _, word := range use[1:] {
		switch {
		case word == "|":
			words = append(words, "|")
		case strings.HasPrefix(word, "-"):
			words = append(words, Bold(word))
		default:
			words = append(words, Italic(word))
		}
	}
	return strings.Join(words, " ")
}

func options(p *Page, title string, flags *pflag.FlagSet) {
	if !flags.HasAvailableFlags() {
		return
	}
	p.Section(title)
	flags.VisitAll(func(f *pflag.Flag) {
		if f.Hidden {
			return
		}
		term := Bold("--" + f.Name)
		if f.Shorthand != "" {
			term = Bold("-"+f.Shorthand) + ", " + term
		}
		value, usage := pflag.UnquoteUsage(f)
		if value != "" {
			term += " " + Italic(strings.ToUpper(value))
		}
		if f.DefValue != "" && f.DefValue != "false" && f.DefValue != "[]" && f.DefValue != "0s" && f.DefValue != "0" && !strings.Contains(usage, "(default") {
			usage += " (default " + f.DefValue + ")"
		}
		p.Item(term, strings.ToUpper(usage[:1])+usage[1:]+".")
	})
}

// Document writes the page of a Markdown document: headings, paragraphs, code between
// fences or indented, lists, and tables, of which each row is an item.
func Document(name string, section int, what, markdown string, see ...string) []byte {
	p := New(name, section, what)
	p.Section("Description")
	lines := strings.Split(markdown, "\n")
	for i := 0; i < len(lines); {
		line := lines[i]
		switch {
		case line == "", strings.HasPrefix(line, "# "):
			i++
		case strings.HasPrefix(line, "## "):
			p.Section(strings.Trim(line, "# "))
			i++
		case strings.HasPrefix(line, "```"):
			end := i + 1
			for end < len(lines) && !strings.HasPrefix(lines[end], "```") {
				end++
			}
			block := lines[i+1 : end]
			for j := range block {
				block[j] = strings.ReplaceAll(block[j], "\t", "    ")
			}
			p.Block(block)
			i = end + 1
		case strings.HasPrefix(line, "    "):
			var block []string
			for ; i < len(lines) && strings.HasPrefix(lines[i], "    "); i++ {
				block = append(block, strings.TrimPrefix(lines[i], "    "))
			}
			p.Block(block)
		case strings.HasPrefix(line, "|"):
			for row := 0; i < len(lines) && strings.HasPrefix(lines[i], "|"); i, row = i+1, row+1 {
				cells := strings.Split(strings.Trim(lines[i], "|"), "|")
				if row < 2 { // the titles, and the line below them
					continue
				}
				for j := range cells {
					cells[j] = strings.TrimSpace(cells[j])
				}
				p.Item(inline(cells[0]), cells[1:]...)
			}
		case strings.HasPrefix(line, "- "):
			text := strings.TrimPrefix(line, "- ")
			for i++; i < len(lines) && strings.HasPrefix(lines[i], "  "); i++ {
				text += "\n" + strings.TrimSpace(lines[i])
			}
			p.line(`.IP \(bu 2`)
			p.words(text)
		default:
			text := line
			for i++; i < len(lines) && lines[i] != "" && !strings.HasPrefix(lines[i], "|") && !strings.HasPrefix(lines[i], "- "); i++ {
				text += "\n" + lines[i]
			}
			p.Text(text)
		}
	}
	p.See(see...)
	return p.Bytes()
}
