package frontend

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
	"pgregory.net/rapid"

	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/frontend/layername"
	"github.com/clayer/clayer/frontend/metadata"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/frontend/reference"
)

// resolve parses and resolves a text that has nothing wrong.
func resolve(t testing.TB, text string, s Scope) []Instruction {
	t.Helper()
	f, err := Parse("Containerfile", []byte(text))
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	list, _, err := f.Resolve(s)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	return list
}

// same compares instructions but for where and how they are written.
var same = cmp.Options{
	cmpopts.IgnoreFields(Meta{}, "Pos", "Text", "Word"),
	cmpopts.IgnoreUnexported(Fetch{}, Copy{}, Run{}, Origin{}),
	cmpopts.IgnoreFields(Run{}, "Flags"),
	cmpopts.EquateEmpty(),
}

func TestLayerName(t *testing.T) {
	for path, want := range map[string]string{
		"Containerfile": "base", "a/Containerfile": "base", "Containerfile.scientific": "scientific",
		"Containerfile.JuliaSR": "juliasr", "Containerfile.foo bar": "foo-bar", "foo/bar.txt": "bar",
		"Containerfile.@@@": "layer", "Containerfile.": "layer", "weird.name.txt": "weird-name", "Dockerfile": "dockerfile",
		"Containerfile.-x-": "x", "Containerfile.a_b-c": "a_b-c", "Containerfile.é": "layer",
	} {
		if got := layername.Of(path); got != want {
			t.Errorf("layername.Of(%q) = %q, want %q", path, got, want)
		}
	}
}

func TestInstructions(t *testing.T) {
	sum := "sha256:" + strings.Repeat("ab", 32)
	shell := []string{"/bin/sh", "-c"}
	run := func(r Run) *Run {
		if r.Dir == "" {
			r.Dir = "/"
		}
		if r.Shell == nil {
			r.Shell = shell
		}
		return &r
	}
	tests := []struct {
		name string
		text string // the last instruction is looked at
		want Instruction
	}{
		{"ENV", `ENV A=1 B="two words" C='$A'`, &Env{Vars: []Var{{"A", "1"}, {"B", "two words"}, {"C", "$A"}}}},
		{"ENV, old form", "ENV A one two", &Env{Vars: []Var{{"A", "one two"}}}},
		{"ENV, an empty value", "ENV A=", &Env{Vars: []Var{{"A", ""}}}},
		{"ENV of one line don't see each other", "ENV A=0\nENV A=1 B=$A", &Env{Vars: []Var{{"A", "1"}, {"B", "0"}}}},
		{"ENV before ARG", "ARG A=arg\nENV A=env\nENV B=$A", &Env{Vars: []Var{{"B", "env"}}}},
		{"ENV of the session stays a reference", "ENV PATH=/x:$PATH", &Env{Vars: []Var{{"PATH", "/x:\x00PATH\x00"}}}},
		{"ENV by way of another", "ENV A=$PATH:a\nENV B=b:$A", &Env{Vars: []Var{{"B", "b:\x00PATH\x00:a"}}}},
		{"ENV, default where the session has it", "ENV A=${PATH:-none}", &Env{Vars: []Var{{"A", "\x00PATH\x00"}}}},
		{"ENV, default where it has not", "ENV A=${NOSUCH:-none}$NOSUCH", &Env{Vars: []Var{{"A", "none"}}}},
		{"RUN", "RUN echo $A  b", run(Run{Command: "echo $A  b"})},
		{"RUN, a list", `RUN ["echo", "a b"]`, run(Run{Exec: []string{"echo", "a b"}})},
		{"RUN, what only looks like a list", `RUN [ -e /x ]`, run(Run{Command: "[ -e /x ]"})},
		{"RUN, continued", "RUN a && \\\n    b \\\n# comment\n\n\t&& c", run(Run{Command: "a && b && c"})},
		{"RUN, continued in quotes", "RUN echo 'a \\\n   b'", run(Run{Command: "echo 'a    b'"})},
		{"RUN, a heredoc", "RUN <<EOF\necho one\n  echo two\nEOF", run(Run{Command: "echo one\n  echo two\n"})},
		{"RUN, a heredoc with tabs", "RUN <<-EOF\n\techo one\n\tEOF", run(Run{Command: "echo one\n"})},
		{"RUN, a program", "RUN <<EOF\n#!/usr/bin/python3\nprint(1)\nEOF", run(Run{Script: "#!/usr/bin/python3\nprint(1)\n"})},
		{"RUN, a heredoc for a command", "RUN cat > /x <<'EOF' && echo\n$A\nEOF", run(Run{Command: "cat > /x <<'EOF' && echo\n$A\nEOF\n"})},
		{"RUN, two heredocs", "RUN cat <<A - <<B\na\nA\nb\nB", run(Run{Command: "cat <<A - <<B\na\nA\nb\nB\n"})},
		{"RUN, in scope", "ARG V=2\nARG A=3\nENV A=1\nARG A\nARG U\nWORKDIR w\nSHELL [\"/bin/bash\",\"-c\"]\nRUN true",
			run(Run{Command: "true", Env: []Var{{"A", "1"}}, Args: []Var{{"V", "2"}}, Dir: "/w", Shell: []string{"/bin/bash", "-c"}})},
		{"RUN, after USER", "ARG G=staff\nUSER me\nUSER \"app\":${G} # no comment\nRUN true", run(Run{Command: "true", Args: []Var{{"G", "staff"}}, User: "app:staff # no comment"})},
		{"USER", "ENV U=me\nUSER $U", &User{Name: "me"}},
		{"USER of nothing", "USER me\nUSER $NO\nRUN true", run(Run{Command: "true"})},
		{"USER in the stages that build on it", "FROM x AS a\nUSER me\nFROM a\nRUN true", run(Run{Command: "true", User: "me"})},
		{"USER of another stage", "FROM x AS a\nUSER me\nFROM x\nRUN true", run(Run{Command: "true"})},
		{"WORKDIR after USER", "USER 1:2\nWORKDIR w", &Workdir{Path: "/w", User: "1:2"}},
		{"RUN, an ARG after an ENV", "ENV A=1 E=2\nARG A=3\nENV X=$A\nRUN true", run(Run{Command: "true", Env: []Var{{"E", "2"}, {"X", "3"}}, Args: []Var{{"A", "3"}}})},
		{"RUN, a build argument", "ARG B=default\nRUN true", run(Run{Command: "true", Args: []Var{{"B", "given"}}})},
		{"RUN, a cache", "RUN --mount=type=cache,target=/c true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.Cache, Target: "/c", ID: "/c", Sharing: "shared", Mode: 0o755}}}})},
		{"RUN, a cache with all of it", "ARG D=/d,id=evil\nRUN --mount=type=cache,dst=$D,id=x,sharing=locked,mode=0700,uid=1,gid=2,ro true",
			run(Run{Command: "true", Args: []Var{{"D", "/d,id=evil"}}, Mounts: []Mount{{Mount: mount.Mount{Type: mount.Cache, Target: "/d,id=evil", ID: "x", Sharing: "locked", Mode: 0o700, UID: 1, GID: 2, ReadOnly: true, Owned: true}}}})},
		{"RUN, a secret", "RUN --mount=type=secret,id=a/token,required true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.Secret, Target: "/run/secrets/token", ID: "a/token", Required: true, Mode: 0o400}}}})},
		{"RUN, a secret as a variable", "RUN --mount=type=secret,id=t,env=TOKEN true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.Secret, ID: "t", EnvName: "TOKEN", Mode: 0o400}}}})},
		{"RUN, a bind", "RUN --mount=source=a/../b,target=t true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.Bind, Target: "/t", Source: "/b", ReadOnly: true}}}})},
		{"RUN, binds that can be written", "WORKDIR /w\nRUN --mount=target=.,rw --mount=type=bind,\\\"source=a,b\\\",dst=/b,readonly=false true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.Bind, Target: "/w", ReadOnly: false}}, {Mount: mount.Mount{Type: mount.Bind, Target: "/b", Source: "/a,b"}}}, Dir: "/w"})},
		{"RUN, a bind at the working directory", "WORKDIR /w\nRUN --mount=type=bind true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.Bind, Target: "/w", ReadOnly: true}}}, Dir: "/w"})},
		{"RUN, agents", "RUN --mount=type=ssh --mount=type=ssh,id=git,required,mode=0666 --mount=type=ssh,target=/a true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.SSH, Target: "/run/buildkit/ssh_agent.0", ID: "default", Mode: 0o600}}, {Mount: mount.Mount{Type: mount.SSH, Target: "/run/buildkit/ssh_agent.1", ID: "git", Required: true, Mode: 0o666, Owned: true}}, {Mount: mount.Mount{Type: mount.SSH, Target: "/a", ID: "default", Mode: 0o600}}}})},
		{"RUN, no network", "RUN --network=none true", run(Run{Command: "true", Network: "none"})},
		{"RUN, as without flags", "RUN --network=host --security=sandbox true", run(Run{Command: "true"})},
		{"RUN, a tmpfs", "RUN --mount=type=tmpfs,target=t,size=64m true", run(Run{Command: "true", Mounts: []Mount{{Mount: mount.Mount{Type: mount.Tmpfs, Target: "/t", Size: 64 << 20, Mode: 0o1777}}}})},
		{"FETCH", "FETCH https://example.com/x.tar.gz /opt/./x/", &Fetch{Source: "https://example.com/x.tar.gz", Dest: "/opt/x", Extract: ExtractAuto}},
		{"FETCH, all flags", "ARG S=" + sum + "\nFETCH --checksum=$S --strip=1 --extract=true --chmod=0755 --chown=a:b \"https://example.com/a b\" $HOME/x",
			&Fetch{Source: "https://example.com/a b", Dest: "/home/me/x", Checksum: "sha256:abababababababababababababababababababababababababababababababab", Strip: 1, Extract: ExtractTrue, Owner: Ownership{"a:b", "755"}}},
		{"FETCH from GitHub", "FETCH github:o-w/r.js@feature/x//sub/dir /x", &Fetch{Source: "github:o-w/r.js@feature/x//sub/dir", Dest: "/x", Extract: ExtractAuto}},
		{"FETCH of an image", "ARG T=1\nFETCH --checksum=" + sum + " --chown=1:2 oci:a/b:$T//x//y[1]/ /opt/./x", &Copy{Sources: []string{`x/y\[1]`}, Dest: "/opt/x/", Fetched: true, Owner: Ownership{Chown: "1:2"},
			Origin: Origin{From: "oci:a/b:1//x//y[1]/", Image: &imageref.Ref{Host: "docker.io", Repository: "a/b", Tag: "1", Digest: "sha256:abababababababababababababababababababababababababababababababab"}}}},
		{"FETCH of all of an image", "FETCH oci:a /", &Copy{Sources: []string{"."}, Dest: "/", Fetched: true, Origin: Origin{From: "oci:a", Image: &imageref.Ref{Host: "docker.io", Repository: "library/a", Tag: "latest"}}}},
		{"ADD of a URL", "WORKDIR /w\nADD https://example.com/x y", &Fetch{Source: "https://example.com/x", Dest: "/w/y", Extract: ExtractFalse, Add: true}},
		{"ADD of a URL in a variable", "ARG U=https://example.com\nADD ${U}/x /y/", &Fetch{Source: "https://example.com/x", Dest: "/y/", Extract: ExtractFalse, Add: true}},
		{"ADD of a repository", "ADD https://github.com/o/r.git#v1:sub /x", &Fetch{Source: "github:o/r@v1//sub", Dest: "/x", Extract: ExtractAuto, Add: true, Submodules: true}},
		{"ADD of what FETCH alone knows", "ADD github:o/r /x/", &Fetch{Source: "github:o/r", Dest: "/x", Extract: ExtractAuto}},
		{"ADD of a file", "ADD a /x", &Copy{Sources: []string{"a"}, Dest: "/x", Unpack: true}},
		{"ADD of a file as it is", "ADD --unpack=false a /x", &Copy{Sources: []string{"a"}, Dest: "/x"}},
		{"COPY, what is left out", "ARG A=1\nCOPY --exclude=*.md --exclude='!$A b' a /x", &Copy{Sources: []string{"a"}, Dest: "/x", Exclude: []string{"*.md", "!$A b"}}},
		{"COPY, parents", "COPY --parents ./a/./b/../c /d/./e f/./ /x", &Copy{Sources: []string{"a/./c", "d/./e", "f/./"}, Dest: "/x", Parents: true}},
		{"COPY of nothing that is set", "ARG A=\nCOPY --chown=$A $A /x", &Copy{Sources: []string{"."}, Dest: "/x"}},
		{"COPY to nothing that is set", "WORKDIR /w\nCOPY a ${A:-}", &Copy{Sources: []string{"a"}, Dest: "/w"}},
		{"COPY", "WORKDIR /w\nCOPY --chown=1:2 --chmod=755 --link ./a /b c/", &Copy{Sources: []string{"a", "b"}, Dest: "/w/c/", Link: true, Owner: Ownership{"1:2", "755"}}},
		{"COPY, symbolic modes", "COPY --chmod=u=rwX,go=rX a /x", &Copy{Sources: []string{"a"}, Dest: "/x", Owner: Ownership{"", "u=rwX,go=rX"}}},
		{"COPY, a list", `COPY ["a b", "c d/"]`, &Copy{Sources: []string{"a b"}, Dest: "/c d/"}},
		{"COPY to the working directory", "WORKDIR /w\nCOPY a .", &Copy{Sources: []string{"a"}, Dest: "/w/"}},
		{"COPY, heredocs", "ENV A=1\nCOPY <<a <<'b' c /x/\nit's $A \\$A\na\n$A\nb", &Copy{Sources: []string{"c"}, Dest: "/x/", Inline: []Inline{{Name: "a", Content: "it's 1 $A\n"}, {Name: "b", Content: "$A\n"}}}},
		{"WORKDIR", "WORKDIR a\nWORKDIR b/../c d", &Workdir{Path: "/a/c d"}},
		{"WORKDIR of the session", "WORKDIR $HOME", &Workdir{Path: "/home/me"}},
		{"SNAPSHOT in a system directory", "SNAPSHOT /usr/lib/x", &Snapshot{Path: "/usr/lib/x", Capture: CaptureChanged}},
		{"SNAPSHOT elsewhere", "WORKDIR /srv\nSNAPSHOT x", &Snapshot{Path: "/srv/x", Capture: CaptureAll}},
		{"SNAPSHOT of the root", "SNAPSHOT /", &Snapshot{Path: "/", Capture: CaptureChanged}},
		{"SNAPSHOT, forced", "SNAPSHOT --all /usr/lib64", &Snapshot{Path: "/usr/lib64", Capture: CaptureAll}},
		{"FROM", "FROM --platform=linux/amd64 base AS x", &From{Image: "base", Platform: "linux/amd64", Alias: "x"}},
		{"ONBUILD", "ONBUILD RUN true", &Ignored{Args: []string{"RUN true"}}},
		{"CMD", `CMD ["a  b", "c"]`, &Ignored{Args: []string{"a  b", "c"}, JSON: true}},
		{"ENTRYPOINT for a shell", `ENTRYPOINT a  b`, &Ignored{Args: []string{"a  b"}}},
		{"LABEL", `LABEL a="b c" d=e`, &Ignored{Args: []string{"a", "b c", "=", "d", "e", "="}}},
		{"LABEL of a variable", "ENV V=1\nARG B\nLABEL v=$V-$B$NONE", &Ignored{Args: []string{"v", "1-given", "="}}},
		{"LABEL of the session", "LABEL path=$PATH", &Ignored{Args: []string{"path", reference.To("PATH"), "="}}},
		{"EXPOSE", "ARG P=\"80 81\"\nEXPOSE $P 53/udp $HOME", &Ignored{Args: []string{"80", "81", "53/udp"}}},
		{"VOLUME", "VOLUME /a /b$HOME", &Ignored{Args: []string{"/a", "/b"}}},
		{"HEALTHCHECK", "HEALTHCHECK --interval=1m30s --retries=2 CMD curl  x || exit 1", &Ignored{Args: []string{"CMD", "curl  x || exit 1"}, Health: &metadata.Health{Test: []string{"CMD-SHELL", "curl  x || exit 1"}, Interval: 90 * time.Second, Retries: 2}}},
		{"HEALTHCHECK of a list", `HEALTHCHECK --timeout=0s cmd ["a", "b"]`, &Ignored{Args: []string{"cmd", "a", "b"}, JSON: true, Health: &metadata.Health{Test: []string{"CMD", "a", "b"}}}},
		{"HEALTHCHECK, none", "HEALTHCHECK none", &Ignored{Args: []string{"none"}, Health: &metadata.Health{Test: []string{"NONE"}}}},
		{"ONBUILD of a heredoc", "ONBUILD  COPY <<a /x\nb\na", &Ignored{Args: []string{"COPY <<a /x\nb\na"}}},
		{"any case", "rUn true", run(Run{Command: "true"})},
		{"another escape character", "# escape=`\nRUN a `\n  b\\c", run(Run{Command: "a b\\c"})},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			list := resolve(t, tt.text, Scope{
				Session:   map[string]string{"PATH": "/bin", "HOME": "/home/me"},
				BuildArgs: map[string]string{"B": "given"},
			})
			if diff := cmp.Diff(tt.want, list[len(list)-1], same); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// TestOfImages: what says something of an image is refused where BuildKit refuses it.
func TestOfImages(t *testing.T) {
	for line, want := range map[string]string{
		"CMD":                                "",
		"CMD []":                             "",
		"ENTRYPOINT []":                      "",
		"CMD --x y":                          "takes no flag --x",
		"EXPOSE":                             "takes one argument or more",
		"EXPOSE 80 # web":                    `put "# web" on the line above`,
		"EXPOSE 80-70":                       `"80-70" is no port`,
		"EXPOSE 65536":                       `"65536" is no port`,
		"EXPOSE 80/icmp":                     "the protocol is",
		"EXPOSE 1.2.3:80:80":                 "1.2.3 is no address",
		"EXPOSE [::1]:8080-8081:80-81/udp":   "",
		"EXPOSE 8080-8082:80-81":             "is no port of a host",
		`EXPOSE ["80"]`:                      "is no port",
		"HEALTHCHECK":                        "takes CMD and a command, or NONE",
		"HEALTHCHECK curl x":                 "CURL is neither CMD nor NONE",
		"HEALTHCHECK NONE x":                 "NONE takes no arguments",
		"HEALTHCHECK CMD":                    "CMD has no command",
		"HEALTHCHECK --interval=5 CMD x":     "--interval=5: want a time",
		"HEALTHCHECK --timeout=1us CMD x":    "--timeout=1us: want a time",
		"HEALTHCHECK --retries=-1 CMD x":     "--retries=-1: want a number",
		"HEALTHCHECK --retry=1 CMD x":        "takes no flag --retry, but --interval",
		"HEALTHCHECK --interval CMD x":       "--interval requires a value",
		"LABEL":                              "takes NAME=value",
		"LABEL x":                            "must have two arguments",
		"LABEL a=b c":                        "can't find =",
		"LABEL =x":                           "a label has no name",
		"MAINTAINER":                         "takes one argument",
		"ONBUILD":                            "takes one argument or more",
		"ONBUILD ONBUILD RUN true":           "ONBUILD can't be a trigger",
		"ONBUILD from x":                     "FROM can't be a trigger",
		"ONBUILD ENV x":                      "must have two arguments",
		"STOPSIGNAL":                         "takes one argument",
		"STOPSIGNAL SIGFOO":                  `"SIGFOO" is no signal`,
		"STOPSIGNAL rtmin+3":                 "",
		"STOPSIGNAL 0":                       `"0" is no signal`,
		"VOLUME":                             "takes one argument or more",
		`VOLUME ["/a", " "]`:                 "a path is empty",
		"VOLUME $NONE":                       "a path is empty",
		"ARG A=${B:?is missing}\nVOLUME /$A": "is missing",
	} {
		f, err := Parse("Containerfile", []byte(line+"\nRUN true\n"))
		if err == nil {
			_, _, err = f.Resolve(Scope{})
		}
		switch {
		case err == nil && want != "":
			t.Errorf("%s: no error, want %s", line, want)
		case err != nil && (want == "" || !strings.Contains(err.Error(), want) || !strings.HasPrefix(err.Error(), "Containerfile:")):
			t.Errorf("%s: %v, want %q", line, err, want)
		}
	}
}

// TestTriggers: a stage begins with the triggers of the one that it builds on.
func TestTriggers(t *testing.T) {
	const text = "FROM x AS a\nONBUILD COPY --from=src /f /g\nONBUILD ENV A=$B\nONBUILD RUN <<E\ntrue\nE\nFROM x AS src\nFROM a\nRUN echo $A\nFROM a AS b\nFROM b\nRUN last"
	f, err := Parse("Containerfile", []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, in := range f.Instructions {
		got = append(got, fmt.Sprintf("%d %s", in.Base().Pos.Line, in.Base().Word))
	}
	want := "1 FROM, 2 ONBUILD, 3 ONBUILD, 4 ONBUILD, 10 FROM, 10 COPY, 10 ENV, 10 RUN, 11 FROM, 12 RUN"
	if diff := cmp.Diff(want, strings.Join(got, ", ")); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if _, err := Parse("Containerfile", []byte("FROM x AS a\nONBUILD COPY --nosuch f /g\nFROM a\n")); err == nil || !strings.Contains(err.Error(), "Containerfile:3: FROM: ONBUILD COPY --nosuch f /g of line 2: unknown flag --nosuch") {
		t.Error(err)
	}
}

func TestProblems(t *testing.T) {
	tests := []struct{ name, text, want string }{
		{"GitHub, no repository", "FETCH github:owner /x", "is not of the form"},
		{"GitHub, an escape", "FETCH github:o/r//../../etc /x", "is not of the form"},
		{"GitHub, an option", "FETCH github:o/r@-x /x", "is not of the form"},
		{"no image", "FETCH oci://a /x", "malformed name of an image"},
		{"image, a path that leads up", "FETCH oci:a//../b /x", "leads up"},
		{"image, stripped", "FETCH --strip=0 oci:a /x", "--strip is not for images"},
		{"image, extracted", "FETCH --extract=auto oci:a /x", "--extract is not for images"},
		{"image, two digests", "FETCH --checksum=sha256:" + strings.Repeat("a", 64) + " oci:a@sha256:" + strings.Repeat("b", 64) + " /x", "in the source"},
		{"image, a relative dest", "FETCH oci:a x", "is not absolute"},
		{"another Git host", "FETCH https://example.com/o/r.git /x", "a Git repository is fetched as"},
		{"Git's own daemon", "ADD git://example.com/o/r.git /x", "anyone on the way can change"},
		{"submodules of a URL", "FETCH --submodules=true https://example.com/x /x", "are for Git repositories"},
		{"LFS", "FETCH --lfs=yes github:o/r /x", "--lfs=yes: want true or false"},
		{"LFS, no value", "FETCH --lfs= github:o/r /x", "--lfs requires a value"},
		{"strip", "FETCH --strip=-1 https://example.com/x /x", "--strip=-1: want"},
		{"extract", "FETCH --extract=maybe https://example.com/x /x", "--extract=maybe: want"},
		{"chmod", "FETCH --chmod=x+u https://example.com/x /x", "--chmod=x+u: want octal digits, or changes"},
		{"chmod, a digit too many", "COPY --chmod=17777 x /x", "--chmod=17777: want octal digits, 0 to 7777"},
		{"chown", "COPY --chown=a:b:c a /x", "--chown=a:b:c: want"},
		{"a flag twice", "FETCH --strip=1 --strip=2 https://example.com/x /x", "--strip is given twice"},
		{"a flag without a value", "FETCH --strip https://example.com/x /x", "--strip requires a value"},
		{"a quote that is not closed", "FETCH 'https://example.com/x /x", "is not closed"},
		{"a part of a session's variable", "ENV A=${PATH%%:*}", "a part of $PATH can't be taken"},
		{"a part by way of another", "ENV B=$PATH\nENV A=${B#/}", "a part of $B can't be taken"},
		{"a part by way of the session", "ENV A=/bin/x\nENV B=${A#$PATH}", "a part of $PATH can't be taken"},
		{"a password in a hint", "ADD ssh://u:hunter2@h/x /y", "would be recorded"},
		{"a password as scp has it", "ADD git@u:hunter2@h:x /y", "no repository as Docker has it"},
		{"a token in a URL", "FETCH https://h/x.git?token=hunter2 /y", "a Git repository is fetched as"},
		{"a value that doubles", "ENV A=xxxx\n" + strings.Repeat("ENV A=$A$A$A$A\n", 30), "a value of"},
		{"a NUL in a list", `COPY ["a\u0000b", "/x"]`, "a NUL"},
		{"SNAPSHOT of nothing", "SNAPSHOT $NO", "is empty"},
		{"COPY of nothing", "COPY $NO /x", "is empty"},
		{"WORKDIR of nothing", "WORKDIR $NO", "is empty"},
		{"USER without a name", "USER ", "USER: name is missing"},
		{"USER with a flag", "USER --uid=1 me", "takes no flag --uid"},
		{"FETCH to nothing", "FETCH https://h/x $NO", "is empty"},
		{"a flag that takes no value", "SNAPSHOT --all=true /x", "--all takes no value"},
		{"--mount without a value", "RUN --mount true", "--mount requires a value"},
		{"no target", "RUN --mount=type=cache true", "target is missing"},
		{"target /", "RUN --mount=type=tmpfs,target=/ true", "would hide the root"},
		{"secret without id", "RUN --mount=type=secret true", "id is missing"},
		{"mount from no stage", "FROM x AS build\nFROM x\nRUN --mount=from=BiulD,target=/x true", "from=BiulD names no stage before this line, and no image: malformed"},
		{"copy from a stage after it", "FROM x AS a\nCOPY --from=b /x /y\nFROM x AS b\nRUN true", "--from=b names a stage that is not whole at this line"},
		{"copy from scratch", "FROM x\nCOPY --from=scratch /x /y", "there are no files in it"},
		{"mount from its own stage", "FROM x AS build\nRUN --mount=from=build,target=/x true", "names a stage that is not whole at this line"},
		{"mount from the number of a stage", "FROM x\nFROM x\nRUN --mount=from=0,target=/x true", "from=0 names no stage"},
		{"mount from a variable", "ARG A=x\nRUN --mount=from=$A,target=/x true", "variables are not expanded in it"},
		{"mount of what leaves the context", "RUN --mount=source=a/../../b,target=/x true", "leaves what is mounted"},
		{"a bind without target", "RUN --mount=type=bind,source=x true", "target is missing"},
		{"source of a cache without from", "RUN --mount=type=cache,target=/c,source=/x true", "takes from="},
		{"source of an agent", "RUN --mount=type=ssh,source=/x true", "no option"},
		{"mode of a bind", "RUN --mount=target=/c,mode=0700 true", "no option"},
		{"a secret of two ids", "RUN --mount=type=secret,id=a,src=b true", "give one of them"},
		{"a network that is none", "RUN --network=bridge true", "no such network"},
		{"a network twice", "RUN --network=none --network=host true", "given twice"},
		{"insecure", "RUN --security=insecure true", "is not supported"},
		{"a mode of security", "RUN --security=none true", "no such mode"},
		{"a device", "RUN --device=vendor.com/x true", "--device is not supported"},
		{"an empty program", `RUN [""]`, "no command"},
		{"an empty heredoc", "RUN <<EOF\nEOF", "the heredoc is empty"},
		{"COPY without dest", "COPY <<EOF\nx\nEOF", "dest is missing"},
		{"two sources", "ADD a https://example.com/x /x", "dest is a directory, and ends in a slash"},
		{"a checksum for two sources", "ADD --checksum=sha256:" + strings.Repeat("ab", 32) + " a https://example.com/x /x/", "--checksum is for one source alone"},
		{"a checksum for a file", "ADD --checksum=sha256:" + strings.Repeat("ab", 32) + " a /x", "--checksum is for URLs and repositories"},
		{"a checksum for a repository", "ADD --checksum=sha256:" + strings.Repeat("ab", 32) + " https://h/r.git /x", "of a repository it is a commit"},
		{"two checksums", "ADD --checksum=aa https://h/r.git?checksum=bb /x", "--checksum=aa, and checksum=bb"},
		{"keep and keep not", "ADD --keep-git-dir https://h/r.git?keep-git-dir=0 /x", "--keep-git-dir=true, and keep-git-dir=false"},
		{"a flag of FETCH", "ADD --strip=1 https://h/x /x", "--strip is of FETCH"},
		{"a flag of COPY", "ADD --parents a /x", "--parents is not of ADD"},
		{"no truth", "COPY --link=yes a /x", "--link=yes: want true or false"},
		{"a bad pattern", "COPY --exclude=a[ a /x", `malformed pattern "a["`},
		{"a name that is none", "ARG 1=2", "no variable's name"},
		{"a terminal's escape", "FOO\x1b[31m x", "\ufffd"},
		{"a long line", "RUN " + strings.Repeat("x", 70_000), "a line of 70004 bytes"},
		{"FROM of nothing", "FROM", "requires one name"},
		{"FROM with a comment after it", "FROM base   # the layer below", "a comment starts a line of its own\n  1 | FROM base   # the layer below\nhint: put \"# the layer below\" on the line above"},
		{"FROM AS with a comment after it", "FROM base AS x #y", "a comment starts a line of its own"},
		{"ENV with a comment after it", "ENV A=1 # why", "a comment starts a line of its own"},
		{"too many arguments, none a comment", "FETCH https://example.com/x#y /opt '#' z", "4 arguments, want 2\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := Parse("Containerfile", []byte(tt.text))
			if err == nil {
				_, _, err = f.Resolve(Scope{Session: map[string]string{"PATH": "/bin"}})
			}
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error = %v, want %q in it", err, tt.want)
			}
			if err != nil && strings.Contains(err.Error(), "hunter2") && !strings.Contains(tt.text, "?token=") {
				t.Errorf("the error shows a password: %v", err)
			}
			if err != nil && strings.ContainsAny(err.Error(), "\x1b\x00") {
				t.Errorf("the error holds control characters: %q", err)
			}
		})
	}
}

// However much of a file can't be parsed, nothing of it is lost without a word.
func TestNothingIsLostInSilence(t *testing.T) {
	for _, text := range []string{
		"RUN a\n" + strings.Repeat("LABEL a\n", 50) + "FOO true\n",
		strings.Repeat("LABEL a\n", 5000) + "RUN a\nFOO true\n",
		strings.Repeat("ENV A\n", 5000) + "FOO true\n",
	} {
		if f, err := Parse("f", []byte(text)); err == nil {
			t.Errorf("%.20q...: no error, %d instructions", text, len(f.Instructions))
		}
	}
	f, err := Parse("f", []byte("ENV A='${PATH%x}' B=\\${PATH%x}\n"))
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := f.Resolve(Scope{Session: map[string]string{"NO": "x"}}); err != nil {
		t.Errorf("an escaped expansion: %v", err)
	}
}

// All problems are reported, before and after what can't be parsed at all.
func TestAllProblemsAtOnce(t *testing.T) {
	const text = "# escape=`\nRUNN a\nENV A\n# escape=\\\nFETCH x\nRUN a `\n  b\nRUN <<EOF\nnever ends\n"
	_, err := Parse("f", []byte(text))
	ps, ok := err.(Problems)
	if !ok {
		t.Fatalf("error = %v", err)
	}
	var got []int
	for _, p := range ps {
		got = append(got, p.Pos.Line)
	}
	if diff := cmp.Diff([]int{2, 3, 5, 8}, got); diff != "" {
		t.Errorf("lines (-want +got):\n%s\n%v", diff, err)
	}
}

func TestPositionsAndCacheBust(t *testing.T) {
	const text = `# cache-bust: one

RUN a \
  # Cache-Bust :two
  b
# other
COPY <<EOF /x
# cache-bust: in a heredoc
EOF
#cache-bust:
RUN c
# cache-bust: at the end
`
	f, err := Parse("f", []byte(strings.ReplaceAll(text, "\n", "\r\n")))
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Line, End int
		Bust      []string
	}
	var got []row
	for _, in := range f.Instructions {
		m := in.Base()
		got = append(got, row{m.Pos.Line, m.Pos.End, m.CacheBust})
	}
	want := []row{{3, 5, []string{"one", "two"}}, {7, 9, nil}, {11, 11, []string{""}}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if got := f.Instructions[1].Base().Text; got != "COPY <<EOF /x" {
		t.Errorf("Text = %q", got)
	}
}

// Layout changes nothing: the case of words, comments, blank lines, trailing
// blanks, the kind of line ends.
func TestLayoutChangesNothing(t *testing.T) {
	layers, err := filepath.Glob("../testdata/layers/Containerfile*")
	if err != nil || len(layers) == 0 {
		t.Fatal("no layers", err)
	}
	for _, path := range layers {
		src, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		scope := Scope{BuildArgs: map[string]string{"MIRROR": "https://example.com"}}
		want := resolve(t, string(src), scope)
		rapid.Check(t, func(rt *rapid.T) {
			rng := rand.New(rand.NewPCG(rapid.Uint64().Draw(rt, "seed"), 0))
			got := resolve(t, relayout(rng, string(src)), scope)
			if diff := cmp.Diff(want, got, same); diff != "" {
				rt.Fatalf("%s (-want +got):\n%s", path, diff)
			}
		})
	}
}

func relayout(rng *rand.Rand, src string) string {
	f, err := Parse("f", []byte(src))
	if err != nil {
		panic(err)
	}
	starts := make(map[int]bool)
	for _, in := range f.Instructions {
		starts[in.Base().Pos.Line] = true
	}
	var b strings.Builder
	for i, line := range f.Lines {
		if starts[i+1] {
			for range rng.IntN(3) {
				b.WriteString([]string{"\n", "# a comment\n", "   \n"}[rng.IntN(3)])
			}
			word, rest, _ := strings.Cut(line, " ")
			if rng.IntN(2) == 0 {
				word = strings.ToLower(word)
			}
			line = strings.Repeat(" ", rng.IntN(3)) + word + strings.Repeat(" ", 1+rng.IntN(3)) + rest
			if !strings.Contains(line, "<<") {
				line += strings.Repeat(" ", rng.IntN(3))
			}
		}
		b.WriteString(line + "\n")
	}
	if rng.IntN(2) == 0 {
		return strings.ReplaceAll(b.String(), "\n", "\r\n")
	}
	return b.String()
}

// join does as BuildKit's parser does.
func TestJoinIsBuildKits(t *testing.T) {
	line := rapid.StringOfN(rapid.RuneFrom([]rune("ab# \t\\'\"é")), 0, 8, -1)
	rapid.Check(t, func(t *rapid.T) {
		lines := append([]string{"RUN x" + line.Draw(t, "first")}, rapid.SliceOfN(line, 0, 4).Draw(t, "more")...)
		res, err := parser.Parse(strings.NewReader(strings.Join(lines, "\n") + "\n"))
		if err != nil {
			return
		}
		if got, want := lexical.Join(lines, 1, '\\').Text, res.AST.Children[0].Original; got != want {
			t.Fatalf("join(%q) = %q, BuildKit has %q", lines, got, want)
		}
	})
}

// A folded command means to sh what it meant before.
func TestFoldMeansTheSame(t *testing.T) {
	if _, err := exec.LookPath("sh"); err != nil {
		t.Skip("no sh")
	}
	piece := rapid.SampledFrom([]string{"a", " b", "'q  q'", `"d  d"`, `\ `, "  ", "$(echo  x  y)", "${HOME:-a  b}", "`echo  z`", "\\\n", "  \\\n   ", "# c"})
	rapid.Check(t, func(t *rapid.T) {
		var text strings.Builder
		text.WriteString("RUN printf '<%s>'")
		for _, p := range rapid.SliceOfN(piece, 1, 8).Draw(t, "pieces") {
			text.WriteString(p)
		}
		lines := strings.Split(text.String(), "\n")
		j := lexical.Join(lines, 1, '\\')
		plain := j.Text[len("RUN "):]
		folded := lexical.Fold(plain, j.Seams(len("RUN ")))
		want, err1 := exec.Command("sh", "-c", plain).CombinedOutput()
		got, err2 := exec.Command("sh", "-c", folded).CombinedOutput()
		if string(got) != string(want) || (err1 == nil) != (err2 == nil) {
			t.Fatalf("%q prints %q, folded to %q it prints %q", plain, want, folded, got)
		}
	})
}

func TestLoad(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{"good": "RUN true\n", "empty": "", "rubbish": "\x7fELF\x00", "latin1": "RUN echo \xe9\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	for name, want := range map[string]string{"good": "", "empty": "holds no instructions", "rubbish": "not a text", "latin1": "not a text", "nosuch": "no such file", ".": "is a directory"} {
		_, err := Load(t.Context(), filepath.Join(dir, name), Args{})
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("Load(%s) = %v, want %q", name, err, want)
		}
		if _, ok := err.(Problems); err != nil && !ok {
			t.Errorf("Load(%s): the error is a %T, want Problems", name, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	layers, _ := filepath.Glob("../testdata/layers/Containerfile*")
	for _, path := range layers {
		src, err := os.ReadFile(path)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(src)
	}
	for _, s := range []string{"\\", "# escape=`\nRUN `\n", "RUN <<A <<B\n", "COPY <<-A /x\n\tA\n", "FETCH '", "ENV A=${B", "RUN --mount=", "\ufeffRUN x", "ARG A=${A:-$A}\n", "RUN [\"\\u0000\"]"} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, src []byte) {
		file, err := Parse("f", src)
		if ps, ok := err.(Problems); err != nil && (!ok || len(ps) == 0) {
			t.Fatalf("error of type %T: %v", err, err)
		}
		for _, in := range file.Instructions {
			if p := in.Base().Pos; p.Line < 1 || p.End < p.Line || p.End > len(file.Lines)+1 {
				t.Fatalf("position %d-%d of %d lines", p.Line, p.End, len(file.Lines))
			}
		}
		if _, _, err := file.Resolve(Scope{Session: map[string]string{"HOME": "/root", "A": "x"}}); err != nil {
			_ = err.Error()
		}
	})
}

func benchmarkParse(b *testing.B, n int) {
	var text strings.Builder
	for i := range n / 3 {
		fmt.Fprintf(&text, "ENV VAR_%d=value\nARG ARG_%d=$VAR_%d\nRUN uv pip install package-%d && \\\n    echo $VAR_%d\n", i, i, i, i, i)
	}
	src := []byte(text.String())
	b.ReportAllocs()
	for b.Loop() {
		f, err := Parse("f", src)
		if err != nil {
			b.Fatal(err)
		}
		if _, _, err := f.Resolve(Scope{}); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkParse1000(b *testing.B)  { benchmarkParse(b, 1000) }
func BenchmarkParse10000(b *testing.B) { benchmarkParse(b, 10000) }

// Docker has neither, so that a comment is none of its arguments.
func TestACommentFollowsFetchAndSnapshot(t *testing.T) {
	f, err := Parse("Containerfile", []byte("FETCH --strip=1 https://example.com/x#y /opt   # why\nSNAPSHOT /opt #why not\nFETCH [\"https://example.com/x\", \"/opt\"]\n"))
	if err != nil {
		t.Fatal(err)
	}
	fetch, snapshot := f.Instructions[0].(*Fetch), f.Instructions[1].(*Snapshot)
	if fetch.Source != "https://example.com/x#y" || fetch.Dest != "/opt" || snapshot.Path != "/opt" {
		t.Errorf("%q %q %q", fetch.Source, fetch.Dest, snapshot.Path)
	}
	if _, err := Parse("Containerfile", []byte("FETCH [\"https://example.com/x\", \"/opt\", \"#\"]\n")); err == nil {
		t.Error("an argument of a list is taken for a comment")
	}
}
