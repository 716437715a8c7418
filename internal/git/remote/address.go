package remote

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// DefaultBranch has the snapshots unless an address names another one.
const DefaultBranch = "clayer-cache"

// An Address is a branch of a repository.
type Address struct {
	URL    string // as git takes it; with a login, if one was given; "" for the origin
	Branch string
}

var (
	isBranch = lazyregexp.New(`^[A-Za-z0-9_][A-Za-z0-9._/-]*$`)
	isSCP    = lazyregexp.New(`^([A-Za-z0-9._-]+@)?[A-Za-z0-9._-]+:[^:/].*$|^[A-Za-z0-9._-]+@[A-Za-z0-9._-]+:/.*$`)
)

// Parse reads URL[#branch], as a clone takes the URL. An empty URL is the origin
// of the working directory. A path is that of a bare repository on this machine.
func Parse(s string) (Address, error) {
	a := Address{URL: s, Branch: DefaultBranch}
	if at := strings.LastIndexByte(s, '#'); at >= 0 {
		a.URL, a.Branch = s[:at], s[at+1:]
	}
	// No error quotes an address: a password may be in it.
	if !isBranch().MatchString(a.Branch) || strings.Contains(a.Branch, "..") || strings.Contains(a.Branch, "//") ||
		strings.HasSuffix(a.Branch, "/") || strings.HasSuffix(a.Branch, ".") || strings.HasSuffix(a.Branch, ".lock") || strings.Contains(a.Branch, "/.") {
		return a, fmt.Errorf("want URL[#BRANCH]: %q is no name of a branch", a.Branch)
	}
	switch {
	case a.URL == "":
		return a, nil
	case strings.HasPrefix(a.URL, "-") || strings.ContainsAny(a.URL, "\n\r\x00"):
		return a, errors.New("want URL[#BRANCH], as in https://github.com/me/env")
	case strings.Contains(a.URL, "://"):
		u, err := url.Parse(a.URL)
		if err != nil || u.Host == "" && u.Scheme != "file" || u.Path == "" {
			return a, errors.New("want URL[#BRANCH], as in https://github.com/me/env")
		}
		switch u.Scheme {
		case "http", "https", "ssh", "git", "file":
			return a, nil
		}
		return a, fmt.Errorf("want a URL of http, https, ssh, git or file, not of %s", u.Scheme)
	case strings.Contains(a.URL, "::"):
		return a, errors.New("want a URL of http, https, ssh, git or file")
	case isSCP().MatchString(a.URL):
		return a, nil
	}
	path, err := filepath.Abs(a.URL)
	if err != nil {
		return a, err
	}
	// As a URL: git copies all of a repository that a path names, whatever the depth.
	a.URL = (&url.URL{Scheme: "file", Path: path}).String()
	return a, nil
}

// IsOrigin reports whether the address is that of the working directory's origin.
func (a Address) IsOrigin() bool { return a.URL == "" }

// IsLocal reports whether the repository is on this machine.
func (a Address) IsLocal() bool { return strings.HasPrefix(a.URL, "file://") }

// String returns the address without a login.
func (a Address) String() string {
	s := "git:" + WithoutLogin(a.URL)
	if a.Branch != DefaultBranch {
		s += "#" + a.Branch
	}
	return s
}

// Secrets returns what must not be printed or leave the machine.
func (a Address) Secrets() []string {
	u, err := url.Parse(a.URL)
	if err != nil || u.User == nil {
		return nil
	}
	password, ok := u.User.Password()
	if !ok {
		if u.Scheme == "ssh" {
			return nil // a user's name
		}
		password = u.User.Username() // a token may stand in its place
	}
	var all []string
	for _, v := range []string{password, url.PathEscape(password), url.QueryEscape(password)} {
		if len(v) > 3 {
			all = append(all, v)
		}
	}
	return all
}

var loginInURL = lazyregexp.New(`://[^/@\s]*@`)

// WithoutLogin returns a text without the logins in the addresses of it.
func WithoutLogin(s string) string { return loginInURL().ReplaceAllString(s, "://") }

// FindOrigin returns the address with that of the origin of dir in it, if it is the
// origin.
func (a Address) FindOrigin(ctx context.Context, dir string) (Address, error) {
	if !a.IsOrigin() {
		return a, nil
	}
	origin := OriginOf(ctx, dir)
	if origin == "" {
		return a, errors.New("the working directory is in no Git repository that has an origin: name one, as in git:https://github.com/me/env")
	}
	b, err := Parse(origin + "#" + a.Branch)
	if err != nil {
		return a, fmt.Errorf("the origin of the working directory: %w", err)
	}
	return b, nil
}

// Same reports whether two URLs are of one repository, as far as their text says.
func Same(a, b string) bool {
	plain := func(s string) string {
		s = strings.TrimSuffix(strings.TrimRight(WithoutLogin(s), "/"), ".git")
		if _, rest, ok := strings.Cut(s, "://"); ok {
			return strings.ToLower(rest)
		}
		if _, rest, ok := strings.Cut(s, "@"); ok { // git@host:path
			s = rest
		}
		return strings.ToLower(strings.Replace(s, ":", "/", 1))
	}
	return a != "" && plain(a) == plain(b)
}
