package report

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/charmbracelet/x/ansi"
	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"golang.org/x/net/html"

	"github.com/breakerd/breakerd/model"
)

var update = flag.Bool("update", false, "write the golden files")

var day = time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)

// hostile is a name that would like to be a page, a link, a terminal or a column.
const hostile = "<script>alert(1)</script>|[x](http://evil.example)\x1b[31m\u202e`\"'&"

// story is an incident of the day, so many minutes after its beginning.
func story(n int, minute int, kind model.Kind, level model.Level, cgroup string) model.Story {
	at := day.Add(time.Duration(minute) * time.Minute)
	until := at.Add(3 * time.Minute)
	return model.Story{Incident: model.Incident{
		ID: fmt.Sprintf("%012x", n), Kind: kind, State: model.Closed, OpenedAt: at, ClosedAt: &until, Level: level, Severity: 0.6,
		Culprit: model.Culprit{Cgroup: cgroup, CgroupID: model.CgroupID(100 + n), Scope: model.ScopeTree, Root: model.CulpritRoot{ProcID: model.ProcID{PID: int32(1000 + n), StartTime: 7}, Comm: "make"}},
		Victims: []model.Victim{{Cgroup: "/system.slice/web.service", CgroupID: 7, Unit: "web.service", Resource: model.CPU, StallMS: 4000}},
	}}
}

func record(policy, refusedBy, reason string) model.DecisionRecord {
	return model.DecisionRecord{Action: model.Freeze, Scope: model.ScopeTree, ForMS: 60_000, DryRun: true, Policy: policy, RefusedBy: refusedBy, Reason: reason}
}

func (s *storyOf) verdict(r model.DecisionRecord, times int) {
	r.At = s.OpenedAt.Add(time.Duration(len(s.Verdicts)+1) * time.Second)
	r.ID = fmt.Sprintf("%s-%d", s.ID, len(s.Verdicts)+1)
	s.Verdicts = append(s.Verdicts, model.Verdict{DecisionRecord: r, IncidentID: s.ID, PolicyHash: "sha256:aaaa", Times: times, LastAt: r.At.Add(time.Duration(times-1) * time.Second)})
}

// storyOf is a story to add to.
type storyOf struct{ model.Story }

// hold lets the story's culprit be held for so long, in which its victim waited.
func (s *storyOf) hold(policy string, after, long time.Duration, spared float64, change ...func(*model.Hold)) {
	at := s.OpenedAt.Add(after)
	end := at.Add(long)
	h := model.Hold{
		Lease: model.Lease{
			ID: fmt.Sprintf("%s-h%d", s.ID, len(s.Holds)), State: model.LeaseEnded, DryRun: true, CreatedAt: at, HeldAt: &at, ExpiresAt: end, EndedAt: &end, EndReason: model.EndExpired,
			Decision: model.Decision{IncidentID: s.ID, Policy: policy, PolicyHash: "sha256:aaaa", Action: model.Action{Kind: model.Freeze, Scope: model.ScopeTree}, Target: model.Target{Cgroup: s.Culprit.Cgroup, CgroupID: s.Culprit.CgroupID, Root: s.Culprit.Root.ProcID, Scope: model.ScopeTree}},
		},
		Before: []model.Victim{{Cgroup: "/system.slice/web.service", CgroupID: 7, Resource: model.CPU, StallMS: 900}},
		During: []model.Victim{{Cgroup: "/system.slice/web.service", CgroupID: 7, Unit: "web.service", Resource: model.CPU, StallMS: spared}},
	}
	for _, c := range change {
		c(&h)
	}
	s.Holds = append(s.Holds, h)
}

// aDay has a policy that is ready, one that needs work, and one to keep watching.
func aDay() *model.Chronicle {
	c := &model.Chronicle{Since: day, Until: day.Add(24 * time.Hour), Began: day.AddDate(0, 0, -9)}
	add := func(s storyOf) { c.Stories = append(c.Stories, s.Story) }
	eve := storyOf{story(90, -120, model.ForkStorm, model.Critical, "/user.slice/user-1000.slice/session-4.scope")} // before: breaker.storms is no new policy
	eve.verdict(record("breaker.storms", "", "a storm"), 1)
	add(eve)
	for i := range 5 { // ready to arm
		s := storyOf{story(i, 60+i*150, model.ForkStorm, model.Critical, "/user.slice/user-1000.slice/session-4.scope")}
		s.verdict(record("breaker.storms", "grace", "the incident is open for 1 s, and 15 s are asked for"), 14)
		s.verdict(record("breaker.storms", "", "a storm"), 1)
		s.hold("breaker.storms", 15*time.Second, time.Minute, 12_500+float64(100*i))
		for m := range 60 {
			s.Moments = append(s.Moments, model.Moment{At: s.OpenedAt.Add(time.Duration(m-8) * time.Second), LengthMS: 1000, CPUPercent: float64(30 + m%50), RunMS: 950, StallMS: float64(max(0, 8*(m-8)))})
		}
		add(s)
	}
	for i := range 4 { // flaps, hits others, asks for what is protected
		s := storyOf{story(20+i, 600+i*5, model.NoisyNeighbour, model.Warning, "/system.slice/"+hostile)}
		s.Culprit.Root.Comm = hostile
		s.Triage = &model.Triage{Processes: []model.ProcessFigures{
			{ProcID: s.Culprit.Root.ProcID, Comm: "make", CgroupID: s.Culprit.CgroupID},
			{ProcID: model.ProcID{PID: 5000}, ParentPID: s.Culprit.Root.PID, Comm: "child", CgroupID: s.Culprit.CgroupID},
			{ProcID: model.ProcID{PID: 5001}, ParentPID: 1, Comm: "bystander", CgroupID: s.Culprit.CgroupID},
		}}
		s.verdict(record("breaker.neighbours", "protected", hostile), 3)
		s.verdict(record("breaker.neighbours", "", "noisy"), 1)
		s.hold("breaker.neighbours", 2*time.Second, time.Minute, 50, func(h *model.Hold) {
			h.Decision.Action = model.Action{Kind: model.Throttle, Scope: model.ScopeCgroup, CPUPercent: 25, MemoryHigh: 512 << 20}
			h.Decision.Target.Scope, h.Decision.Target.Outside = model.ScopeCgroup, 4
		})
		add(s)
	}
	s := storyOf{story(40, 900, model.MemoryPressure, model.Warning, "/system.slice/batch.service")} // too little to judge
	s.Estimated = true
	s.verdict(record("breaker.memory", "feasibility", "memory.high cannot be written: the cgroup has no memory controller"), 8)
	s.verdict(record("breaker.memory", "policy", "on-call shell"), 2)
	s.hold("breaker.memory", 2*time.Second, 30*time.Second, 700, func(h *model.Hold) {
		h.During[0].Resource, h.Before[0].Resource = model.Memory, model.Memory
		h.EndReason, h.Note = "", "breakerd stopped meanwhile, so that its end was not seen"
	})
	add(s)
	s = storyOf{story(41, 950, model.MemoryPressure, model.Warning, "/system.slice/batch.service")}
	s.verdict(record("breaker.memory", "cooldown", "it was held 10 s ago"), 1)
	add(s)
	s = storyOf{story(42, 1000, model.IOPressure, model.Critical, "/system.slice/backup.service")} // failed
	failed := record("breaker.io", "", "")
	failed.Error = "io.max cannot be written: permission denied"
	s.verdict(failed, 2)
	add(s)
	for i := range 6 { // nobody said anything
		add(storyOf{story(50+i, 1100+i*20, model.CPUContention, []model.Level{model.Info, model.Warning}[i%2], "/init.scope")})
	}
	return c
}

func golden(t *testing.T, name string, got []byte) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, got, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(got)); diff != "" {
		t.Errorf("%s is another (-golden +now); go test ./report -update writes it:\n%s", path, diff)
	}
}

func write(t *testing.T, f func(io.Writer) error) []byte {
	t.Helper()
	var b bytes.Buffer
	if err := f(&b); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func asJSON(r *Report) func(io.Writer) error {
	return func(w io.Writer) error {
		enc := json.NewEncoder(w)
		enc.SetIndent("", "  ")
		return enc.Encode(r)
	}
}

func TestADayInEachForm(t *testing.T) {
	r := Of(aDay())
	golden(t, "day.txt", write(t, r.Text))
	golden(t, "day.md", write(t, r.Markdown))
	golden(t, "day.html", write(t, r.HTML))
	golden(t, "day.json", write(t, asJSON(r)))
}

func TestWhatIsSaidOfEachPolicyOfTheDay(t *testing.T) {
	r := Of(aDay())
	want := map[string]Advice{"breaker.storms": ReadyToArm, "breaker.neighbours": NeedsWork, "breaker.memory": KeepWatching, "breaker.io": NeedsWork}
	for _, p := range r.Policies {
		if p.Advice != want[p.Policy] || len(p.Reasons) == 0 {
			t.Errorf("%s: %s because %q, want %s", p.Policy, p.Advice, p.Reasons, want[p.Policy])
		}
		delete(want, p.Policy)
	}
	if len(want) > 0 {
		t.Errorf("nothing is said of %v", want)
	}
	if len(r.Flaps) != 1 || r.Flaps[0].Holds != 4 || len(r.OthersHit) != 1 || !slices.Equal(r.OthersHit[0].Names, []string{"bystander"}) {
		t.Errorf("flaps %+v, others hit %+v", r.Flaps, r.OthersHit)
	}
	if r.Totals.Unanswered != 3 || r.Totals.Held != 10 || r.Totals.SparedMS != 5*12_500+1000+4*50+700 {
		t.Errorf("totals %+v", r.Totals)
	}
}

func TestAdviceTurnsWithEachOfItsReasons(t *testing.T) {
	ready := Policy{Policy: "breaker.x", Held: 3, DryRun: 3, Helped: 3, Incidents: 3, SparedMS: 5000, heard: day.AddDate(0, 0, -2)}
	whole := Report{Since: day, Until: day.Add(24 * time.Hour), Began: day.AddDate(0, 0, -2)}
	for _, tt := range []struct {
		name   string
		change func(*Policy, *Report)
		want   Advice
		says   string
	}{
		{"ready", func(*Policy, *Report) {}, ReadyToArm, "3 times in 24 h"},
		{"a failure", func(p *Policy, _ *Report) { p.Failed, p.failure = 1, "no controller" }, NeedsWork, "it failed once: no controller"},
		{"protected", func(p *Policy, _ *Report) { p.Protected = 2 }, NeedsWork, "protected, 2 times"},
		{"flaps", func(p *Policy, _ *Report) { p.Flaps = 1 }, NeedsWork, "again and again"},
		{"others", func(p *Policy, _ *Report) { p.OthersHit = 5 }, NeedsWork, "5 processes"},
		{"infeasible", func(p *Policy, _ *Report) { p.Infeasible = 2 }, NeedsWork, "cannot be done in 2 of 3"},
		{"useless", func(p *Policy, _ *Report) { p.Helped = 0 }, NeedsWork, "nobody would have been spared"},
		{"armed already", func(p *Policy, _ *Report) { p.DryRun = 1 }, KeepWatching, "it acts already: 2 of 3"},
		{"nothing held", func(p *Policy, _ *Report) { p.Held, p.DryRun, p.Helped = 0, 0, 0 }, KeepWatching, "it held nothing"},
		{"too few", func(p *Policy, _ *Report) { p.Held, p.DryRun, p.Helped = 1, 1, 1 }, KeepWatching, "once only"},
		{"too short", func(_ *Policy, r *Report) { r.Until = day.Add(5 * time.Hour) }, KeepWatching, "5 h of it"},
		{"history too short", func(_ *Policy, r *Report) { r.Began = day.Add(20 * time.Hour) }, KeepWatching, "4 h of it"},
		{"a new policy", func(p *Policy, _ *Report) { p.heard = day.Add(20 * time.Hour) }, KeepWatching, "first said something 4 h ago"},
		{"a ladder that was climbed once", func(p *Policy, _ *Report) { p.rungs = 2 }, KeepWatching, "once only"},
		{"estimates", func(p *Policy, _ *Report) { p.Estimated = 1 }, KeepWatching, "1 of 3 times the blame is an estimate"},
		{"helps now and then", func(p *Policy, _ *Report) { p.Helped = 2 }, KeepWatching, "only 2 of 3 times"},
	} {
		p, r := ready, whole
		tt.change(&p, &r)
		p.advise(&r)
		if p.Advice != tt.want || !strings.Contains(strings.Join(p.Reasons, "\n"), tt.says) {
			t.Errorf("%s: %s because %q, want %s that says %q", tt.name, p.Advice, p.Reasons, tt.want, tt.says)
		}
	}
}

// policyOf is what a report says of the one policy in stories, of the day.
func policyOf(t *testing.T, stories ...storyOf) (Policy, *Report) {
	t.Helper()
	c := &model.Chronicle{Since: day, Until: day.Add(24 * time.Hour), Began: day.AddDate(0, 0, -9)}
	for _, s := range stories {
		c.Stories = append(c.Stories, s.Story)
	}
	r := Of(c)
	if len(r.Policies) != 1 {
		t.Fatalf("policies %+v", r.Policies)
	}
	return r.Policies[0], r
}

func TestANewPolicyIsNotReadyHoweverWellItDid(t *testing.T) {
	var stories []storyOf
	for i := range 3 {
		s := storyOf{story(i, 23*60+i*20, model.ForkStorm, model.Critical, fmt.Sprintf("/c%d", i))}
		s.verdict(record("breaker.x", "", "a storm"), 1)
		s.hold("breaker.x", 10*time.Second, time.Minute, 5000)
		stories = append(stories, s)
	}
	if p, _ := policyOf(t, stories...); p.Advice != KeepWatching || p.Held != 3 {
		t.Errorf("of an hour it is %s because %q", p.Advice, p.Reasons)
	}
	before := storyOf{story(9, -120, model.ForkStorm, model.Critical, "/c9")}
	before.verdict(record("breaker.x", "", "a storm"), 1)
	p, r := policyOf(t, append(stories, before)...)
	if p.Advice != ReadyToArm || r.Totals.Incidents != 3 {
		t.Errorf("it is %s because %q, of %d incidents", p.Advice, p.Reasons, r.Totals.Incidents)
	}
}

func TestAPolicyThatCannotBeEvaluatedFailed(t *testing.T) {
	s := storyOf{story(1, 60, model.ForkStorm, model.Critical, "/a")}
	s.verdict(model.DecisionRecord{Action: model.NoAction, Policy: "breaker.x", Error: "breaker.x: x.rego:7:5: div: divide by zero"}, 60)
	if p, r := policyOf(t, s); p.Advice != NeedsWork || p.Failed != 60 || r.Totals.Unanswered != 0 {
		t.Errorf("it is %s because %q, %d times, %d unanswered", p.Advice, p.Reasons, p.Failed, r.Totals.Unanswered)
	}

	s.Verdicts[0].Policy = "" // nobody knows whose it is
	r := Of(&model.Chronicle{Since: day, Until: day.Add(24 * time.Hour), Began: day, Stories: []model.Story{s.Story}})
	if r.Totals.Unanswered != 0 || r.Totals.Failed != 60 {
		t.Errorf("totals %+v", r.Totals)
	}
}

func TestALadderIsOneHoldAndDoesNotFlap(t *testing.T) {
	climb := func(s *storyOf) {
		for rung := range 3 {
			s.hold("breaker.x", time.Duration(10+20*rung)*time.Second, 20*time.Second, 2000, func(h *model.Hold) {
				if rung > 0 {
					h.Decision.After = fmt.Sprintf("%s-h%d", s.ID, rung-1)
				}
				if rung < 2 {
					h.EndReason = model.EndReplaced
				}
			})
		}
	}
	var stories []storyOf
	for i := range 3 {
		s := storyOf{story(i, 60+i*10, model.NoisyNeighbour, model.Warning, "/a")}
		climb(&s)
		stories = append(stories, s)
	}
	p, r := policyOf(t, stories[0])
	if len(r.Flaps) != 0 || p.Advice != KeepWatching || p.Held != 3 {
		t.Errorf("one climb: %s because %q, flaps %+v", p.Advice, p.Reasons, r.Flaps)
	}
	if p, r = policyOf(t, stories...); len(r.Flaps) != 1 || r.Flaps[0].Holds != 3 || p.Advice != NeedsWork {
		t.Errorf("three within half an hour: %s because %q, flaps %+v", p.Advice, p.Reasons, r.Flaps)
	}
}

func TestOfWhatWasReallyHeldItIsEstimatedWhoWasSpared(t *testing.T) {
	s := storyOf{story(1, 60, model.ForkStorm, model.Critical, "/a")}
	// 900 ms in the 10 s before; 60 s held, 400 ms in them.
	s.hold("breaker.x", 10*time.Second, time.Minute, 400, func(h *model.Hold) { h.DryRun = false })
	r := Of(&model.Chronicle{Since: day, Until: day.Add(24 * time.Hour), Began: day, Stories: []model.Story{s.Story}})
	if got := r.Totals.SparedMS; got != 900*6-400 || !r.Holds[0].Spared[0].Estimated {
		t.Errorf("%v ms, %+v: want 5000, estimated", got, r.Holds[0].Spared)
	}
	if text := string(write(t, r.Text)); !strings.Contains(text, "WHAT WAS HELD") || strings.Contains(text, "would have been held") {
		t.Errorf("it reads as if nothing had been held:\n%s", text)
	}
}

func TestOnlyWhatIsOfTheTimeCounts(t *testing.T) {
	s := storyOf{story(1, 60, model.ForkStorm, model.Critical, "/a")}
	s.verdict(record("breaker.x", "rate", "early"), 1)
	s.hold("breaker.x", time.Second, time.Minute, 400)
	s.hold("breaker.x", 2*time.Minute, time.Minute, 300)
	r := Of(&model.Chronicle{Since: s.OpenedAt.Add(time.Minute), Until: day.Add(24 * time.Hour), Began: day, Stories: []model.Story{s.Story}})
	if r.Totals.Held != 1 || r.Totals.Refused != 0 || r.Totals.SparedMS != 300 {
		t.Errorf("totals %+v, want the second hold alone", r.Totals)
	}
}

func TestAnEmptyHistorySaysSo(t *testing.T) {
	for _, tt := range []struct {
		began time.Time
		want  string
	}{
		{time.Time{}, "History is empty: no incident was kept yet."},
		{day.Add(-time.Hour), "Nothing happened: history has no incident of this time."},
		{day.Add(time.Hour), "It reaches back to 2026-03-01 01:00 UTC."},
	} {
		r := Of(&model.Chronicle{Since: day, Until: day.Add(24 * time.Hour), Began: tt.began})
		for name, f := range map[string]func(io.Writer) error{"text": r.Text, "markdown": r.Markdown, "html": r.HTML} {
			// Lines end anywhere.
			joined := strings.NewReplacer(" ", "", "\n", "")
			if got := string(write(t, f)); !strings.Contains(joined.Replace(got), joined.Replace(tt.want)) {
				t.Errorf("%s does not say %q:\n%s", name, tt.want, got)
			}
		}
		if text := string(write(t, asJSON(r))); strings.Contains(text, "null") {
			t.Errorf("a list is null: %s", text)
		}
	}
}

func TestTheTextKeepsToThePage(t *testing.T) {
	for line := range strings.Lines(string(write(t, Of(aDay()).Text))) {
		if w := ansi.StringWidth(strings.TrimRight(line, "\n")); w > page {
			t.Errorf("%d columns: %s", w, line)
		}
		if strings.ContainsAny(line, "\x1b\u202e\t") {
			t.Errorf("it could move a cursor: %q", line)
		}
	}
}

func TestHostileNamesAreTextInMarkdown(t *testing.T) {
	text := string(write(t, Of(aDay()).Markdown))
	if regexp.MustCompile("<script|://|[^\\\\]`|[^\\\\]\\]\\(|\x1b").MatchString(text) {
		t.Errorf("a name became something else:\n%s", text)
	}
	for line := range strings.Lines(text) {
		if strings.HasPrefix(line, "|") && strings.Contains(line, "alert") {
			cells := len(regexp.MustCompile(`[^\\]\|`).FindAllString(line, -1))
			if cells < 4 || cells > 8 {
				t.Errorf("%d columns: %s", cells, line)
			}
		}
	}
}

// The page is parsed as a browser does: what could load or run anything must not be there.
func TestTheHTMLLoadsNothingAndRunsNothing(t *testing.T) {
	page := write(t, Of(aDay()).HTML)
	root, err := html.Parse(bytes.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	allowed := strings.Fields("html head meta title style body main h1 h2 p div b span ul li table thead tbody tr th td svg g line text rect path figure figcaption i")
	elements := make(map[string]int)
	var walk func(*html.Node)
	walk = func(n *html.Node) {
		if n.Type == html.ElementNode {
			elements[n.Data]++
			if !slices.Contains(allowed, n.Data) {
				t.Errorf("there is an element %s", n.Data)
			}
			for _, a := range n.Attr {
				switch {
				case strings.HasPrefix(a.Key, "on"), slices.Contains([]string{"src", "href", "srcset", "action", "data", "poster", "background"}, a.Key):
					t.Errorf("%s has an attribute %s=%q", n.Data, a.Key, a.Val)
				case strings.Contains(a.Val, "://"), strings.Contains(a.Val, "url("), strings.Contains(a.Val, "javascript:"), strings.Contains(a.Val, "ZgotmplZ"):
					t.Errorf("%s has an attribute %s=%q", n.Data, a.Key, a.Val)
				case a.Key == "http-equiv" && a.Val != "Content-Security-Policy":
					t.Errorf("a meta element may do %s", a.Val)
				}
			}
		}
		if n.Type == html.TextNode && n.Parent.Data == "style" && regexp.MustCompile(`url\(|@import|://|ZgotmplZ`).MatchString(n.Data) {
			t.Errorf("the style loads something: %s", n.Data)
		}
		for c := n.FirstChild; c != nil; c = c.NextSibling {
			walk(c)
		}
	}
	walk(root)
	if elements["svg"] != 1+len(Of(aDay()).Charts) || elements["rect"] < 20 || elements["tr"] < 20 {
		t.Errorf("elements %v: want the timeline, the charts and the tables", elements)
	}
	if bytes.Contains(page, []byte("ZgotmplZ")) {
		t.Error("html/template refused a value")
	}
}

func TestAReportThatWasReadSaysTheSame(t *testing.T) {
	r := Of(aDay())
	var again Report
	if err := json.Unmarshal(write(t, asJSON(r)), &again); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(r, &again, cmpopts.IgnoreUnexported(Policy{}, Hold{})); diff != "" {
		t.Error(diff)
	}
	for name, f := range map[string][2]func(io.Writer) error{"text": {r.Text, again.Text}, "html": {r.HTML, again.HTML}, "markdown": {r.Markdown, again.Markdown}} {
		if diff := cmp.Diff(string(write(t, f[0])), string(write(t, f[1]))); diff != "" {
			t.Errorf("%s: %s", name, diff)
		}
	}
}

func TestTheOrderOfStoriesDoesNotMatter(t *testing.T) {
	c := aDay()
	want := write(t, asJSON(Of(c)))
	slices.Reverse(c.Stories)
	if diff := cmp.Diff(string(want), string(write(t, asJSON(Of(c))))); diff != "" {
		t.Error(diff)
	}
}

func TestAWeekOfTenThousandHoldsIsBounded(t *testing.T) {
	b := New(day, day.AddDate(0, 0, 7))
	for n := range 10_000 {
		s := storyOf{story(n, n, model.Kinds[n%len(model.Kinds)], model.Warning, fmt.Sprintf("/c%d", n))}
		s.verdict(record(fmt.Sprintf("breaker.p%d", n), "feasibility", "cannot be"), 1)
		s.hold(fmt.Sprintf("breaker.p%d", n), time.Second, time.Minute, float64(n))
		s.Moments = []model.Moment{{At: s.OpenedAt, LengthMS: 1000}, {At: s.OpenedAt.Add(time.Second), LengthMS: 1000}}
		b.Add(&s.Story)
	}
	r := b.Report(day)
	if len(r.Holds) != maxHolds || len(r.Policies) != maxRows || len(r.Infeasible) != maxRows || len(r.Charts) != maxCharts || len(r.Lanes) > maxRows || len(r.LeftOut) == 0 {
		t.Errorf("%d holds, %d policies, %d infeasible, %d charts, %d lanes; left out %v", len(r.Holds), len(r.Policies), len(r.Infeasible), len(r.Charts), len(r.Lanes), r.LeftOut)
	}
	if r.Totals.Held != 10_000 || r.Holds[0].SparedMS != 9999 {
		t.Errorf("%d were held, the first spared %v ms", r.Totals.Held, r.Holds[0].SparedMS)
	}
	if n := len(write(t, r.HTML)); n > 2<<20 {
		t.Errorf("the page has %d bytes", n)
	}
}
