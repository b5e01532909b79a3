package main

import (
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"github.com/breakerd/breakerd/bundle"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/enforce"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/safetext"
	"github.com/breakerd/breakerd/settings"
)

// configured is one of the two configurations.
type configured struct {
	name     string // of the program
	file     string // as it was named; "" is the default
	keys     []config.Key
	defaults []config.Key
	origins  config.Origins
	policies []string
	bundle   settings.Bundle
}

func (a *app) config() *cobra.Command {
	c := &cobra.Command{
		Use: "config", Short: "Check the configuration, and show where each value comes from", Args: cobra.NoArgs,
		Long: `Look at the configuration as it stands in the files: of breakerd
(/etc/breakerd/breakerd.yaml and breakerd.yaml.d/*.yaml), and of breaker-enforcer
(/etc/breakerd/enforcer.yaml). What options of the programs change is not in it, and what
was not loaded since is: breakerctl status says what needs a restart.`,
		RunE: func(c *cobra.Command, _ []string) error { return c.Help() },
	}
	var files [2]string
	c.PersistentFlags().StringVar(&files[0], "config", "", "`FILE` of breakerd, with its drop-ins (default "+settings.DefaultFile+")")
	c.PersistentFlags().StringVar(&files[1], "enforcer-config", "", "`FILE` of breaker-enforcer (default "+enforce.DefaultConfigFile+")")
	c.AddCommand(a.configCheck(&files), a.configShow(&files), a.configDiff(&files))
	return c
}

// read reads one of the configurations.
func readConfigured(name string, files *[2]string) (configured, error) {
	if name == "breaker-enforcer" {
		c := configured{name: name, file: files[1], defaults: config.Keys(enforce.DefaultConfig())}
		cfg, origins, err := enforce.ReadConfig(files[1])
		c.keys, c.origins = config.Keys(cfg), origins
		return c, err
	}
	c := configured{name: name, file: files[0], defaults: config.Keys(settings.Default())}
	cfg, origins, err := settings.Load(files[0])
	c.keys, c.origins, c.policies = config.Keys(cfg), origins, cfg.PolicyPaths()
	c.bundle = cfg.Policies.Bundle
	return c, err
}

var configNames = []string{"breakerd", "breaker-enforcer"}

// chosen are the configurations that an argument names, or both.
func chosen(args []string) ([]string, error) {
	switch {
	case len(args) == 0:
		return configNames, nil
	case args[0] == "breakerd", args[0] == "breaker-enforcer":
		return args, nil
	}
	return nil, fmt.Errorf("%q has no configuration: name breakerd or breaker-enforcer", args[0])
}

// checked is what config check says of one part.
type checked struct {
	Part   string   `json:"part"`
	OK     bool     `json:"ok"`
	Detail string   `json:"detail"`
	Errors []string `json:"errors"`
}

func (a *app) configCheck(files *[2]string) *cobra.Command {
	return &cobra.Command{
		Use: "check", Short: "Say whether the configuration and the policies would be loaded", Args: cobra.NoArgs,
		Long: `Read the configurations of breakerd and of breaker-enforcer and compile the policies, as
both programs would, and change nothing. Each mistake is told with file, line and column.

Exit codes:
  0  all of it would be loaded
  1  something would be refused`,
		RunE: func(c *cobra.Command, _ []string) error {
			all := checkConfig(files)
			if a.output == jsonText {
				if err := writeJSON(c.OutOrStdout(), map[string]any{"parts": all}); err != nil {
					return err
				}
			} else {
				writeChecked(c.OutOrStdout(), all)
			}
			for _, part := range all {
				if !part.OK {
					return errSilent
				}
			}
			return nil
		},
	}
}

func checkConfig(files *[2]string) (all []checked) {
	add := func(part, detail string, err error) {
		c := checked{Part: part, OK: err == nil, Detail: detail, Errors: []string{}}
		if err != nil {
			c.Errors = strings.Split(err.Error(), "\n")
		}
		all = append(all, c)
	}
	for _, name := range configNames {
		c, err := readConfigured(name, files)
		add(name, fmt.Sprintf("%d of %d keys are set", len(c.origins), values(c.keys)), err)
		if name != "breakerd" || err != nil {
			continue
		}
		if bundle.IsURL(c.bundle.Source) {
			add("policies", "not checked: they are one set with the bundle of "+c.bundle.Source+", which only breakerd fetches (breakerctl status)", nil)
			continue
		}
		set, err := c.load()
		detail := "none: nothing will ever be done"
		if err == nil && len(set.Packages()) > 0 {
			detail = strings.Join(set.Packages(), " ")
		}
		add("policies", detail, err)
	}
	return all
}

// load compiles the policies with those of a bundle on the disk.
func (c *configured) load() (*policy.Set, error) {
	gathered := policy.Gather(c.policies...)
	if c.bundle.Source != "" {
		key, err := bundle.ReadKey(c.bundle.PublicKey, c.bundle.Algorithm)
		if err != nil {
			return nil, err
		}
		b, err := bundle.ReadPath(c.bundle.Source, key)
		if err != nil {
			return nil, fmt.Errorf("bundle %s: %w", c.bundle.Source, err)
		}
		gathered.Add(c.bundle.Source, b.Files)
	}
	return gathered.Compile()
}

func values(keys []config.Key) (n int) {
	for _, k := range keys {
		if !k.Group() {
			n++
		}
	}
	return n
}

func writeChecked(w io.Writer, all []checked) {
	for _, part := range all {
		if part.OK {
			fmt.Fprintf(w, "%-8s %s: %s\n", fine, part.Part, safetext.Printable(part.Detail))
		}
		for _, e := range part.Errors {
			fmt.Fprintf(w, "%-8s %s: %s\n", failure, part.Part, safetext.Printable(e))
		}
	}
}

// shown is a key as config show and diff tell of it.
type shown struct {
	Program string `json:"program"`
	Key     string `json:"key"`
	Value   string `json:"value"`   // as in a file
	Default string `json:"default"` // the same
	Origin  string `json:"origin"`  // FILE:LINE:COLUMN, or "default"
}

func (c configured) shown() (all []shown) {
	for i, k := range c.keys {
		if k.Group() {
			continue
		}
		s := shown{Program: c.name, Key: k.Name, Value: k.Value, Default: c.defaults[i].Value, Origin: "default"}
		if at, set := c.origins[k.Name]; set {
			s.Origin = at.String()
		}
		all = append(all, s)
	}
	return all
}

const configHelp = `With -o yaml it is a file that can be read again, with the origin of each value beside it;
name the program whose file it is to be: breakerd if none is.`

func (a *app) configShow(files *[2]string) *cobra.Command {
	return &cobra.Command{
		Use: "show [breakerd|breaker-enforcer]", Short: "Show every value, and the file, line and column that it comes from", Args: cobra.MaximumNArgs(1),
		Long: `Show every key of the configuration with its value and where that stands: the file, line
and column, or that it is the default.

` + configHelp,
		Annotations: yamlToo, ValidArgs: configNames,
		RunE: func(c *cobra.Command, args []string) error {
			return a.showConfig(c.OutOrStdout(), files, args, func(shown) bool { return true })
		},
	}
}

func (a *app) configDiff(files *[2]string) *cobra.Command {
	return &cobra.Command{
		Use: "diff [breakerd|breaker-enforcer]", Short: "Show what differs from the defaults", Args: cobra.MaximumNArgs(1),
		Long: `Show the keys whose values differ from the defaults, both values, and where the value
stands. A file that sets a key to its default is no difference.

` + configHelp,
		Annotations: yamlToo, ValidArgs: configNames,
		RunE: func(c *cobra.Command, args []string) error {
			return a.showConfig(c.OutOrStdout(), files, args, func(s shown) bool { return s.Value != s.Default })
		},
	}
}

func (a *app) showConfig(w io.Writer, files *[2]string, args []string, wanted func(shown) bool) error {
	names, err := chosen(args)
	if err != nil {
		return err
	}
	if a.output == yamlText {
		names = names[:1]
	}
	all := []shown{}
	for _, name := range names {
		c, err := readConfigured(name, files)
		if err != nil {
			return err
		}
		if a.output == yamlText {
			return writeYAML(w, c, wanted)
		}
		for _, s := range c.shown() {
			if wanted(s) {
				all = append(all, s)
			}
		}
	}
	if a.output == jsonText {
		return writeJSON(w, all)
	}
	if len(all) == 0 {
		fmt.Fprintln(w, "nothing differs from the defaults")
		return nil
	}
	r := newRows(w, "PROGRAM", "KEY", "VALUE", "DEFAULT", "ORIGIN")
	for _, s := range all {
		if s.Default == s.Value {
			s.Default = "-"
		}
		r.add(s.Program, s.Key, s.Value, s.Default, s.Origin)
	}
	return r.flush()
}

// writeYAML writes the keys that are wanted, and the groups that they are in.
func writeYAML(w io.Writer, c configured, wanted func(shown) bool) error {
	origin := make(map[string]string)
	needed := make(map[string]bool)
	for _, s := range c.shown() {
		if !wanted(s) {
			continue
		}
		origin[s.Key] = s.Origin
		for key := s.Key; key != ""; key = key[:max(0, strings.LastIndexByte(key, '.'))] {
			needed[key] = true
		}
	}
	var keys []config.Key
	for _, k := range c.keys {
		if needed[k.Name] {
			keys = append(keys, k)
		}
	}
	_, err := io.WriteString(w, config.Write(keys, func(k config.Key) string { return safetext.Printable(origin[k.Name]) }))
	return err
}

// yamlToo marks commands that know -o yaml.
var yamlToo = map[string]string{"yaml": "true"}

var errNoYAML = errors.New("-o yaml: only config show and diff have that; the formats are table and json")
