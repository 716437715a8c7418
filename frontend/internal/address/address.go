// Package address reads what a FETCH or an ADD names as its source. It is pure.
package address

import (
	"errors"
	"net/url"
	"path"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// IsRemote reports whether a source of an ADD is not a local file.
func IsRemote(source string) bool {
	return IsDownload(source) || gitsource.Is(source) || gitsource.InADD(source) || strings.HasPrefix(source, "github:")
}

// IsDownload reports whether a source is a URL, or a repository at one.
func IsDownload(source string) bool {
	return strings.HasPrefix(source, "http://") || strings.HasPrefix(source, "https://")
}

// imageScheme begins the source of a FETCH that is an image.
const imageScheme = "oci:"

// IsImage reports whether a source of a FETCH is an image.
func IsImage(source string) bool { return strings.HasPrefix(source, imageScheme) }

var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// Image reads oci:IMAGE[//PATH], and returns the path as a source of COPY, which matches it alone;
// "." for all of the image.
func Image(source string) (ref imageref.Ref, pattern string, err error) {
	name, dir, _ := strings.Cut(strings.TrimPrefix(source, imageScheme), "//")
	if ref, err = imageref.Parse(name); err != nil {
		f := fault.Errorf("%v", err)
		if e := new(imageref.Error); errors.As(err, &e) {
			f.Hint = e.Hint
		}
		if name == "" || strings.HasSuffix(name, ":") {
			f.Hint = "oci:" + imageref.Form + "[//PATH]"
		}
		return ref, "", f
	}
	if slices.Contains(strings.Split(dir, "/"), "..") {
		return ref, "", fault.Errorf("path %q leads up", dir).WithHint("the path after // is one in the image, from its root")
	}
	if pattern = literal.Replace(path.Join("/", dir)[1:]); pattern == "" {
		pattern = "."
	}
	return ref, pattern, nil
}

var githubSource = lazyregexp.New(`^github:[A-Za-z0-9][A-Za-z0-9_-]*/([A-Za-z0-9._-]+)(?:@([^\s@]+?))?(?://([^\s@]+))?$`)

var errNotGit = fault.Errorf("a Git repository is fetched as github:owner/repo, git+https://.. or git+ssh://..").WithHint(gitsource.Form)

// Check returns what is wrong with a source whose variables are expanded. add says that it
// is of an ADD, which takes what is called like a repository for a file.
func Check(source string, add bool) error {
	scheme, _, _ := strings.Cut(source, ":")
	switch scheme {
	case "github":
		m := githubSource().FindStringSubmatch(source)
		if m == nil || strings.Trim(m[1], ".") == "" || strings.HasPrefix(m[2], "-") || strings.Contains(m[2], "..") ||
			slices.Contains(strings.Split(m[3], "/"), "..") {
			return fault.Errorf("source %q is not of the form github:owner/repo[@ref][//subdir]", source)
		}
	case "http", "https":
		u, err := url.Parse(source)
		if err != nil || u.Host == "" {
			return fault.Errorf("source is no valid URL") // not shown: it may hold a password
		}
		if u.User != nil {
			return fault.Errorf("a user or password in a URL would be recorded, and shown").
				WithHint("fetch it in a RUN, with RUN --mount=type=secret")
		}
		if strings.HasSuffix(u.Path, ".git") && !add {
			return errNotGit
		}
	case "git":
		return fault.Errorf("git:// is a protocol that anyone on the way can change").WithHint("https:// or ssh://, which most servers have too")
	case "ssh":
		return errNotGit
	case "git+https", "git+http", "git+ssh", "git+file", "file":
		if _, err := gitsource.Parse(source); err != nil {
			f := fault.Errorf("%v", err)
			if e := new(gitsource.Error); errors.As(err, &e) {
				f.Hint = e.Hint
			}
			return f
		}
	default:
		if strings.HasPrefix(scheme, "git@") {
			return errNotGit
		}
		return fault.Errorf("source %q is neither a URL nor github:owner/repo", source).
			WithHint("http://, https://, git+https://, git+ssh://, file://, github: and oci: are known; local files are for COPY")
	}
	return nil
}

// CheckPart refuses what no commit begins with.
func CheckPart(commit string) error {
	if commit == "" || len(commit) > 64 || strings.Trim(commit, "0123456789abcdef") != "" {
		return fault.Errorf("--checksum=%s: of a repository it is a commit", commit).WithHint("--checksum= and 40 hex digits")
	}
	return nil
}
