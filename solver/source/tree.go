package source

import (
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/solver/internal/downloads"
	"github.com/clayer/clayer/solver/internal/fault"
	"github.com/clayer/clayer/solver/internal/gittree"
)

// A tree is what a FETCH names in a Git repository.
type tree struct {
	github Ref             // where git is nil
	git    *gitsource.Tree // of any repository
	dir    string          // "" for all of it
	with   gittree.With
}

// String returns the repository, without a ref.
func (t tree) String() string {
	if t.git != nil {
		return t.git.URL
	}
	return t.github.Repo.String()
}

// parseTree reads github:owner/repo[@ref][//subdir], or what gitsource.Parse reads.
func parseTree(source string) (tree, error) {
	if gitsource.Is(source) {
		t, err := gitsource.Parse(source)
		if err != nil {
			return tree{}, &Fault{Message: err.Error(), Hint: gitsource.Form, Err: err}
		}
		return tree{git: &t, dir: t.Dir}, nil
	}
	_, rest, _ := strings.Cut(source, ":")
	rest, sub, hasSub := strings.Cut(rest, "//")
	ref, err := ParseRef(rest)
	if err != nil {
		return tree{}, &Fault{Message: fmt.Sprintf("source github:%v", err), Hint: "github:OWNER/REPO[@REF][//DIRECTORY]", Err: err}
	}
	if hasSub {
		clean := path.Clean(sub)
		if clean == "." || clean == ".." || strings.HasPrefix(clean, "../") || strings.HasPrefix(clean, "/") {
			return tree{}, fault.New("source %s: %q is not a directory in a repository", source, sub)
		}
		sub = clean
	}
	return tree{github: ref, dir: sub}, nil
}

// treeOf returns the tree of a FETCH.
func treeOf(f *frontend.Fetch) (tree, error) {
	t, err := parseTree(f.Source)
	t.with = gittree.With{Submodules: f.Submodules, LFS: f.LFS, Checkout: f.Add, GitDir: f.GitDir && t.dir == ""}
	return t, err
}

// checkTree returns the tree of a FETCH, or what is wrong with it.
func checkTree(f *frontend.Fetch) (tree, error) {
	t, err := treeOf(f)
	switch {
	case err != nil:
	case f.Checksum != "":
		err = &Fault{
			Message: "--checksum is for URLs: the archive of a tree is made when asked for, and its bytes may differ",
			Hint:    fmt.Sprintf("%s with @COMMIT names what is wanted just as well", t),
		}
	case f.Extract == frontend.ExtractFalse:
		err = fault.New("--extract=false: a repository's tree is no file")
	}
	return t, err
}

// resolveTree pins a FETCH of a repository to a commit.
func (r *Resolver) resolveTree(ctx context.Context, f *frontend.Fetch) (Pin, error) {
	t, err := checkTree(f)
	if err != nil {
		return Pin{}, err
	}
	var id string
	if t.git != nil {
		id, err = r.gitCommit(ctx, *t.git)
	} else {
		id, err = r.Commit(ctx, t.github)
	}
	if err == nil && !strings.HasPrefix(id, f.Commit) {
		err = &Fault{
			Message: fmt.Sprintf("%s is at another commit than the line says", t),
			Detail:  fmt.Sprintf("want %s  got %s   nothing was written to %s", f.Commit, id, f.Dest),
			Hint:    "if the repository was meant to change, put the new commit into the line",
		}
	}
	return Pin{Commit: id}, err
}

// git returns what runs git.
func (r *Resolver) git() *gittree.Fetcher {
	f := &gittree.Fetcher{}
	if r.Downloads != nil && r.Downloads.Path != "" && !r.Downloads.ReadOnly {
		f.Temp = filepath.Join(r.Downloads.Path, "git") // a tree may be larger than a temporary file system
	}
	return f
}

// gitCommit returns the commit that a ref of any repository is at; where none can be
// reached, the one that was seen last, with a warning.
func (r *Resolver) gitCommit(ctx context.Context, t gitsource.Tree) (string, error) {
	t.Dir = ""
	return once(&r.mu, &r.gitRefs, t, func() (id string, err error) {
		note := "git ref " + t.URL + "@" + t.Ref
		err = r.retry(ctx, func() (err error) {
			id, err = r.git().Resolve(ctx, t.URL, t.Ref)
			return err
		})
		if err == nil {
			if !gittree.IsCommit(t.Ref) {
				r.Downloads.Note(note, downloads.Answer{Commit: id})
			}
			return id, nil
		}
		var e *gittree.Error
		if !errors.As(err, &e) || ctx.Err() != nil {
			return "", err
		}
		if e.Kind == gittree.NoRef {
			return "", &Fault{Message: e.Error(), Hint: "name a branch, a tag, or a commit by its 40 digits", Err: err}
		}
		last, known := r.Downloads.Noted(note)
		if !known || !gittree.IsCommit(last.Commit) || e.Kind != gittree.Unreachable && e.Kind != gittree.Broken {
			return "", err
		}
		if r.Warn != nil {
			r.Warn(fmt.Sprintf("%s can't be resolved, so the commit seen last is taken, %.12s: %v", t.URL, last.Commit, err))
		}
		return last.Commit, nil
	})
}

// retry calls f, which runs git, until it succeeds or another try is no use.
func (r *Resolver) retry(ctx context.Context, f func() error) error {
	return r.Client.Retry(ctx, 0, func() error {
		err := f()
		var e *gittree.Error
		if errors.As(err, &e) && e.Kind == gittree.Broken && ctx.Err() == nil {
			return transfer.Transient(err)
		}
		return err
	})
}

// fetchTree sees to it that Downloads has a tar.gz of a commit's tree. Its bytes are of
// no meaning: the commit says what is in them.
func (r *Resolver) fetchTree(ctx context.Context, t tree, commit string) (digest.Digest, error) {
	if r.Downloads == nil || r.Downloads.ReadOnly {
		return "", errors.New("no directory for downloads")
	}
	name, fetch := "git tree ", func(p *downloads.Part) (digest.Digest, error) { return r.byGit(ctx, t.git.URL, commit, t.with, p) }
	if t.git == nil {
		name, fetch = "github tree ", func(p *downloads.Part) (digest.Digest, error) { return r.fromGitHub(ctx, t, commit, p) }
	}
	note := name + t.String() + "@" + commit
	if t.with.Submodules {
		note += " with submodules"
	}
	if t.with.LFS {
		note += " with LFS"
	}
	if t.with.Checkout {
		note += " checked out"
	}
	if t.with.GitDir {
		note += " with .git"
	}
	return once(&r.mu, &r.trees, note, func() (digest.Digest, error) {
		if stored, ok := r.Downloads.Noted(note); ok && r.Downloads.Has(stored.Digest) {
			if _, err := r.Downloads.Open(stored.Digest); err == nil {
				return stored.Digest, nil
			}
		}
		p, err := r.Downloads.NewPart()
		if err != nil {
			return "", err
		}
		dg, err := fetch(p)
		if err != nil {
			p.Drop()
			return "", err
		}
		p.Store(dg)
		r.Downloads.Note(note, downloads.Answer{Digest: dg, Commit: commit})
		return dg, nil
	})
}

// byGit writes a commit's tree to p, by Git's own protocol.
func (r *Resolver) byGit(ctx context.Context, url, commit string, with gittree.With, p *downloads.Part) (dg digest.Digest, err error) {
	err = r.retry(ctx, func() error {
		if err := p.Rewind(); err != nil {
			return err
		}
		sum := digest.SHA256.Digester()
		z, err := gzip.NewWriterLevel(io.MultiWriter(p, sum.Hash()), gzip.BestSpeed)
		if err != nil {
			return err
		}
		if err := r.git().Archive(ctx, url, commit, with, z); err != nil {
			return err
		}
		err = z.Close()
		dg = sum.Digest()
		return err
	})
	return dg, err
}

// A way is one by which GitHub gives trees.
type way uint8

const (
	byAPI way = iota
	byWeb
	byGit
)

func (w way) String() string { return [...]string{"API", "web archive", "Git"}[w] }

// answered is what is known of the ways to a repository.
type answered struct {
	last    way           // that gave a tree; or the first
	refused map[way]error // those that are not tried again
}

// fromGitHub writes a commit's tree to p, by the way that answered last, or the first
// that answers. What is beside the tree Git alone gives.
func (r *Resolver) fromGitHub(ctx context.Context, t tree, commit string, p *downloads.Part) (digest.Digest, error) {
	if r.GitHub == nil {
		return "", errors.New("there is no client for GitHub")
	}
	repo := t.github.Repo
	if t.with != (gittree.With{}) {
		return r.byGit(ctx, r.GitHub.CloneURL(repo), commit, t.with, p)
	}
	known := r.waysTo(repo)
	r.mu.Lock()
	order := slices.DeleteFunc([]way{known.last, byAPI, byWeb, byGit}, func(w way) bool { return known.refused[w] != nil })
	r.mu.Unlock()
	var failed error
	fails := func(w way, err error) {
		if err = fmt.Errorf("by %s: %w", w, err); failed != nil {
			err = fmt.Errorf("%w; %w", failed, err)
		}
		failed = err
	}
	for i, w := range order {
		if slices.Contains(order[:i], w) {
			continue
		}
		dg, err := r.byWay(ctx, w, repo, commit, p)
		if err == nil && w != byGit && gittree.Substitutes(ctx, p.Content()) {
			dg, err = r.substituted(ctx, w, repo, commit, p)
		}
		if ctx.Err() != nil {
			return "", context.Cause(ctx)
		}
		r.mu.Lock()
		if err == nil {
			known.last = w
		} else if isRefusal(err) {
			known.refused[w] = err
		}
		r.mu.Unlock()
		if err == nil {
			return dg, nil
		}
		fails(w, err)
	}
	r.mu.Lock()
	for _, w := range []way{byAPI, byWeb, byGit} {
		if err := known.refused[w]; err != nil && !slices.Contains(order, w) {
			fails(w, err)
		}
	}
	r.mu.Unlock()
	return "", fmt.Errorf("github:%s@%.12s: %w", repo, commit, failed)
}

// waysTo returns what is known of the ways to a repository.
func (r *Resolver) waysTo(repo github.Repo) *answered {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ways == nil {
		r.ways = make(map[github.Repo]*answered)
	}
	if r.ways[repo] == nil {
		r.ways[repo] = &answered{refused: make(map[way]error)}
	}
	return r.ways[repo]
}

// byWay writes a commit's tree to p, by one way.
func (r *Resolver) byWay(ctx context.Context, w way, repo github.Repo, commit string, p *downloads.Part) (digest.Digest, error) {
	if err := p.Rewind(); err != nil {
		return "", err
	}
	get := r.GitHub.TreeByWeb
	switch w {
	case byGit:
		return r.byGit(ctx, r.GitHub.CloneURL(repo), commit, gittree.With{}, p)
	case byAPI:
		get = r.GitHub.TreeByAPI
	}
	res, err := get(ctx, repo, commit, p)
	return res.Digest, err
}

// substituted writes a commit's tree to p by Git, since other ways make other texts of what
// has the attribute export-subst; by w, with a warning, where Git does not answer.
func (r *Resolver) substituted(ctx context.Context, w way, repo github.Repo, commit string, p *downloads.Part) (digest.Digest, error) {
	dg, gitErr := r.byWay(ctx, byGit, repo, commit, p)
	if gitErr == nil || ctx.Err() != nil {
		return dg, gitErr
	}
	if r.Warn != nil {
		r.Warn(fmt.Sprintf("github:%s@%.12s has files with export-subst, whose text may differ from what Git gives: %v", repo, commit, gitErr))
	}
	return r.byWay(ctx, w, repo, commit, p)
}

// isRefusal reports whether an error is one that all trees of a repository would get.
func isRefusal(err error) bool {
	var status *transfer.StatusError
	if errors.As(err, &status) {
		return !status.Limited && slices.Contains([]int{401, 403, 407, 451}, status.Code)
	}
	var e *gittree.Error
	return errors.As(err, &e) && e.Kind == gittree.Refused
}

// asTree gives an entry what a tree has in it: who may run it. Umasks and times are of
// who made the archive.
func asTree(e *snapshot.Entry) {
	e.ModTime = epoch
	switch {
	case e.Kind == snapshot.Symlink:
		e.Mode = 0o777
	case e.Kind == snapshot.Dir || e.Mode&0o100 != 0:
		e.Mode = 0o755
	default:
		e.Mode = 0o644
	}
}
