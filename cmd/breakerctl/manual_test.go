package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/internal/manual"
	"github.com/breakerd/breakerd/settings"
)

const packaging = "../../packaging/"

// pages are all pages that are made here, by file name.
func pages(t *testing.T) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	var add func(c *cobra.Command)
	add = func(c *cobra.Command) {
		see := []string{"breakerctl(1)", "breakerd(8)"}
		switch c.Name() {
		case "breakerctl":
			see = []string{"breakerd(8)", "breaker-enforcer(8)", "breakerd.yaml(5)", "breakerd-incidents(7)", "breakerd-policies(7)"}
		case "config", "check", "show", "diff":
			if c.Parent().Name() == "policy" {
				see = append(see, "breakerd-policies(7)")
				break
			}
			see = append(see, "breakerd.yaml(5)")
		case "incidents", "why", "why-not":
			see = append(see, "breakerd-incidents(7)")
		case "replay", "policy", "init", "test", "eval", "fmt", "schema":
			see = append(see, "breakerd-policies(7)")
		}
		all[strings.ReplaceAll(c.CommandPath(), " ", "-")+".1"] = manual.Command(c, 1, see...)
		for _, sub := range c.Commands() {
			if sub.IsAvailableCommand() && sub.Name() != "help" && sub.Name() != "completion" {
				add(sub)
			}
		}
	}
	add(command())
	for name, what := range map[string]string{
		"incidents": "when breakerd opens an incident, and when it does not",
		"policies":  "what a policy of breakerd sees and can ask for",
	} {
		text, err := os.ReadFile("../../docs/" + name + ".md")
		if err != nil {
			t.Fatal(err)
		}
		all["breakerd-"+name+".7"] = manual.Document("breakerd-"+name, 7, what, string(text), "breakerd(8)", "breakerd.yaml(5)", "breakerctl(1)")
	}
	all["breakerd.yaml.5"] = configPage()
	return all
}

// configPage is breakerd.yaml(5).
func configPage() []byte {
	p := manual.New("breakerd.yaml", 5, "configuration of breakerd and of breaker-enforcer")
	p.Section("Synopsis")
	p.Block([]string{settings.DefaultFile, config.DropIns(settings.DefaultFile) + "/*.yaml", enforce.DefaultConfigFile})
	p.Section("Description")
	p.Help(configIntro)
	p.Section("Keys of breakerd.yaml")
	keyItems(p, config.Keys(settings.Default()))
	p.Section("Keys of enforcer.yaml")
	p.Help(enforcerIntro)
	keyItems(p, config.Keys(enforce.DefaultConfig()))
	p.Section("Examples")
	p.Text("Fork storms of less than 100 processes a second are nobody's trouble here:")
	p.Block([]string{"# /etc/breakerd/breakerd.yaml.d/50-builds.yaml", "detect:", "  fork_storm:", "    forks_per_second: 100"})
	p.Text("The database is never touched, whatever a policy asks for:")
	p.Block([]string{"# /etc/breakerd/enforcer.yaml", "protected:", "  units: [postgresql@*.service]"})
	p.See("breakerd(8)", "breaker-enforcer(8)", "breakerctl-config(1)", "breakerd-incidents(7)", "breakerd-policies(7)")
	return p.Bytes()
}

const configIntro = `Both files are YAML and read strictly: a key that is not known, a value that cannot be or a second document
is an error with file, line and column, and nothing of it is used. A key that is not there has its default, so
that an empty or a missing file changes nothing. YAML aliases (*name) are refused.

The files of breakerd.yaml.d/ are read after breakerd.yaml in the order of their names; each changes the keys
that it names, and a list is replaced as a whole. A breakerd that is started with --config FILE reads the files
of FILE.d/.

A duration is a number and its unit: 250ms, 10s, 1h30m. A size is a number and its unit: 64MiB, 2GB. A bare
number is refused for both.

breakerd reads its files and the policies again at systemctl reload breakerd (SIGHUP). mode, runtime_dir,
history.enabled and history.dir need a restart; breakerd says so in the journal and in breakerctl status. What is refused leaves the old
configuration in force.

breakerctl config check says whether the files would be loaded, breakerctl config show where each value comes
from, and breakerctl config diff what differs from the defaults.`

const enforcerIntro = `The limits that hold whatever breakerd and its policies ask for. The file, and every folder above it, must
belong to root and nobody else may write it; else the enforcer does not start. There are no drop-ins.
At systemctl reload breaker-enforcer it is read again; allow needs a restart.

breakerd reads it as well, when it starts: for the guards of monitor and dry-run, and for who may promote policies. So let its
user read the file, and restart breakerd after a change.`

func keyItems(p *manual.Page, keys []config.Key) {
	for _, k := range keys {
		if k.Group() {
			p.Item(manual.Bold(k.Name), k.Meaning())
			continue
		}
		p.Item(manual.Bold(k.Name)+": "+manual.Italic(k.Value), k.Meaning())
	}
}

func TestTheManualIsThatOfTheCommandsAndDocuments(t *testing.T) {
	all := pages(t)
	for name, text := range all {
		manual.Committed(t, packaging+"man/"+name, text)
	}
	files, err := filepath.Glob(packaging + "man/*")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		if name := filepath.Base(file); all[name] == nil && name != "breakerd.8" && name != "breaker-enforcer.8" {
			t.Errorf("%s is the page of nothing", file)
		}
	}
}

const breakerdHead = `The configuration of breakerd: see breakerd.yaml(5).

Every key stands here with its meaning and its default, and nothing is set. To change
a key, take the # away from the beginning of its line and of the lines of the groups
that it is in. Or write those that you change into a file of their own, such as
/etc/breakerd/breakerd.yaml.d/50-mine.yaml, and leave this one as it is.

breakerctl config check says whether it would be loaded, breakerctl config diff what
it changes, and systemctl reload breakerd loads it.`

const enforcerHead = `The configuration of breaker-enforcer: see breakerd.yaml(5).

What stands here holds whatever breakerd and its policies ask for. The file must belong
to root. Every key stands here with its meaning and its default, and nothing is set. To
change a key, take the # away from the beginning of its line and of the lines of the
groups that it is in.

breakerctl config check says whether it would be loaded, and systemctl reload
breaker-enforcer loads it.`

func TestTheDefaultFilesAreThoseOfTheStructs(t *testing.T) {
	for name, c := range map[string]struct {
		head string
		keys []config.Key
	}{
		"breakerd.yaml": {breakerdHead, config.Keys(settings.Default())},
		"enforcer.yaml": {enforcerHead, config.Keys(enforce.DefaultConfig())},
	} {
		manual.Committed(t, packaging+"etc/"+name, []byte(config.Example(c.head, c.keys)))
	}
}

// As they are they change nothing, and with every key in force neither: the values that
// people read in them are the defaults, and each can be read.
func TestTheDefaultFilesChangeNothing(t *testing.T) {
	keyLine := regexp.MustCompile(`(?m)^#((?:  )*[a-z_]+:.*)$`)
	for _, name := range []string{"breakerd.yaml", "enforcer.yaml"} {
		text, err := os.ReadFile(packaging + "etc/" + name)
		if err != nil {
			t.Fatal(err)
		}
		uncommented := keyLine.ReplaceAll(text, []byte("$1"))
		if bytes.Equal(uncommented, text) {
			t.Fatalf("%s has no keys", name)
		}
		for _, text := range [][]byte{text, uncommented} {
			s, e := settings.Default(), enforce.DefaultConfig()
			var v any = &s
			if name == "enforcer.yaml" {
				v = &e
			}
			before := config.Keys(v)
			origins, err := config.Parse(name, text, v)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(before, config.Keys(v)) {
				t.Errorf("%s changes %v", name, config.Changes(v, v))
			}
			if set := len(origins); set != 0 && set != values(before) {
				t.Errorf("%s sets %d of %d keys", name, set, values(before))
			}
		}
	}
}

func TestTheCompletionsAreThoseOfTheCommands(t *testing.T) {
	var bash, zsh, fish bytes.Buffer
	c := command()
	if err := c.GenBashCompletionV2(&bash, true); err != nil {
		t.Fatal(err)
	}
	if err := c.GenZshCompletion(&zsh); err != nil {
		t.Fatal(err)
	}
	if err := c.GenFishCompletion(&fish, true); err != nil {
		t.Fatal(err)
	}
	manual.Committed(t, packaging+"completions/breakerctl.bash", bash.Bytes())
	manual.Committed(t, packaging+"completions/_breakerctl", zsh.Bytes())
	manual.Committed(t, packaging+"completions/breakerctl.fish", fish.Bytes())
}
