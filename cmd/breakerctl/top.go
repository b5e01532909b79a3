package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"
	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/safetext"
)

func (a *app) top() *cobra.Command {
	var every time.Duration
	var times int
	key := string(model.SortStallCaused)
	c := &cobra.Command{
		Use: "top", Short: "Show who weighs on whom, live", Args: cobra.NoArgs,
		Long: `Show the cgroups, the processes and the incidents, live. Where the output is no terminal,
or with -n, print it so many times and end.

Keys: q quits, tab goes to the next view, space pauses; c, r, f, s and w sort by CPU, RSS,
forks, stall caused and stall suffered. What the columns mean is in breakerctl ps --help.`,
		RunE: func(c *cobra.Command, _ []string) error {
			by, err := sortKey(key)
			if err != nil {
				return err
			}
			if every < 200*time.Millisecond || every > time.Hour || times < 0 {
				return errors.New("--every is at least 200ms and at most 1h, and -n is not negative")
			}
			if a.output == jsonText {
				return errors.New("top is for people: breakerctl ps, incidents and blame have -o json")
			}
			s := newScreen(c.Context(), a.client(), by, every)
			out := c.OutOrStdout()
			if f, ok := out.(*os.File); times > 0 || !ok || !isTerminal(f) {
				return s.print(out, max(1, times))
			}
			_, err = tea.NewProgram(s, tea.WithContext(c.Context()), tea.WithOutput(out)).Run()
			if errors.Is(err, tea.ErrInterrupted) || errors.Is(err, context.Canceled) || errors.Is(err, tea.ErrProgramKilled) {
				return nil
			}
			return err
		},
	}
	c.Flags().DurationVar(&every, "every", time.Second, "look each `DURATION`")
	c.Flags().IntVarP(&times, "times", "n", 0, "print so many `TIMES` and end")
	c.Flags().StringVar(&key, "sort", key, "`KEY`: "+keys())
	return c
}

func isTerminal(f *os.File) bool {
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}

// watched is what top asks breakerd.
type watched interface {
	Status(context.Context) (api.Status, error)
	Processes(context.Context, api.Ranking) ([]model.ProcessFigures, error)
	Cgroups(context.Context, api.Ranking) ([]model.CgroupFigures, error)
	Incidents(context.Context) ([]model.Incident, error)
}

// tab is one of the views of a screen.
type tab int

const (
	cgroupTab tab = iota
	processTab
	incidentTab
	tabs
)

func (t tab) String() string { return [...]string{"cgroups", "processes", "incidents"}[t] }

// screen is what top shows.
type screen struct {
	ctx           context.Context
	ask           watched
	every         time.Duration
	by            model.SortKey
	tab           tab
	paused        bool
	width, height int
	seen, before  look
	asking        bool
}

// look is what breakerd said at one time.
type look struct {
	status    api.Status
	processes []model.ProcessFigures
	cgroups   []model.CgroupFigures
	incidents []model.Incident
	err       error
}

type tickMsg struct{}

func newScreen(ctx context.Context, ask watched, by model.SortKey, every time.Duration) *screen {
	return &screen{ctx: ctx, ask: ask, by: by, every: every, width: page, height: 24}
}

// rowsAsked is more than a screen shows.
const rowsAsked = 100

// patience is how long breakerd may take to answer.
const patience = 5 * time.Second

func (s *screen) look() look {
	ctx, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	var l look
	r := api.Ranking{By: s.by, Most: rowsAsked}
	if l.status, l.err = s.ask.Status(ctx); l.err != nil {
		return l
	}
	if l.processes, l.err = s.ask.Processes(ctx, r); l.err != nil {
		return l
	}
	if l.cgroups, l.err = s.ask.Cgroups(ctx, r); l.err != nil {
		return l
	}
	l.incidents, l.err = s.ask.Incidents(ctx)
	return l
}

// Init implements tea.Model.
func (s *screen) Init() tea.Cmd { return tea.Batch(s.again(), s.tick()) }

// again asks breakerd, unless a question is under way.
func (s *screen) again() tea.Cmd {
	if s.asking {
		return nil
	}
	s.asking = true
	asked := *s // the answer comes from another goroutine
	return func() tea.Msg { return asked.look() }
}

func (s *screen) tick() tea.Cmd {
	return tea.Tick(s.every, func(time.Time) tea.Msg { return tickMsg{} })
}

// Update implements tea.Model.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = msg.Width, msg.Height
	case look:
		s.asking = false
		if !s.paused {
			s.take(msg)
		}
	case tickMsg:
		if s.paused {
			return s, s.tick()
		}
		return s, tea.Batch(s.again(), s.tick())
	case tea.KeyPressMsg:
		return s, s.key(msg.String())
	}
	return s, nil
}

// take keeps what was said. Where breakerd does not answer, what it said last stays.
func (s *screen) take(l look) {
	if l.err != nil {
		s.seen.err = l.err
		return
	}
	s.before, s.seen = s.seen, l
}

var sortedBy = map[string]model.SortKey{
	"c": model.SortCPU, "r": model.SortRSS, "f": model.SortForks, "s": model.SortStallCaused, "w": model.SortStallSuffered,
}

func (s *screen) key(k string) tea.Cmd {
	switch k {
	case "q", "ctrl+c", "esc":
		return tea.Quit
	case "tab", "right":
		s.tab = (s.tab + 1) % tabs
	case "shift+tab", "left":
		s.tab = (s.tab + tabs - 1) % tabs
	case "space", "p":
		s.paused = !s.paused
	}
	if by, ok := sortedBy[k]; ok {
		s.by = by
		return s.again()
	}
	return nil
}

// View implements tea.Model.
func (s *screen) View() tea.View {
	v := tea.NewView(strings.Join(s.lines(s.tab, s.height), "\n"))
	v.AltScreen = true
	return v
}

// lines are a view, no wider and no higher than the screen.
func (s *screen) lines(t tab, height int) []string {
	all := s.head(t)
	var g *grid
	switch t {
	case cgroupTab:
		g = cgroupGrid(s.seen.cgroups)
	case processTab:
		g = psGrid(s.seen.processes)
	case incidentTab:
		g = incidentGrid(s.seen.incidents)
	}
	all = append(all, g.lines(s.width)...)
	if len(all) >= height {
		all = all[:max(0, height-1)]
	}
	for i := range all {
		all[i] = ansi.Truncate(all[i], s.width, "…")
	}
	return append(all, ansi.Truncate(s.foot(t), s.width, "…"))
}

func (s *screen) head(t tab) []string {
	st := s.seen.status
	state := fmt.Sprintf("breakerd %s, %s, %d incidents open, %d leases", safetext.Printable(st.Version), st.Mode, st.OpenIncidents, st.Leases)
	if s.paused {
		state += "  PAUSED"
	}
	second := "pressure: " + hostPressure(s.before.status, st)
	if s.seen.err != nil {
		second = "! " + safetext.Printable(s.seen.err.Error())
	}
	var names []string
	for i := range tabs {
		name := i.String()
		if i == t {
			name = "[" + name + "]"
		}
		names = append(names, name)
	}
	third := strings.Join(names, " ")
	if t != incidentTab {
		third += "  by " + string(s.by)
	}
	return []string{state, second, third, ""}
}

func (s *screen) foot(t tab) string {
	what := "q quit  tab view  space pause"
	switch t {
	case processTab:
		return what + "  sort: c r f s w   ~CAUSED estimated, SUFFERED the cgroup's"
	case cgroupTab:
		return what + "  sort: c r f s w   stall measured, ms/s"
	}
	return what
}

// hostPressure is the host's between two looks.
func hostPressure(before, now api.Status) string {
	d := now.LastSampleAt.Sub(before.LastSampleAt)
	switch {
	case now.Host.PressureAbsent:
		return "the kernel has none"
	case before.LastSampleAt.IsZero() || d <= 0:
		return "-"
	}
	part := func(from, to uint64) float64 {
		if to < from {
			return 0
		}
		return min(100, float64(to-from)/float64(d.Microseconds()+1)*100)
	}
	b, n := before.Host.Pressure, now.Host.Pressure
	return fmt.Sprintf("cpu %.0f %%  memory %.0f %%  io %.0f %% of the time somebody waits",
		part(b.CPU.SomeUS, n.CPU.SomeUS), part(b.Memory.SomeUS, n.Memory.SomeUS), part(b.IO.SomeUS, n.IO.SomeUS))
}

func incidentGrid(all []model.Incident) *grid {
	g := &grid{titles: []string{"ID", "LEVEL", "KIND", "LASTED", "CULPRIT", "VICTIMS"}, texts: 2}
	for _, in := range all[:min(len(all), rowsAsked)] {
		g.add(in.ID, string(in.Level), string(in.Kind), lasted(in), culprit(in.Culprit), victims(in.Victims))
	}
	return g
}

// print shows all views so many times without a terminal.
func (s *screen) print(w io.Writer, times int) error {
	const rows = 20
	for i := range times {
		if i > 0 {
			fmt.Fprintln(w)
			select {
			case <-s.ctx.Done():
				return nil
			case <-time.After(s.every):
			}
		}
		l := s.look()
		if l.err != nil {
			return l.err
		}
		s.take(l)
		for t := range tabs {
			lines := s.lines(t, rows)
			if t > 0 {
				lines = lines[len(s.head(t)):]
				fmt.Fprintln(w, "\n"+t.String())
			}
			for _, line := range lines[:len(lines)-1] { // the last one tells of keys
				fmt.Fprintln(w, line)
			}
		}
	}
	return nil
}
