package gha

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
)

// service is where the service is, below its URL: Twirp, with JSON.
const service = "twirp/github.actions.results.api.v1.CacheService/"

// The service says with these words what a job's token may not do.
const (
	writeDenied = "cache write denied:"
	readDenied  = "cache read denied:"
)

// An Error is what the service, or its storage, answers that does not do what it was asked
// for.
type Error struct {
	Host   string
	Status int    // the HTTP status
	Code   string // the service's own, "unauthenticated"; "" where it gave none

	said string // in the service's own words
	err  error  // what it means for the next attempt
}

// Unwrap returns what the error means for the next attempt.
func (e *Error) Unwrap() error { return e.err }

// Error says what the service answers, and what to do.
func (e *Error) Error() string {
	said := strings.Join(strings.Fields(e.said), " ")
	if said != "" {
		said = " (" + said + ")"
	}
	if e.Status == http.StatusUnauthorized {
		return fmt.Sprintf("%s does not accept $%s%s: it is good for its job only, and no longer than that", e.Host, TokenVariable, said)
	}
	return fmt.Sprintf("%s: %d %s%s", e.Host, e.Status, strings.TrimSpace(http.StatusText(e.Status)+" "+e.Code), said)
}

// taken reports whether there is an entry, or an upload, under the key of an entry that was
// to be made.
func (e *Error) taken() bool { return e.Status == http.StatusConflict || e.Code == "already_exists" }

// clean returns a text of the service without the token, and without what is signed.
func (s *Store) clean(text string) string {
	text = strings.ReplaceAll(transfer.RedactText(text), s.login.token, "...")
	return text[:min(len(text), 300)]
}

// newError reads an answer.
func (s *Store) newError(ans *transfer.Answer) *Error {
	var body struct{ Code, Msg string }
	_ = json.Unmarshal(ans.Body, &body) // there need not be one
	e := &Error{Status: ans.Code, Code: s.clean(body.Code), said: s.clean(body.Msg)}
	if u, err := url.Parse(ans.URL); err == nil {
		e.Host = u.Host
	}
	after, limited := transfer.RateLimit(ans.Code, ans.Header, time.Now())
	if !limited {
		after = transfer.RetryAfter(ans.Header, time.Now())
	}
	if transfer.Busy(ans.Code) || limited {
		// Retry understands it.
		e.err = &transfer.StatusError{URL: transfer.Redact(ans.URL), Code: ans.Code, RetryAfter: after, Limited: limited}
	}
	return e
}

// callTime is how long the service may take to answer. Package transfer gives what has a
// body longer, since it may be large.
const callTime = 30 * time.Second

// call sends a request to the service until there is an answer that is final.
func (s *Store) call(ctx context.Context, method string, in, out any) error {
	if err := s.refused.Reading(); err != nil {
		return err
	}
	body, err := json.Marshal(in)
	if err != nil {
		return err
	}
	err = s.tr.Retry(ctx, 0, func() error {
		within, cancel := context.WithTimeout(ctx, callTime)
		defer cancel()
		req, err := http.NewRequestWithContext(within, http.MethodPost, s.login.at.JoinPath(service+method).String(), bytes.NewReader(body))
		if err != nil {
			return transfer.Fatal(errors.New("malformed URL"))
		}
		req.Header.Set("Authorization", "Bearer "+s.login.token) // no redirect is followed
		req.Header.Set("Content-Type", "application/json")
		ans, err := s.tr.Send(within, req)
		if err != nil && within.Err() != nil && ctx.Err() == nil {
			return transfer.Transient(err)
		}
		if err != nil {
			return err
		}
		if ans.Code != http.StatusOK {
			return s.newError(ans)
		}
		if json.Unmarshal(ans.Body, out) != nil {
			return fmt.Errorf("%s: the answer is not of GitHub's cache service", s.login.at.Host)
		}
		return nil
	})
	return s.explain(ctx, err)
}

// explain returns an error, and remembers what all further requests would get too.
func (s *Store) explain(ctx context.Context, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var e *Error
	if errors.As(err, &e) {
		if err := s.denied(e.said); err != nil {
			return err
		}
		if e.err == nil && (e.Status == http.StatusUnauthorized || e.Status == http.StatusForbidden) && e.Host == s.login.at.Host {
			s.refused.Read(err, 0)
		}
	} else if pause := transfer.Pause(err); pause > 0 {
		s.refused.Read(err, pause)
	}
	return err
}

// denied returns an error if the service says that the job's token has not the right for
// something, and remembers it.
func (s *Store) denied(said string) error {
	switch {
	case strings.HasPrefix(said, writeDenied):
		slog.Info("the cache of GitHub Actions is only read", "said", s.clean(said))
		s.refused.Write(cache.ErrReadOnly, 0)
		return cache.ErrReadOnly
	case strings.HasPrefix(said, readDenied):
		err := errors.New(s.clean(said))
		s.refused.Read(err, 0)
		return err
	}
	return nil
}

// ask returns the key of the newest entry that begins with the first of the prefixes, or
// else the next, and where it is.
func (s *Store) ask(ctx context.Context, prefixes []string) (name, signed string, err error) {
	var found struct {
		OK        bool   `json:"ok"`
		URL       string `json:"signed_download_url"`
		MatchedAs string `json:"matched_key"`
	}
	err = s.call(ctx, "GetCacheEntryDownloadURL", struct {
		Key         string   `json:"key"`
		RestoreKeys []string `json:"restore_keys"`
		Version     string   `json:"version"`
	}{prefixes[0], prefixes, version}, &found)
	if e := (*Error)(nil); errors.As(err, &e) && e.Code == "not_found" || err == nil && !found.OK {
		return "", "", cache.ErrNotCached
	}
	if err != nil {
		return "", "", err
	}
	return found.MatchedAs, found.URL, nil
}

// stored is a request to the storage of the service.
type stored struct {
	method string
	url    string // signed
	query  string // what is added to its query
	header http.Header
	body   io.ReaderAt // nil: none
	size   int64
}

// storage sends a request to a URL that the service has signed: Azure's, as
// https://learn.microsoft.com/rest/api/storageservices/put-blob has it.
func (s *Store) storage(ctx context.Context, r stored) (ans *transfer.Answer, err error) {
	u, err := url.Parse(r.url)
	if err != nil || !secure(u) {
		return nil, fmt.Errorf("%s names no storage with TLS", s.login.at.Host)
	}
	if r.query != "" {
		u.RawQuery = strings.TrimPrefix(u.RawQuery+"&"+r.query, "&")
	}
	ctx = transfer.LedBy(ctx, s.login.at)
	err = s.tr.Retry(ctx, 0, func() error {
		req, err := http.NewRequestWithContext(ctx, r.method, u.String(), nil)
		if err != nil {
			return transfer.Fatal(errors.New("malformed URL"))
		}
		for name, values := range r.header {
			req.Header[name] = values
		}
		req.Header.Set("Accept-Encoding", "identity")
		if r.body != nil {
			req.ContentLength = r.size
			req.Body = io.NopCloser(io.NewSectionReader(r.body, 0, r.size))
		}
		if ans, err = s.tr.Send(ctx, req); err != nil {
			return err
		}
		switch {
		case r.method == http.MethodPut && ans.Code == http.StatusCreated, r.method == http.MethodGet && ans.Code/100 == 2:
			return nil
		case ans.Code == http.StatusNotFound || ans.Code == http.StatusGone:
			return fmt.Errorf("%w: it was removed from the cache", cache.ErrNotCached)
		}
		e := s.newError(ans)
		e.Code = cmp.Or(e.Code, s.clean(ans.Header.Get("X-Ms-Error-Code")))
		return e
	})
	return ans, s.explain(ctx, err)
}
