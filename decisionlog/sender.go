package decisionlog

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync"
	"time"

	"github.com/breakerd/breakerd/internal/bearer"
)

// Bounds of what waits to be sent, and of sending it.
const (
	maxWaiting = 1000
	maxBatch   = 100
	sendBound  = 10 * time.Second
	sendEvery  = 5 * time.Second
	retryMost  = time.Minute
)

// Sender sends entries to an HTTP endpoint. It keeps nobody waiting: where there is no room,
// because the endpoint is slow or gone, entries are dropped and counted; so are those that it
// refuses for good.
type Sender struct {
	url       string
	tokenFile string
	waiting   chan Entry
	client    http.Client
	every     time.Duration

	mu      sync.Mutex
	dropped uint64
	err     error
}

// NewSender sends to a URL, with the content of a file as a bearer token if one is named.
func NewSender(url, tokenFile string) *Sender {
	return &Sender{url: url, tokenFile: tokenFile, waiting: make(chan Entry, maxWaiting), every: sendEvery, client: http.Client{
		Timeout: sendBound,
		// A POST that is led elsewhere would arrive as a GET without its body.
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

// Send takes an entry, if there is room.
func (s *Sender) Send(e Entry) {
	select {
	case s.waiting <- e:
	default:
		s.mu.Lock()
		s.dropped++
		s.mu.Unlock()
	}
}

// State is how many entries found no room or were refused for good, and why the last batch was
// not taken; nil if it was.
func (s *Sender) State() (dropped uint64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.dropped, s.err
}

// Run sends until the context ends. What waits then is lost: the journal has it.
func (s *Sender) Run(ctx context.Context) {
	var batch []Entry
	wait := s.every
	for {
		select {
		case <-ctx.Done():
			return
		case <-time.After(wait):
		}
		for len(batch) < maxBatch && len(s.waiting) > 0 {
			batch = append(batch, <-s.waiting)
		}
		if len(batch) == 0 {
			continue
		}
		err := s.post(ctx, batch)
		never := errors.Is(err, errNever)
		s.mu.Lock()
		if s.err = err; never {
			s.dropped += uint64(len(batch))
		}
		s.mu.Unlock()
		switch {
		case err != nil && !never:
			wait = min(max(2*wait, s.every), max(retryMost, s.every)) // after a full batch there was none
		default:
			batch, wait = batch[:0], s.every
			if len(s.waiting) > 0 {
				wait = 0
			}
		}
	}
}

// errNever says that the endpoint would not take a batch the next time either.
var errNever = errors.New("and what it was sent is given up")

// post sends a batch as OPA does: a JSON array, compressed.
func (s *Sender) post(ctx context.Context, batch []Entry) error {
	var body bytes.Buffer
	z := gzip.NewWriter(&body)
	if err := json.NewEncoder(z).Encode(batch); err != nil {
		return err
	}
	if err := z.Close(); err != nil {
		return err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, s.url, &body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	req.Header.Set("Content-Encoding", "gzip")
	if err := bearer.Add(req, s.tokenFile); err != nil {
		return err
	}
	resp, err := s.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.CopyN(io.Discard, resp.Body, 64<<10) // so that the connection can be used again
	switch resp.StatusCode {
	case http.StatusBadRequest, http.StatusRequestEntityTooLarge, http.StatusUnprocessableEntity:
		return fmt.Errorf("answered %s, %w", resp.Status, errNever)
	}
	if resp.StatusCode/100 != 2 {
		return fmt.Errorf("answered %s", resp.Status)
	}
	return nil
}
