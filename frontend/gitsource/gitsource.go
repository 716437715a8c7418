// Package gitsource reads the sources of a FETCH that are Git repositories. It is pure.
package gitsource

import (
	"fmt"
	"net/url"
	"path"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// A Tree is a tree in a Git repository, as a FETCH names it.
type Tree struct {
	URL string // of the repository, as git takes it
	Ref string // branch, tag or commit; "" for the default branch
	Dir string // clean, below the top of the tree; "" for all of it
}

// Is reports whether a source is read by Parse. github: is not.
func Is(source string) bool {
	scheme, _, ok := strings.Cut(source, "://")
	if !ok {
		return false
	}
	switch scheme {
	case "git+https", "git+http", "git+ssh", "git+file", "file":
		return true
	}
	return false
}

// An Error is what is wrong with a source, and what to write instead.
type Error struct{ Message, Hint string }

func (e *Error) Error() string { return e.Message }

// Form is how a source is written.
const Form = "git+https://HOST/REPO[@REF][//DIRECTORY]"

var (
	// What no ref can hold (git-check-ref-format), or is an option.
	badRef  = lazyregexp.New(`^[-/]|[\x00-\x20~^:?*\[\\\x7f]|\.\.|//|@\{|/$|\.lock$|/\.|^\.|\.$`)
	badHost = lazyregexp.New(`^-|[^A-Za-z0-9._:\[\]-]`)
)

// Parse reads git+https://HOST/REPO[@REF][//DIRECTORY], and the same of git+http,
// git+ssh, git+file and file. The ref and the directory may also be in the fragment:
// #REF[:DIRECTORY] as in BuildKit, #subdirectory=DIRECTORY as in pip. No error quotes
// the source: a password may be in it.
func Parse(source string) (t Tree, err error) {
	form := &Error{"source is no Git repository as FETCH takes it", Form}
	if strings.ContainsFunc(source, func(c rune) bool { return c <= ' ' || c == 0x7f }) {
		return t, form
	}
	plain, fragment, hasFragment := strings.Cut(strings.TrimPrefix(source, "git+"), "#")
	scheme, rest, ok := strings.Cut(plain, "://")
	if !ok || !Is(source) {
		return t, form
	}
	host, repo, ok := strings.Cut(rest, "/")
	if !ok || strings.Contains(repo, "?") {
		return t, form
	}
	user, name, hasUser := strings.Cut(host, "@")
	if !hasUser {
		user, name = "", host
	}
	if hasUser && (scheme != "ssh" || strings.ContainsRune(user, ':')) {
		return t, &Error{"a user or password in a URL would be recorded, and shown", "set up a credential helper of git, or an SSH key"}
	}
	if (name == "") != (scheme == "file") || badHost().MatchString(name) || strings.HasPrefix(user, "-") {
		return t, form
	}
	repo, dir, hasDir := strings.Cut(repo, "//")
	repo, ref, hasRef := strings.Cut(repo, "@")
	if hasRef && strings.Contains(ref, "@") {
		return t, &Error{"two @ after the host: which of them is before the ref is not clear", "write %40 for an @ in the path of the repository"}
	}
	if hasFragment {
		values, ferr := url.ParseQuery(fragment)
		switch _, inPip := values["subdirectory"]; {
		case strings.HasPrefix(fragment, "egg=") || strings.HasPrefix(fragment, "subdirectory="):
			if ferr != nil || inPip && hasDir {
				return t, form
			}
			if inPip {
				dir, hasDir = values.Get("subdirectory"), true
			}
		case hasRef || hasDir:
			return t, &Error{"a ref or directory stands before and after the #", Form}
		default:
			ref, dir, hasDir = strings.Cut(fragment, ":")
			hasRef = ref != ""
		}
	}
	if repo == "" || strings.Contains("/"+repo+"/", "/../") || hasRef && (ref == "" || badRef().MatchString(ref)) {
		return t, form
	}
	t.Ref = ref
	if hasDir {
		if t.Dir = path.Clean(strings.Trim(dir, "/")); t.Dir == "." || t.Dir == ".." || strings.HasPrefix(t.Dir, "../") {
			return t, &Error{fmt.Sprintf("%q is not a directory in a repository", dir), Form}
		}
	}
	t.URL = scheme + "://" + host + "/" + repo
	if u, err := url.Parse(t.URL); err != nil || u.Scheme != scheme || strings.HasPrefix(u.Path, "/-") {
		return t, form
	}
	return t, nil
}
