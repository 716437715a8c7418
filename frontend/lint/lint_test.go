package lint

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/internal/golden"
)

func load(t *testing.T, path string) *frontend.File {
	t.Helper()
	f, err := frontend.Load(t.Context(), path, frontend.Args{})
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// TestGolden pins every rule, its text, and what --fix makes of it.
func TestGolden(t *testing.T) {
	f := load(t, filepath.Join("testdata", "Containerfile.bad"))
	f.Path = "Containerfile.bad"
	for i := range f.Instructions {
		f.Instructions[i].Base().Pos.File = f.Path
	}
	findings := Check([]*frontend.File{f}, nil)
	for name, write := range map[string]func(*bytes.Buffer) error{
		"bad.json":  func(b *bytes.Buffer) error { return WriteJSON(b, findings) },
		"bad.sarif": func(b *bytes.Buffer) error { return WriteSARIF(b, findings, "v1") },
	} {
		var b bytes.Buffer
		if err := write(&b); err != nil {
			t.Fatal(err)
		}
		golden.Check(t, "testdata/"+name, b.String())
	}
	src, err := os.ReadFile(filepath.Join("testdata", "Containerfile.bad"))
	if err != nil {
		t.Fatal(err)
	}
	fixed, made := Apply(src, findings)
	if made == 0 {
		t.Error("nothing was fixed")
	}
	golden.Check(t, "testdata/Containerfile.fixed", string(fixed))

	said := make(map[string]bool)
	for _, f := range findings {
		said[f.Rule] = true
	}
	for _, r := range Rules {
		if r.find != nil && !said[r.Name] {
			t.Errorf("no line of Containerfile.bad is about %s", r.Name)
		}
	}
}

// TestNoFalseAlarm: good Containerfiles get no warnings.
func TestNoFalseAlarm(t *testing.T) {
	paths, err := filepath.Glob(filepath.Join("..", "..", "testdata", "layers", "Containerfile*"))
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	var files []*frontend.File
	for _, p := range append(paths, filepath.Join("testdata", "Containerfile.good")) {
		files = append(files, load(t, p))
	}
	for _, f := range Check(files, nil) {
		if f.Level != Note || strings.HasSuffix(f.Pos.File, ".good") {
			t.Errorf("%s: %s: %s", f.Pos, f.Rule, f.Message)
		}
	}
}

// TestDocumented: docs/check.md has every rule, in the words of the table.
func TestDocumented(t *testing.T) {
	doc, err := os.ReadFile(filepath.Join("..", "..", "docs", "check.md"))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range Rules {
		if line := "| `" + r.Name + "` | " + string(r.Level) + " | " + r.Doc + " |"; !strings.Contains(string(doc), line) {
			t.Errorf("docs/check.md lacks %s", line)
		}
	}
}

// TestHostileScripts: what would take a shell's parser down, or forever, is not
// read; the rest of the file is.
func TestHostileScripts(t *testing.T) {
	for _, part := range []string{"((", "$((", "$(", "`", "{ ", "if ", `"$(`, "${a:-", "(", "a && \\\n"} {
		src := "RUN " + strings.Repeat(part, 60_000/len(part)) + "\nRUN cd /x\n"
		if got := rulesOf(t, src); got != "ShellStateLost" && !strings.HasSuffix(part, "\n") {
			t.Errorf("%s: %q", part, got)
		}
		huge := "RUN " + strings.Repeat(strings.Repeat(part, 30_000/len(part))+" \\\n", 3) + "x\nRUN cd /x\n"
		rulesOf(t, huge)
	}
}

func rulesOf(t *testing.T, src string) string {
	t.Helper()
	f, err := frontend.Parse("Containerfile", []byte(src))
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, f := range Check([]*frontend.File{f}, nil) {
		names = append(names, f.Rule)
	}
	return strings.Join(names, " ")
}

func TestSkip(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"nothing is skipped", "RUN cd /x\n", "ShellStateLost"},
		{"for the file", "# check=skip=ShellStateLost\nRUN true\nRUN cd /x\n", ""},
		{"after another directive", "# syntax=docker/dockerfile:1\n# check=skip=ShellStateLost;error=true\nRUN cd /x\n", ""},
		{"all", "# check=skip=all\nRUN cd /x\nRUN pip install numpy\n", ""},
		{"several", "# check=skip=PipUnpinned,ShellStateLost\nRUN cd /x\nRUN pip install numpy\n", ""},
		{"case does not matter", "# check=skip=shellstatelost\nRUN cd /x\n", ""},
		{"for one instruction", "RUN true\n# check=skip=ShellStateLost\nRUN cd /x\nRUN cd /y\n", "ShellStateLost"},
		{"one that is unknown", "# check=skip=Nonsense\nRUN true\n", "SkipUnknown"},
		{"one of BuildKit's", "# check=skip=JSONArgsRecommended\nRUN true\n", ""},
		{"BuildKit's in another spelling", "# check=skip=jsonargsrecommended\nFROM x\nCMD a\n", "SkipUnknown JSONArgsRecommended NoEffect"},
		{"for all lines or none", "FROM x\nRUN true\n# check=skip=ConsistentInstructionCasing\nrun true\n", "ConsistentInstructionCasing"},
		{"the name of a rule that BuildKit has too", "# check=skip=SecretInFile\nENV API_TOKEN=abcdefgh\nENV A_TOKEN=abcdefgh\n", ""},
		{"an option that there is not", "# check=ignore=all\nRUN true\n", "SkipUnknown"},
		{"not in a heredoc", "RUN <<EOF\n# check=skip=ShellStateLost\ntrue\nEOF\nRUN cd /x\n", "ShellStateLost"},
	} {
		if got := rulesOf(t, tt.src); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
}

// TestStrict: a file can ask for no findings of BuildKit's rules.
func TestStrict(t *testing.T) {
	for src, want := range map[string]Level{
		"FROM x\nWORKDIR y\n":                                            Warning,
		"# check=error=true\nFROM x\nWORKDIR y\n":                        Error,
		"# check=skip=NoEffect;error=true\nFROM x\n# c\nWORKDIR y\n":     Error,
		"FROM x\n# check=error=true\nWORKDIR y\n":                        Warning,
		"# check=error=true\nFROM x\n# check=skip=UndefinedVar\nCMD y\n": Error,
	} {
		f, err := frontend.Parse("Containerfile", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		found := slices.DeleteFunc(Check([]*frontend.File{f}, nil), func(f Finding) bool { return f.URL == "" })
		if len(found) != 1 || found[0].Level != want {
			t.Errorf("%q: %v, want one %s", src, found, want)
		}
	}
}

// TestFix: a fix is made where it means what was meant, and nowhere else.
func TestFix(t *testing.T) {
	for _, tt := range []struct{ name, src, want string }{
		{"both of apt's", "RUN apt-get install git\n", "RUN apt-get update && apt-get install -y git && rm -rf /var/lib/apt/lists/*\n"},
		{"over lines", "RUN set -e && \\\n    # why\n    apt-get install git && \\\n    true\n", "RUN set -e && \\\n    # why\n    apt-get update && apt-get install -y git && \\\n    true && rm -rf /var/lib/apt/lists/*\n"},
		{"after ||, where && would bind otherwise", "RUN test -x /git || apt-get install -y git\n", "RUN test -x /git || apt-get install -y git\n"},
		{"a byte order mark and CRLF stay", "\ufeffRUN apt-get update && apt-get install git && rm -rf /var/lib/apt/lists/*\r\n", "\ufeffRUN apt-get update && apt-get install -y git && rm -rf /var/lib/apt/lists/*\r\n"},
		{"flags before it", "RUN --mount=type=cache,target=/var/lib/apt/lists apt-get install git\n", "RUN --mount=type=cache,target=/var/lib/apt/lists apt-get install -y git\n"},
		{"in a heredoc", "RUN <<EOF\napt-get update\napt-get install git\nEOF\n", "RUN <<EOF\napt-get update\napt-get install -y git\nEOF\n"},
		{"the last line without an end", "RUN true\nSNAPSHOT /usr", "RUN true"},
	} {
		text := []byte(tt.src)
		for range 5 {
			f, err := frontend.Parse("Containerfile", text)
			if err != nil {
				t.Fatalf("%s: %v", tt.name, err)
			}
			var made int
			if text, made = Apply(text, Check([]*frontend.File{f}, nil)); made == 0 {
				break
			}
		}
		if diff := cmp.Diff(tt.want, string(text)); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// TestHintIsARequirement: what the hint about a package says can be written.
func TestHintIsARequirement(t *testing.T) {
	for src, want := range map[string]string{
		"RUN pip install 'tree-sitter-language-pack<1.6.3'\n": "tree-sitter-language-pack==VERSION",
		"RUN pip install 'uvicorn[standard]>=0.30,!=0.31'\n":  "uvicorn[standard]==VERSION",
		"RUN pip install numpy\n":                             "numpy==VERSION",
	} {
		f, err := frontend.Parse("Containerfile", []byte(src))
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range Check([]*frontend.File{f}, nil) {
			if f.Rule == "PipUnpinned" && f.Hint != want {
				t.Errorf("%s: hint %q, want %q", src, f.Hint, want)
			}
		}
	}
}

// FuzzFix: whatever the file, what --fix leaves parses, and has an end.
func FuzzFix(f *testing.F) {
	f.Add("RUN apt-get install git\nSNAPSHOT /usr\n")
	f.Add("RUN <<EOF\napt-get update\napt-get install git\nEOF\n# check=skip=x\n")
	f.Fuzz(func(t *testing.T, src string) {
		file, err := frontend.Parse("Containerfile", []byte(src))
		if err != nil {
			return
		}
		findings := Check([]*frontend.File{file}, nil)
		out, made := Apply([]byte(src), findings)
		if made == 0 {
			return
		}
		if _, err := frontend.Parse("Containerfile", out); err != nil && len(file.Instructions) > 1 {
			t.Errorf("%q became %q: %v", src, out, err)
		}
	})
}
