package decisionlog

import (
	"compress/gzip"
	"context"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/breakerd/breakerd/model"
	"github.com/breakerd/breakerd/policy"
	"github.com/breakerd/breakerd/safetext"
)

var at = time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

func answer() Answer {
	in := policy.Input{Incident: policy.Incident{ID: "i-1", Culprit: policy.Culprit{CgroupID: 1<<63 + 1, Root: policy.Root{PID: 7, Cmdline: "--password=secret"}}}}
	freeze := model.Action{Kind: model.Freeze, Scope: model.ScopeTree, ForMS: 5000, Reason: "x"}
	return Answer{
		ID: "i-1-1", IncidentID: "i-1", At: at, Input: &in, PolicyHash: "sha256:ab", Revision: "r7",
		Verdict: &policy.Verdict{Action: freeze, Policy: "breaker.a", Asked: []policy.Request{{Policy: "breaker.a", Action: freeze}}, Elapsed: 40 * time.Microsecond},
	}
}

func TestAnEntryIsInTheFormOfOPAsDecisionLogWithoutWhatIsMasked(t *testing.T) {
	m, err := NewMask([]string{"/input/incident/culprit/root/cmdline", "/input/incident/victims"})
	if err != nil {
		t.Fatal(err)
	}
	a := answer()
	e, err := m.Entry(a, map[string]string{"id": "host"})
	if err != nil {
		t.Fatal(err)
	}
	whole, _ := json.Marshal(a.Input)
	text, err := json.Marshal(e)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(text), "secret") || !strings.Contains(string(text), `"cgroup_id":9223372036854775809`) || !strings.Contains(string(text), `"pid":7`) {
		t.Errorf("%s", text)
	}
	e.Input = nil
	want := Entry{
		Labels: map[string]string{"id": "host"}, DecisionID: "i-1-1", Bundles: map[string]Bundle{"breakerd": {"r7"}}, Path: "breaker",
		Result:    Result{Action: Asked{Policy: "breaker.a", Action: a.Verdict.Action}, Asked: []Asked{{Policy: "breaker.a", Action: a.Verdict.Action}}, Denied: []Denied{}},
		Erased:    []string{"/input/incident/culprit/root/cmdline", "/input/incident/victims"},
		Timestamp: at, Metrics: map[string]int64{"timer_rego_query_eval_ns": 40000},
		Custom: map[string]string{"incident_id": "i-1", "input_hash": Hash(whole), "policy_hash": "sha256:ab"},
	}
	if diff := cmp.Diff(want, e); diff != "" {
		t.Error(diff)
	}
}

// What the journal shows has no characters that have to be escaped for it, and no more than it takes.
func TestAnEntrysTextIsJSONInASCIIWithinItsLimit(t *testing.T) {
	a := answer()
	a.Input.Incident.Culprit.Cgroup = "/a\x7f\u202e\U000e0041\u00e9\x1b"
	for range 64 {
		a.Verdict.Asked = append(a.Verdict.Asked, policy.Request{Policy: "breaker.a", Action: model.Action{Kind: model.Freeze, Reason: strings.Repeat("x", 256)}})
	}
	e, err := Mask{}.Entry(a, nil)
	if err != nil {
		t.Fatal(err)
	}
	whole, err := e.Text(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	for _, tt := range []struct {
		limit         int
		erased        []string
		cgroup, asked bool
	}{
		{len(whole), nil, true, true},
		{len(whole) - 1, []string{"/input"}, false, true},
		{4 << 10, []string{"/input", "/result/asked", "/result/denied"}, false, false},
	} {
		text, err := e.Text(tt.limit)
		if err != nil || len(text) > tt.limit || safetext.Printable(string(text)) != string(text) {
			t.Errorf("%d bytes at most: %d bytes, error %v\n%s", tt.limit, len(text), err, text)
		}
		var got struct {
			Input  *policy.Input
			Result Result
			Erased []string
		}
		if err := json.Unmarshal(text, &got); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(tt.erased, got.Erased); diff != "" || got.Result.Action.Action.Kind != model.Freeze {
			t.Errorf("%d bytes at most: %s, action %+v", tt.limit, diff, got.Result.Action)
		}
		if tt.cgroup != (got.Input != nil && got.Input.Incident.Culprit.Cgroup == a.Input.Incident.Culprit.Cgroup) || tt.asked != (len(got.Result.Asked) == 65) {
			t.Errorf("%d bytes at most: input %+v, %d asked", tt.limit, got.Input, len(got.Result.Asked))
		}
	}
	if e.Input == nil || len(e.Result.Asked) != 65 || e.Erased != nil {
		t.Error("what is sent elsewhere was changed")
	}
}

func TestAMaskThatLeadsToNothingIsRefused(t *testing.T) {
	for _, p := range []string{"", "/input", "/input/", "input/incident", "/incident/culprit", "/input/incident/culprit/root/cmdlin", "/input/incident/victims/cgroup", "/result/reason"} {
		if _, err := NewMask([]string{p}); err == nil || !strings.Contains(err.Error(), "leads to nothing of the input") {
			t.Errorf("%q: %v", p, err)
		}
	}
}

func TestEntriesAreSentInBatchesAndAgainUntilTheyAreTaken(t *testing.T) {
	got := make(chan []Entry, 10)
	fail := 2
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if fail > 0 {
			fail--
			http.Error(w, "later", http.StatusServiceUnavailable)
			return
		}
		z, err := gzip.NewReader(r.Body)
		if err != nil || r.Header.Get("Content-Encoding") != "gzip" || r.Method != http.MethodPost {
			t.Error(r.Method, r.Header, err)
			return
		}
		var batch []Entry
		if err := json.NewDecoder(z).Decode(&batch); err != nil {
			t.Error(err)
		}
		got <- batch
	}))
	defer server.Close()
	s := NewSender(server.URL, "")
	s.every = time.Millisecond
	for range maxBatch + 1 {
		s.Send(Entry{DecisionID: "d", Timestamp: at})
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	if n := len(<-got); n != maxBatch {
		t.Errorf("the first batch has %d", n)
	}
	if n := len(<-got); n != 1 {
		t.Errorf("the second batch has %d", n)
	}
	cancel()
	<-ended
}

func TestAnEndpointThatDoesNotAnswerKeepsNobodyWaiting(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		_, _ = io.Copy(io.Discard, r.Body) // that the client has gone is seen behind it
		<-r.Context().Done()
	}))
	defer server.Close()
	s := NewSender(server.URL, "")
	s.every, s.client.Timeout = time.Millisecond, 50*time.Millisecond
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan struct{})
	go func() { defer close(ended); s.Run(ctx) }()
	began := time.Now()
	for range 3 * maxWaiting {
		s.Send(Entry{DecisionID: "d"})
	}
	if took := time.Since(began); took > time.Second {
		t.Errorf("sending took %v", took)
	}
	for {
		dropped, err := s.State()
		if dropped < maxWaiting {
			t.Fatalf("%d dropped", dropped)
		}
		if err != nil {
			if !strings.Contains(err.Error(), "Client.Timeout exceeded") {
				t.Errorf("error %v", err)
			}
			break
		}
		time.Sleep(time.Millisecond)
	}
	cancel()
	<-ended
}

// answers is an endpoint that gives these statuses, and the last of them from then on.
type answers struct {
	statuses []int
	at       []time.Time
	most     int // requests, then it is over
	over     func()
}

func (a *answers) RoundTrip(*http.Request) (*http.Response, error) {
	status := a.statuses[min(len(a.at), len(a.statuses)-1)]
	if a.at = append(a.at, time.Now()); len(a.at) == a.most {
		a.over()
	}
	return &http.Response{StatusCode: status, Status: http.StatusText(status), Body: http.NoBody}, nil
}

// sent has a full batch and an entry more sent to an endpoint that answers so, until it has
// been asked that often.
func sent(t *testing.T, asked int, statuses ...int) (*Sender, *answers) {
	ctx, cancel := context.WithCancel(t.Context())
	to := &answers{statuses: statuses, most: asked, over: cancel}
	s := NewSender("http://log.example", "")
	s.client.Transport = to
	for range maxBatch + 1 {
		s.Send(Entry{DecisionID: "d"})
	}
	s.Run(ctx)
	return s, to
}

func TestAnEndpointThatFailsAfterAFullBatchIsLeftAloneForAWhile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		_, to := sent(t, 5, http.StatusOK, http.StatusServiceUnavailable)
		var pauses []time.Duration
		for i := range to.at[1:] {
			pauses = append(pauses, to.at[i+1].Sub(to.at[i]))
		}
		if diff := cmp.Diff([]time.Duration{0, sendEvery, 2 * sendEvery, 4 * sendEvery}, pauses); diff != "" {
			t.Error(diff)
		}
	})
}

func TestABatchThatIsRefusedForGoodDoesNotStandInTheWay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, _ := sent(t, 2, http.StatusRequestEntityTooLarge, http.StatusOK)
		if dropped, err := s.State(); dropped != maxBatch || err != nil {
			t.Errorf("%d dropped, error %v; want the first batch, and the next taken", dropped, err)
		}
	})
}
