package github

import (
	"bytes"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"time"

	gh "github.com/google/go-github/v62/github"

	"github.com/clayer/clayer/cache/transfer"
)

// Kind says why GitHub did not do what it was asked.
type Kind uint8

// The kinds of errors, as far as a caller or a user does something else about
// each.
const (
	Other     Kind = iota
	BadToken       // the token is not accepted
	NoToken        // something that requires a token, and there is none
	Forbidden      // the token's permissions don't reach
	NotFound       // not there, or not to be seen by this token
	Limited        // a rate limit that is too far away to wait for
	Exists         // what was to be made is there already
	UsedTag        // the tag belonged to an immutable release
	Immutable      // the release can't be changed any more
	Empty          // the repository has no commit
	Invalid        // GitHub does not accept the values
	Blocked        // something between here and GitHub refuses
)

// An Error is an answer of GitHub's other than the one hoped for.
type Error struct {
	Kind  Kind
	Repo  string // "owner/repo"; may be ""
	Code  int    // HTTP status; 0 where no request was sent
	Said  string // GitHub's own words
	Host  string // that answered
	Until time.Time
	Write bool

	proxied bool                  // the token is a placeholder
	status  *transfer.StatusError // decides whether it is tried again
}

// Unwrap returns the *transfer.StatusError, if there is one.
func (e *Error) Unwrap() error {
	if e.status == nil {
		return nil
	}
	return e.status
}

// Error says what is wrong in words, and what to do about it.
func (e *Error) Error() string {
	said := ""
	if e.Code != 0 {
		said = fmt.Sprintf(" (%d", e.Code)
		if e.Said != "" {
			said += " " + e.Said
		}
		said += ")"
	}
	repo := e.Repo
	if repo == "" {
		repo = "the repository"
	}
	switch e.Kind {
	case BadToken:
		return "GitHub does not accept the token" + said + ": it is mistyped, expired or revoked; put a new one into GH_TOKEN"
	case NoToken:
		if e.Write {
			return "writing to " + repo + " requires a token" + said + ": put one with the permission contents: write into GH_TOKEN"
		}
		return repo + ": not there, or private, and there is no token" + said + ": put one with the permission contents: read into GH_TOKEN"
	case Forbidden:
		if e.Write {
			return "the token may not write to " + repo + said + ": it needs the permission contents: write"
		}
		return "the token may not read " + repo + said + ": it needs the permission contents: read"
	case NotFound:
		if e.Write {
			return repo + ": not there, or the token may not write to it" + said + ": it needs the permission contents: write"
		}
		return repo + ": not there, or not for this token to see" + said
	case Limited:
		return "GitHub's rate limit is used up until " + e.Until.Local().Format("15:04:05")
	case Empty:
		return repo + " has no commit yet, and a release requires one" + said + ": commit something there, a README"
	case UsedTag:
		return "a tag of an immutable release is never free again" + said
	case Immutable:
		return "the release is immutable" + said
	case Blocked:
		if e.proxied {
			about := ""
			if e.Repo != "" {
				about = " about " + e.Repo
			}
			return fmt.Sprintf("the proxy of this session does not ask %s%s%s", e.Host, about, said)
		}
		return fmt.Sprintf("something between here and %s refuses%s: a proxy or a firewall; allow the host %s", e.Host, said, e.Host)
	}
	return fmt.Sprintf("GitHub answers %d %s", e.Code, e.Said)
}

// Is reports whether err is an Error of the kind.
func Is(err error, kind Kind) bool {
	var e *Error
	return errors.As(err, &e) && e.Kind == kind
}

// Refuses reports whether an error says that a repository may not be read, or
// written, by this token from here: whatever of it is asked for next is refused
// too. A rate limit is none, and neither is what is not there.
func Refuses(err error) bool {
	var e *Error
	if errors.As(err, &e) {
		switch e.Kind {
		case BadToken, NoToken, Forbidden, Blocked:
			return e.Code != http.StatusNotFound
		}
		return false
	}
	var status *transfer.StatusError
	return errors.As(err, &status) && !status.Limited && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden)
}

// newError reads an answer that is no success.
func (c *Client) newError(req *http.Request, a *transfer.Answer, repo Repo) *Error {
	write := req.Method != http.MethodGet
	e := &Error{Code: a.Code, Host: req.URL.Host, Repo: repo.String(), Write: write, proxied: c.Proxied()}
	if repo == (Repo{}) {
		e.Repo = ""
	}
	e.status = &transfer.StatusError{URL: transfer.Redact(a.URL), Code: a.Code, RetryAfter: transfer.RetryAfter(a.Header, time.Now())}
	said := new(gh.ErrorResponse)
	checked := gh.CheckResponse(&http.Response{StatusCode: a.Code, Header: a.Header, Request: req, Body: nopCloser{bytes.NewReader(a.Body)}})
	fromGitHub := errors.As(checked, &said) && said.Message != ""
	codes := ""
	if fromGitHub {
		e.Said = said.Message
		for _, f := range said.Errors {
			codes += " " + f.Code
			if f.Message != "" {
				e.Said += "; " + f.Message
			} else if f.Code != "" {
				e.Said += "; " + f.Field + " " + f.Code
			}
		}
	}
	if r := new(gh.RateLimitError); errors.As(checked, &r) {
		e.Said, fromGitHub = r.Message, true
	}
	if r := new(gh.AbuseRateLimitError); errors.As(checked, &r) {
		e.Said, fromGitHub = r.Message, true
	}
	words := strings.ToLower(e.Said)
	switch {
	case a.Code == http.StatusUnauthorized:
		e.Kind = BadToken
		if c.token == "" {
			e.Kind = NoToken
		}
	case a.Code == http.StatusForbidden && !fromGitHub && a.Header.Get("X-GitHub-Request-Id") == "":
		e.Kind = Blocked
	case a.Code == http.StatusForbidden && strings.Contains(words, "immutable"):
		e.Kind = Immutable
	case a.Code == http.StatusForbidden || a.Code == http.StatusNotFound:
		e.Kind = Forbidden
		if a.Code == http.StatusNotFound {
			e.Kind = NotFound
		}
		if c.token == "" {
			e.Kind = NoToken
		}
	case strings.Contains(words, "repository is empty"), a.Code == http.StatusConflict && strings.Contains(words, "empty"):
		e.Kind = Empty
	case a.Code == http.StatusUnprocessableEntity:
		switch {
		case strings.Contains(words, "used by an immutable release"):
			e.Kind = UsedTag
		case strings.Contains(words, "immutable"):
			e.Kind = Immutable
		case strings.Contains(codes, "already_exists"):
			e.Kind = Exists
		default:
			e.Kind = Invalid
		}
	}
	return e
}

// isSecondary reports whether GitHub's words are of a secondary limit.
func isSecondary(said string) bool {
	said = strings.ToLower(said)
	return strings.Contains(said, "secondary rate limit") || strings.Contains(said, "abuse detection")
}

// describe names the host that a network blocks, where an error is of that.
func describe(err error) error {
	var p *transfer.ProxyError
	if errors.As(err, &p) {
		return fmt.Errorf("%w: allow that host", err)
	}
	return err
}

type nopCloser struct{ *bytes.Reader }

func (nopCloser) Close() error { return nil }
