package effort

import "testing"

func TestNameOfARepository(t *testing.T) {
	for url, want := range map[string]string{
		"https://github.com/me/env.git":                "me/env",
		"https://github.com/me/env/":                   "me/env",
		"git@github.com:me/env.git":                    "me/env",
		"ssh://git@host:22/group/me/env":               "me/env",
		"http://local_proxy@127.0.0.1:4000/git/me/env": "me/env",
		"https://user:hunter2@host/me/env.git":         "me/env",
		"/srv/git/me/env.git":                          "me/env",
		"https://user:hunter2@host/env":                "",
		"https://host/me/env.git?token=hunter2":        "me/env",
		"host:env":                                     "",
		"":                                             "",
		"..":                                           "",
	} {
		if got := nameOf(url); got != want {
			t.Errorf("%q: %q, want %q", url, got, want)
		}
	}
}
