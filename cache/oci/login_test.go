package oci_test

import (
	"strings"
	"testing"

	"github.com/clayer/clayer/cache/oci"
)

func TestParseRepository(t *testing.T) {
	for name, want := range map[string]string{
		"ghcr.io/me/env":         "",
		"localhost:5000/env":     "",
		"localhost/env":          "",
		"127.0.0.1:5000/a/b-c_d": "",
		"[::1]:5000/env":         "",
		"me/env":                 `"me" is no host`,
		"ghcr.io":                "has no repository",
		"ghcr.io/":               "has no repository",
		"":                       "has no repository",
		"https://ghcr.io/me/env": "no scheme",
		"me:secret@ghcr.io/env":  "neither a login",
		"ghcr.io/me/env:tag":     "has a tag",
		"ghcr.io/Me/Env":         "a-z",
		"ghcr.io/../env":         "a-z",
	} {
		_, err := oci.ParseRepository(name)
		switch {
		case want == "" && err != nil:
			t.Errorf("%s: %v", name, err)
		case want != "" && (err == nil || !strings.Contains(err.Error(), want)):
			t.Errorf("%s: error %v, want one with %q", name, err, want)
		case err != nil && strings.Contains(err.Error(), "secret"):
			t.Errorf("the error tells the password: %v", err)
		}
	}
}
