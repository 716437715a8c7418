package dag

import (
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
)

// session is that of the tests below.
var session = map[string]string{
	"PATH": "/bin", "HOME": "/root", "LC_ALL": "C", "https_proxy": "http://me:secret@proxy", "GOPROXY": "off",
	"FOO": "foo", "BAR": "bar", "GH_TOKEN": "ghp_1", "GOOGLE_API_KEY": "g", "MIRROR": "https://me:secret@host/",
	"PIP_INDEX_URL": "https://me:secret@pypi/", "PIP_NO_CACHE_DIR": "1", "UV_PUBLISH_TOKEN": "t", "npm_config__auth": "a",
	"PWD": "/work", "HOSTNAME": "h", "SOURCE_DATE_EPOCH": "1",
}

// lastRun returns the last RUN of the last of some files.
func lastRun(t *testing.T, opt Options, texts ...string) (*Step, key.Key) {
	t.Helper()
	g, k := build(t, opt, texts...)
	l := g.Layers[len(g.Layers)-1]
	for i := len(l.Steps) - 1; i >= 0; i-- {
		if _, ok := l.Steps[i].Instr.(*frontend.Run); ok {
			return l.Steps[i], k.Step[l.Steps[i]]
		}
	}
	t.Fatal("no RUN")
	return nil, key.Key{}
}

func TestWhatARunNames(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "RUN echo FOO", ""},
		{"a variable", "RUN echo $FOO ${BAR:-x}", "BAR:digest FOO:digest"},
		{"one that it assigns", "RUN FOO=1; echo $FOO", ""},
		{"one of its own ENV", "ENV FOO=1\nRUN echo $FOO", ""},
		{"one of its own ARG", "ARG FOO=1\nRUN echo $FOO", ""},
		{"one of an ARG without a value", "ARG FOO\nRUN echo $FOO", "FOO:digest"},
		{"one that is listed", "RUN echo $PATH $LC_ALL $https_proxy $GOPROXY $PIP_NO_CACHE_DIR", ""},
		{"one that a shell sets", "RUN echo $PWD $HOSTNAME", ""},
		{"one that clayer sets", "RUN echo $SOURCE_DATE_EPOCH", ""},
		{"credentials by name and by value", "RUN echo $GH_TOKEN $MIRROR", "GH_TOKEN:name MIRROR:name"},
		{"credentials of package managers", "RUN echo $PIP_INDEX_URL $UV_PUBLISH_TOKEN $npm_config__auth", "PIP_INDEX_URL:name UV_PUBLISH_TOKEN:name npm_config__auth:name"},
		{"in a heredoc", "RUN <<EOF\necho $FOO\nEOF", "FOO:digest"},
		{"in a script of a shell", "RUN <<EOF\n#!/bin/bash\nFOO=1\necho $FOO $BAR\nEOF", "BAR:digest"},
		{"in a script of another program", "RUN <<EOF\n#!/usr/bin/env python3\nimport os; print(os.environ['FOO'])\nEOF", "FOO:digest"},
		{"in exec form", `RUN ["python3", "-c", "import os; os.environ['FOO']; FOOD = 1"]`, "FOO:digest"},
		{"in another shell", "SHELL [\"pwsh\", \"-c\"]\nRUN Write-Host $env:FOO", "FOO:digest"},
		{"in a mount", "RUN --mount=type=cache,target=/c,id=x-$FOO true", "FOO:digest"},
		{"that a secret sets", "RUN --mount=type=secret,id=x,env=FOO echo $FOO", ""},
		{"in an ENV in effect", "ENV X=$FOO P=$PATH\nRUN true", "FOO:digest"},
		{"in an ARG in effect", "ARG X=$FOO\nRUN true", "FOO:digest"},
		{"in an ENV by way of an ARG", "ARG X=$FOO\nENV Y=$X\nRUN true", "FOO:digest"},
		{"a part of a variable, in an ARG", "ARG X=${FOO%o}\nENV Y=${X%o}\nRUN true", ""},
		{"in an ENV of its own name", "ENV FOO=$FOO-x\nRUN true", "FOO:digest"},
		{"in an ENV that another one replaced", "ENV X=$FOO\nENV X=1\nRUN true", ""},
	} {
		s, _ := lastRun(t, Options{Session: session}, tt.text)
		var got []string
		for _, v := range s.Session() {
			if v.Named {
				got = append(got, v.Name+":"+string(v.InKey))
			}
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: names %v, want %q", tt.name, got, tt.want)
		}
	}
}

func TestWhatARunInherits(t *testing.T) {
	const text = "ENV LC_ALL=x\nRUN echo $FOO"
	for _, tt := range []struct {
		inherit      Inherit
		want, denied string
	}{
		{InheritNamed, "FOO GOPROXY HOME PATH PIP_NO_CACHE_DIR https_proxy", "BAR GH_TOKEN GOOGLE_API_KEY MIRROR PIP_INDEX_URL UV_PUBLISH_TOKEN npm_config__auth"},
		{InheritAll, "BAR FOO GH_TOKEN GOOGLE_API_KEY GOPROXY HOME HOSTNAME MIRROR PATH PIP_INDEX_URL PIP_NO_CACHE_DIR PWD UV_PUBLISH_TOKEN https_proxy npm_config__auth", ""},
	} {
		s, _ := lastRun(t, Options{Session: session, Inherit: tt.inherit}, text)
		var got []string
		for _, v := range s.Session() {
			got = append(got, v.Name)
		}
		if strings.Join(got, " ") != tt.want {
			t.Errorf("%s: gets %v, want %s", tt.inherit, got, tt.want)
		}
		if denied := strings.Join(s.Withheld(), " "); denied != tt.denied {
			t.Errorf("%s: withheld %s, want %s", tt.inherit, denied, tt.denied)
		}
	}
}

func TestSessionInKeys(t *testing.T) {
	change := func(name, value string) map[string]string {
		m := map[string]string{name: value}
		for k, v := range session {
			if k != name {
				m[k] = v
			}
		}
		if value == "" {
			delete(m, name)
		}
		return m
	}
	for _, tt := range []struct {
		name, text string
		session    map[string]string
		inherit    Inherit
		same       bool
	}{
		{name: "a variable that is named", text: "RUN echo $FOO", session: change("FOO", "x")},
		{name: "one that is named and no longer set", text: "RUN echo $FOO", session: change("FOO", "")},
		{name: "one that is not named", text: "RUN echo $BAR", session: change("FOO", "x"), same: true},
		{name: "one of an ENV", text: "ENV X=$FOO\nRUN echo $X", session: change("FOO", "x")},
		{name: "PATH of an ENV", text: "ENV PATH=/x:$PATH\nRUN echo $PATH", session: change("PATH", "/usr/bin"), same: true},
		{name: "a token", text: "RUN echo $GH_TOKEN", session: change("GH_TOKEN", "x"), same: true},
		{name: "no token", text: "RUN echo $GH_TOKEN", session: change("GH_TOKEN", ""), same: true},
		{name: "a token of an ARG", text: "ARG AUTH=$GH_TOKEN\nRUN true", session: change("GH_TOKEN", "x"), same: true},
		{name: "PATH of an ARG", text: "ARG P=$PATH\nRUN true", session: change("PATH", "/usr/bin"), same: true},
		{name: "a part of a variable in an ARG", text: "ARG X=${FOO%o}\nRUN true", session: change("FOO", "x")},
		{name: "no token for an ENV", text: "ENV AUTH=$GH_TOKEN B=x${GH_TOKEN}\nRUN true", session: change("GH_TOKEN", ""), same: true},
		{name: "no token for an ENV with a fallback", text: "ENV AUTH=${GH_TOKEN:-none}\nRUN true", session: change("GH_TOKEN", "")},
		{name: "a URL with a password", text: "RUN echo $MIRROR", session: change("MIRROR", "https://you:other@host/"), same: true},
		{name: "no such URL", text: "RUN echo $MIRROR", session: change("MIRROR", ""), same: true},
		{name: "the proxy", text: "RUN echo $https_proxy", session: change("https_proxy", ""), same: true},
		{name: "--inherit-env", text: "RUN true", session: session, inherit: InheritAll},
		{name: "--hermetic", text: "RUN true", session: session, inherit: Hermetic},
	} {
		_, before := lastRun(t, Options{Session: session}, tt.text)
		_, after := lastRun(t, Options{Session: tt.session, Inherit: tt.inherit}, tt.text)
		if same := before == after; same != tt.same {
			t.Errorf("%s: same key = %t", tt.name, same)
		}
	}
}

// docs/language.md has the list.
func TestListIsDocumented(t *testing.T) {
	page, err := os.ReadFile("../docs/language.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, _ := strings.Cut(string(page), "| what every RUN gets |")
	table, _, _ = strings.Cut(table, "\n\n")
	names := strings.FieldsFunc(table, func(c rune) bool { return strings.ContainsRune(" `|,;\n", c) })
	for _, name := range slices.Concat(networkVars, listedVars) {
		if !slices.Contains(names, name) && !slices.Contains(names, strings.ToLower(name)) {
			t.Errorf("%s is not in the table", name)
		}
	}
	for _, prefix := range listedPrefixes {
		if !slices.Contains(names, prefix+"*") {
			t.Errorf("%s* is not in the table", prefix)
		}
	}
}

// What a RUN names of the ENV of a layer that is composed before its own enters its key;
// the rest of that ENV does not.
func TestENVOfLayersBefore(t *testing.T) {
	keyOf := func(base string, session map[string]string) key.Key {
		_, k := lastRun(t, Options{Session: session}, base, "Containerfile.mojo:\nRUN echo $X\n")
		return k
	}
	first := keyOf("ENV X=1 Y=1\nRUN true\n", session)
	if keyOf("ENV X=1 Y=2\nRUN true\n", session) != first {
		t.Error("a variable that it does not name changes its key")
	}
	if keyOf("ENV X=2 Y=1\nRUN true\n", session) == first {
		t.Error("a variable that it names does not change its key")
	}
	if keyOf("ENV X=$FOO\nRUN true\n", session) == keyOf("ENV X=$FOO\nRUN true\n", map[string]string{"FOO": "x"}) {
		t.Error("what such a variable refers to does not change its key")
	}
	if keyOf("ENV X=$HOME/x\nRUN true\n", session) != keyOf("ENV X=$HOME/x\nRUN true\n", map[string]string{"HOME": "/home/me"}) {
		t.Error("HOME changes its key")
	}
}

// TestAssumed says which variables of the session decide about the keys of a layer: set or not.
func TestAssumed(t *testing.T) {
	for _, tt := range []struct{ name, text, want string }{
		{"nothing", "RUN echo FOO", ""},
		{"set and not set", "RUN echo $FOO ${NONE:-x}", "1 FOO digest, 1 NONE unset"},
		{"what the shell assigns", "RUN for i in 1; do echo $i; done; x=1; read y; echo $x $y $1 $?", ""},
		{"listed ones, and a shell's", "RUN echo $PATH $HOME $PWD $PIP_INDEX", ""},
		{"credentials", "RUN echo $GH_TOKEN $NO_TOKEN", "1 GH_TOKEN name, 1 NO_TOKEN unset"},
		{"an ENV by which all RUNs after it differ", "ENV A=$NONE B=${BAR:-x}\nRUN true", "1 BAR digest, 1 NONE unset, 2 BAR digest"},
		{"an ENV or ARG of the file", "ENV A=1\nARG B=2\nRUN echo $A $B", ""},
		{"an ARG without a value", "ARG FOO\nRUN echo $FOO", "2 FOO digest"},
		{"where references are expanded, all count", "COPY x $HOME/$NONE/", "1 HOME digest, 1 NONE unset"},
		{"not what another program reads as it likes", "RUN [\"python3\", \"-c\", \"print(NONE)\"]", ""},
		{"a step that is no RUN, of what the file sets", "ENV D=/x\nWORKDIR $D", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			g, _ := build(t, Options{Session: session}, tt.text)
			var got []string
			for _, a := range g.Layers[0].Assumed(nil) {
				got = append(got, fmt.Sprintf("%d %s %s", a.Pos.Line, a.Name, a.InKey))
			}
			slices.Sort(got)
			if text := strings.Join(got, ", "); text != tt.want {
				t.Errorf("got  %s\nwant %s", text, tt.want)
			}
		})
	}
	g, _ := build(t, Options{Session: session, Inherit: Hermetic}, "RUN echo $FOO $NONE")
	if got := g.Layers[0].Assumed(nil); len(got) > 0 {
		t.Errorf("hermetic: %v", got)
	}
}
