package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// tool is a program that a test cannot do without; scripts/test installs it.
func tool(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		if os.Getenv("BREAKERD_REQUIRE_KERNEL") == "1" {
			t.Fatalf("needs %s: scripts/test installs it", name)
		}
		t.Skipf("needs %s", name)
	}
	return path
}

func TestEveryManualPageRendersWithoutAWarning(t *testing.T) {
	man, groff := tool(t, "man"), tool(t, "groff")
	pages, err := filepath.Glob("../packaging/man/*")
	if err != nil || len(pages) < 20 {
		t.Fatal(pages, err)
	}
	for _, page := range pages {
		for _, cmd := range []*exec.Cmd{
			exec.Command(man, "--warnings", "-E", "UTF-8", "-l", "-Tutf8", "-Z", page),
			exec.Command(groff, "-ww", "-mandoc", "-Tutf8", page),
		} {
			var said strings.Builder
			cmd.Env = append(os.Environ(), "MANROFFSEQ=", "MANWIDTH=80", "LC_ALL=C.UTF-8")
			cmd.Stderr = &said
			if out, err := cmd.Output(); err != nil || said.Len() > 0 || len(out) == 0 {
				t.Errorf("%s %s: %v, %d bytes: %s", filepath.Base(cmd.Path), page, err, len(out), said.String())
			}
		}
	}
}

// The completions are loaded by the shells themselves, and asked what follows.
func TestRealShellsLoadTheCompletions(t *testing.T) {
	dir, err := filepath.Abs("../packaging/completions")
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Dir(bin(t, "breakerctl")) + ":" + os.Getenv("PATH")
	for _, shell := range []struct{ name, script, want string }{
		{"bash", `. /usr/share/bash-completion/bash_completion && . "$DIR/breakerctl.bash" &&
			COMP_WORDS=(breakerctl inc) COMP_CWORD=1 COMP_LINE="breakerctl inc" COMP_POINT=14 COMP_TYPE=9 && __start_breakerctl 2>/dev/null; echo "${COMPREPLY[@]}"`, "incidents"},
		{"bash", `. /usr/share/bash-completion/bash_completion && . "$DIR/breakerctl.bash" &&
			COMP_WORDS=(breakerctl blame --by cont) COMP_CWORD=3 COMP_LINE="breakerctl blame --by cont" COMP_POINT=26 COMP_TYPE=9 && __start_breakerctl 2>/dev/null; echo "${COMPREPLY[@]}"`, "container"},
		{"zsh", `fpath=("$DIR" $fpath); autoload -U compinit && compinit -u -D && autoload +X _breakerctl && echo "$_comps[breakerctl]"`, "_breakerctl"},
		{"fish", `source "$DIR/breakerctl.fish"; complete -C "breakerctl inc"`, "incidents"},
		{"fish", `source "$DIR/breakerctl.fish"; complete -C "breakerctl config d"`, "diff"},
	} {
		flag := "-c"
		if shell.name == "zsh" {
			flag = "-fc"
		}
		cmd := exec.Command(tool(t, shell.name), flag, shell.script)
		cmd.Env = append(os.Environ(), "DIR="+dir, "PATH="+path, "HOME="+t.TempDir())
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), shell.want) {
			t.Errorf("%s: %v, want %q: %s", shell.name, err, shell.want, out)
		}
	}
}
