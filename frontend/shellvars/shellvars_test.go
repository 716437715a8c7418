package shellvars

import (
	"slices"
	"strings"
	"testing"
)

func TestFree(t *testing.T) {
	names := map[string]bool{"A": true, "B": true, "C": true}
	for _, tt := range []struct{ script, want string }{
		{`echo $A ${B} "$C"`, "A B C"},
		{`echo A $D`, ""},
		{`A=1; echo $A`, ""},
		{`A=1 && echo $A`, ""},
		{`A=${A:-x}; echo $A`, "A"},
		{`A=$B; echo $A`, "B"},
		{`A+=x; echo $A`, "A"},
		{`A=1 env; echo $A`, "A"},
		{`A=1 echo $A`, "A"},
		{`: ${A:=x}; : ${B=$A}`, "A B"},
		{`export A=1; echo $A`, ""},
		{`export A`, "A"},
		{`export A B=$C`, "A C"},
		{`for A in $B; do echo $A; done; echo $A`, "B"},
		{`for i in 1; do A=1; done; echo $A`, "A"},
		{`for ((i = 0; i < A; i++)); do :; done`, "A"},
		{`while read -r A; do echo $A; done`, ""},
		{`if true; then A=1; fi; echo $A`, "A"},
		{`if true; then A=1; else A=2; fi; echo $A`, ""},
		{`if true; then A=1; elif false; then A=2; fi; echo $A`, "A"},
		{`if true; then A=1; elif false; then A=2; else A=3; fi; echo $A`, ""},
		{`case $B in x) A=1;; *) A=2;; esac; echo $A`, "B"},
		{`case $B in x) A=1;; esac; echo $A`, "A B"},
		{`false || A=1; echo $A`, "A"},
		{`(A=1); echo $A`, "A"},
		{`A=1 & echo $A`, "A"},
		{`echo | A=1; echo $A`, "A"},
		{`{ A=1; }; echo $A`, ""},
		{`X=$(A=1; echo $A); echo $A`, "A"},
		{`f() { A=1; echo $A; }; echo $A`, "A"},
		{`f() { local A; echo $A; }`, ""},
		{`unset A; echo $A`, ""},
		{`echo $((A + $B)) ${#C}`, "A B C"},
		{`echo $((A = 1)) $A`, ""},
		{`[[ -v A ]] && [[ $B == "$C" ]]`, "A B C"},
		{`printenv A`, "A"},
		{`printf -v A x; echo $A`, ""},
		{`echo '$A' "\$B"`, "A B"},
		{`sh -c 'echo ${A}'`, "A"},
		{"cat <<EOF\n$A\nEOF\ncat <<'EOF'\n$B\nEOF\n", "A B"},
		{`cat <(echo $A) >$B`, "A B"},
		{`echo ${X:$A:B} ${Y/$C/x}`, "A B C"},
		{`echo ${X[A]} "${Y[@]}"`, "A"},
		{`a=($A x); echo "${!B}"`, "A B"},
		{`if [ $A; then`, "A"}, // no shell parses it
		{`echo $AB $A_ ${BA}`, ""},
		{``, ""},
	} {
		if got := strings.Join(Free(tt.script, names), " "); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.script, got, tt.want)
		}
		mentioned := collect(Mentions, tt.script)
		for name := range strings.FieldsSeq(tt.want) {
			if !slices.Contains(mentioned, name) {
				t.Errorf("%s: mentions %q, and not %s", tt.script, mentioned, name)
			}
		}
	}
}

func collect(all func(string, func(string)), text string) (words []string) {
	all(text, func(w string) { words = append(words, w) })
	return words
}

func TestWords(t *testing.T) {
	got := collect(Words, `os.environ["FOO_1"] 2x $A-b_`)
	if want := []string{"os", "environ", "FOO_1", "A", "b_"}; !slices.Equal(got, want) {
		t.Errorf("words %q, want %q", got, want)
	}
}

func TestFreeOfALongScript(t *testing.T) {
	for _, script := range []string{strings.Repeat("(", maxParsed), strings.Repeat("$(", maxParsed/2), strings.Repeat("{ ", maxParsed)} {
		if got := Free("A=1; echo $A; "+script, map[string]bool{"A": true}); len(got) > 1 {
			t.Errorf("%q", got)
		}
	}
	if got := Free(strings.Repeat("(", maxParsed-3)+"$A", map[string]bool{"A": true}); len(got) != 1 {
		t.Errorf("%q", got)
	}
}

func FuzzFree(f *testing.F) {
	f.Add("A=1; echo $A | sed 's/$B/x/'")
	f.Fuzz(func(_ *testing.T, script string) { Free(script, map[string]bool{"A": true, "B": true}) })
}
