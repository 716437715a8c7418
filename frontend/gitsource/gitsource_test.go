package gitsource

import (
	"strings"
	"testing"
)

func TestGitSources(t *testing.T) {
	for _, tt := range []struct {
		source, url, ref, dir, err string
	}{
		{source: "git+https://h/o/r.git", url: "https://h/o/r.git"},
		{source: "git+https://h:8443/o/r@v1.2//a/b/", url: "https://h:8443/o/r", ref: "v1.2", dir: "a/b"},
		{source: "git+https://h/o/r.git@feature/x//a", url: "https://h/o/r.git", ref: "feature/x", dir: "a"},
		{source: "git+https://h/o/r.git#v1:a/b", url: "https://h/o/r.git", ref: "v1", dir: "a/b"},
		{source: "git+https://h/o/r.git#:a", url: "https://h/o/r.git", dir: "a"},
		{source: "git+https://h/o/r.git@v1#subdirectory=a", url: "https://h/o/r.git", ref: "v1", dir: "a"},
		{source: "git+https://h/o/r.git@v1#egg=x&subdirectory=a", url: "https://h/o/r.git", ref: "v1", dir: "a"},
		{source: "git+ssh://git@h/o/r.git@v1", url: "ssh://git@h/o/r.git", ref: "v1"},
		{source: "file:///srv/r.git@v1", url: "file:///srv/r.git", ref: "v1"},
		{source: "git+file:///srv/r.git", url: "file:///srv/r.git"},
		{source: "git+https://h/a%40b/r.git", url: "https://h/a%40b/r.git"},

		{source: "git+https://h/o/r.git@v1#v2", err: "before and after the #"},
		{source: "git+https://h/o/r.git@v1//a#subdirectory=b", err: "no Git repository"},
		{source: "git+https://h/@scope/r@v1", err: "two @"},
		{source: "git+https://u:hunter2@h/r", err: "would be recorded"},
		{source: "git+https://hunter2@h/r", err: "would be recorded"},
		{source: "git+ssh://git:hunter2@h/r", err: "would be recorded"},
		{source: "git+https://h/r?token=hunter2", err: "no Git repository"},
		{source: "git+ssh://-oProxyCommand=id/r", err: "no Git repository"},
		{source: "git+ssh://-oProxyCommand=id@h/r", err: "no Git repository"},
		{source: "git+ssh://h/-r", err: "no Git repository"},
		{source: "git+https://h/r@--upload-pack=id", err: "no Git repository"},
		{source: "git+https://h/r@a..b", err: "no Git repository"},
		{source: "git+https://h/r@a:b", err: "no Git repository"},
		{source: "git+https://h/r@", err: "no Git repository"},
		{source: "git+https://h/r//../x", err: "is not a directory in"},
		{source: "git+https://h/../r", err: "no Git repository"},
		{source: "git+https://h/", err: "no Git repository"},
		{source: "git+https:///r", err: "no Git repository"},
		{source: "git+ext://sh -c id/x", err: "no Git repository"},
		{source: "file://r.git", err: "no Git repository"},
		{source: "file://h/r.git", err: "no Git repository"},
	} {
		got, err := Parse(tt.source)
		switch {
		case tt.err != "":
			if err == nil || !strings.Contains(err.Error(), tt.err) || strings.Contains(err.Error(), "hunter2") {
				t.Errorf("%s: %v, %v, want %q", tt.source, got, err, tt.err)
			}
		case err != nil || got != Tree{tt.url, tt.ref, tt.dir}:
			t.Errorf("%s: %q, %v", tt.source, got, err)
		}
	}
}

func TestGitSourcesOfADD(t *testing.T) {
	for source, want := range map[string]string{
		"git@h:o/r.git":           "git+ssh://git@h/o/r.git",
		"git@h:o/r.git#v1:a":      "git+ssh://git@h/o/r.git#v1:a",
		"ssh://git@h/o/r.git":     "git+ssh://git@h/o/r.git",
		"https://h/o/r.git#v1:a":  "git+https://h/o/r.git#v1:a",
		"https://h/o/r.tar.gz":    "https://h/o/r.tar.gz",
		"https://h/r.git?token=x": "https://h/r.git?token=x",
	} {
		if got := OfADD(source); got != want {
			t.Errorf("%s: %s, want %s", source, got, want)
		}
	}
}
