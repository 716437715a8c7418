package edit

import (
	"reflect"
	"strings"
	"testing"
)

func TestRemoves(t *testing.T) {
	for line, want := range map[string]string{
		"pip uninstall -y Six idna":       "pip six idna",
		"python3 -m pip uninstall six":    "pip six",
		"uv pip uninstall six":            "uv pip six",
		"uv pip sync requirements.txt":    "",
		"apt-get remove -y jq":            "apt jq",
		"apt purge jq":                    "apt jq",
		"apt-get install -y jq":           "",
		"npm rm -g left-pad":              "npm left-pad",
		"npm uninstall -g @scope/tool@1":  "npm @scope/tool",
		"npm rm left-pad":                 "",
		"pip install six":                 "",
		"pip":                             "",
		"python3 script.py uninstall six": "",
	} {
		r := Removes(strings.Fields(line), Place{})
		if got := strings.TrimSpace(r.Manager + " " + strings.Join(r.Names, " ")); got != want {
			t.Errorf("%s: %q, want %q", line, got, want)
		}
	}
}

func TestMentions(t *testing.T) {
	const file = "# six\nRUN pip install six\nRUN apt-get install six && pip install Six==1.16 idna \\\n  yarl\nRUN npm install -g six\n"
	got := Mentions([]byte(file), Removal{"pip", []string{"six", "yarl"}})
	if want := []Mention{{2, []string{"six"}}, {3, []string{"six", "yarl"}}}; !reflect.DeepEqual(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}
