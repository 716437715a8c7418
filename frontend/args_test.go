package frontend

import (
	"fmt"
	"strings"
	"testing"
)

// argsAt returns the ARGs of the last RUN of a text, in the order of their lines.
func argsAt(t *testing.T, a Args, text string) (f *File, args string) {
	t.Helper()
	f, err := ParseFor(a, "Containerfile", []byte(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	list, _, err := f.Resolve(Scope{BuildArgs: a.Build, Session: map[string]string{"HOME": "/home/me"}})
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	for _, in := range list {
		if r, ok := in.(*Run); ok {
			args = fmt.Sprint(r.Args)
		}
	}
	return f, args
}

func TestPredefinedArgs(t *testing.T) {
	amd64 := Args{Platform: "linux/amd64"}
	for _, tt := range []struct {
		name, text string
		args       Args
		want       string
	}{
		{"a stage has those that it names", "FROM x\nARG TARGETARCH\nARG TARGETPLATFORM BUILDOS\nRUN a", amd64, "[{TARGETARCH amd64} {TARGETPLATFORM linux/amd64} {BUILDOS linux}]"},
		{"and no others", "FROM x\nARG A=${TARGETARCH:-none}\nRUN a", amd64, "[{A none}]"},
		{"a file without FROM too", "ARG TARGETOS\nRUN a", amd64, "[{TARGETOS linux}]"},
		{"a variant", "ARG TARGETARCH TARGETVARIANT\nRUN a", Args{Platform: "linux/arm/v7"}, "[{TARGETARCH arm} {TARGETVARIANT v7}]"},
		{"no variant is a value", "ARG TARGETVARIANT\nRUN a", amd64, "[{TARGETVARIANT }]"},
		{"a default of one's own", "FROM x\nARG TARGETARCH=mine\nRUN a", amd64, "[{TARGETARCH mine}]"},
		{"a build argument", "FROM x\nARG TARGETARCH\nRUN a", Args{Platform: "linux/amd64", Build: map[string]string{"TARGETARCH": "arm64"}}, "[{TARGETARCH arm64}]"},
		{"before the first FROM they need no ARG", "ARG A=go-$TARGETARCH\nFROM x\nARG A\nRUN a", amd64, "[{A go-amd64}]"},
		{"what is set there counts", "ARG TARGETARCH=mine\nFROM x\nARG TARGETARCH\nRUN a", amd64, "[{TARGETARCH mine}]"},
		{"the stage", "FROM x AS One\nARG TARGETSTAGE\nRUN a", amd64, "[{TARGETSTAGE one}]"},
		{"a stage without name", "FROM x\nARG TARGETSTAGE\nRUN a", amd64, "[{TARGETSTAGE default}]"},
		{"no platform is known", "FROM x\nARG TARGETARCH TARGETSTAGE\nRUN a", Args{}, "[]"},
		{"a proxy has no value of itself", "ARG HTTP_PROXY\nRUN a", amd64, "[]"},
		{"a comment", "ARG A=1 # see B, don't ask\nRUN a", Args{Build: map[string]string{"B,": "2", "see": "3"}}, "[{A 1} {see 3}]"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if _, got := argsAt(t, tt.args, tt.text); got != tt.want {
				t.Errorf("ARGs %s, want %s", got, tt.want)
			}
		})
	}
}

func TestVariablesInFrom(t *testing.T) {
	for _, tt := range []struct {
		name, text string
		build      map[string]string
		want       string // Image, and whether it is a stage
	}{
		{"a default", "ARG V=22\nFROM node:$V\nRUN a", nil, "node:22 false"},
		{"a build argument", "ARG V=22\nFROM node:$V\nRUN a", map[string]string{"V": "24"}, "node:24 false"},
		{"a stage", "ARG ON=one\nFROM x AS one\nFROM \"${ON}\"\nRUN a", nil, "one true"},
		{"a stage by platform", "FROM x AS on-amd64\nFROM y AS on-arm64\nFROM on-${TARGETARCH}\nRUN a", nil, "on-amd64 true"},
		{"a fallback", "FROM ${BASE:-scratch}\nRUN a", nil, "scratch false"},
		{"an ARG of a stage is none of a FROM", "FROM x\nARG V=1\nFROM y:${V:-none}\nRUN a", nil, "y:none false"},
		{"what is quoted by ' stays", "ARG V=1\nFROM 'y$V'\nRUN a", nil, "y$V false"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			f, _ := argsAt(t, Args{Build: tt.build, Platform: "linux/amd64"}, tt.text)
			var last *From
			for _, in := range f.Instructions {
				if from, ok := in.(*From); ok {
					last = from
				}
			}
			if got := fmt.Sprint(last.Image, " ", last.Stage); got != tt.want {
				t.Errorf("FROM %s, want %s", got, tt.want)
			}
		})
	}
}

func TestAVariableThatIsNotSetIsNamed(t *testing.T) {
	for text, want := range map[string]string{
		"FROM node:1\nFROM $NONE\nRUN a":              "Containerfile:2: FROM: $NONE names nothing: $NONE is not set",
		"COPY --chown=${NB_UID}:$NB_GID a /a":         "--chown=${NB_UID}:$NB_GID is empty: $NB_UID and $NB_GID are not set",
		"COPY $SRC /a":                                "an argument is empty when its variables are expanded: $SRC is not set",
		"WORKDIR $DIR":                                "expanded: $DIR is not set",
		"FROM x AS a\nFROM y\nCOPY --from=$STAGE a /": "FROM $STAGE AS name begins a stage",
	} {
		f, err := Parse("Containerfile", []byte(text))
		if err == nil {
			_, _, err = f.Resolve(Scope{})
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: error %v, want %q in it", text, err, want)
		}
	}
}
