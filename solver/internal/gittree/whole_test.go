package gittree

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/gittest"
)

// A project is a repository on a server, with a working copy.
type project struct {
	t    testing.TB
	bare string
	work string
	url  string
}

func newProject(t testing.TB, srv *gittest.Server, name string, format ...string) *project {
	t.Helper()
	url, err := srv.Repository(name)
	if err != nil {
		t.Fatal(err)
	}
	p := &project{t: t, bare: filepath.Join(srv.Dir, name), work: t.TempDir(), url: url}
	if len(format) > 0 {
		if err := os.RemoveAll(p.bare); err != nil {
			t.Fatal(err)
		}
		p.git("init", "-q", "--bare", format[0], p.bare)
	}
	p.git(append(append([]string{"init", "-q", "-b", "trunk"}, format...), ".")...)
	return p
}

func (p *project) git(args ...string) string {
	p.t.Helper()
	cmd := exec.Command("git", args...)
	cmd.Dir = p.work
	cmd.Env = append(os.Environ(), "GIT_CONFIG_GLOBAL=/dev/null", "GIT_CONFIG_NOSYSTEM=1", "GIT_AUTHOR_NAME=a", "GIT_AUTHOR_EMAIL=a@a", "GIT_COMMITTER_NAME=a", "GIT_COMMITTER_EMAIL=a@a")
	out, err := cmd.CombinedOutput()
	if err != nil {
		p.t.Fatalf("git %q: %v: %s", args, err, out)
	}
	return strings.TrimSpace(string(out))
}

// commit writes files, adds submodules, and pushes; it returns the commit.
func (p *project) commit(files, modules map[string]string) string {
	p.t.Helper()
	for name, content := range files {
		name = filepath.Join(p.work, name)
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			p.t.Fatal(err)
		}
		if err := os.WriteFile(name, []byte(content), 0o644); err != nil {
			p.t.Fatal(err)
		}
	}
	p.git("add", "-A")
	for name, commit := range modules {
		p.git("update-index", "--add", "--cacheinfo", "160000,"+commit+","+name)
	}
	p.git("commit", "-q", "-m", "one")
	p.git("push", "-q", p.bare, "trunk")
	return p.git("rev-parse", "HEAD")
}

// fetched returns the files of a tree, and its directories with a slash.
func fetched(t testing.TB, url, commit string, with With) (map[string]string, error) {
	t.Helper()
	f := &Fetcher{Temp: t.TempDir(), Dir: t.TempDir()}
	var out bytes.Buffer
	if err := f.Archive(t.Context(), url, commit, with, &out); err != nil {
		return nil, err
	}
	if left, err := os.ReadDir(f.Temp); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
	all := make(map[string]string)
	for in := tar.NewReader(&out); ; {
		h, err := in.Next()
		if err == io.EOF {
			delete(all, "")
			return all, nil
		}
		if err != nil {
			t.Fatal(err)
		}
		content, err := io.ReadAll(in)
		if err != nil {
			t.Fatal(err)
		}
		if h.Typeflag != tar.TypeXGlobalHeader {
			if _, ok := all[strings.TrimPrefix(h.Name, "tree/")]; ok {
				t.Errorf("%s is there twice", h.Name)
			}
			all[strings.TrimPrefix(h.Name, "tree/")] = string(content)
		}
	}
}

func modulesFile(kv ...string) map[string]string {
	var b strings.Builder
	for i := 0; i < len(kv); i += 2 {
		fmt.Fprintf(&b, "[submodule %q]\n\tpath = %s\n\t%s\n", "m-"+kv[i], kv[i], kv[i+1])
	}
	return map[string]string{".gitmodules": b.String(), "a": "a"}
}

// TestSubmodules fetches a tree with submodules below each other, as git does.
func TestSubmodules(t *testing.T) {
	configured(t, "")
	srv := gittest.New(t, gittest.Options{})
	inner := newProject(t, srv, "o/inner.git").commit(map[string]string{"deep": "deep"}, nil)
	lib := newProject(t, srv, "o/lib.git").commit(map[string]string{
		".gitmodules":    "[submodule \"x\"]\n\tpath = in/ner\n\turl = ../inner.git\n",
		".gitattributes": "secret export-ignore\n", "secret": "s", "b": "b",
	}, map[string]string{"in/ner": inner})
	p := newProject(t, srv, "o/app.git")
	files := modulesFile("lib", "url = "+srv.URL+"/o/lib.git", "near", "url = ../../o/./inner.git", "not", "url = ../lib.git\n\tupdate = none", "gone", "url = ../none.git")
	files[".gitattributes"] = "gone export-ignore\n"
	commit := p.commit(files, map[string]string{"lib": lib, "near": inner, "not": lib, "gone": lib})
	want := map[string]string{".gitattributes": files[".gitattributes"], ".gitmodules": files[".gitmodules"], "a": "a", "lib/": "", "lib/b": "b", "lib/.gitattributes": "secret export-ignore\n",
		"lib/.gitmodules": "[submodule \"x\"]\n\tpath = in/ner\n\turl = ../inner.git\n", "lib/in/": "", "lib/in/ner/": "", "lib/in/ner/deep": "deep", "near/": "", "near/deep": "deep", "not/": ""}
	for _, url := range []string{p.url, p.url + "/"} {
		got, err := fetched(t, url, commit, With{Submodules: true})
		if err != nil || !maps.Equal(got, want) {
			t.Errorf("%s: %v\n%q\nwant\n%q", url, err, got, want)
		}
	}
	got, err := fetched(t, p.url, commit, With{})
	if _, ok := got["lib/"]; err != nil || !ok || got["lib/b"] != "" {
		t.Errorf("without: %v, %q", err, got)
	}
	// On this machine.
	if got, err := fetched(t, "file://"+p.bare, commit, With{Submodules: true}); err != nil || got["lib/b"] != "b" {
		t.Logf("lib is of the server: %v", err)
	}
}

// TestSubmodulesThatAreRefused has submodules that are not where they should be.
func TestSubmodulesThatAreRefused(t *testing.T) {
	configured(t, "")
	srv := gittest.New(t, gittest.Options{})
	secret := newProject(t, srv, "secret.git")
	commit := secret.commit(map[string]string{"s": "s"}, nil)
	for i, tt := range []struct{ setting, want string }{
		{"url = file://" + secret.bare, "of this machine"},
		{"url = " + secret.bare, "of this machine"},
		{"url = ../../../../etc", "leads out of its server"},
		{"url = ext::sh -c id", "not one of https"},
		{"url = --upload-pack=id", "not one of https"},
		{"url = git://127.0.0.1/x.git", "use https"},
		{"url = ", "not one of https"},
		{"branch = x", "not one of https"},
		{"url = ../none.git", "submodule lib: http://"},
		{"other = x\n[submodule \"y\"]\n\tpath = lib2", "not one of https"},
	} {
		p := newProject(t, srv, fmt.Sprintf("app%d.git", i))
		p.git("-C", p.bare, "config", "receive.fsckObjects", "false")
		at := p.commit(modulesFile("lib", tt.setting), map[string]string{"lib": commit})
		got, err := fetched(t, p.url, at, With{Submodules: true})
		if err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "lib") {
			t.Errorf("%s: %v, want %q; %q", tt.setting, err, tt.want, got)
		}
	}
	p := newProject(t, srv, "app.git")
	at := p.commit(map[string]string{"a": "a"}, map[string]string{"lib": commit})
	if _, err := fetched(t, p.url, at, With{Submodules: true}); err == nil || !strings.Contains(err.Error(), "submodule lib: the file .gitmodules has no url") {
		t.Errorf("no list: %v", err)
	}
}

// TestManySubmodules has a tree that doubles with each level.
func TestManySubmodules(t *testing.T) {
	configured(t, "")
	srv := gittest.New(t, gittest.Options{})
	commit := newProject(t, srv, "r0.git").commit(map[string]string{"a": "a"}, nil)
	for i := range deepest + 1 {
		modules := map[string]string{"l": commit}
		commit = newProject(t, srv, fmt.Sprintf("r%d.git", i+1)).commit(modulesFile("l", fmt.Sprintf("url = ../r%d.git", i)), modules)
	}
	_, err := fetched(t, fmt.Sprintf("%s/r%d.git", srv.URL, deepest+1), commit, With{Submodules: true})
	if e := new(Error); !errors.As(err, &e) || e.Kind != Refused || !strings.Contains(err.Error(), "more than 500 submodules, or more than 20") {
		t.Errorf("%v", err)
	}
}

// lfs skips a test where there is no git-lfs.
func lfs(t testing.TB) {
	t.Helper()
	if out, err := exec.Command("git", "lfs", "version").CombinedOutput(); err != nil {
		t.Skipf("no git-lfs is installed: %s", out)
	}
}

// TestLFS fetches the files that pointers stand for: those that the attributes name.
func TestLFS(t *testing.T) {
	lfs(t)
	srv := gittest.New(t, gittest.Options{})
	large := strings.Repeat("large ", 100_000)
	pointer, other := srv.Large(large), srv.Large("other")
	lib := newProject(t, srv, "lib.git").commit(map[string]string{".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\n", "x.bin": other}, nil)
	p := newProject(t, srv, "r.git")
	files := modulesFile("lib", "url = ../lib.git")
	for name, text := range map[string]string{
		".gitattributes": "*.bin filter=lfs diff=lfs merge=lfs -text\nd/** filter=lfs\nd/not -filter\n", "a.bin": pointer, "d/e/f": other, "d/not": other, "plain.txt": pointer, "own.bin": "no pointer", "empty.bin": "",
		// What the repository says of what to fetch does not hold: all of it is asked for.
		".lfsconfig": "[lfs]\n\tfetchexclude = *\n",
	} {
		files[name] = text
	}
	commit := p.commit(files, map[string]string{"lib": lib})
	configured(t, "[lfs]\n\tfetchexclude = *\n\tstorage = "+t.TempDir()+"\n[filter \"lfs\"]\n\tsmudge = false\n\trequired = true\n")
	got, err := fetched(t, p.url, commit, With{LFS: true, Submodules: true})
	if err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{"a.bin": large, "d/e/f": "other", "d/not": other, "plain.txt": pointer, "own.bin": "no pointer", "empty.bin": "", "lib/x.bin": "other"} {
		if got[name] != want {
			t.Errorf("%s: %.200q, want %.200q", name, got[name], want)
		}
	}
	// On this machine, whose user has no other place for such files.
	configured(t, "")
	id := strings.TrimPrefix(strings.Fields(pointer)[3], "sha256:")
	has := filepath.Join(p.bare, "lfs", "objects", id[:2], id[2:4])
	if err := errors.Join(os.MkdirAll(has, 0o755), os.WriteFile(filepath.Join(has, id), []byte(large), 0o644)); err != nil {
		t.Fatal(err)
	}
	only := p.commit(map[string]string{"d/e/f": "", "d/not": "", ".lfsconfig": ""}, nil)
	if got, err := fetched(t, "file://"+p.bare, only, With{LFS: true}); err != nil || got["a.bin"] != large {
		t.Errorf("on this machine: %v, %.200q", err, got["a.bin"])
	}
	if got, err := fetched(t, p.url, commit, With{}); err != nil || got["a.bin"] != pointer {
		t.Errorf("without: %v, %.200q", err, got["a.bin"])
	}

	// No file of LFS, no server of it.
	srv.Asked()
	if _, err := fetched(t, srv.URL+"/r.git", p.commit(map[string]string{".gitattributes": ""}, nil), With{LFS: true}); err != nil {
		t.Error(err)
	}
	if asked := srv.Asked(); slices.ContainsFunc(asked, func(r string) bool { return strings.Contains(r, "lfs") }) {
		t.Errorf("asked: %q", asked)
	}
}

// TestLFSThatFails has servers that do not give what a pointer names.
func TestLFSThatFails(t *testing.T) {
	lfs(t)
	refuse := 0
	srv := gittest.New(t, gittest.Options{Fault: func(w http.ResponseWriter, r *http.Request) bool {
		if refuse == 0 || !strings.Contains(r.URL.Path, "lfs") {
			return false
		}
		w.WriteHeader(refuse)
		return true
	}})
	configured(t, "[lfs \"transfer\"]\n\tmaxretries = 1\n")
	pointer := srv.Large("content")
	p := newProject(t, srv, "r.git")
	attributes := "*.bin filter=lfs\n"
	commit := p.commit(map[string]string{".gitattributes": attributes, "a.bin": pointer}, nil)
	for _, tt := range []struct {
		name   string
		refuse int
		gives  []byte
		want   string
		kind   Kind
	}{
		{"it is not there", 0, nil, "does not exist on the server", Refused},
		{"other bytes", 0, []byte("Content"), "expected oid", Broken},
		{"too few bytes", 0, []byte("con"), "expected oid", Broken},
		{"forbidden", 403, []byte("content"), "authorization error", Refused},
		{"no server", 404, []byte("content"), "not found", Refused},
		{"an error", 503, []byte("content"), "503", Broken},
	} {
		refuse = tt.refuse
		srv.SetLarge(pointer, tt.gives)
		got, err := fetched(t, p.url, commit, With{LFS: true})
		var e *Error
		if !errors.As(err, &e) || e.Kind != tt.kind || !strings.Contains(strings.ToLower(err.Error()), tt.want) {
			t.Errorf("%s: %v; kind %d, want %q; %q", tt.name, err, e.Kind, tt.want, got)
		}
	}
	refuse = 0
	srv.SetLarge(pointer, []byte("content"))
	for text, want := range map[string]string{
		"[lfs]\n\turl = file:///etc\n":                   "lfs.url is not of https or ssh",
		"[remote \"src\"]\n\tlfsurl = " + srv.Dir + "\n": "remote.src.lfsurl is not of https or ssh",
	} {
		if got, err := fetched(t, p.url, p.commit(map[string]string{".lfsconfig": text}, nil), With{LFS: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q, %q", text, err, want, got)
		}
	}
	for text, want := range map[string]string{
		"version https://git-lfs.github.com/spec/v1\next-0-x sha256:" + strings.Repeat("a", 64) + "\n" + strings.SplitAfterN(pointer, "\n", 2)[1]: "needs an extension",
		"version https://git-lfs.github.com/spec/v1\noid sha256:../../../etc\nsize 3\n":                                                           "malformed",
	} {
		if got, err := fetched(t, p.url, p.commit(map[string]string{".lfsconfig": "", "a.bin": text}, nil), With{LFS: true}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q, %q", text, err, want, got)
		}
	}
}

// TestLFSWithoutItsProgram says what to install.
func TestLFSWithoutItsProgram(t *testing.T) {
	srv := gittest.New(t, gittest.Options{})
	p := newProject(t, srv, "r.git")
	commit := p.commit(map[string]string{".gitattributes": "*.bin filter=lfs\n", "a.bin": srv.Large("content")}, nil)
	bin := t.TempDir()
	for _, name := range []string{"git", "sh"} {
		path, err := exec.LookPath(name)
		if err == nil {
			err = os.Symlink(path, filepath.Join(bin, name))
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if out, err := exec.Command("git", "--exec-path").Output(); err == nil {
		if _, err := os.Stat(filepath.Join(strings.TrimSpace(string(out)), "git-lfs")); err == nil {
			t.Skip("git-lfs is one of git's own programs here")
		}
	}
	t.Setenv("PATH", bin)
	_, err := fetched(t, p.url, commit, With{LFS: true})
	if e := new(Error); !errors.As(err, &e) || e.Kind != Refused || !strings.Contains(err.Error(), "git-lfs is not installed") {
		t.Errorf("%v", err)
	}
}

// TestSHA256 fetches from a repository whose ids are of SHA-256.
func TestSHA256(t *testing.T) {
	configured(t, "")
	srv := gittest.New(t, gittest.Options{})
	p := newProject(t, srv, "r.git", "--object-format=sha256")
	commit := p.commit(map[string]string{"a": "a"}, nil)
	if len(commit) != 64 {
		t.Fatal(commit)
	}
	for _, url := range []string{p.url, "file://" + p.bare} {
		if got, err := new(Fetcher).Resolve(t.Context(), url, "trunk"); err != nil || got != commit {
			t.Errorf("%s: %s, %v", url, got, err)
		}
		if got, err := fetched(t, url, commit, With{Submodules: true}); err != nil || got["a"] != "a" {
			t.Errorf("%s: %q, %v", url, got, err)
		}
		_, err := fetched(t, url, commit[:40], With{})
		if e := new(Error); !errors.As(err, &e) || e.Kind != Refused {
			t.Errorf("%s: %v", url, err)
		}
	}
}
