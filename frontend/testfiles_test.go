package frontend

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/moby/buildkit/frontend/dockerfile/parser"
)

// dockerfiles returns BuildKit's own test files below a directory of its parser, by name. They
// are read where Go has the module.
func dockerfiles(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "github.com/moby/buildkit").Output()
	if err != nil {
		t.Skipf("go list: %v", err)
	}
	dir = filepath.Join(strings.TrimSpace(string(out)), "frontend/dockerfile/parser", dir)
	paths, err := filepath.Glob(filepath.Join(dir, "*/Dockerfile"))
	if err != nil || len(paths) == 0 {
		t.Fatalf("%s has no Dockerfiles, error %v", dir, err)
	}
	all := make(map[string][]byte)
	for _, path := range paths {
		if all[filepath.Base(filepath.Dir(path))], err = os.ReadFile(path); err != nil {
			t.Fatal(err)
		}
	}
	return all
}

// refusedLines are the lines of test files of BuildKit's parser that the rest of BuildKit
// refuses, and so does this package.
var refusedLines = map[string][]int{
	"escapes": {6},                    // a quote that is not closed, which its lexer finds
	"flags":   {3, 4, 5, 6, 8, 9, 10}, // flags that there are not
	"health":  {4, 7, 10},             // no command, and another word than CMD
}

// TestParserFiles: what BuildKit's parser reads is read, with the same instructions at the
// same lines.
func TestParserFiles(t *testing.T) {
	for name, text := range dockerfiles(t, "testfiles") {
		res, err := parser.Parse(bytes.NewReader(text))
		if err != nil {
			t.Errorf("%s: BuildKit: %v", name, err)
			continue
		}
		var want, got []string
		for _, n := range res.AST.Children {
			want = append(want, fmt.Sprintf("%d-%d %s", n.StartLine, n.EndLine, strings.ToUpper(n.Value)))
		}
		f, err := Parse("Dockerfile", text)
		var problems Problems
		if err != nil && !errors.As(err, &problems) {
			t.Fatal(err)
		}
		var refused []int
		for _, p := range problems {
			refused = append(refused, p.Pos.Line)
			want = slices.DeleteFunc(want, func(line string) bool { return strings.HasPrefix(line, strconv.Itoa(p.Pos.Line)+"-") })
		}
		if diff := cmp.Diff(refusedLines[name], refused); diff != "" {
			t.Errorf("%s is refused at other lines (-want +got):\n%s\n%v", name, diff, err)
		}
		var all []Instruction // of all stages
		for _, s := range append(slices.Clone(f.stages), f) {
			all = append(all, s.Instructions...)
		}
		for _, in := range all {
			m := in.Base()
			got = append(got, fmt.Sprintf("%d-%d %s", m.Pos.Line, m.Pos.End, m.Word))
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-BuildKit +clayer):\n%s", name, diff)
		}
	}
}

// TestParserNegativeFiles: what BuildKit's parser refuses is refused.
func TestParserNegativeFiles(t *testing.T) {
	want := map[string]string{
		"empty_dockerfile":   "Dockerfile: holds no instructions",
		"only_comments":      "Dockerfile: holds no instructions",
		"env_no_value":       "Dockerfile:3: ENV: ",
		"shykes-nested-json": "Dockerfile:1: CMD: ",
	}
	for name, text := range dockerfiles(t, "testfiles-negative") {
		if _, err := Parse("Dockerfile", text); err == nil || want[name] == "" || !strings.HasPrefix(err.Error(), want[name]) {
			t.Errorf("%s: %v, want %q", name, err, want[name])
		}
	}
}

// TestRefusedInstructions: what the package of BuildKit refuses that makes instructions of
// the parser's lines is refused, at its line. TestOfImages has those of images.
func TestRefusedInstructions(t *testing.T) {
	for _, line := range []string{
		"ADD", "ADD x", "ADD --x y z", "ADD --link= x y", "ADD --link=no x y", "ADD --chown x y", "ADD --chown=1 --chown=2 x y",
		"ADD --from=a x y", "ADD --parents x y", "ADD --unpack=maybe x y", "ADD --exclude x y", `ADD ["a", 1]`, "ADD x <<EOF\na\nEOF",
		"ARG", "ARG =x", "ARG a =b", "COPY", "COPY x", `COPY ["a"]`, "COPY\t\n quux \\\n bar", "COPY --x y z", "COPY --link= x y", "COPY --checksum=x x y",
		"COPY --from x y", "COPY --keep-git-dir x y", "COPY <<EOF\na\nEOF", "COPY <<EOF /x\na", "CMD --x y", `CMD ["a", 1]`, "ENTRYPOINT --x y",
		"ENV", "ENV x", "ENV a=b c", "ENV =x", "ENV --x y=z", "FROM", "FROM x y", "FROM x y z", "FROM x AS", "FROM x AS 1a", "FROM x AS a/b", "FROM x AS a$b",
		`FROM x AS "y"`, "FROM --platform x", "FROM --x y", `FROM "a b"`, "FOO bar", "foo bar", "RUN --x y", "RUN --mount x", "RUN --mount=from=$x,target=/a y",
		"RUN --network x", "RUN --network=none --network=host x", "SHELL", "SHELL []", "SHELL sh -c", "SHELL --x [\"a\"]", "USER", "USER --x y",
		"WORKDIR", "WORKDIR --x y",
	} {
		_, err := Parse("Dockerfile", []byte("FROM x\n"+line+"\n"))
		if err == nil || !strings.HasPrefix(err.Error(), "Dockerfile:2: ") {
			t.Errorf("%q: %v", line, err)
		}
	}
}
