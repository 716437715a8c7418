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

func TestSourcesOfADD(t *testing.T) {
	for source, want := range map[string]string{
		"git@h:o/r.git":                                                     "git+ssh://git@h/o/r.git",
		"git@h:o/r.git#v1:a":                                                "git+ssh://git@h/o/r.git@v1//a",
		"me@h.example:r?branch=x&subdir=/a/../b":                            "git+ssh://me@h.example/r@refs/heads/x//b",
		"ssh://git@h/o/r.git":                                               "git+ssh://git@h/o/r.git",
		"https://h/o/r.git#v1:a":                                            "git+https://h/o/r.git@v1//a",
		"https://h/o@x//r.git":                                              "git+https://h/o%40x/r.git",
		"https://h/r.git?tag=v1":                                            "git+https://h/r.git@refs/tags/v1",
		"https://h/r.git?ref=v1#v1":                                         "git+https://h/r.git@v1",
		"https://github.com/o/r.git#:a/":                                    "github:o/r//a",
		"https://github.com/o/r.git?branch=b":                               "git+https://github.com/o/r.git@refs/heads/b",
		"https://h/r.git?submodules=0#v1":                                   "git+https://h/r.git@v1 alone",
		"https://h/r.git?keep-git-dir&mtime=commit#v1":                      "git+https://h/r.git@v1 keeps",
		"https://h/r.git?checksum=abc":                                      "git+https://h/r.git is abc",
		"https://h/r.git?fetch-by-commit&commit=" + strings.Repeat("a", 40): "git+https://h/r.git@" + strings.Repeat("a", 40) + " is " + strings.Repeat("a", 40),

		"https://h/o/r.tar.gz":                       "no",
		"https://h/r.git.zip":                        "no",
		"./git@h:x":                                  "no",
		"https://h/r.git?token=hunter2":              `error: "token" is not known in the query of a repository`,
		"https://h/r.git?ref=a#b":                    `error: the source has two of ref, "b" and "a"`,
		"https://h/r.git?tag=a&branch=b":             "error: the source has",
		"https://h/r.git?ref":                        "error: ref in the query of the source requires one value",
		"https://h/r.git?submodules=2":               "error: submodules=2 in the query of the source: want true or false",
		"https://h/r.git?mtime=now":                  "error: mtime in the query of the source: want checkout or commit",
		"https://h/r.git?fetch-by-commit&checksum=a": "error: fetch-by-commit requires a whole commit as checksum",
		"git@u:hunter2@h:x":                          "error: the source is no repository as Docker has it",
	} {
		got := "no"
		if InADD(source) {
			r, err := ParseADD(source)
			got = r.Source
			if !r.Submodules {
				got += " alone"
			}
			if r.GitDir != nil && *r.GitDir {
				got += " keeps"
			}
			if r.Checksum != "" {
				got += " is " + r.Checksum
			}
			if err != nil {
				got = "error: " + err.Error()
			}
		}
		if got != want && !(strings.HasPrefix(want, "error") && strings.HasPrefix(got, want)) {
			t.Errorf("%s: %s, want %s", source, got, want)
		}
	}
}
