package source

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/solver/internal/names"
)

// A forge has a Git repository, o/r, as GitHub has it.
type forge struct {
	url     string
	dir     string // of the bare repository
	commit  string
	mu      sync.Mutex
	refuses map[string]int // the ways that answer with a status instead
	asked   []string       // the ways that were asked for a tree
}

// git runs git, and returns what it prints.
func git(t testing.TB, dir string, args ...string) string {
	t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a",
		"GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a", "GIT_AUTHOR_DATE=@1700000000 +0000", "GIT_COMMITTER_DATE=@1700000000 +0000")
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("git %q: %v %s", args, err, err.(*exec.ExitError).Stderr)
	}
	return string(out)
}

// newForge starts one. Its tree has all that archives of Git treat in their own way.
func newForge(t testing.TB, opt gittest.Options) *forge {
	t.Helper()
	srv := gittest.New(t, opt)
	if _, err := srv.Repository("o/r.git"); err != nil {
		t.Fatal(err)
	}
	f := &forge{dir: filepath.Join(srv.Dir, "o/r.git"), refuses: make(map[string]int)}
	work := t.TempDir()
	git(t, work, "init", "-q", "-b", "trunk")
	makeTree(t, work,
		`.gitattributes secret.txt export-ignore\n/gone export-ignore\n*.crlf eol=crlf\n*.id ident\n*.bin filter=lfs\n`,
		`a/b/file one`, `a/tool* #!/bin/sh`, `a/link -> ../../outside`, `secret.txt no`, `gone/x no`, `text.crlf one\ntwo\n`, `x.id $Id$`, `large.bin version 1`,
		`a/`+strings.Repeat("long", 40)+`/f deep`)
	git(t, work, "add", "-A")
	git(t, work, "update-index", "--add", "--cacheinfo", "160000,"+strings.Repeat("1", 40)+",module")
	git(t, work, "commit", "-q", "-m", "one")
	git(t, work, "tag", "-a", "-m", "v1", "v1")
	git(t, work, "push", "-q", f.dir, "trunk", "v1")
	git(t, f.dir, "symbolic-ref", "HEAD", "refs/heads/trunk")
	f.commit = strings.TrimSpace(git(t, work, "rev-parse", "HEAD"))
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		way, commit := "", ""
		switch {
		case strings.HasPrefix(r.URL.Path, "/repos/o/r/tarball/"):
			way, commit = "API", path.Base(r.URL.Path)
		case strings.HasPrefix(r.URL.Path, "/o/r/archive/"):
			way, commit = "web", strings.TrimSuffix(path.Base(r.URL.Path), ".tar.gz")
		case strings.HasPrefix(r.URL.Path, "/repos/"):
			way = "refs"
		default:
			way = "Git"
		}
		f.mu.Lock()
		f.asked = append(f.asked, way)
		status := f.refuses[way]
		f.mu.Unlock()
		switch {
		case status != 0:
			w.WriteHeader(status)
		case way == "refs":
			w.WriteHeader(http.StatusNotFound)
		case way == "Git":
			srv.ServeHTTP(w, r)
		default:
			umask := map[string]string{"API": "0002", "web": "0077"}[way]
			z := gzip.NewWriter(w)
			io.WriteString(z, git(t, f.dir, "-c", "tar.umask="+umask, "archive", "--prefix=o-r-"+way+"/", commit))
			z.Close()
		}
	}))
	t.Cleanup(s.Close)
	f.url = s.URL
	return f
}

// ways returns which ways were asked since it was called last, each once.
func (f *forge) ways() string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := slices.Compact(f.asked)
	f.asked = nil
	return strings.Join(asked, " ")
}

// only has all ways but these refuse.
func (f *forge) only(status int, ways ...string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, way := range []string{"API", "web", "Git", "refs"} {
		if f.refuses[way] = status; slices.Contains(ways, way) {
			f.refuses[way] = 0
		}
	}
}

func (f *forge) resolver(t testing.TB) *Resolver {
	t.Helper()
	r := newResolver(t)
	tr := transfer.NewTransport()
	tr.Proxy = nil
	t.Cleanup(tr.CloseIdleConnections)
	var err error
	r.GitHub, err = github.New(github.Options{APIURL: f.url, ServerURL: f.url, Transfer: transfer.Options{Transport: tr, Retries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// tree returns the changes of a FETCH of source.
func fetchedTree(t testing.TB, r *Resolver, source string) (snapshot.Changes, Pin, error) {
	t.Helper()
	in := &frontend.Fetch{Source: source, Dest: "/opt/x"}
	pin, err := r.Fetch(t.Context(), in)
	if err != nil {
		return nil, pin, err
	}
	place, err := r.FetchChanges(t.Context(), in, pin)
	if err != nil {
		return nil, pin, err
	}
	changes, err := place(names.New(t.TempDir(), ""))
	return changes, pin, err
}

func packed(t testing.TB, changes snapshot.Changes) digest.Digest {
	t.Helper()
	p, err := snapshot.Pack(context.Background(), io.Discard, changes, snapshot.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return p.Digest
}

// oracle returns what git archive has of the commit, as text writes it.
func (f *forge) oracle(t testing.TB) string {
	t.Helper()
	var b strings.Builder
	b.WriteString("d 0755 opt/x\n")
	tr := tar.NewReader(strings.NewReader(git(t, f.dir, "archive", f.commit)))
	for {
		h, err := tr.Next()
		if err == io.EOF {
			return b.String()
		}
		if err != nil {
			t.Fatal(err)
		}
		name := path.Join("opt/x", h.Name)
		switch h.Typeflag {
		case tar.TypeDir:
			fmt.Fprintf(&b, "d 0755 %s\n", name)
		case tar.TypeSymlink:
			fmt.Fprintf(&b, "l %s -> %s\n", name, h.Linkname)
		case tar.TypeReg:
			var content bytes.Buffer
			if _, err := io.Copy(&content, tr); err != nil {
				t.Fatal(err)
			}
			mode := 0o644
			if h.Mode&0o100 != 0 {
				mode = 0o755
			}
			fmt.Fprintf(&b, "f %04o %s %q\n", mode, name, content.Bytes())
		}
	}
}

// TestTreeIsTheSameWhicheverWayItCame compares the snapshots byte for byte, and their
// entries with what git archive has.
func TestTreeIsTheSameWhicheverWayItCame(t *testing.T) {
	f := newForge(t, gittest.Options{})
	want := f.oracle(t)
	for _, not := range []string{"secret.txt", "gone"} {
		if strings.Contains(want, "opt/x/"+not) {
			t.Fatalf("git archive has %s:\n%s", not, want)
		}
	}
	pin := Pin{Commit: f.commit}
	digests := make(map[digest.Digest][]string)
	for name, tt := range map[string]struct{ way, source string }{
		"API":         {"API", "github:o/r@" + f.commit},
		"web archive": {"web", "github:o/r@" + f.commit},
		"Git":         {"Git", "github:o/r@" + f.commit},
		"git+http":    {"Git", "git+" + f.url + "/o/r.git@" + f.commit},
		"a tag":       {"Git", "git+" + f.url + "/o/r.git@v1"},
		"a branch":    {"Git", "git+" + f.url + "/o/r.git#trunk"},
		"no ref":      {"Git", "git+" + f.url + "/o/r.git"},
		"file":        {"", "file://" + f.dir},
		"git+file":    {"", "git+file://" + f.dir + "@v1"},
	} {
		f.only(http.StatusForbidden, tt.way)
		changes, got, err := fetchedTree(t, f.resolver(t), tt.source)
		if err != nil || got != pin {
			t.Errorf("%s: %+v, %v", name, got, err)
			continue
		}
		if have, err := text(t, changes); err != nil || have != want {
			t.Errorf("%s: %v\n%s\nwant\n%s", name, err, have, want)
		}
		d := packed(t, changes)
		digests[d] = append(digests[d], name)
	}
	if len(digests) != 1 {
		t.Errorf("snapshots: %v", digests)
	}
}

// TestWayThatRefusedIsNotAskedAgain fetches two trees where nothing but Git is let through.
func TestWayThatRefusedIsNotAskedAgain(t *testing.T) {
	f := newForge(t, gittest.Options{})
	git(t, f.dir, "update-ref", "refs/heads/second", strings.TrimSpace(git(t, f.dir, "commit-tree", "-m", "two", f.commit+"^{tree}")))
	second := strings.TrimSpace(git(t, f.dir, "rev-parse", "second"))
	f.only(http.StatusForbidden, "Git")
	r := f.resolver(t)
	if _, _, err := fetchedTree(t, r, "github:o/r@"+f.commit); err != nil {
		t.Fatal(err)
	}
	if got := f.ways(); got != "API web Git" {
		t.Errorf("asked: %s", got)
	}
	if _, _, err := fetchedTree(t, r, "github:o/r@"+second); err != nil {
		t.Fatal(err)
	}
	if got := f.ways(); got != "Git" {
		t.Errorf("asked for the second: %s", got)
	}
}

// TestWayThatAnsweredIsAskedFirst fetches two trees where the API is out of order.
func TestWayThatAnsweredIsAskedFirst(t *testing.T) {
	f := newForge(t, gittest.Options{})
	git(t, f.dir, "update-ref", "refs/heads/second", strings.TrimSpace(git(t, f.dir, "commit-tree", "-m", "two", f.commit+"^{tree}")))
	second := strings.TrimSpace(git(t, f.dir, "rev-parse", "second"))
	f.only(http.StatusBadGateway, "web")
	r := f.resolver(t)
	if _, _, err := fetchedTree(t, r, "github:o/r@"+f.commit); err != nil {
		t.Fatal(err)
	}
	f.ways()
	if _, _, err := fetchedTree(t, r, "github:o/r@"+second); err != nil {
		t.Fatal(err)
	}
	if got := f.ways(); got != "web" {
		t.Errorf("asked for the second: %s", got)
	}
}

// TestWhoRefusedARefIsNotAskedForItsTree resolves a branch, and fetches its tree.
func TestWhoRefusedARefIsNotAskedForItsTree(t *testing.T) {
	f := newForge(t, gittest.Options{})
	for _, tt := range []struct{ answers, asked string }{
		{"Git", "refs Git web Git"},
		{"web Git", "refs Git web"},
		{"refs API Git", "refs Git API"}, // the API has no such ref, and it does not refuse
	} {
		f.only(http.StatusForbidden, strings.Fields(tt.answers)...)
		f.ways()
		_, pin, err := fetchedTree(t, f.resolver(t), "github:o/r@trunk")
		if got := f.ways(); err != nil || pin.Commit != f.commit || got != tt.asked {
			t.Errorf("%s: asked %s, want %s; %v", tt.answers, got, tt.asked, err)
		}
	}
	// What all refused is not asked again for a tree; git may have another login.
	f.only(http.StatusForbidden)
	r := f.resolver(t)
	if _, _, err := fetchedTree(t, r, "github:o/r@trunk"); err == nil {
		t.Error("no error")
	}
	f.ways()
	_, err := r.FetchChanges(t.Context(), &frontend.Fetch{Source: "github:o/r@trunk", Dest: "/opt/x"}, Pin{Commit: f.commit})
	if got := f.ways(); got != "Git" || err == nil || !strings.Contains(err.Error(), "by API: ") || !strings.Contains(err.Error(), "by web archive: ") {
		t.Errorf("asked %s; %v", got, err)
	}
}

// TestTreeWithSubmodules is asked of Git alone, and is another one than that without.
func TestTreeWithSubmodules(t *testing.T) {
	f := newForge(t, gittest.Options{})
	work := t.TempDir()
	git(t, work, "clone", "-q", f.dir, ".")
	git(t, work, "rm", "-q", "--cached", "module")
	makeTree(t, work, `.gitmodules [submodule "m"]\npath = sub\nurl = ./\n`)
	lib := strings.TrimSpace(git(t, work, "commit-tree", "-m", "lib", f.commit+":a/b"))
	git(t, work, "add", ".gitmodules")
	git(t, work, "update-index", "--add", "--cacheinfo", "160000,"+lib+",sub")
	git(t, work, "commit", "-q", "-m", "sub")
	git(t, work, "push", "-q", "origin", "HEAD:trunk", lib+":refs/heads/lib")
	commit := strings.TrimSpace(git(t, work, "rev-parse", "HEAD"))
	r := f.resolver(t)
	for _, with := range []bool{true, false} {
		in := &frontend.Fetch{Source: "github:o/r@" + commit, Dest: "/opt/x", Submodules: with}
		f.ways()
		place, err := r.FetchChanges(t.Context(), in, Pin{Commit: commit})
		if err != nil {
			t.Fatal(err)
		}
		if got, want := f.ways(), map[bool]string{true: "Git", false: "API"}[with]; got != want {
			t.Errorf("asked: %s, want %s", got, want)
		}
		changes, err := place(names.New(t.TempDir(), ""))
		if err != nil {
			t.Fatal(err)
		}
		have, err := text(t, changes)
		if err != nil || strings.Count(have, "opt/x/sub\n") != 1 || strings.Contains(have, `opt/x/sub/file "one"`) != with {
			t.Errorf("%v\n%s", err, have)
		}
	}
}

// TestNothingButGitAnswers resolves a branch, too, where nothing but Git is let through.
func TestNothingButGitAnswers(t *testing.T) {
	f := newForge(t, gittest.Options{})
	f.only(http.StatusForbidden, "Git")
	changes, pin, err := fetchedTree(t, f.resolver(t), "github:o/r//a")
	if err != nil || pin.Commit != f.commit {
		t.Fatalf("%+v, %v", pin, err)
	}
	if have, err := text(t, changes); err != nil || !strings.Contains(have, `f 0755 opt/x/tool "#!/bin/sh"`) || strings.Contains(have, "large.bin") {
		t.Errorf("%v\n%s", err, have)
	}
	// And what all refuse names each.
	f.only(http.StatusForbidden)
	_, _, err = fetchedTree(t, f.resolver(t), "github:o/r@"+f.commit)
	for _, w := range []string{"by API: ", "by web archive: ", "by Git: "} {
		if err == nil || strings.Count(err.Error(), w) != 1 {
			t.Errorf("%v: want %q once", err, w)
		}
	}
}

// TestGitSourceThatIsNotThere names what is missing.
func TestGitSourceThatIsNotThere(t *testing.T) {
	f := newForge(t, gittest.Options{})
	for source, want := range map[string]string{
		"git+" + f.url + "/o/r.git@none":                             `has no branch or tag "none"`,
		"git+" + f.url + "/o/none.git":                               "not found",
		"git+" + f.url + "/o/r.git//none":                            `has no "none" at commit`,
		"git+" + f.url + "/o/r.git@" + strings.Repeat("0", 39) + "1": "not our ref",
		"file:///nowhere/r.git":                                      "does not appear to be a git repository",
	} {
		if _, _, err := fetchedTree(t, f.resolver(t), source); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", source, err, want)
		}
	}
}

// TestOldServersGiveTrees fetches from a server that gives no commit by its id.
func TestOldServersGiveTrees(t *testing.T) {
	f := newForge(t, gittest.Options{Old: true})
	first := strings.TrimSpace(git(t, f.dir, "commit-tree", "-m", "first", f.commit+"^{tree}"))
	last := strings.TrimSpace(git(t, f.dir, "commit-tree", "-m", "last", "-p", first, f.commit+"^{tree}"))
	git(t, f.dir, "update-ref", "refs/heads/two", last)
	want := f.oracle(t)
	for _, commit := range []string{f.commit, last, first} {
		changes, _, err := fetchedTree(t, f.resolver(t), "git+"+f.url+"/o/r.git@"+commit)
		if err != nil {
			t.Errorf("%s: %v", commit, err)
			continue
		}
		if have, err := text(t, changes); err != nil || have != want {
			t.Errorf("%s: %v\n%s", commit, err, have)
		}
	}
}

// TestSubstitutedFilesAreThoseOfGit has a tree with export-subst: archives that others made
// have other texts.
func TestSubstitutedFilesAreThoseOfGit(t *testing.T) {
	f := newForge(t, gittest.Options{})
	work := t.TempDir()
	git(t, work, "clone", "-q", f.dir, ".")
	makeTree(t, work, `.gitattributes version export-subst\n`, `version $Format:%H %h %d$`)
	git(t, work, "add", "-A")
	git(t, work, "commit", "-q", "-m", "subst")
	git(t, work, "push", "-q", "origin", "HEAD:trunk")
	commit := strings.TrimSpace(git(t, work, "rev-parse", "HEAD"))
	want := fmt.Sprintf("opt/x/version %q", commit+" "+commit[:7]+" ")
	for _, tt := range []struct {
		way   string
		want  string
		warns int
	}{{"API Git", want, 0}, {"web Git", want, 0}, {"Git", want, 0}, {"API", "opt/x/version \"" + commit, 1}} {
		f.only(http.StatusForbidden, strings.Fields(tt.way)...)
		r := f.resolver(t)
		warned := 0
		r.Warn = func(string) { warned++ }
		changes, _, err := fetchedTree(t, r, "github:o/r@"+commit)
		if err != nil {
			t.Errorf("%s: %v", tt.way, err)
			continue
		}
		if have, err := text(t, changes); err != nil || !strings.Contains(have, tt.want) || warned != tt.warns {
			t.Errorf("%s: %v, %d warnings\n%s\nwant %s", tt.way, err, warned, have, tt.want)
		}
	}
}
