package registry

import (
	"cmp"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"
	"unicode"

	"oras.land/oras-go/v2/registry/remote/errcode"

	"github.com/clayer/clayer/cache/transfer"
)

// Act is what was asked of a registry.
type Act uint8

const (
	Reading Act = iota
	Pushing
	Removing
)

// An Error is what a registry answers that does not do what it was asked for.
type Error struct {
	Registry, Repo string
	Code           int           // the HTTP status
	RetryAfter     time.Duration // what the registry asked for; 0 for nothing

	Act   Act
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
		right := map[Act]string{Reading: "read", Pushing: "push to", Removing: "delete in"}[e.Act]
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
	case e.Code == http.StatusMethodNotAllowed && e.Act == Removing:
		return fmt.Sprintf("%s does not allow deletion by its API: remove tags of %s there by hand; a registry of your own allows it with REGISTRY_STORAGE_DELETE_ENABLED=true", e.Registry, e.Repo)
	case e.Code == http.StatusMethodNotAllowed && e.Act == Pushing:
		return fmt.Sprintf("%s is read-only%s: what is there is used, nothing is pushed", e.Registry, said)
	}
	return fmt.Sprintf("%s: %d %s%s", where, e.Code, http.StatusText(e.Code), said)
}

// Says reports whether a registry gives one of the codes as a reason.
func Says(e *errcode.ErrorResponse, codes ...string) bool {
	return slices.ContainsFunc(e.Errors, func(x errcode.Error) bool { return slices.Contains(codes, x.Code) })
}

// Explain returns an error of a request as it may be shown: an *Error where the registry has
// answered, and without addresses of uploads, which are as good as a login, and without the login.
func (c *Client) Explain(act Act, err error) error {
	var resp *errcode.ErrorResponse
	var status *transfer.StatusError
	var ours *Error
	switch {
	case errors.As(err, &ours):
		return err
	case errors.As(err, &resp):
		return &Error{Registry: c.Reference.Registry, Repo: c.Reference.Repository, Code: resp.StatusCode, Act: act, said: c.Clean(Said(resp.Errors)), login: c.Login}
	case errors.As(err, &status) && status.Host == "":
		return &Error{Registry: c.Reference.Registry, Repo: c.Reference.Repository, Code: status.Code, RetryAfter: status.RetryAfter, Act: act, login: c.Login}
	}
	if text := c.Clean(err.Error()); text != err.Error() {
		err = errors.New(text)
	}
	return err
}

// IsLogin reports whether an error says that the registry could not be asked, since the place
// that it names for tokens gave none.
func IsLogin(err error) bool {
	var login *loginError
	return errors.As(err, &login)
}

// Said returns a registry's reasons on one line, of a bounded length. Details
// are left out: they are of any form.
func Said(errs errcode.Errors) string {
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

// Clean takes the login out of a text.
func (c *Client) Clean(text string) string {
	for _, secret := range c.Login.Secrets() {
		text = strings.ReplaceAll(text, secret, "...")
	}
	return text
}
