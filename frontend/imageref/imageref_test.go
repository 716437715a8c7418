package imageref_test

import (
	"strings"
	"testing"

	"github.com/clayer/clayer/frontend/imageref"
)

const sum = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa"

func TestParse(t *testing.T) {
	for name, want := range map[string]string{
		"alpine":                          "docker.io/library/alpine:latest",
		"alpine:3.20":                     "docker.io/library/alpine:3.20",
		"me/tool":                         "docker.io/me/tool:latest",
		"docker.io/alpine":                "docker.io/library/alpine:latest",
		"index.docker.io/me/tool":         "docker.io/me/tool:latest",
		"ghcr.io/astral-sh/uv:0.5":        "ghcr.io/astral-sh/uv:0.5",
		"localhost/x":                     "localhost/x:latest",
		"localhost:5000/x":                "localhost:5000/x:latest",
		"127.0.0.1:5000/a/b__c.d-e:v_1.0": "127.0.0.1:5000/a/b__c.d-e:v_1.0",
		"[::1]:5000/x":                    "[::1]:5000/x:latest",
		"alpine@" + sum:                   "docker.io/library/alpine@" + sum,
		"alpine:3@" + sum:                 "docker.io/library/alpine:3@" + sum,
		"EXAMPLE.com/x":                   "EXAMPLE.com/x:latest",
		"Alpine":                          "in lower case: alpine",
		"ghcr.io/Me/x":                    "in lower case: ghcr.io/me/x",
		"https://ghcr.io/me/x":            "no scheme",
		"me:secret@ghcr.io/x":             "no digest",
		"alpine@sha256:12":                "no digest",
		"alpine:":                         "malformed",
		"alpine:a b":                      "malformed",
		"a//b":                            "malformed",
		"":                                "malformed",
		"../x":                            "malformed",
		"ghcr.io/":                        "malformed",
		"-x":                              "malformed",
		strings.Repeat("a", 300):          "malformed",
	} {
		ref, err := imageref.Parse(name)
		got := ref.String()
		if err != nil {
			got = err.Error()
			if e, ok := err.(*imageref.Error); ok {
				got += ": " + e.Hint
			}
		}
		if got != want && (err == nil || !strings.Contains(got, want)) || strings.Contains(got, "secret") {
			t.Errorf("%s: %s, want %s", name, got, want)
		}
	}
}

func TestParseLayout(t *testing.T) {
	for text, want := range map[string]string{
		"dir":               "oci-layout:dir",
		"///abs/dir:tag":    "oci-layout:/abs/dir:tag",
		"./a:b/c/":          "oci-layout:a:b/c",
		"/x@" + sum:         "oci-layout:/x@" + sum,
		"/x:v1@" + sum:      "oci-layout:/x:v1@" + sum,
		"":                  "no directory",
		":tag":              "no directory",
		"/x@sha256:notthis": "no digest",
	} {
		ref, err := imageref.ParseLayout(text)
		got := ref.String()
		if err != nil {
			got = err.Error()
		}
		if got != want && (err == nil || !strings.Contains(got, want)) {
			t.Errorf("%s: %s, want %s", text, got, want)
		}
	}
}
