// Package settings is what an operator can set for breakerd: the keys of breakerd.yaml
// with their defaults and bounds. The enforcer's own are in package enforce.
package settings

import (
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/breakerd/breakerd/breaker"
	"github.com/breakerd/breakerd/bundle"
	"github.com/breakerd/breakerd/config"
	"github.com/breakerd/breakerd/detect"
	"github.com/breakerd/breakerd/model"
)

// DefaultFile is read where no other is named; it may be missing.
const DefaultFile = "/etc/breakerd/breakerd.yaml"

// DefaultPolicies is the folder of the operator's policies; it may be missing.
const DefaultPolicies = "/etc/breakerd/policies"

// DefaultStateDir is what outlives the programs. It belongs to root: the enforcer's
// records are in it, and breakerd has a folder of its own there.
const (
	DefaultStateDir = "/var/lib/breakerd"
	HistoryDir      = "history"
)

// Settings are the keys of breakerd.yaml.
type Settings struct {
	// Mode is how far breakerd may go.
	Mode model.Mode `yaml:"mode" doc:"How far breakerd may go: monitor (watch and tell), dry-run (go through everything and write nothing) or enforce (ask breaker-enforcer). Needs a restart."`
	// Tick is how often a sample is taken: a shorter one costs more than it sees, a longer
	// one is slower than the holds of the detectors.
	Tick config.Duration `yaml:"tick" doc:"How often the machine is looked at. Where nothing happens a sample is taken each second, and after ten such seconds every two." range:"50ms..2s"`
	// RuntimeDir holds the sockets.
	RuntimeDir string `yaml:"runtime_dir" doc:"Folder of the sockets; breaker-enforcer and breakerctl must be told of another one with --runtime-dir. Needs a restart."`
	// Policies say what decides.
	Policies Policies `yaml:"policies" doc:"What decides. See breakerd-policies(7)."`
	// History is what is kept of what happened.
	History History `yaml:"history" doc:"What is kept of what happened: incidents, what was decided about them, and leases. See breakerctl incidents --since, why and report."`
	// Detect holds the thresholds.
	Detect detect.Config `yaml:"detect" doc:"The thresholds: when an incident opens, and when it closes. See breakerd-incidents(7)."`
	// Breaker says how breakers learn.
	Breaker breaker.Config `yaml:"breaker" doc:"How it is learned whether holding a culprit helps: by its victims."`
}

// History is how much is kept, and where.
type History struct {
	// Enabled keeps it at all.
	Enabled bool `yaml:"enabled" doc:"Whether anything is kept on the disk. Without it incidents are remembered until breakerd stops. Needs a restart."`
	// Dir is breakerd's own folder.
	Dir string `yaml:"dir" doc:"Folder of the file; breakerd's own, and made if missing. Needs a restart."`
	// MaxAge is how long something is kept.
	MaxAge config.Duration `yaml:"max_age" doc:"How long an incident is kept after its end." range:"1h..87600h"`
	// MaxSize bounds the file.
	MaxSize config.Size `yaml:"max_size" doc:"How large the file may become; the oldest goes first." range:"4MiB..1TiB"`
}

// Policies is where the policies are, and when a change of them counts.
type Policies struct {
	// Paths are directories of .rego files, or files.
	Paths []string `yaml:"paths" doc:"Folders of .rego files and their data, or files. The default one may be missing; no policy means that nothing is ever done."`
	// Settle is how long nothing may have changed before a change is read.
	Settle config.Duration `yaml:"settle" doc:"How long the files must have been left alone before a change of them is loaded by itself; one that is being written is waited for. With 0s only systemctl reload breakerd loads them." range:"0s..1h"`
	// Shadow is how long a new set is tried beside the one in force.
	Shadow config.Duration `yaml:"shadow" doc:"How long a new set of policies is tried beside the one in force, on the same incidents, before it comes into force; with 0s at once. In mode monitor, and where no set is in force, nothing is waited for." range:"0s..168h"`
	// Bundle is an OPA bundle beside the paths.
	Bundle Bundle `yaml:"bundle" doc:"An OPA bundle, whose policies and data are one set with those of paths."`
	// DecisionLog is what is written down of each answer.
	DecisionLog DecisionLog `yaml:"decision_log" doc:"What the policies answered, in the form of OPA's decision log."`
}

// DecisionLog says whether answers are written down, and where.
type DecisionLog struct {
	Enabled   bool     `yaml:"enabled" doc:"Whether answers are written to the journal and their input's hash to the history; each once until it is another."`
	Mask      []string `yaml:"mask" doc:"What is erased of the input, as JSON pointers; of a list only the whole."`
	URL       string   `yaml:"url" doc:"An http or https URL that entries are sent to as OPA sends them; empty for none. The unit has no network: see network.conf in /usr/share/breakerd."`
	TokenFile string   `yaml:"token_file" doc:"File whose content is sent with them as a bearer token, over https only; empty for none."`
}

// Bundle is where an OPA bundle comes from, and who must have signed it.
type Bundle struct {
	// Source is a file, a folder or a URL; "" is none.
	Source    string          `yaml:"source" doc:"A .tar.gz, a folder with the files of a bundle, or an http or https URL; empty for none. The unit has no network: see network.conf in /usr/share/breakerd."`
	PublicKey string          `yaml:"public_key" doc:"File with the PEM of the key that must have signed the bundle (or the secret, of an HMAC); empty where none must. Without TLS a URL needs one."`
	Algorithm string          `yaml:"algorithm" doc:"Algorithm of the signature, as JSON Web Signatures name it: RS256, ES256, HS256 and their likes."`
	Poll      config.Duration `yaml:"poll" doc:"How often a server is asked for another bundle. A file or a folder is watched as paths are." range:"1s..24h"`
	TokenFile string          `yaml:"token_file" doc:"File whose content is sent to the server as a bearer token, over https only; empty for none."`
}

// Default watches and does nothing.
func Default() Settings {
	return Settings{
		Mode:       model.Monitor,
		Tick:       config.Duration(250 * time.Millisecond),
		RuntimeDir: "/run/breakerd",
		Policies: Policies{
			Paths:  []string{DefaultPolicies},
			Settle: config.Duration(2 * time.Second),
			// As long as the longest lease: whoever comes again and again comes within that.
			Shadow: config.Duration(10 * time.Minute),
			Bundle: Bundle{Algorithm: "RS256", Poll: config.Duration(time.Minute)},
			// Command lines have passwords in them.
			DecisionLog: DecisionLog{Mask: []string{"/input/incident/culprit/root/cmdline"}},
		},
		History: History{
			Enabled: true,
			Dir:     filepath.Join(DefaultStateDir, HistoryDir),
			MaxAge:  config.Duration(30 * 24 * time.Hour),
			MaxSize: 256 << 20,
		},
		Detect:  detect.DefaultConfig(),
		Breaker: breaker.DefaultConfig(),
	}
}

// Load reads a configuration file and its drop-ins, and says where each value that they
// set stands. An empty name is the default file, which may be missing.
func Load(path string) (Settings, config.Origins, error) {
	c := Default()
	optional := path == ""
	if optional {
		path = DefaultFile
	}
	origins, err := config.LoadWithDropIns(path, optional, &c)
	if err != nil {
		return Settings{}, nil, err
	}
	return c, origins, nil
}

// Check says what is wrong with the configuration.
func (c *Settings) Check() error {
	if _, err := model.ParseMode(string(c.Mode)); err != nil {
		return &config.BadValue{Key: "mode", What: err.Error()}
	}
	if c.RuntimeDir == "" {
		return &config.BadValue{Key: "runtime_dir", What: "it must name a directory"}
	}
	if c.History.Enabled && c.History.Dir == "" {
		return &config.BadValue{Key: "history.dir", What: "it must name a directory"}
	}
	if err := c.Policies.Bundle.check(); err != nil {
		return err
	}
	if err := c.Policies.DecisionLog.check(); err != nil {
		return err
	}
	return config.CheckRanges("", c)
}

// check says what cannot be about where entries are sent.
func (l *DecisionLog) check() error {
	u, err := url.Parse(l.URL)
	switch {
	case l.URL == "":
		return nil
	case err != nil || !bundle.IsURL(l.URL):
		return &config.BadValue{Key: "policies.decision_log.url", What: fmt.Sprintf("%q is no http or https URL", l.URL)}
	case u.User != nil:
		return &config.BadValue{Key: "policies.decision_log.url", What: "a password in it would be shown with it: put a token into a file, and name that in token_file"}
	case u.Scheme == "http" && l.TokenFile != "":
		return &config.BadValue{Key: "policies.decision_log.token_file", What: "without TLS anybody on the way can read the token: use https"}
	}
	return nil
}

// check says what cannot be about a bundle.
func (b *Bundle) check() error {
	if !slices.Contains(bundle.Algorithms, b.Algorithm) {
		return &config.BadValue{Key: "policies.bundle.algorithm", What: fmt.Sprintf("%q is none of %s", b.Algorithm, strings.Join(bundle.Algorithms, ", "))}
	}
	u, err := url.Parse(b.Source)
	switch {
	case b.Source == "":
		return nil
	case err != nil:
		return &config.BadValue{Key: "policies.bundle.source", What: "it is no URL and no path: " + err.Error()}
	case u.Scheme != "" && !bundle.IsURL(b.Source):
		return &config.BadValue{Key: "policies.bundle.source", What: fmt.Sprintf("%s:// is not understood: name a file, a folder, or an http or https URL", u.Scheme)}
	case u.User != nil:
		return &config.BadValue{Key: "policies.bundle.source", What: "a password in it would be shown with it: put a token into a file, and name that in token_file"}
	case u.Scheme == "http" && b.PublicKey == "":
		return &config.BadValue{Key: "policies.bundle.source", What: "without TLS anybody on the way can change the policies: use https, or have them signed and name the key in public_key"}
	case u.Scheme == "http" && b.TokenFile != "":
		return &config.BadValue{Key: "policies.bundle.token_file", What: "without TLS anybody on the way can read the token: use https"}
	}
	return nil
}

// PolicyPaths are the policies to load: the default folder only where it is there.
func (c *Settings) PolicyPaths() []string {
	return slices.DeleteFunc(slices.Clone(c.Policies.Paths), func(path string) bool {
		_, err := os.Stat(path)
		return path == DefaultPolicies && errors.Is(err, fs.ErrNotExist)
	})
}
