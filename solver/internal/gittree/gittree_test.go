package gittree

import (
	"archive/tar"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/testexec"
)

// repository makes a repository on the server, and returns its URL and commit.
func repository(t testing.TB, srv *gittest.Server, files map[string]string) (url, commit string) {
	t.Helper()
	url, err := srv.Repository("r.git")
	if err != nil {
		t.Fatal(err)
	}
	bare, work := filepath.Join(srv.Dir, "r.git"), t.TempDir()
	for name, content := range files {
		if err := os.WriteFile(filepath.Join(work, name), []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for _, args := range [][]string{
		{"init", "-q", "-b", "trunk", work}, {"-C", work, "add", "-A"},
		{"-C", work, "-c", "user.name=a", "-c", "user.email=a@a", "commit", "-q", "-m", "one"},
		{"-C", work, "push", "-q", bare, "trunk"}, {"-C", bare, "symbolic-ref", "HEAD", "refs/heads/trunk"},
	} {
		if err := gittest.Git(args...); err != nil {
			t.Fatal(err)
		}
	}
	out, err := exec.Command("git", "-C", work, "rev-parse", "HEAD").Output()
	if err != nil {
		t.Fatal(err)
	}
	return url, strings.TrimSpace(string(out))
}

// configured sets the user's configuration of git.
func configured(t testing.TB, text string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config")
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	t.Setenv("GIT_CONFIG_GLOBAL", path)
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
}

// TestNoProgramOfTheUserChangesATree has a configuration in which everything would.
func TestNoProgramOfTheUserChangesATree(t *testing.T) {
	srv := gittest.New(t, gittest.Options{})
	url, commit := repository(t, srv, map[string]string{".gitattributes": "*.bin filter=lfs\n", "a.bin": "pointer\n", "b.txt": "two\nlines\n"})
	ran := filepath.Join(t.TempDir(), "ran")
	hooks := t.TempDir()
	for _, name := range []string{"reference-transaction", "post-checkout", "post-index-change"} {
		if err := testexec.WriteFile(filepath.Join(hooks, name), []byte("#!/bin/sh\ntouch "+ran+"\n")); err != nil {
			t.Fatal(err)
		}
	}
	attributes := filepath.Join(t.TempDir(), "attributes")
	if err := os.WriteFile(attributes, []byte("* text eol=crlf\nb.txt export-ignore\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	configured(t, fmt.Sprintf("[core]\n\tautocrlf = true\n\teol = crlf\n\tattributesFile = %s\n\thooksPath = %s\n\tfsmonitor = touch %[3]s\n[tar]\n\tumask = 0777\n[filter \"lfs\"]\n\tsmudge = touch %[3]s; echo changed\n\trequired = true\n", attributes, hooks, ran))
	var out bytes.Buffer
	if err := new(Fetcher).Archive(t.Context(), url, commit, With{}, &out); err != nil {
		t.Fatal(err)
	}
	got := make(map[string]string)
	tr := tar.NewReader(&out)
	for {
		h, err := tr.Next()
		if err != nil {
			break
		}
		content, _ := io.ReadAll(tr)
		got[h.Name] = string(content)
	}
	if got["tree/a.bin"] != "pointer\n" || got["tree/b.txt"] != "two\nlines\n" {
		t.Errorf("tree: %q", got)
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a hook or a filter ran")
	}
}

// TestCredentialsAreInNoArgumentOrError fetches with a login that the configuration has:
// git sees it in no argument, and no error says it.
func TestCredentialsAreInNoArgumentOrError(t *testing.T) {
	srv := gittest.New(t, gittest.Options{Login: true})
	url, commit := repository(t, srv, map[string]string{"a": "a"})
	dir, log := t.TempDir(), filepath.Join(t.TempDir(), "log")
	script := fmt.Sprintf("#!/bin/sh\nprintf '%%s\\n' \"$@\" >> %s\nexec %s \"$@\"\n", log, gittest.Path(t))
	if err := testexec.WriteFile(filepath.Join(dir, "git"), []byte(script)); err != nil {
		t.Fatal(err)
	}
	configured(t, "[url \""+gittest.WithLogin(srv.URL)+"\"]\n\tinsteadOf = "+srv.URL+"\n")
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	f := new(Fetcher)
	if got, err := f.Resolve(t.Context(), url, "trunk"); err != nil || got != commit {
		t.Fatalf("%s, %v", got, err)
	}
	if err := f.Archive(t.Context(), url, commit, With{}, io.Discard); err != nil {
		t.Fatal(err)
	}
	args, err := os.ReadFile(log)
	if err != nil || !bytes.Contains(args, []byte("archive")) || bytes.Contains(args, []byte(gittest.Password)) || bytes.Contains(args, []byte(srv.URL)) {
		t.Errorf("arguments: %v\n%s", err, args)
	}
	_, err = f.Resolve(t.Context(), srv.URL+"/none", "trunk")
	if err == nil || strings.Contains(err.Error(), gittest.Password) {
		t.Errorf("error: %v", err)
	}

	// Without the login nobody is asked for one, and another try is no use.
	configured(t, "")
	_, err = f.Resolve(t.Context(), url, "trunk")
	if e := new(Error); !errors.As(err, &e) || e.Kind != Refused {
		t.Errorf("without a login: %v", err)
	}
}

// TestBounds ends what is silent, too large, or cancelled.
func TestBounds(t *testing.T) {
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	reason := errors.New("stopped by the test")
	hang := false
	srv := gittest.New(t, gittest.Options{Fault: func(w http.ResponseWriter, r *http.Request) bool {
		if hang {
			if strings.Contains(r.URL.Path, "cancel") {
				cancel(reason)
			}
			<-r.Context().Done()
		}
		return hang
	}})
	url, commit := repository(t, srv, map[string]string{"a": strings.Repeat("a", 1<<20)})
	err := (&Fetcher{MaxTree: 1 << 19}).Archive(t.Context(), url, commit, With{}, io.Discard)
	if e := new(Error); !errors.As(err, &e) || e.Kind != Refused || !strings.Contains(err.Error(), "is larger than") {
		t.Errorf("a large tree: %v", err)
	}
	hang = true
	_, err = (&Fetcher{Stall: 100 * time.Millisecond}).Resolve(t.Context(), url, "")
	if e := new(Error); !errors.As(err, &e) || e.Kind != Broken || !strings.Contains(err.Error(), "no progress") {
		t.Errorf("a silent server: %v", err)
	}
	if _, err = new(Fetcher).Resolve(ctx, srv.URL+"/cancel", ""); !errors.Is(err, reason) {
		t.Errorf("cancelled: %v", err)
	}
}

// TestOtherTransportsAreRefused has addresses by which git would run programs, or be led
// to files.
func TestOtherTransportsAreRefused(t *testing.T) {
	srv := gittest.New(t, gittest.Options{})
	_, commit := repository(t, srv, map[string]string{"a": "a"})
	ran := filepath.Join(t.TempDir(), "ran")
	configured(t, "[protocol]\n\tallow = always\n[url \"ext::touch "+ran+" #\"]\n\tinsteadOf = https://ext.example/\n[url \"file://"+(&url.URL{Path: srv.Dir}).Path+"/\"]\n\tinsteadOf = https://file.example/\n")
	for _, u := range []string{"https://ext.example/r.git", "https://file.example/r.git"} {
		err := new(Fetcher).Archive(t.Context(), u, commit, With{}, io.Discard)
		if e := new(Error); !errors.As(err, &e) || e.Kind == Broken || !strings.Contains(err.Error(), "not allowed") {
			t.Errorf("%s: %v", u, err)
		}
	}
	if _, err := os.Stat(ran); err == nil {
		t.Error("a program ran")
	}
}
