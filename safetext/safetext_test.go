package safetext

import (
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

func TestPrintable(t *testing.T) {
	tests := []struct{ name, in, want string }{
		{"plain text stays", "make -j2 (all)", "make -j2 (all)"},
		{"letters of any script stay", "naïve 日本 עברית", "naïve 日本 עברית"},
		{"symbols stay", "50 % ▶ 🙂", "50 % ▶ 🙂"},
		{"systemd's own escapes stay", `dev-disk-by\x2duuid.swap`, `dev-disk-by\x2duuid.swap`},
		{"nothing", "", ""},
		{"a terminal escape", "\x1b[2Jgone", `\x1b[2Jgone`},
		{"a newline cannot begin a new entry", "a\nMESSAGE=b", `a\x0aMESSAGE=b`},
		{"a carriage return cannot overwrite", "a\rb\tc", `a\x0db\x09c`},
		{"an eight-bit control character", "\u009b2J", `\u009b2J`},
		{"NUL and DEL", "\x00\x7f", `\x00\x7f`},
		{"a right-to-left override", "gpj\u202eexe.", `gpj\u202eexe.`},
		{"an isolate", "\u2066x\u2069", `\u2066x\u2069`},
		{"a zero-width space", "ss\u200bhd", `ss\u200bhd`},
		{"a line separator", "a\u2028b", `a\u2028b`},
		{"a space that looks like one", "a\u00a0b", `a\u00a0b`},
		{"a tag character", "a\U000e0041", `a\U000e0041`},
		{"no UTF-8", "a\xff\xfeb", `a\xff\xfeb`},
		{"the replacement character itself", "a\uFFFDb", "a\uFFFDb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := Printable(tt.in); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func FuzzPrintable(f *testing.F) {
	for _, s := range []string{"", "make", "\x1b]0;x\a", "\u202e", "\xff", "a\nb", "\U000e0041"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		out := Printable(s)
		if !utf8.ValidString(out) {
			t.Errorf("%q is no UTF-8", out)
		}
		if strings.ContainsFunc(out, unicode.IsControl) || strings.ContainsFunc(out, hidden) {
			t.Errorf("%q has hidden characters", out)
		}
		if again := Printable(out); again != out {
			t.Errorf("%q becomes %q the second time", out, again)
		}
	})
}
