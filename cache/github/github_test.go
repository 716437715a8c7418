package github_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/githubtest"
)

var repo = github.Repo{Owner: "me", Name: "tools"}

func client(t *testing.T, gh *githubtest.Server, opt github.Options) *github.Client {
	t.Helper()
	opt.APIURL, opt.ServerURL, opt.Pace = gh.URL, gh.URL, -1
	opt.Transfer = transfer.Options{Retries: 2}
	c, err := github.New(opt)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestCommit(t *testing.T) {
	gh := githubtest.New(t)
	head := gh.Repo("me/tools", githubtest.Repo{})
	gh.Token("ghp_read", "read")
	tag := gh.Commit("me/tools", "refs/tags/v1", map[string]string{"x": "1"})
	branch := gh.Commit("me/tools", "refs/heads/feature/x", map[string]string{"x": "2"})
	both := gh.Commit("me/tools", "refs/tags/both", map[string]string{"x": "3"})
	gh.Commit("me/tools", "refs/heads/both", map[string]string{"x": "4"})
	peeled := gh.Commit("me/tools", "refs/tags/annotated^{}", map[string]string{"x": "5"})
	gh.Repo("me/private", githubtest.Repo{Private: true})
	gh.Repo("me/empty", githubtest.Repo{Empty: true})
	tests := []struct{ ref, want string }{
		{"", head}, {"HEAD", head}, {"trunk", head}, {"refs/heads/trunk", head}, {"heads/trunk", head}, {"v1", tag}, {"tags/v1", tag},
		{"feature/x", branch}, {"both", both}, {branch, branch},
	}
	for _, api := range []bool{true, false} {
		if !api {
			gh.Fail(githubtest.Fault{Match: "/repos/", Status: 403, Times: -1, Body: `{"message":"no"}`})
			tests = append(tests, struct{ ref, want string }{"annotated", peeled})
		}
		for _, token := range []string{"", "ghp_read"} {
			c := client(t, gh, github.Options{Token: token})
			for _, tt := range tests {
				if got, err := c.Commit(t.Context(), repo, tt.ref, 0); err != nil || got != tt.want {
					t.Errorf("api %t: %q: %s, %v; want %s", api, tt.ref, got, err, tt.want)
				}
			}
			var none *github.NoRefError
			if _, err := c.Commit(t.Context(), repo, "nothing", 0); !errors.As(err, &none) || none.Ref != "nothing" {
				t.Errorf("api %t: %v", api, err)
			}
			_, err := c.Commit(t.Context(), github.Repo{Owner: "me", Name: "private"}, "", 0)
			if (err == nil) != (token != "") {
				t.Errorf("api %t: of a private one, token %q: %v", api, token, err)
			}
			if _, err := c.Commit(t.Context(), github.Repo{Owner: "me", Name: "empty"}, "", 0); !errors.As(err, &none) || !strings.Contains(err.Error(), "no commit yet") {
				t.Errorf("api %t: of an empty one: %v", api, err)
			}
		}
	}
}

func TestUnchangedAnswersAreFree(t *testing.T) {
	gh := githubtest.New(t)
	first := gh.Repo("me/tools", githubtest.Repo{})
	gh.Token("ghp_read", "read")
	gh.Limit(2, time.Now().Add(time.Hour))
	dir := filepath.Join(t.TempDir(), "answers")
	for range 5 {
		c := client(t, gh, github.Options{Token: "ghp_read", Answers: dir})
		if got, err := c.Commit(t.Context(), repo, "", 0); err != nil || got != first {
			t.Fatalf("%s, %v", got, err)
		}
	}
	for _, a := range gh.Asked() {
		if strings.Contains(a, "info/refs") {
			t.Error("the limit was used up")
		}
	}
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 1 {
		t.Fatalf("%v, %v", list, err)
	}
	data, err := os.ReadFile(filepath.Join(dir, list[0].Name()))
	if err != nil || strings.Contains(string(data), "ghp_read") {
		t.Errorf("kept: %s, %v", data, err)
	}
	// Damaged, it is asked for again.
	if err := os.WriteFile(filepath.Join(dir, list[0].Name()), []byte(`{"etag":"x","body":`), 0o600); err != nil {
		t.Fatal(err)
	}
	gh.Limit(-1, time.Time{})
	if got, err := client(t, gh, github.Options{Token: "ghp_read", Answers: dir}).Commit(t.Context(), repo, "", 0); err != nil || got != first {
		t.Errorf("%s, %v", got, err)
	}
	none := filepath.Join(t.TempDir(), "none")
	if _, err := client(t, gh, github.Options{Answers: none, ReadOnly: true}).Commit(t.Context(), repo, "", 0); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(none); err == nil {
		t.Error("a client that is read-only wrote")
	}
}

// The token goes to the API and the server's ref advertisement, and not to a
// host that either leads to, be it of the same name.
func TestTokenStaysAtHome(t *testing.T) {
	got := make(map[string]string)
	elsewhere := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got["elsewhere"] = r.Header.Get("Authorization")
		fmt.Fprint(w, strings.Repeat("a", 40))
	}))
	defer elsewhere.Close()
	home := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got[r.URL.Path] = r.Header.Get("Authorization")
		http.Redirect(w, r, elsewhere.URL+r.URL.Path, http.StatusFound)
	}))
	defer home.Close()
	c, err := github.New(github.Options{APIURL: home.URL, ServerURL: home.URL, Token: "ghp_secret", Transfer: transfer.Options{Retries: -1}})
	if err != nil {
		t.Fatal(err)
	}
	_, err = c.Commit(t.Context(), repo, "main", 0)
	if err == nil || strings.Contains(err.Error(), "ghp_secret") {
		t.Errorf("error = %v", err)
	}
	if a := got["/repos/me/tools/commits/main"]; a != "Bearer ghp_secret" {
		t.Errorf("the API got %q", a)
	}
	if got["elsewhere"] != "" {
		t.Errorf("the other host got %q", got["elsewhere"])
	}
	// An upload host of the API's word alone.
	r := &github.Release{ID: 1, UploadURL: "https://evil.example.com/x{?name}"}
	if _, err := c.Upload(t.Context(), repo, r, github.File{Name: "x", Bytes: strings.NewReader("")}); err == nil || !strings.Contains(err.Error(), "evil.example.com") {
		t.Errorf("Upload: %v", err)
	}
}

func TestParseRepo(t *testing.T) {
	for _, s := range []string{"", "a", "/b", "a/", "a/b/c", "a/..", "a/.", "-a/b", "a b/c", "a/b?x", "a/b#x", "../x", "a/b.git", "a\n/b"} {
		if r, err := github.ParseRepo(s); err == nil {
			t.Errorf("%q is %v", s, r)
		}
	}
	if r, err := github.ParseRepo("me-1/env.x_y-z"); err != nil || r != (github.Repo{Owner: "me-1", Name: "env.x_y-z"}) {
		t.Errorf("%v, %v", r, err)
	}
	for _, opt := range []github.Options{{APIURL: "api.github.com"}, {ServerURL: "ftp://x"}, {APIURL: "https://u:p@x"}, {Token: "a b"}} {
		if _, err := github.New(opt); err == nil || strings.Contains(err.Error(), "u:p") {
			t.Errorf("%+v: %v", opt, err)
		}
	}
}
