package source

import (
	"context"
	"errors"
	"fmt"
	"path"
	"strings"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/downloads"
)

// A Ref names a branch, tag or commit of a repository on GitHub.
type Ref struct {
	Repo github.Repo
	Ref  string // "" for the default branch
}

func (r Ref) String() string {
	if r.Ref == "" {
		return r.Repo.String()
	}
	return r.Repo.String() + "@" + r.Ref
}

// ParseRef reads "owner/repo[@ref]".
func ParseRef(s string) (Ref, error) {
	name, ref, hasRef := strings.Cut(s, "@")
	repo, err := github.ParseRepo(name)
	if err != nil {
		return Ref{}, fmt.Errorf("%w[@ref]", err)
	}
	// What no ref can hold (git-check-ref-format), and "..", which a URL would lose.
	if hasRef && (ref == "" || strings.ContainsAny(ref, " ~^:?*[\\\x7f") || strings.Contains(ref, "..") ||
		strings.ContainsFunc(ref, func(c rune) bool { return c < ' ' }) || strings.HasPrefix(ref, "/") || strings.HasSuffix(ref, "/") || strings.Contains(ref, "//")) {
		return Ref{}, fmt.Errorf("%q: %q is no branch, tag or commit", s, ref)
	}
	return Ref{repo, ref}, nil
}

// parseTree reads "github:owner/repo[@ref][//subdir]".
func parseTree(source string) (ref Ref, sub string, err error) {
	_, rest, _ := strings.Cut(source, ":")
	rest, sub, hasSub := strings.Cut(rest, "//")
	if ref, err = ParseRef(rest); err != nil {
		return ref, "", &Fault{Message: fmt.Sprintf("source github:%v", err), Hint: "github:OWNER/REPO[@REF][//DIRECTORY]", Err: err}
	}
	if hasSub {
		clean := path.Clean(sub)
		if clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(clean, "/") {
			return ref, "", faultf("source %s: %q is not a directory in a repository", source, sub)
		}
		sub = clean
	}
	return ref, sub, nil
}

// Commit returns the commit that a ref is at: by the API, by Git's protocol,
// and when neither answers, the one that was seen last, with a warning. It is
// asked for once per Resolver.
func (r *Resolver) Commit(ctx context.Context, ref Ref) (string, error) {
	return once(&r.mu, &r.commits, ref, func() (string, error) {
		if r.GitHub == nil {
			return "", errors.New("there is no client for GitHub")
		}
		note := "github ref " + ref.String()
		last, known := r.Downloads.Noted(note)
		var wait time.Duration
		if known = known && github.IsCommit(last.Commit); known {
			wait = 3 * time.Second // there is something to fall back on
		}
		id, err := r.GitHub.Commit(ctx, ref.Repo, ref.Ref, wait)
		if err == nil {
			if !github.IsCommit(ref.Ref) {
				r.Downloads.Note(note, downloads.Answer{Commit: id})
			}
			return id, nil
		}
		var none *github.NoRefError
		if errors.As(err, &none) {
			fault := &Fault{Message: none.Error(), Err: err}
			if none.Ref != "" {
				fault.Hint = "without @REF the default branch is taken, whatever its name"
			}
			return "", fault
		}
		if !known || ctx.Err() != nil || github.Is(err, github.BadToken) {
			return "", err
		}
		if r.Warn != nil {
			r.Warn(fmt.Sprintf("github:%s can't be resolved, so the commit seen last is taken, %.12s: %v", ref, last.Commit, err))
		}
		return last.Commit, nil
	})
}

// resolveTree pins a FETCH of a repository to a commit.
func (r *Resolver) resolveTree(ctx context.Context, f *frontend.Fetch) (Pin, error) {
	ref, err := checkTree(f)
	if err != nil {
		return Pin{}, err
	}
	id, err := r.Commit(ctx, ref)
	return Pin{Commit: id}, err
}

// checkTree returns the ref of a FETCH of a repository, or what is wrong with it.
func checkTree(f *frontend.Fetch) (Ref, error) {
	ref, _, err := parseTree(f.Source)
	switch {
	case err != nil:
	case f.Checksum != "":
		err = &Fault{
			Message: "--checksum is for URLs: GitHub makes an archive when asked, and its bytes may differ",
			Hint:    fmt.Sprintf("github:%s@COMMIT names what is wanted just as well", ref.Repo),
		}
	case f.Extract == frontend.ExtractFalse:
		err = faultf("--extract=false: a repository's tree is no file")
	}
	return ref, err
}

// fetchTree sees to it that Downloads has the tarball of a commit's tree. Its
// bytes are of no meaning: the commit says what is in them.
func (r *Resolver) fetchTree(ctx context.Context, repo github.Repo, commit string) (digest.Digest, error) {
	if r.Downloads == nil || r.Downloads.ReadOnly {
		return "", errors.New("no directory for downloads")
	}
	return once(&r.mu, &r.trees, repo.String()+"@"+commit, func() (digest.Digest, error) {
		note := "github tree " + repo.String() + "@" + commit
		if stored, ok := r.Downloads.Noted(note); ok && r.Downloads.Has(stored.Digest) {
			if _, err := r.Downloads.Open(stored.Digest); err == nil {
				return stored.Digest, nil
			}
		}
		p, err := r.Downloads.NewPart()
		if err != nil {
			return "", err
		}
		var opt transfer.GetOptions
		res, err := r.GitHub.Tree(ctx, repo, commit, p, opt)
		if err != nil {
			p.Drop()
			return "", fmt.Errorf("github:%s@%.12s: %w", repo, commit, err)
		}
		p.Store(res.Digest)
		r.Downloads.Note(note, downloads.Answer{Digest: res.Digest, Size: res.Size, Commit: commit})
		return res.Digest, nil
	})
}
