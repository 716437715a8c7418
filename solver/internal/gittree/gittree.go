// Package gittree fetches the tree of a commit by Git's own protocol, as the tar that
// git archive makes of it. It runs the git program on PATH: no hook, no filter and no
// other program that a repository names runs, and nobody is asked for a password.
//
// Each fetch has a bare repository of its own, which is removed after it. Its
// configuration has the address, and what the working directory's has about reaching
// servers: so neither an address nor a credential is in an argument.
package gittree

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/git/remote"
	"github.com/clayer/clayer/internal/workdir"
)

const (
	// maxFetched is the most bytes of a commit's objects, as they are packed.
	maxFetched = 4 << 30
	// maxTree is the most bytes of a tree, unpacked.
	maxTree = 32 << 30
	// maxListed is the most bytes of a list of refs.
	maxListed = 16 << 20
	// stall is how long git may say nothing while it works with a server.
	stall = 30 * time.Second
	// longest is how long one run of git may take.
	longest = time.Hour
)

// A Fetcher fetches trees. The zero Fetcher does; it is safe for concurrent use.
type Fetcher struct {
	Temp string // where repositories are made; "" means the system's directory
	Dir  string // whose configuration applies; "" means the working directory

	// The bounds; 0 means the defaults.
	Stall               time.Duration
	MaxFetched, MaxTree int64
}

// A repo is a bare repository for one operation.
type repo struct {
	f       *Fetcher
	path    string // of git
	work    *workdir.Dir
	where   string // the address, as it may be shown
	local   bool
	limit   int64 // bytes that may be fetched
	secrets []string
}

// open makes a repository whose remote "src" is at url, for a commit, or "" for a list of
// refs. The caller closes it.
func (f *Fetcher) open(ctx context.Context, url, commit string) (*repo, error) {
	path, err := exec.LookPath("git")
	if err != nil {
		return nil, errhint.With(&Error{Kind: Refused, text: "git is not on PATH"}, "install git (apt-get install git)")
	}
	work, err := workdir.New(f.Temp)
	if err != nil {
		return nil, fmt.Errorf("a repository for what git fetches: %w", err)
	}
	r := &repo{f: f, path: path, work: work, where: remote.WithoutLogin(url), local: strings.HasPrefix(url, "file://"), limit: cmp.Or(f.MaxFetched, maxFetched), secrets: remote.Address{URL: url}.Secrets()}
	var b strings.Builder
	b.WriteString("[core]\n\trepositoryformatversion = 1\n\tbare = true\n\tlogAllRefUpdates = false\n\tfsync = none\n")
	if len(commit) == 64 {
		b.WriteString("[extensions]\n\tobjectFormat = sha256\n")
	}
	remote.Write(&b, "remote.src.url", url)
	for _, kv := range remote.Settings(ctx, path, f.Dir) {
		if strings.HasPrefix(kv[0], "remote.") {
			continue
		}
		remote.Write(&b, kv[0], kv[1])
		r.secrets = append(r.secrets, remote.SecretsOf(kv[0], kv[1])...)
	}
	for _, name := range []string{"objects", "objects/pack", "refs", "refs/heads"} {
		if err == nil {
			err = os.Mkdir(filepath.Join(work.Path, name), 0o700)
		}
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(work.Path, "HEAD"), []byte("ref: refs/heads/none\n"), 0o600)
	}
	var trust string
	if err == nil {
		trust, err = remote.Trust(work.Path, remote.Certificates(ctx, path, f.Dir))
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(work.Path, "config"), []byte(b.String()+trust), 0o600)
	}
	if err != nil {
		work.Remove()
		return nil, fmt.Errorf("a repository for what git fetches: %w", err)
	}
	return r, nil
}

func (r *repo) close() { r.work.Remove() }

// Resolve returns the commit that a ref (branch, tag or whole commit id; "" for the
// default branch) of the repository at url is at. Tags go before branches.
func (f *Fetcher) Resolve(ctx context.Context, url, ref string) (string, error) {
	if IsCommit(ref) {
		return ref, nil
	}
	r, err := f.open(ctx, url, "")
	if err != nil {
		return "", err
	}
	defer r.close()
	// By rank.
	names := []string{ref + "^{}", ref, "refs/" + ref + "^{}", "refs/" + ref, "refs/tags/" + ref + "^{}", "refs/tags/" + ref, "refs/heads/" + ref}
	if ref == "" {
		names = []string{"HEAD"}
	}
	var out bytes.Buffer
	err = r.run(ctx, call{server: true, stdout: &bounded{w: &out, left: maxListed}, args: append([]string{"ls-remote", "--quiet", "--", "src"}, names...)})
	if err != nil {
		return "", err
	}
	found := make(map[string]string)
	for line := range strings.Lines(out.String()) {
		if id, name, ok := strings.Cut(strings.TrimRight(line, "\n"), "\t"); ok && IsCommit(id) {
			found[name] = id
		}
	}
	for _, name := range names {
		if id := found[name]; id != "" {
			return id, nil
		}
	}
	return "", &Error{Kind: NoRef, text: noRef(r.where, ref)}
}

func noRef(where, ref string) string {
	if ref == "" {
		return where + " has no default branch, or no commit yet"
	}
	return fmt.Sprintf("%s has no branch or tag %q", where, ref)
}

// Top is the directory around the tree in what Archive writes.
const Top = "tree"

// Archive writes the tree of a commit in the repository at url to w, as a tar in which
// it is below Top: what git archive gives, without export-ignore, and what with says.
func (f *Fetcher) Archive(ctx context.Context, url, commit string, with With, w io.Writer) error {
	if with != (With{}) {
		return f.whole(ctx, url, commit, with, w)
	}
	r, err := f.open(ctx, url, commit)
	if err != nil {
		return err
	}
	defer r.close()
	if err := r.fetch(ctx, commit); err != nil {
		return err
	}
	return r.archive(ctx, commit, Top, w)
}

// fetch fetches a commit, and, where the server is of those that give none by its id,
// branches and tags until it is there.
func (r *repo) fetch(ctx context.Context, commit string) error {
	if err := r.fetchCommit(ctx, commit); err != nil {
		return err
	}
	// export-subst may name parents, and whether they are there.
	if err := os.Remove(filepath.Join(r.work.Path, "shallow")); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

func (r *repo) fetchCommit(ctx context.Context, commit string) error {
	base := []string{"fetch", "--progress", "--no-tags", "--no-recurse-submodules", "--no-write-fetch-head"}
	err := r.run(ctx, call{server: true, args: append(base, "--depth=1", "--", "src", commit)})
	var e *Error
	if !errors.As(err, &e) || e.Kind != noIDs {
		return err
	}
	all := []string{"--", "src", "+refs/heads/*:refs/heads/*", "+refs/tags/*:refs/tags/*"}
	for _, depth := range [][]string{{"--depth=1"}, {"--unshallow"}, nil} {
		err = r.run(ctx, call{server: true, args: append(append(base[:len(base):len(base)], depth...), all...)})
		if err == nil && r.run(ctx, call{args: []string{"cat-file", "-e", commit + "^{commit}"}}) == nil {
			return nil
		}
		if err != nil && (!errors.As(err, &e) || e.Kind != noIDs && e.Kind != Other) {
			return err
		}
	}
	return cmp.Or(err, error(&Error{Kind: NoRef, text: fmt.Sprintf("%s has no commit %s", r.where, commit)}))
}

// archive writes the tree of a commit below a directory to w, as a tar.
func (r *repo) archive(ctx context.Context, commit, dir string, w io.Writer) error {
	limit := cmp.Or(r.f.MaxTree, maxTree)
	err := r.run(ctx, call{stdout: &bounded{w: w, left: limit}, settings: []string{
		// Nothing but the tree decides about its bytes.
		"core.autocrlf=false", "core.eol=lf", "core.attributesFile=/dev/null", "core.abbrev=7", "tar.umask=0022",
	}, args: []string{"archive", "--format=tar", "--prefix=" + dir + "/", commit, "--"}})
	if errors.Is(err, errLarge) {
		return tooLarge(r.where, commit, limit)
	}
	return err
}

func tooLarge(where, commit string, limit int64) error {
	return &Error{Kind: Refused, text: fmt.Sprintf("%s: the tree of %.12s is larger than %d GiB", where, commit, limit>>30)}
}
