package git_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/testexec"
)

// A snapshot is in pieces, and one of more than a push may have takes several.
func TestPieces(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{Filter: true})
	url := repository(t, srv, "env.git")
	opt := options(t)
	opt.PieceSize, opt.PushSize = 1000, 3500
	s := git.New(parse(t, url), opt)
	content := strings.Repeat("0123456789", 1000)
	d, err := put(t, s, "large", content)
	if err != nil {
		t.Fatal(err)
	}
	pushes := 0
	for _, asked := range srv.Asked() {
		if strings.HasPrefix(asked, "GET") && strings.Contains(asked, "receive-pack") {
			pushes++
		}
	}
	if pushes != 4 {
		t.Errorf("%d pushes, want 4: 10 pieces, 3 each", pushes)
	}
	small := d
	for i := range 3 {
		if small, err = put(t, s, fmt.Sprint("small ", i), fmt.Sprint(i)); err != nil {
			t.Fatal(err)
		}
	}
	m := storetest.Layer("base", 1, d)
	for _, m := range []cache.Manifest{m, storetest.Layer("other", 1, small)} {
		if err := s.Complete(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	// What remains when others are removed has all its pieces.
	if _, err := open(t, url).Remove(t.Context(), []cache.Manifest{storetest.Layer("other", 1, small)}); err != nil {
		t.Fatal(err)
	}
	command(t, "-C", filepath.Join(srv.Dir, "env.git"), "gc", "-q", "--prune=now")
	if got := storetest.Read(t, open(t, url), d); got != content {
		t.Errorf("%d bytes, want %d", len(got), len(content))
	}
}

var hex = regexp.MustCompile(`"(id|commit)": "[0-9a-f]{40}"`)

// commit makes a branch of files in a repository on this machine; links of those that
// begin with "->".
func commit(t testing.TB, repo, branch string, files map[string]string) {
	t.Helper()
	work := t.TempDir()
	command(t, "clone", "-q", repo, work)
	for name, text := range files {
		path := filepath.Join(work, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if to, ok := strings.CutPrefix(text, "->"); ok {
			_ = os.Remove(path)
			if err := os.Symlink(to, path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	command(t, "-C", work, "add", "-A")
	command(t, "-C", work, "-c", "user.name=x", "-c", "user.email=x@x", "commit", "-q", "-m", "x")
	command(t, "-C", work, "push", "-q", "origin", "HEAD:refs/heads/"+branch)
}

// A branch that is not one of clayer's is neither read nor written.
func TestOtherBranches(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	commit(t, filepath.Join(srv.Dir, "env.git"), "main", map[string]string{"main.c": "int main;"})
	s := open(t, url+"#main")
	for range 2 {
		if _, err := put(t, s, "a", "a"); err == nil || !strings.Contains(err.Error(), "not one of clayer's") {
			t.Errorf("Put: %v", err)
		}
	}
	if _, err := open(t, url+"#main").List(t.Context()); err == nil || !strings.Contains(err.Error(), "name another one") {
		t.Errorf("List: %v", err)
	}
	if _, err := put(t, open(t, url), "a", "a"); err != nil {
		t.Errorf("the branch beside it: %v", err)
	}
}

// What others have written to the branch, and makes no sense, is a miss.
func TestHostileBranches(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	a, _ := storetest.Step("a", "content a")
	b, _ := storetest.Step("b", "content b")
	name := func(d cache.Descriptor) string { return "keys/" + d.Key.String()[:2] + "/" + d.Key.String() + ".json" }
	for i, tt := range []struct {
		name  string
		file  func(ofA, ofB string) string
		found bool
	}{
		{"a link", func(_, _ string) string { return "->../../../../../../etc/passwd" }, false},
		{"no JSON", func(_, _ string) string { return "{" }, false},
		{"a large file", func(_, _ string) string { return strings.Repeat(" ", 5<<20) }, false},
		{"another step", func(_, ofB string) string { return ofB }, false},
		{"objects that are none", func(ofA, _ string) string { return strings.Replace(ofA, `"id": "`, `"id": "-`, 1) }, false},
		{"a size that is not the sum", func(ofA, _ string) string { return strings.Replace(ofA, `"size": 9`, `"size": 8`, 1) }, false},
		{"the objects of another", func(ofA, ofB string) string {
			_, objects, _ := strings.Cut(ofB, `"commit"`)
			head, _, _ := strings.Cut(ofA, `"commit"`)
			return head + `"commit"` + objects
		}, true},
		{"objects that nobody has", func(ofA, _ string) string {
			return hex.ReplaceAllString(ofA, `"${1}": "`+strings.Repeat("1", 40)+`"`) // nor its commit
		}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			repo := fmt.Sprintf("env%d.git", i)
			url := repository(t, srv, repo)
			s := open(t, url)
			for _, one := range []string{"a", "b"} {
				if _, err := put(t, s, one, "content "+one); err != nil {
					t.Fatal(err)
				}
			}
			work := t.TempDir()
			command(t, "clone", "-q", "-b", git.DefaultBranch, filepath.Join(srv.Dir, repo), work)
			var texts []string
			for _, d := range []cache.Descriptor{a, b} {
				data, err := os.ReadFile(filepath.Join(work, name(d)))
				if err != nil {
					t.Fatal(err)
				}
				texts = append(texts, string(data))
			}
			command(t, "-C", filepath.Join(srv.Dir, repo), "symbolic-ref", "HEAD", "refs/heads/"+git.DefaultBranch)
			commit(t, filepath.Join(srv.Dir, repo), git.DefaultBranch, map[string]string{name(a): tt.file(texts[0], texts[1])})
			s = open(t, url)
			found, err := find(s, a, b)
			if _, ok := found[a.Key]; err != nil || ok != tt.found || len(found) < 1 {
				t.Errorf("found %d, %v", len(found), err)
			}
			var blob cache.Blob
			defer blob.Close()
			if err := cache.Fetch(t.Context(), s, a, &blob); !errors.Is(err, cache.ErrNotCached) {
				t.Errorf("Fetch: %v, want ErrNotCached", err)
			}
			if got := storetest.Read(t, s, b); got != "content b" {
				t.Errorf("the other step: %q", got)
			}
			// It is in nobody's way.
			m := storetest.Layer("base", 1, b)
			if err := s.Complete(t.Context(), m); err != nil {
				t.Error(err)
			}
			if _, err := s.Remove(t.Context(), []cache.Manifest{m}); err != nil {
				t.Error(err)
			}
		})
	}
}

// No argument of git, and no variable of it, has the password; and no hook runs.
func TestWhatGitIsGiven(t *testing.T) {
	srv := gittest.New(t, gittest.Options{Login: true})
	url := repository(t, srv, "env.git")
	dir, bin := t.TempDir(), t.TempDir()
	log, ran := filepath.Join(dir, "log"), filepath.Join(dir, "ran")
	script := fmt.Sprintf("#!/bin/sh\n{ printf '%%s\\n' \"$@\"; env; } >> %s\nexec %s \"$@\"\n", log, gittest.Path(t))
	hook := "#!/bin/sh\ntouch " + ran + "\n"
	for name, text := range map[string]string{"git": script, "pre-push": hook, "post-index-change": hook, "reference-transaction": hook} {
		if err := testexec.WriteFile(filepath.Join(bin, name), []byte(text)); err != nil {
			t.Fatal(err)
		}
	}
	config := filepath.Join(dir, "config")
	command(t, "config", "--file", config, "core.hooksPath", bin)
	t.Setenv("GIT_CONFIG_GLOBAL", config)
	t.Setenv("PATH", bin+":"+os.Getenv("PATH"))
	m := fill(t, open(t, gittest.WithLogin(url)), 2)
	s := open(t, gittest.WithLogin(url))
	restore(t, s, m)
	if _, err := s.Remove(t.Context(), []cache.Manifest{m}); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a hook ran")
	}
	data, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(data), "fetch") {
		t.Fatal("git was not logged", err)
	}
	if strings.Contains(string(data), gittest.Password) {
		t.Error("the password is among the arguments or variables of git")
	}
	t.Setenv("PATH", t.TempDir())
	if _, err := open(t, url).List(t.Context()); err == nil || !strings.Contains(err.Error(), "git is not on PATH") {
		t.Errorf("without git: %v", err)
	}
}
