package daemon

import (
	"cmp"
	"context"
	"os"
	"slices"
	"sync"

	"github.com/breakerd/breakerd/api"
	"github.com/breakerd/breakerd/decisionlog"
	"github.com/breakerd/breakerd/judge"
	"github.com/breakerd/breakerd/settings"
	"github.com/breakerd/breakerd/systemd"
)

// decisions is the decision log.
type decisions struct {
	tell     func(systemd.Entry)
	revision func(policyHash string) string // of the bundle
	labels   map[string]string

	mu     sync.Mutex
	of     settings.DecisionLog
	stop   context.CancelFunc
	mask   decisionlog.Mask
	sender *decisionlog.Sender // nil where nothing is sent
	err    error               // why nothing is logged
	failed error               // why the last answer was not
}

// begin logs as the settings say, if that is not so already. A mask that leads to nothing means
// that nothing is logged: what it was to hide would be shown.
func (l *decisions) begin(ctx context.Context, of settings.DecisionLog) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.stop != nil && l.of.Enabled == of.Enabled && l.of.URL == of.URL && l.of.TokenFile == of.TokenFile && slices.Equal(l.of.Mask, of.Mask) {
		return
	}
	if l.stop != nil {
		l.stop()
	}
	l.of, l.sender, l.failed = of, nil, nil
	l.mask, l.err = decisionlog.NewMask(of.Mask)
	ctx, l.stop = context.WithCancel(ctx)
	if l.onLocked() && of.URL != "" {
		l.sender = decisionlog.NewSender(of.URL, of.TokenFile)
		go l.sender.Run(ctx)
	}
}

// on reports whether anything is logged.
func (l *decisions) on() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.onLocked()
}

func (l *decisions) onLocked() bool { return l.of.Enabled && l.err == nil }

// log logs an answer, and gives the hash of what the policies saw; "" where it is not logged,
// as where the settings have changed since it was asked for.
func (l *decisions) log(incident string, a *judge.Answer) (inputHash string) {
	l.mu.Lock()
	on, mask, sender := l.onLocked(), l.mask, l.sender
	l.mu.Unlock()
	if !on {
		return ""
	}
	e, err := mask.Entry(decisionlog.Answer{
		ID: a.ID, IncidentID: incident, At: a.At, Input: &a.Input, Verdict: &a.Verdict, PolicyHash: a.PolicyHash, Revision: l.revision(a.PolicyHash),
	}, l.labels)
	var text []byte
	if err == nil {
		text, err = e.Text(systemd.MaxLog)
	}
	l.mu.Lock()
	l.failed = err
	l.mu.Unlock()
	if err != nil { // a figure that is no number
		return ""
	}
	l.tell(systemd.PoliciesAnswered(a.ID, incident, e.Custom["input_hash"], a.PolicyHash, saying(e.Result), text))
	if sender != nil {
		sender.Send(e)
	}
	return e.Custom["input_hash"]
}

// saying is an answer in a few words.
func saying(r decisionlog.Result) string {
	switch {
	case r.Error != "":
		return r.Error
	case len(r.Denied) > 0:
		return "denied by " + r.Denied[0].Policy + ": " + r.Denied[0].Reason
	case len(r.Asked) > 0:
		return string(r.Action.Action.Kind) + ", by " + r.Action.Policy
	}
	return "nothing is asked for"
}

// state is how the log stands; nil where it is off.
func (l *decisions) state() *api.DecisionLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !l.of.Enabled {
		return nil
	}
	s := &api.DecisionLog{URL: l.of.URL}
	err := cmp.Or(l.err, l.failed)
	if l.sender != nil {
		var unsent error
		s.Dropped, unsent = l.sender.State()
		err = cmp.Or(err, unsent)
	}
	if err != nil {
		s.Error = err.Error()
	}
	return s
}

// labelsOf say whose log it is, as OPA's labels do.
func labelsOf(version string) map[string]string {
	host, err := os.Hostname()
	if err != nil {
		host = systemd.Unknown
	}
	return map[string]string{"id": host, "version": version}
}
