package gitsource

import (
	"fmt"
	"net/url"
	"path"
	"strconv"
	"strings"

	"github.com/clayer/clayer/internal/lazyregexp"
)

// ADDForm is how Docker writes a repository.
const ADDForm = "https://HOST/REPO.git[#REF[:DIRECTORY]], or git@HOST:REPO"

var (
	webGit = lazyregexp.New(`^https?://[^\s#?]+\.git([?#]|$)`)
	scpGit = lazyregexp.New(`^([A-Za-z0-9_-]+@[A-Za-z0-9.-]+):([^?#]*)(\?[^#]*)?(#.*)?$`)
	onWeb  = lazyregexp.New(`^https://github\.com/([^/]+/[^/]+)\.git$`)
)

// InADD reports whether a source of an ADD is a repository, as Docker has it.
func InADD(source string) bool {
	return webGit().MatchString(source) || scpGit().MatchString(source) ||
		strings.HasPrefix(source, "ssh://") || strings.HasPrefix(source, "git://")
}

// A Repository is a source of an ADD.
type Repository struct {
	Source     string // as FETCH names it
	Checksum   string // what its commit has to begin with
	Submodules bool
	GitDir     *bool // the directory .git too, or not; nil: nothing says
}

// ParseADD reads a source for which InADD is true. Ref and directory are in its fragment,
// or in a query, which may have more. No error quotes the source: a password may be in it.
func ParseADD(source string) (r Repository, err error) {
	r.Submodules = true
	if m := scpGit().FindStringSubmatch(source); m != nil {
		if strings.ContainsAny(m[2], ":@") {
			return r, &Error{"the source is no repository as Docker has it", ADDForm}
		}
		source = "ssh://" + m[1] + "/" + strings.TrimLeft(m[2], "/") + m[3] + m[4]
	}
	plain, fragment, _ := strings.Cut(source, "#")
	plain, query, _ := strings.Cut(plain, "?")
	values, err := url.ParseQuery(query)
	if err != nil {
		return r, &Error{"the query of the repository is malformed", ADDForm}
	}
	ref, dir, _ := strings.Cut(fragment, ":")
	dir = path.Join("/", dir)[1:]
	if err := r.query(values, &ref, &dir); err != nil {
		return r, err
	}
	if strings.HasPrefix(plain, "git://") {
		r.Source = source // which is refused
		return r, nil
	}
	scheme, rest, _ := strings.Cut(plain, "://")
	host, repo, _ := strings.Cut(rest, "/")
	repo = strings.ReplaceAll(path.Join("/", repo)[1:], "@", "%40")
	at, top := scheme+"://"+host+"/"+repo, "git+"
	if m := onWeb().FindStringSubmatch(at); m != nil && !strings.HasPrefix(ref, "refs/") {
		at, top = m[1], "github:"
	}
	r.Source = top + at
	if ref != "" {
		r.Source += "@" + ref
	}
	if dir != "" {
		r.Source += "//" + dir
	}
	return r, nil
}

// query takes what a query says.
func (r *Repository) query(values url.Values, ref, dir *string) error {
	set := func(to *string, name, value string) error {
		if *to != "" && *to != value {
			return &Error{fmt.Sprintf("the source has two of %s, %q and %q", name, *to, value), ADDForm}
		}
		*to = value
		return nil
	}
	byCommit := false
	for name, list := range values {
		value := list[0]
		flag := name == "submodules" || name == "keep-git-dir" || name == "fetch-by-commit"
		if len(list) > 1 || value == "" && !flag {
			return &Error{fmt.Sprintf("%s in the query of the source requires one value", name), ADDForm}
		}
		on, err := strconv.ParseBool(value)
		if on = on || value == ""; flag && err != nil && value != "" {
			return &Error{fmt.Sprintf("%s=%s in the query of the source: want true or false", name, value), ADDForm}
		}
		switch name {
		case "ref":
			err = set(ref, "ref", value)
		case "tag":
			err = set(ref, "ref", "refs/tags/"+strings.TrimPrefix(value, "refs/tags/"))
		case "branch":
			err = set(ref, "ref", "refs/heads/"+strings.TrimPrefix(value, "refs/heads/"))
		case "subdir":
			err = set(dir, "directory", path.Join("/", value)[1:])
		case "checksum", "commit":
			err = set(&r.Checksum, "commit", value)
		case "submodules":
			r.Submodules, err = on, nil
		case "keep-git-dir":
			r.GitDir, err = &on, nil
		case "fetch-by-commit":
			byCommit, err = on, nil
		case "mtime":
			err = nil // times are the same for all
			if value != "checkout" && value != "commit" {
				err = &Error{"mtime in the query of the source: want checkout or commit", ADDForm}
			}
		default:
			err = &Error{fmt.Sprintf("%q is not known in the query of a repository", name), ADDForm}
		}
		if err != nil {
			return err
		}
	}
	if values.Has("tag") && values.Has("branch") {
		return &Error{"the source has a tag and a branch", ADDForm}
	}
	if byCommit {
		if len(r.Checksum) != 40 && len(r.Checksum) != 64 {
			return &Error{"fetch-by-commit requires a whole commit as checksum", ADDForm}
		}
		*ref = r.Checksum
	}
	return nil
}
