package gittree

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/clayer/clayer/internal/errhint"
	"github.com/clayer/clayer/internal/git/remote"
	"github.com/clayer/clayer/internal/lazyregexp"
)

// maxPointer is the most bytes of a file that stands for one of Git LFS.
const maxPointer = 1024

// fetchLarge fetches the files of a commit of Git LFS, and returns the paths of
// those that its attributes give to it.
func (r *repo) fetchLarge(ctx context.Context, commit string) (map[string]bool, error) {
	// Attributes are read from an index: of a commit only newer gits read them.
	var names, attributes bytes.Buffer
	for _, c := range []call{
		{args: []string{"read-tree", commit}},
		{args: []string{"ls-files", "-z"}, stdout: &bounded{w: &names, left: maxListed}},
		{args: []string{"check-attr", "--cached", "-z", "--stdin", "filter"}, stdin: &names, stdout: &bounded{w: &attributes, left: 2 * maxListed}, settings: []string{"core.attributesFile=/dev/null"}},
	} {
		if err := r.run(ctx, c); err != nil {
			return nil, err
		}
	}
	large := make(map[string]bool)
	for fields := strings.Split(attributes.String(), "\x00"); len(fields) > 3; fields = fields[3:] {
		if fields[2] == "lfs" {
			large[fields[0]] = true
		}
	}
	if len(large) == 0 {
		return nil, nil
	}
	if err := r.checkLarge(ctx, commit); err != nil {
		return nil, err
	}
	// It reads .lfsconfig of HEAD.
	if err := os.WriteFile(filepath.Join(r.work.Path, "HEAD"), []byte(commit+"\n"), 0o600); err != nil {
		return nil, err
	}
	// In the file: what stands in an argument, git-lfs passes on to a repository on this
	// machine, which has its own.
	f, err := os.OpenFile(filepath.Join(r.work.Path, "config"), os.O_WRONLY|os.O_APPEND, 0)
	if err != nil {
		return nil, err
	}
	var b strings.Builder
	for _, kv := range [][2]string{{"storage", filepath.Join(r.work.Path, "lfs")}, {"fetchrecentalways", "false"}, {"fetchinclude", ""}, {"fetchexclude", ""}} {
		remote.Write(&b, "lfs."+kv[0], kv[1])
	}
	_, err = f.WriteString(b.String())
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, err
	}
	return large, r.run(ctx, call{server: true, args: []string{"lfs", "fetch", "src", commit}})
}

// checkLarge reports whether the program is there, and whether the server that the commit
// names is one that may be asked.
func (r *repo) checkLarge(ctx context.Context, commit string) error {
	if err := r.run(ctx, call{args: []string{"lfs", "version"}}); err != nil {
		if ctx.Err() != nil {
			return err
		}
		return errhint.With(&Error{Kind: Refused, text: r.where + " has files of Git LFS, and git-lfs is not installed"}, "install git-lfs (apt-get install git-lfs)")
	}
	var out bytes.Buffer
	if err := r.run(ctx, call{stdout: &bounded{w: &out, left: maxListed}, args: []string{"ls-tree", "-z", commit, ".lfsconfig"}}); err != nil || out.Len() == 0 {
		return err
	}
	settings, err := r.settings(ctx, commit+":.lfsconfig", `url$`)
	for _, kv := range settings {
		if !r.local && !isServer().MatchString(kv[1]) {
			return &Error{Kind: Refused, text: fmt.Sprintf("%s: .lfsconfig: %s is not of https or ssh", r.where, kv[0])}
		}
	}
	return err
}

var isServer = lazyregexp.New(`^(https?|ssh|git\+ssh)://[^-]`)

// copyLarge writes the file that a pointer stands for; a file that is none as it is.
func (r *repo) copyLarge(w *tar.Writer, h *tar.Header, text []byte) error {
	id, size, err := pointer(text)
	if err != nil {
		return &Error{Kind: Refused, text: fmt.Sprintf("%s: %s: %v", r.where, strings.TrimPrefix(h.Name, Top+"/"), err)}
	}
	if id == "" {
		h.Size = int64(len(text))
		if err := w.WriteHeader(h); err != nil {
			return err
		}
		_, err := w.Write(text)
		return err
	}
	f, err := os.Open(filepath.Join(r.work.Path, "lfs", "objects", id[:2], id[2:4], id))
	if errors.Is(err, fs.ErrNotExist) && size > 0 {
		return &Error{Kind: Refused, text: fmt.Sprintf("%s: the LFS server has no %s", r.where, strings.TrimPrefix(h.Name, Top+"/"))}
	}
	var content io.Reader = strings.NewReader("")
	if err == nil {
		defer f.Close()
		content = f
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	h.Size = size
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	sum := sha256.New()
	n, err := io.Copy(io.MultiWriter(w, sum), io.LimitReader(content, size))
	if err != nil {
		return err
	}
	if n != size || hex.EncodeToString(sum.Sum(nil)) != id {
		return &Error{Kind: Broken, text: fmt.Sprintf("%s: %s: what the LFS server gave is not what its SHA-256 says", r.where, strings.TrimPrefix(h.Name, Top+"/"))}
	}
	return nil
}

// pointer reads a file that stands for one of Git LFS; the id is "" if it is none.
func pointer(text []byte) (id string, size int64, err error) {
	first, rest, _ := strings.Cut(string(text), "\n")
	if first != "version https://git-lfs.github.com/spec/v1" {
		return "", 0, nil
	}
	size = -1
	for line := range strings.SplitSeq(strings.TrimSpace(rest), "\n") {
		name, value, _ := strings.Cut(line, " ")
		switch {
		case name == "oid":
			id = strings.TrimPrefix(value, "sha256:")
		case name == "size":
			if size, err = strconv.ParseInt(value, 10, 64); err != nil {
				return "", 0, errors.New("its LFS pointer is malformed")
			}
		case strings.HasPrefix(name, "ext-"):
			return "", 0, errors.New("it needs an extension of Git LFS")
		}
	}
	if len(id) != 64 || !IsCommit(id) || size < 0 {
		return "", 0, errors.New("its LFS pointer is malformed")
	}
	return id, size, nil
}
