package gittree

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strings"

	"github.com/clayer/clayer/internal/git/remote"
)

// With says what is fetched beside the tree of a commit itself.
type With struct {
	Submodules bool // their trees, and those of their own submodules
	LFS        bool // the files of Git LFS, by the program git-lfs
	Checkout   bool // all that a checkout has, whatever .gitattributes says of archives
	GitDir     bool // the directory .git, of the tree itself alone
}

const (
	// mostModules is how many submodules a tree may have, and deepest how far below
	// each other they may be.
	mostModules = 500
	deepest     = 20
	// maxModules is the most bytes of a .gitmodules.
	maxModules = 1 << 20
)

// A whole writes a tree with what is beside it.
type whole struct {
	f       *Fetcher
	with    With
	out     *tar.Writer
	fetched int64 // bytes
	modules int
}

// whole writes the tree of a commit, with what is beside it, to w.
func (f *Fetcher) whole(ctx context.Context, url, commit string, with With, w io.Writer) error {
	limit := cmp.Or(f.MaxTree, maxTree)
	t := &whole{f: f, with: with, out: tar.NewWriter(&bounded{w: w, left: limit})}
	err := t.add(ctx, url, commit, Top, 0)
	if err == nil {
		err = t.out.Close()
	}
	if errors.Is(err, errLarge) {
		return tooLarge(remote.WithoutLogin(url), commit, limit)
	}
	return err
}

// add writes the tree of a commit below a directory.
func (t *whole) add(ctx context.Context, url, commit, dir string, depth int) error {
	r, err := t.f.open(ctx, url, commit)
	if err != nil {
		return err
	}
	defer r.close()
	r.limit -= t.fetched
	if err := r.fetch(ctx, commit); err != nil {
		return err
	}
	if t.with.Checkout {
		if err := r.asCheckout(); err != nil {
			return err
		}
	}
	if t.with.GitDir && depth == 0 {
		if err := t.addGitDir(ctx, r, url, commit, dir+"/.git"); err != nil {
			return err
		}
	}
	var modules map[string]module
	if t.with.Submodules {
		if modules, err = r.modules(ctx, commit, url); err != nil {
			return err
		}
	}
	var large map[string]bool
	if t.with.LFS {
		if large, err = r.fetchLarge(ctx, commit); err != nil {
			return err
		}
	}
	t.fetched += r.size()
	pr, pw := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		err := r.archive(ctx, commit, dir, pw)
		pw.CloseWithError(err)
		ended <- err
	}()
	err = t.copy(ctx, r, pr, dir, modules, large, depth)
	if err == nil {
		_, err = io.Copy(io.Discard, pr) // what fills the last block
	}
	pr.CloseWithError(err)
	if archived := <-ended; archived != nil && (err == nil || errors.Is(err, archived)) {
		return archived
	}
	return err
}

// copy writes what an archive has. A submodule stands in its place.
func (t *whole) copy(ctx context.Context, r *repo, archive io.Reader, dir string, modules map[string]module, large map[string]bool, depth int) error {
	for in := tar.NewReader(archive); ; {
		h, err := in.Next()
		if err == io.EOF {
			return nil
		}
		if err != nil {
			return err
		}
		name := strings.TrimPrefix(strings.TrimSuffix(h.Name, "/"), dir+"/")
		m, isModule := modules[name]
		switch {
		case h.Typeflag == tar.TypeXGlobalHeader:
		case isModule && h.Typeflag == tar.TypeDir:
			if err := t.addModule(ctx, m, dir+"/"+name, depth+1); err != nil {
				return fmt.Errorf("submodule %s: %w", strings.TrimPrefix(dir+"/"+name, Top+"/"), err)
			}
		case large[name] && h.Typeflag == tar.TypeReg && h.Size <= maxPointer:
			text, err := io.ReadAll(in)
			if err != nil {
				return err
			}
			if err := r.copyLarge(t.out, h, text); err != nil {
				return err
			}
		default:
			if err := t.out.WriteHeader(h); err != nil {
				return err
			}
			if _, err := io.Copy(t.out, in); err != nil {
				return err
			}
		}
	}
}

func (t *whole) addModule(ctx context.Context, m module, dir string, depth int) error {
	if t.modules++; t.modules > mostModules || depth > deepest {
		return &Error{Kind: Refused, text: fmt.Sprintf("more than %d submodules, or more than %d below each other", mostModules, deepest)}
	}
	if m.url == "" {
		return &Error{Kind: Refused, text: "the file .gitmodules has no url for it"}
	}
	return t.add(ctx, m.url, m.commit, dir, depth)
}

// A module is a submodule.
type module struct {
	url    string // "": nothing says where it is
	commit string
}

// modules returns the submodules of a commit, by their paths, without those that are not
// to be fetched.
func (r *repo) modules(ctx context.Context, commit, url string) (map[string]module, error) {
	var out bytes.Buffer
	if err := r.run(ctx, call{stdout: &bounded{w: &out, left: maxListed}, args: []string{"ls-tree", "-r", "-z", "--full-tree", commit}}); err != nil {
		return nil, err
	}
	all, listed := make(map[string]module), ""
	for entry := range strings.SplitSeq(out.String(), "\x00") {
		about, path, ok := strings.Cut(entry, "\t")
		words := strings.Fields(about)
		switch {
		case !ok || len(words) != 3:
		case words[1] == "commit" && IsCommit(words[2]):
			all[path] = module{commit: words[2]}
		case path == ".gitmodules" && strings.HasPrefix(words[0], "100"):
			listed = words[2]
		}
	}
	if len(all) == 0 || listed == "" {
		return all, nil
	}
	settings, err := r.settings(ctx, listed, `^submodule\..*\.(path|url|update)$`)
	if err != nil {
		return nil, err
	}
	byName := make(map[string]map[string]string)
	for _, kv := range settings {
		rest := strings.TrimPrefix(kv[0], "submodule.")
		at := strings.LastIndexByte(rest, '.')
		name, key := rest[:at], rest[at+1:]
		if byName[name] == nil {
			byName[name] = make(map[string]string)
		}
		byName[name][key] = kv[1]
	}
	for _, s := range byName {
		m, ok := all[s["path"]]
		switch {
		case !ok:
			continue
		case s["update"] == "none":
			delete(all, s["path"])
			continue
		}
		if m.url, err = moduleURL(url, s["url"], r.local); err != nil {
			return nil, fmt.Errorf("%s: submodule %s: %w", r.where, s["path"], err)
		}
		all[s["path"]] = m
	}
	return all, nil
}

// settings returns those in a blob with git's configuration whose names match.
func (r *repo) settings(ctx context.Context, blob, names string) (all [][2]string, err error) {
	var out bytes.Buffer
	err = r.run(ctx, call{stdout: &bounded{w: &out, left: maxModules}, none: true, args: []string{"config", "--blob", blob, "-z", "--get-regexp", names}})
	for entry := range strings.SplitSeq(out.String(), "\x00") {
		if name, value, ok := strings.Cut(entry, "\n"); ok {
			all = append(all, [2]string{name, value})
		}
	}
	return all, err
}

// moduleURL returns where a submodule is that the repository at base has, as git says it.
// A repository on this machine has those on this machine; no other one has.
func moduleURL(base, to string, local bool) (string, error) {
	bad := func(why string) error { return &Error{Kind: Refused, text: "its url in .gitmodules " + why} }
	if strings.HasPrefix(to, "./") || strings.HasPrefix(to, "../") {
		base = strings.TrimRight(base, "/")
		for {
			rest, up := strings.CutPrefix(to, "../")
			if !up {
				if rest, up = strings.CutPrefix(to, "./"); !up {
					break
				}
				to = rest
				continue
			}
			at := strings.LastIndexByte(base, '/')
			if at < 0 || strings.HasSuffix(base[:at], "/") {
				return "", bad("leads out of its server")
			}
			base, to = base[:at], rest
		}
		to = base + "/" + to
	}
	a, err := remote.Parse(to)
	if err != nil || to == "" || strings.ContainsRune(to, '#') {
		return "", bad("is not one of https, ssh or file")
	}
	u, err := url.Parse(a.URL)
	scheme := "ssh" // git@host:path
	if err == nil && u.Scheme != "" && strings.Contains(a.URL, "://") {
		scheme = u.Scheme
	}
	switch {
	case scheme == "file" && !local:
		return "", bad("is of this machine, and the repository is not")
	case scheme == "git":
		return "", bad("is of git://, which anyone on the way can change: use https")
	}
	return a.URL, nil
}
