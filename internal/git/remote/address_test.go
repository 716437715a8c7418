package remote

import (
	"strings"
	"testing"
)

func TestAddresses(t *testing.T) {
	for _, tt := range []struct{ text, want, url, err string }{
		{"https://github.com/me/env", "git:https://github.com/me/env", "https://github.com/me/env", ""},
		{"https://github.com/me/env#linux", "git:https://github.com/me/env#linux", "https://github.com/me/env", ""},
		{"https://me:secret@example.com/env.git", "git:https://example.com/env.git", "https://me:secret@example.com/env.git", ""},
		{"http://local_proxy@127.0.0.1:4000/git/o/r", "git:http://127.0.0.1:4000/git/o/r", "http://local_proxy@127.0.0.1:4000/git/o/r", ""},
		{"git@github.com:me/env.git#a/b", "git:git@github.com:me/env.git#a/b", "git@github.com:me/env.git", ""},
		{"/srv/my env.git", "git:file:///srv/my%20env.git", "file:///srv/my%20env.git", ""},
		{"", "git:", "", ""},
		{"#other", "git:#other", "", ""},
		{"ext::sh -c id", "", "", "want a URL of http"},
		{"ext://x/y", "", "", "not of ext"},
		{"--upload-pack=id", "", "", "want URL"},
		{"https://me:secret@example.com/a#b..c", "", "", "no name of a branch"},
		{"https://me:secret@exam ple.com/a", "", "", "want URL"},
		{"https://example.com/a#-b", "", "", "no name of a branch"},
		{"https://example.com/a#b.lock", "", "", "no name of a branch"},
		{"ssh://", "", "", "want URL"},
	} {
		a, err := Parse(tt.text)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "secret") {
				t.Errorf("%s: %v, want %q", tt.text, err, tt.err)
			}
		case err != nil || a.String() != tt.want || a.URL != tt.url:
			t.Errorf("%s: %s, %s, %v", tt.text, a, a.URL, err)
		}
	}
}

func TestSame(t *testing.T) {
	for _, tt := range []struct {
		a, b string
		want bool
	}{
		{"https://github.com/me/env", "git@github.com:me/env.git", true},
		{"https://x:y@github.com/me/env.git/", "ssh://git@github.com/me/env", true},
		{"https://github.com/me/env", "https://github.com/me/env2", false},
		{"", "", false},
	} {
		if got := Same(tt.a, tt.b); got != tt.want {
			t.Errorf("%s and %s: %t", tt.a, tt.b, got)
		}
	}
}
