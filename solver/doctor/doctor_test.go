package doctor

import (
	"crypto/x509"
	"strings"
	"testing"
	"time"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/github"
	"github.com/clayer/clayer/cache/transfer"
	"github.com/clayer/clayer/internal/githubtest"
)

func examine(t *testing.T, gh *githubtest.Server, token string, change func(*Target)) map[string]Finding {
	t.Helper()
	client, err := github.New(github.Options{
		APIURL: gh.URL, ServerURL: gh.URL, Token: token, Answers: t.TempDir(),
		Transfer: transfer.Options{Retries: -1},
	})
	if err != nil {
		t.Fatal(err)
	}
	local, err := dir.Open(t.TempDir(), dir.Options{})
	if err != nil {
		t.Fatal(err)
	}
	p := Target{Root: t.TempDir(), Cache: t.TempDir(), GitHub: client, Stores: []cache.Store{local}}
	if token != "" {
		p.Token = "GH_TOKEN"
	}
	if change != nil {
		change(&p)
	}
	found := make(map[string]Finding)
	for _, f := range Examine(t.Context(), p) {
		if f.Area == "" || f.Text == "" || !f.OK && f.Remedy == "" && f.Area != "sandbox" {
			t.Errorf("a finding without text or remedy: %+v", f)
		}
		if token != "" && strings.Contains(f.Text+f.Remedy, token) {
			t.Errorf("the token is printed: %+v", f)
		}
		found[f.Area+"/"+f.Name] = f
	}
	return found
}

func TestExamine(t *testing.T) {
	for _, tt := range []struct {
		name   string
		token  string
		gh     func(*githubtest.Server)
		change func(*Target)
		of     string
		ok     bool
		text   string
	}{
		{name: "it answers", of: "github/API", ok: true, text: "answers in"},
		{name: "no token", of: "github/token", ok: true, text: "none"},
		{name: "no token, and a repository to store in", change: func(p *Target) { p.Repo = github.Repo{Owner: "me", Name: "env"} }, of: "github/token", text: "none"},
		{name: "a token", token: "writes-all", of: "github/token", ok: true, text: "GH_TOKEN is accepted"},
		{name: "no requests left", gh: func(s *githubtest.Server) { s.Limit(0, time.Now().Add(time.Hour)) }, of: "github/rate limit", text: "0 of 60 API requests left"},
		{name: "an old token", token: "expired-one", of: "github/token", text: "GH_TOKEN is not accepted"},
		{name: "a clock an hour wrong", gh: func(s *githubtest.Server) { s.Skew = time.Hour }, of: "github/clock", text: "earlier than GitHub's"},
		{name: "a clock that is right", of: "github/clock", ok: true, text: "as GitHub's"},
		{name: "certificates that are not there", change: func(p *Target) { p.Environ = []string{"SSL_CERT_FILE=/no/such.pem"} }, of: "network/certificates", text: "/no/such.pem"},
		{name: "a machine without certificates", change: func(p *Target) { p.RootCAs = func() (*x509.CertPool, error) { return x509.NewCertPool(), nil } }, of: "network/certificates", text: "none"},
		{name: "a proxy with a password", change: func(p *Target) { p.Environ = []string{"HTTPS_PROXY=http://me:hunter2@proxy:3128"} }, of: "network/proxy", ok: true, text: "proxy:3128"},
		{name: "an empty store", of: "stores/dir", ok: true, text: "no layers yet"},
		{name: "space", of: "space/cache", ok: true, text: "free"},
		{name: "offline", change: func(p *Target) { p.GitHub = nil }, of: "network/proxy", ok: true, text: "none"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			gh := githubtest.New(t)
			gh.Token("writes-all", "write")
			if tt.gh != nil {
				tt.gh(gh)
			}
			found := examine(t, gh, tt.token, tt.change)
			f, there := found[tt.of]
			if !there || f.OK != tt.ok || !strings.Contains(f.Text, tt.text) || strings.Contains(f.Text, "hunter2") {
				t.Errorf("%s = %+v, want ok=%v, %q", tt.of, f, tt.ok, tt.text)
			}
			if _, asked := found["github/API"]; asked == (tt.name == "offline") {
				t.Errorf("GitHub asked: %v", asked)
			}
		})
	}
}

func TestUnreachable(t *testing.T) {
	gh := githubtest.New(t)
	gh.URL = "http://127.0.0.1:1"
	f := examine(t, gh, "", nil)["github/hosts"]
	if f.OK || !strings.Contains(f.Text, "connection refused") || f.Cause != Unreachable || !strings.Contains(f.Remedy, "a store in a directory") {
		t.Errorf("%+v", f)
	}
}
