package source

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
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
		if err != nil && !errors.As(err, new(*github.NoRefError)) && !errors.Is(err, transfer.ErrOffline) && ctx.Err() == nil {
			// The client may be refused where git is not: it has its own proxy and login.
			var gerr error
			if id, gerr = r.git().Resolve(ctx, r.GitHub.CloneURL(ref.Repo), ref.Ref); gerr == nil {
				err = nil
			}
		}
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

// Commits resolves refs as ParseRef reads them, jobs at a time: "owner/repo@commit", in order.
func (r *Resolver) Commits(ctx context.Context, refs []string, jobs int) ([]string, error) {
	list := make([]string, len(refs))
	eg, ctx := errgroup.WithContext(ctx)
	eg.SetLimit(jobs)
	for i, text := range refs {
		eg.Go(func() error {
			ref, err := ParseRef(text)
			if err != nil {
				return err
			}
			id, err := r.Commit(ctx, ref)
			if err != nil {
				return fmt.Errorf("the commit of %s: %w", text, err)
			}
			list[i] = ref.Repo.String() + "@" + id
			return nil
		})
	}
	err := eg.Wait()
	return list, err
}
