package oci

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"oras.land/oras-go/v2/errdef"
	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/transfer"
)

// act is what was asked of a registry.
type act uint8

const (
	reading act = iota
	pushing
	removing
)

// An Error is what a registry answers that does not do what it was asked for.
type Error struct {
	Registry, Repo string
	Code           int           // the HTTP status
	RetryAfter     time.Duration // what the registry asked for; 0 for nothing

	act   act
	said  string // in the registry's own words
	login Login
}

// Error says what the registry answers, and what to do.
func (e *Error) Error() string {
	where := e.Registry + "/" + e.Repo
	said := ""
	if e.said != "" {
		said = " (" + e.said + ")"
	}
	switch {
	case e.Code == http.StatusUnauthorized && e.login.From != "":
		return fmt.Sprintf("%s does not accept the login of %s for %s%s: log in again with docker login %s, or set %s and %s",
			e.Registry, e.login.From, e.Repo, said, e.Registry, UserVariable, PasswordVariable)
	case e.Code == http.StatusUnauthorized:
		helper := ""
		if e.login.Helper != "" {
			helper = "; the one that " + e.login.Helper + " keeps is not asked for, since clayer runs no such programs"
		}
		return fmt.Sprintf("%s requires a login for %s%s: docker login %s, or set %s and %s%s", e.Registry, e.Repo, said, e.Registry, UserVariable, PasswordVariable, helper)
	case e.Code == http.StatusForbidden:
		right := map[act]string{reading: "read", pushing: "push to", removing: "delete in"}[e.act]
		if e.login.From == "" {
			return fmt.Sprintf("%s requires authentication to %s %s%s: docker login %s, or set %s and %s", e.Registry, right, e.Repo, said, e.Registry, UserVariable, PasswordVariable)
		}
		return fmt.Sprintf("%s does not allow the login of %s to %s %s%s: ask its owner for access, or log in as another user", e.Registry, e.login.From, right, e.Repo, said)
	case e.Code == http.StatusNotFound:
		return fmt.Sprintf("%s has no repository %s, or hides it%s: check its name, create it first, or log in", e.Registry, e.Repo, said)
	case e.Code == http.StatusTooManyRequests:
		when := "later"
		if e.RetryAfter > 0 {
			when = "in " + e.RetryAfter.Round(time.Second).String()
		}
		hint := ""
		if e.login.From == "" {
			hint = ", or log in: that often has a higher limit"
		}
		return fmt.Sprintf("%s limits requests%s: try again %s%s", e.Registry, said, when, hint)
	case e.Code == http.StatusMethodNotAllowed && e.act == removing:
		return fmt.Sprintf("%s does not allow deletion by its API: remove tags of %s there by hand; a registry of your own allows it with REGISTRY_STORAGE_DELETE_ENABLED=true", e.Registry, e.Repo)
	case e.Code == http.StatusMethodNotAllowed && e.act == pushing:
		return fmt.Sprintf("%s is read-only%s: what is there is used, nothing is pushed", e.Registry, said)
	}
	return fmt.Sprintf("%s: %d %s%s", where, e.Code, http.StatusText(e.Code), said)
}

// refusesReads reports whether all other reads would get the same answer, and
// refusesWrites whether all other writes would.
func (e *Error) refusesReads() bool {
	return e.act == reading && (e.Code == http.StatusUnauthorized || e.Code == http.StatusForbidden)
}

func (e *Error) refusesWrites() bool {
	return slices.Contains([]int{http.StatusUnauthorized, http.StatusForbidden, http.StatusNotFound, http.StatusMethodNotAllowed}, e.Code)
}

// try sends requests until they succeed, or trying again is no use, and says
// in words what went wrong. An answer that makes no sense is not asked for again:
// only what sends says that something may be better the next time.
func (s *Store) try(ctx context.Context, a act, attempt func(context.Context) error) error {
	err := s.tr.Retry(ctx, 0, func() error {
		err := attempt(ctx)
		var resp *errcode.ErrorResponse
		// A place for an upload may be gone with the registry that gave it. And
		// while another session pushes the same blob, distribution's registry
		// does not see it for a moment, after it has answered that it is there.
		if a == pushing && errors.As(err, &resp) && says(resp, errcode.ErrorCodeBlobUploadUnknown, errcode.ErrorCodeManifestBlobUnknown) {
			return transfer.Transient(err)
		}
		return err
	})
	return s.explain(ctx, a, err)
}

// says reports whether a registry gives one of the codes as a reason.
func says(e *errcode.ErrorResponse, codes ...string) bool {
	return slices.ContainsFunc(e.Errors, func(x errcode.Error) bool { return slices.Contains(codes, x.Code) })
}

// explain returns an error as it may be shown: without addresses of uploads, which
// are as good as a login, and without a login. What all further requests would
// get too is remembered.
func (s *Store) explain(ctx context.Context, a act, err error) error {
	if err == nil || ctx.Err() != nil {
		return err
	}
	var login *loginError
	pause := transfer.Pause(err)
	away := pause > 0 || errors.As(err, &login) && !transfer.Retryable(err)
	var resp *errcode.ErrorResponse
	var status *transfer.StatusError
	var ours *Error
	switch {
	case errors.As(err, &ours):
	case errors.As(err, &resp) && says(resp, errcode.ErrorCodeManifestBlobUnknown):
		err = fmt.Errorf("%w: %s", cache.ErrNotCached, said(resp.Errors))
	case errors.As(err, &resp):
		ours = &Error{Registry: s.ref.Registry, Repo: s.ref.Repository, Code: resp.StatusCode, act: a, said: s.clean(said(resp.Errors)), login: s.login}
		err = ours
	case errors.As(err, &status) && status.Host == "":
		ours = &Error{Registry: s.ref.Registry, Repo: s.ref.Repository, Code: status.Code, RetryAfter: status.RetryAfter, act: a, login: s.login}
		err = ours
	case errors.Is(err, errdef.ErrNotFound):
		err = fmt.Errorf("%w: %s", cache.ErrNotCached, s.clean(err.Error()))
	default:
		if text := s.clean(err.Error()); text != err.Error() {
			err = errors.New(text)
		}
	}
	// Where the storage that a registry leads to is refused, nothing can be read.
	storage := status != nil && status.Host != "" && !status.Limited && (status.Code == http.StatusUnauthorized || status.Code == http.StatusForbidden)
	if away || storage || ours != nil && ours.refusesReads() {
		s.refused.Read(err, pause)
	}
	return err
}

// said returns a registry's reasons on one line, of a bounded length. Details
// are left out: they are of any form.
func said(errs errcode.Errors) string {
	var all []string
	for _, e := range errs {
		all = append(all, cmp.Or(e.Message, strings.ToLower(strings.ReplaceAll(e.Code, "_", " "))))
	}
	text := []rune(strings.Map(func(r rune) rune {
		if !unicode.IsPrint(r) {
			return ' '
		}
		return r
	}, strings.Join(all, "; ")))
	if len(text) > 200 {
		text = append(text[:200], '…')
	}
	return strings.TrimSpace(string(text))
}

func (s *Store) clean(text string) string {
	for _, secret := range s.login.Secrets() {
		text = strings.ReplaceAll(text, secret, "...")
	}
	return text
}
