package gittree

import (
	"archive/tar"
	"context"
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/clayer/clayer/internal/git/remote"
)

// asCheckout has the archive of the repository be what a checkout is: .gitattributes says
// what is left out of archives, and written into them.
func (r *repo) asCheckout() error {
	info := filepath.Join(r.work.Path, "info")
	if err := os.Mkdir(info, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return os.WriteFile(filepath.Join(info, "attributes"), []byte("* -export-ignore -export-subst\n"), 0o600)
}

// addGitDir writes the directory .git of a checkout of a commit, of which nothing before is
// known. Its configuration has the address alone, and no login.
func (t *whole) addGitDir(ctx context.Context, r *repo, url, commit, dir string) error {
	if err := r.run(ctx, call{args: []string{"read-tree", commit}}); err != nil {
		return err
	}
	index, err := os.ReadFile(filepath.Join(r.work.Path, "index"))
	if err != nil {
		return err
	}
	var config strings.Builder
	if len(commit) == 64 {
		config.WriteString("[core]\n\trepositoryformatversion = 1\n[extensions]\n\tobjectFormat = sha256\n")
	} else {
		config.WriteString("[core]\n\trepositoryformatversion = 0\n")
	}
	config.WriteString("[core]\n\tfilemode = true\n\tbare = false\n")
	remote.Write(&config, "remote.origin.url", remote.WithoutLogin(url))
	remote.Write(&config, "remote.origin.fetch", "+refs/heads/*:refs/remotes/origin/*")
	for _, name := range []string{"", "refs", "refs/heads", "refs/tags"} {
		if err := t.out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: filepath.Join(dir, name) + "/", Mode: 0o755}); err != nil {
			return err
		}
	}
	for _, f := range []struct{ name, content string }{
		{"HEAD", commit + "\n"}, {"config", config.String()}, {"shallow", commit + "\n"}, {"index", string(index)},
	} {
		if err := t.addFile(dir+"/"+f.name, int64(len(f.content)), strings.NewReader(f.content)); err != nil {
			return err
		}
	}
	objects := filepath.Join(r.work.Path, "objects")
	return filepath.WalkDir(objects, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(r.work.Path, path)
		if err != nil {
			return err
		}
		if d.IsDir() {
			return t.out.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: dir + "/" + rel + "/", Mode: 0o755})
		}
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		defer f.Close()
		info, err := f.Stat()
		if err != nil {
			return err
		}
		return t.addFile(dir+"/"+rel, info.Size(), f)
	})
}

func (t *whole) addFile(name string, size int64, content io.Reader) error {
	if err := t.out.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: name, Mode: 0o644, Size: size}); err != nil {
		return err
	}
	_, err := io.Copy(t.out, content)
	return err
}
