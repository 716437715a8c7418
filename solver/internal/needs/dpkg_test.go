package needs

import "testing"

func TestClausesOfDebian(t *testing.T) {
	offers := provided(map[string]debian{
		"libc6":    {version: "2.36-9"},
		"debconf":  {version: "1.5", provides: "debconf-2.0, other (= 3)"},
		"python3":  {version: "3.11.2-1"},
		"libx++-1": {version: "1:2"},
	})
	for clause, want := range map[string]string{
		"libc6 (>= 2.34)":                     "libc6",
		"libc6:any (>= 2.37)":                 "",
		"debconf (>= 2.0) | debconf-2.0":      "debconf",
		"debconf-2.0 (>= 1)":                  "", // in no version
		"other (>= 2)":                        "debconf",
		"missing | libx++-1 (>> 1:1)":         "libx++-1",
		"python3 (<< 3.12), and what follows": "python3",
		"":                                    "",
	} {
		if got := satisfies(offers, clause); got != want {
			t.Errorf("%s: by %q, want %q", clause, got, want)
		}
	}
}
