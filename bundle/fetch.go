package bundle

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/breakerd/breakerd/internal/bearer"
)

// fetchBound is how long one request may take with all of its answer.
const fetchBound = time.Minute

// Fetcher fetches an archive from an HTTP server.
type Fetcher struct {
	URL       string
	TokenFile string // whose content is sent as a bearer token; "" sends none

	bound  time.Duration // 0 is fetchBound
	client *http.Client
}

// IsURL reports whether the source of a bundle is an HTTP server.
func IsURL(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

// Fetched is an answer. Archive is nil where it is still the one that the ETag names.
type Fetched struct {
	Archive []byte
	ETag    string
}

// Fetch asks for the archive unless it is the one that etag names. It takes at most a minute,
// and MaxPacked bytes.
func (f *Fetcher) Fetch(ctx context.Context, etag string) (Fetched, error) {
	bound := f.bound
	if bound == 0 {
		bound = fetchBound
	}
	ctx, cancel := context.WithTimeoutCause(ctx, bound, fmt.Errorf("took longer than %v", bound))
	defer cancel()
	out, err := f.fetch(ctx, etag)
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		err = context.Cause(ctx)
	}
	return out, err
}

func (f *Fetcher) fetch(ctx context.Context, etag string) (out Fetched, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, f.URL, nil)
	if err != nil {
		return out, err
	}
	if etag != "" {
		req.Header.Set("If-None-Match", etag)
	}
	if err := bearer.Add(req, f.TokenFile); err != nil {
		return out, err
	}
	if f.client == nil {
		t := http.DefaultTransport.(*http.Transport).Clone()
		t.DisableCompression = true // it is compressed, and bounded as such
		f.client = &http.Client{Transport: t, CheckRedirect: func(to *http.Request, via []*http.Request) error {
			if via[0].URL.Scheme == "https" && to.URL.Scheme != "https" {
				return errors.New("leads from https to http")
			}
			if len(via) > 5 {
				return errors.New("leads from one place to another without end")
			}
			return nil
		}}
	}
	resp, err := f.client.Do(req)
	if err != nil {
		return out, err
	}
	defer resp.Body.Close()
	switch resp.StatusCode {
	case http.StatusOK:
	case http.StatusNotModified:
		if etag == "" {
			return out, errors.New("answered 304 Not Modified to a request without an ETag")
		}
		return Fetched{ETag: etag}, nil
	default:
		return out, fmt.Errorf("answered %s", resp.Status)
	}
	out.Archive, err = io.ReadAll(io.LimitReader(resp.Body, MaxPacked+1))
	switch {
	case errors.Is(err, io.ErrUnexpectedEOF):
		return Fetched{}, errors.New("broke off in the middle")
	case err != nil:
		return Fetched{}, err
	case len(out.Archive) > MaxPacked:
		return Fetched{}, fmt.Errorf("sends more than %d MiB, which is the most: the download was cut off", MaxPacked>>20)
	}
	out.ETag = resp.Header.Get("ETag")
	return out, nil
}
