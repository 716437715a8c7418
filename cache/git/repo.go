package git

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/clayer/clayer/internal/git/remote"
	"github.com/clayer/clayer/internal/workdir"
)

// A repo is a bare repository for one operation.
type repo struct {
	git   *program
	dir   string
	work  *workdir.Dir
	trust string // the setting with what git trusts; "" for git's own
}

// tip is the ref that has the branch, as it was fetched last.
const tip = "refs/heads/tip"

// open makes a repository. The caller closes it.
func (s *Store) open() (*repo, error) {
	p, err := s.setup()
	if err != nil {
		return nil, err
	}
	work, err := workdir.New(s.opt.Temp)
	if err != nil {
		return nil, fmt.Errorf("a repository for what git fetches: %w", err)
	}
	r := &repo{git: p, dir: work.Path, work: work}
	for _, name := range []string{"objects", "objects/pack", "refs", "refs/heads"} {
		if err == nil {
			err = os.Mkdir(filepath.Join(r.dir, name), 0o700)
		}
	}
	if err == nil {
		err = os.WriteFile(filepath.Join(r.dir, "HEAD"), []byte("ref: "+tip+"\n"), 0o600)
	}
	if err == nil {
		r.trust, err = remote.Trust(r.dir, p.certificates)
	}
	if err == nil {
		err = r.configure("")
	}
	if err != nil {
		r.close()
		return nil, fmt.Errorf("a repository for what git fetches: %w", err)
	}
	return r, nil
}

// configure writes the configuration, and more, at once: another git may read it.
func (r *repo) configure(more string) error {
	if r.git.sha256.Load() {
		more += "[extensions]\n\tobjectFormat = sha256\n"
	}
	temp := filepath.Join(r.dir, "config-"+rand.Text())
	if err := os.WriteFile(temp, []byte(r.git.config+r.trust+more), 0o600); err != nil {
		return err
	}
	return os.Rename(temp, filepath.Join(r.dir, "config"))
}

func (r *repo) close() { r.work.Remove() }

// size returns how many bytes have been fetched.
func (r *repo) size() (n int64) {
	_ = filepath.WalkDir(filepath.Join(r.dir, "objects"), func(_ string, d fs.DirEntry, err error) error {
		if err != nil {
			return nil // renamed meanwhile
		}
		if info, err := d.Info(); err == nil && !d.IsDir() {
			n += info.Size()
		}
		return nil
	})
	return n
}

// output runs git on files alone, and returns what it prints.
func (r *repo) output(ctx context.Context, stdin io.Reader, args ...string) ([]byte, error) {
	var out bytes.Buffer
	err := r.run(ctx, call{args: args, stdin: stdin, stdout: &out})
	return out.Bytes(), err
}

// object runs git, which prints the id of what it writes.
func (r *repo) object(ctx context.Context, stdin io.Reader, args ...string) (object, error) {
	out, err := r.output(ctx, stdin, args...)
	if err != nil {
		return "", err
	}
	o := object(strings.TrimSpace(string(out)))
	if !o.Valid() {
		return "", fmt.Errorf("git %s printed %q, which is no object", args[0], o)
	}
	return o, nil
}

// fetchTip fetches the last commit of the branch, with its files. It reports false if
// there is no such branch.
func (r *repo) fetchTip(ctx context.Context, branch string) (object, bool, error) {
	for _, name := range []string{"shallow.lock", tip + ".lock", "packed-refs.lock"} { // of a git that was ended
		_ = os.Remove(filepath.Join(r.dir, name))
	}
	err := r.remote(ctx, call{limit: maxIndex, args: []string{
		"fetch", "--progress", "--depth=1", "--no-tags", "--update-head-ok", "store", "+refs/heads/" + branch + ":" + tip,
	}})
	var e *Error
	if errors.As(err, &e) && e.kind == noBranch {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	o, err := r.object(ctx, nil, "rev-parse", "--verify", tip+"^{commit}")
	return o, err == nil, err
}

// fetchObjects fetches objects by their ids: two requests, however many they are.
func (r *repo) fetchObjects(ctx context.Context, all []object, limit int64) error {
	args := []string{"fetch", "--progress", "--no-tags", "--no-write-fetch-head", "store"}
	for _, o := range all {
		args = append(args, string(o))
	}
	return r.remote(ctx, call{limit: limit, args: args})
}

// fetchBranch fetches all of the branch.
func (r *repo) fetchBranch(ctx context.Context, branch string) error {
	return r.remote(ctx, call{args: []string{"fetch", "--progress", "--no-tags", "--no-write-fetch-head", "store", "+refs/heads/" + branch + ":" + tip}})
}

// contents reads objects, and calls f for each with its size, in order. What f leaves is
// skipped. A missing object has the size -1.
func (r *repo) contents(ctx context.Context, all []object, f func(i int, kind string, size int64, content io.Reader) error) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var list bytes.Buffer
	for _, o := range all {
		list.WriteString(string(o) + "\n")
	}
	pr, pw, err := os.Pipe()
	if err != nil {
		return err
	}
	defer pr.Close()
	ended := make(chan error, 1)
	go func() {
		err := r.run(ctx, call{args: []string{"cat-file", "--batch"}, stdin: &list, stdout: pw})
		pw.Close()
		ended <- err
	}()
	err = readContents(bufio.NewReaderSize(pr, 256<<10), len(all), f)
	if err != nil {
		cancel()
		<-ended
		return err
	}
	return <-ended
}

func readContents(b *bufio.Reader, n int, f func(i int, kind string, size int64, content io.Reader) error) error {
	for i := range n {
		line, err := b.ReadString('\n')
		if err != nil {
			return fmt.Errorf("git cat-file: %w", err)
		}
		words := strings.Fields(line)
		if len(words) == 2 && words[1] == "missing" {
			if err := f(i, "", -1, nil); err != nil {
				return err
			}
			continue
		}
		if len(words) != 3 {
			return fmt.Errorf("git cat-file printed %q", line)
		}
		size, err := strconv.ParseInt(words[2], 10, 64)
		if err != nil || size < 0 {
			return fmt.Errorf("git cat-file printed %q", line)
		}
		content := &io.LimitedReader{R: b, N: size}
		if err := f(i, words[1], size, content); err != nil {
			return err
		}
		if _, err := io.Copy(io.Discard, content); err != nil {
			return err
		}
		if _, err := b.Discard(1); err != nil { // the end of the line
			return fmt.Errorf("git cat-file: %w", err)
		}
	}
	return nil
}

// files lists the regular files of a commit. Links and submodules are left out.
func (r *repo) files(ctx context.Context, commit object) (all []file, err error) {
	out, err := r.output(ctx, nil, "ls-tree", "-r", "-z", "--full-tree", string(commit))
	if err != nil {
		return nil, err
	}
	for entry := range strings.SplitSeq(string(out), "\x00") {
		about, path, ok := strings.Cut(entry, "\t")
		words := strings.Fields(about)
		if ok && len(words) == 3 && words[0] == "100644" && words[1] == "blob" {
			all = append(all, file{Path: path, ID: object(words[2])})
		}
	}
	return all, nil
}

// writeFiles writes blobs, in order.
func (r *repo) writeFiles(ctx context.Context, contents [][]byte) (ids []object, err error) {
	if len(contents) == 0 {
		return nil, nil
	}
	dir := filepath.Join(r.dir, "files")
	if err := os.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	var names bytes.Buffer
	for i, content := range contents {
		name := filepath.Join(dir, strconv.Itoa(i))
		if err := os.WriteFile(name, content, 0o600); err != nil {
			return nil, err
		}
		names.WriteString(name + "\n")
	}
	out, err := r.output(ctx, &names, "hash-object", "-w", "--no-filters", "--stdin-paths")
	if err != nil {
		return nil, err
	}
	for line := range strings.Lines(string(out)) {
		ids = append(ids, object(strings.TrimSpace(line)))
	}
	if len(ids) != len(contents) {
		return nil, fmt.Errorf("git hash-object wrote %d of %d files", len(ids), len(contents))
	}
	return ids, nil
}

// writeTree writes a tree with the files of a commit, "" for none, and others.
func (r *repo) writeTree(ctx context.Context, from object, files []file) (object, error) {
	index := filepath.Join(r.dir, "index-"+rand.Text())
	defer os.Remove(index)
	env := []string{"GIT_INDEX_FILE=" + index}
	if from != "" {
		if err := r.run(ctx, call{args: []string{"read-tree", string(from)}, env: env}); err != nil {
			return "", err
		}
	}
	var list bytes.Buffer
	for _, f := range files {
		if f.ID == "" {
			fmt.Fprintf(&list, "0 %s\t%s\x00", r.git.zero(), f.Path)
			continue
		}
		fmt.Fprintf(&list, "100644 %s\t%s\x00", f.ID, f.Path)
	}
	if err := r.run(ctx, call{args: []string{"update-index", "-z", "--index-info"}, env: env, stdin: &list}); err != nil {
		return "", err
	}
	var out bytes.Buffer
	if err := r.run(ctx, call{args: []string{"write-tree", "--missing-ok"}, env: env, stdout: &out}); err != nil {
		return "", err
	}
	return object(strings.TrimSpace(out.String())), nil
}

// writeCommit writes a commit. at is its time; the zero time is a fixed one, so that
// the same tree is the same commit.
func (r *repo) writeCommit(ctx context.Context, tree object, parents []object, text string, at time.Time) (object, error) {
	seconds := int64(315619200) // 1980-01-02
	if !at.IsZero() {
		seconds = at.Unix()
	}
	date := fmt.Sprintf("@%d +0000", seconds)
	// By hand: a commit may have more parents than fit into arguments.
	var b strings.Builder
	fmt.Fprintf(&b, "tree %s\n", tree)
	for _, p := range parents {
		fmt.Fprintf(&b, "parent %s\n", p)
	}
	who := "clayer <clayer@localhost> " + strings.TrimPrefix(date, "@")
	fmt.Fprintf(&b, "author %s\ncommitter %s\n\n%s\n", who, who, text)
	return r.object(ctx, strings.NewReader(b.String()), "hash-object", "-t", "commit", "-w", "--stdin")
}

// push makes a commit the branch's. It comes after what is there; or else replaces, if
// that is given, what is there and nothing newer.
func (r *repo) push(ctx context.Context, branch string, commit object, replaces *object) error {
	ref := "refs/heads/" + branch
	args := []string{"push", "--progress", "--no-verify"}
	if replaces != nil {
		args = append(args, "--force-with-lease="+ref+":"+string(*replaces))
	}
	c := call{patient: true, args: append(args, "store", string(commit)+":"+ref)}
	if _, err := os.Stat(filepath.Join(r.dir, graftFile)); err == nil {
		c.settings = []string{"pack.window=0"} // nothing is sent as the difference from what only the grafts say is there
	}
	return r.remote(ctx, c)
}

// fetchCommits fetches all commits of the branch, and no files of them; all of them from
// a server without filters.
func (r *repo) fetchCommits(ctx context.Context, branch string) error {
	args := []string{"fetch", "--progress", "--filter=tree:0", "--no-tags", "--no-write-fetch-head"}
	if _, err := os.Stat(filepath.Join(r.dir, "shallow")); err == nil {
		args = append(args, "--unshallow")
	}
	err := r.remote(ctx, call{args: append(args, "store", "+refs/heads/"+branch+":refs/heads/commits")})
	// Without what the fetch has written there, git takes what is missing for missing,
	// and does not fetch it object by object.
	return errors.Join(err, r.configure(""))
}
