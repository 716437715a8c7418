package edit

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/clayer/clayer/frontend"
)

// session captures command lines one after the other, as the shims of a session.
func session(t testing.TB, src string, at Place, lines ...string) string {
	t.Helper()
	var last *Record
	out := []byte(src)
	for _, line := range lines {
		argv := commands(line)
		if len(argv) != 1 {
			t.Fatalf("%s: %d commands", line, len(argv))
		}
		r := Read(argv[0], at)
		var err error
		switch r.Verdict {
		case Captured:
			out, last, err = Capture(out, r.Install, last)
		case Noted:
			out, err = Comment(out, r.Note)
		}
		if err != nil {
			t.Fatalf("%s: %v", line, err)
		}
	}
	return string(out)
}

func TestWhatIsWritten(t *testing.T) {
	for _, tt := range []struct{ typed, want string }{
		{"uv pip install pandas", "RUN uv pip install --system pandas"},
		{"uv pip install --quiet --no-progress pandas --system", "RUN uv pip install --system pandas"},
		{"uv -q pip install 'pkg<1.6'", "RUN uv pip install --system 'pkg<1.6'"},
		{"uv pip install --index-url=https://example.com/simple a b", "RUN uv pip install --system -i https://example.com/simple a b"},
		{"uv pip install git+https://example.com/me/x@v1", "RUN uv pip install --system git+https://example.com/me/x@v1"},
		{"uv pip install 'x[all]>=2'", "RUN uv pip install --system 'x[all]>=2'"},
		{"uv tool install ruff", "RUN uv tool install ruff"},
		{"uv add pandas", ""},
		{"uv pip install --dry-run pandas", ""},
		{"uv pip install --help", ""},
		{"uv pip install", ""},
		{"uv pip list", ""},
		{"uv pip uninstall pandas", ""},
		{"pip install -q -U requests", "RUN pip install -U requests"},
		{"pip install -qU requests", "RUN pip install -U requests"},
		{"pip3 --no-input install requests", "RUN pip3 install requests"},
		{"python3 -m pip install requests", "RUN python3 -m pip install requests"},
		{"python -I -m pip install requests", "RUN python -m pip install requests"},
		{"python3 setup.py -m pip install requests", ""},
		{"python3 -c 'x' -m pip install requests", ""},
		{"pip install $'a\\nb'", ""},
		{"pip install --new-option x requests -q", "RUN pip install --new-option x requests"},
		{"pip install -e .", "# not captured: pip install -e .: -e installs a directory of this machine"},
		{"pip install ./dist/x.whl", "# not captured: pip install ./dist/x.whl: ./dist/x.whl can't be read"},
		{"pip install https://me:secret@example.com/x.whl", "# not captured: pip install 'https://***@example.com/x.whl': it holds a credential"},
		{"npm i -g --//registry.example.com/:_authToken=abc x", "# not captured: npm i -g '--//registry.example.com/:_authToken=***' x: it holds a credential"},
		{"cargo install --registry mine --token abc rg", "# not captured: cargo install --registry mine --token '***' rg: it holds a credential"},
		{"pip install 'https://example.com/x.whl?a=1&access_token=abc'", "# not captured: pip install 'https://example.com/x.whl?a=1&access_token=***': it holds a credential"},
		{"pip install 'https://example.com/x.whl?version=1'", "RUN pip install 'https://example.com/x.whl?version=1'"},
		{"pip install tokenizers", "RUN pip install tokenizers"},
		{"apt-get install jq", "RUN apt-get update && apt-get install -y jq"},
		{"apt-get -yqq install jq=1.6-2 git", "RUN apt-get update && apt-get install -y jq=1.6-2 git"},
		{"apt install --install-recommends jq", "RUN apt-get update && apt-get install -y --install-recommends jq"},
		{"apt-get install -s jq", ""},
		{"apt-get update", ""},
		{"apt-get install -y ./x.deb", "# not captured: apt-get install -y ./x.deb: ./x.deb can't be read"},
		{"apt-get -o Dpkg::Use-Pty=0 install jq", "RUN apt-get update && apt-get install -y -o Dpkg::Use-Pty=0 jq"},
		{"npm install -g typescript@5", "RUN npm install -g typescript@5"},
		{"npm i --location=global @biomejs/biome", "RUN npm install -g @biomejs/biome"},
		{"npm install typescript", ""},
		{"npm ci", ""},
		{"cargo install --locked -q ripgrep", "RUN cargo install --locked ripgrep"},
		{"cargo install --path .", "# not captured: cargo install --path .: --path installs a directory of this machine"},
		{"cargo build", ""},
		{"go install -v example.com/tools/cmd/stringer@latest", "RUN go install example.com/tools/cmd/stringer@latest"},
		{"go install ./...", "# not captured: go install ./...: without @version it installs the module of a directory of this machine"},
		{"gem install rake -v 13.0", "RUN gem install -v 13.0 rake"},
		{"conda install -c conda-forge -y numpy", "RUN conda install -y -c conda-forge numpy"},
		{"mamba install numpy=1.26", "RUN mamba install -y numpy=1.26"},
		{"apk add --no-cache curl", "RUN apk add --no-cache curl"},
		{"dnf -y install curl", "RUN dnf install -y curl"},
		{"ls -l", ""},
	} {
		argv := commands(tt.typed)
		if len(argv) == 0 {
			if tt.want != "" {
				t.Errorf("%s: no command", tt.typed)
			}
			continue
		}
		if got := strings.TrimSuffix(session(t, "", Place{Dir: "/nowhere", Context: "/nowhere"}, tt.typed), "\n"); got != tt.want {
			t.Errorf("%s\n got %s\nwant %s", tt.typed, got, tt.want)
		}
	}
}

func TestAtMostOnce(t *testing.T) {
	for _, tt := range []struct {
		name, file, typed string
		again             bool
	}{
		{"the same", "RUN uv pip install --system pandas", "uv pip install pandas", false},
		{"another order", "RUN uv pip install --system numpy pandas", "uv pip install pandas numpy -q", false},
		{"one of several", "RUN pip install numpy pandas", "pip install pandas", false},
		{"over two RUNs", "RUN pip install numpy\nRUN pip install pandas", "pip install pandas numpy", false},
		{"pip and pip3 are one", "RUN pip install numpy", "python3 -m pip install numpy", false},
		{"a version that is there", "RUN pip install 'numpy<2'", "pip install numpy", false},
		{"spelled otherwise", "RUN pip install Typing_Extensions", "pip install typing-extensions", false},
		{"another version", "RUN pip install 'numpy<2'", "pip install 'numpy<3'", true},
		{"another option", "RUN pip install numpy", "pip install -U numpy", true},
		{"options in another order", "RUN pip install -U --pre numpy", "pip install numpy --pre --upgrade", false},
		{"after &&", "RUN apt-get update && apt-get install -y git jq", "apt-get install jq", false},
		{"on lines of its own", "RUN apt-get update && \\\n  apt-get install -y \\\n  # tools\n  git \\\n  jq", "apt-get install jq", false},
		{"a heredoc", "RUN <<EOF\napt-get update\napt-get install -y jq\nEOF", "apt-get install jq", false},
		{"exec form", `RUN ["pip", "install", "numpy"]`, "pip install numpy", false},
		{"perhaps", "RUN test -e /x || pip install numpy", "pip install numpy", true},
		{"a comment is no RUN", "# RUN pip install numpy\nRUN true", "pip install numpy", true},
		{"a variable", "RUN pip install $X", "pip install numpy", true},
		{"cargo in another version", "RUN cargo install a --version 1", "cargo install a --version 2", true},
		{"npm scoped", "RUN npm install -g @a/b@1", "npm i -g @a/b", false},
	} {
		got := session(t, tt.file+"\n", Place{Dir: "/nowhere", Context: "/nowhere"}, tt.typed)
		if again := got != tt.file+"\n"; again != tt.again {
			t.Errorf("%s: written again: %v, want %v\n%s", tt.name, again, tt.again, got)
		}
	}
}

func TestOneSessionFolds(t *testing.T) {
	at := Place{Dir: "/nowhere", Context: "/nowhere"}
	for _, tt := range []struct {
		name, file string
		typed      []string
		want       string
	}{
		{
			"into the RUN that was captured last", "FROM x\nRUN uv pip install --system a\n",
			[]string{"uv pip install b", "uv pip install c b", "uv pip install a"},
			"FROM x\nRUN uv pip install --system a\nRUN uv pip install --system b c\n",
		},
		{
			"not over one of another manager, which it may need", "",
			[]string{"pip install a", "apt-get install b", "pip install c"},
			"RUN pip install a\nRUN apt-get update && apt-get install -y b\nRUN pip install c\n",
		},
		{
			"other options are another command", "",
			[]string{"pip install a", "pip install -U b", "pip install c"},
			"RUN pip install a c && pip install -U b\n",
		},
		{
			"programs that take one", "", []string{"uv tool install a", "uv tool install b"},
			"RUN uv tool install a && uv tool install b\n",
		},
		{
			"the version that was installed last", "", []string{"pip install 'a<2'", "pip install a==3", "pip install a"},
			"RUN pip install a==3\n",
		},
		{
			"recommended packages count where they are mentioned", "RUN apt-get install -y --no-install-recommends a\n",
			[]string{"apt install a", "apt install --install-recommends a"},
			"RUN apt-get install -y --no-install-recommends a\nRUN apt-get update && apt-get install -y --install-recommends a\n",
		},
		{
			"long", "# escape=`\n", []string{
				"uv pip install pandas-with-a-long-name scikit-learn-with-one", "uv pip install another-one-of-these yet-another-one",
				"uv pip install x",
			},
			"# escape=`\nRUN uv pip install --system `\n    pandas-with-a-long-name `\n    scikit-learn-with-one `\n    another-one-of-these `\n    yet-another-one `\n    x\n",
		},
	} {
		if got := session(t, tt.file, at, tt.typed...); got != tt.want {
			t.Errorf("%s:\n%s\nwant:\n%s", tt.name, got, tt.want)
		}
	}
}

func TestTheRestStays(t *testing.T) {
	for _, tt := range []struct{ name, file, want string }{
		{"no file", "", "RUN pip install a\n"},
		{"comments after the last instruction", "RUN x\n\n# the end\n", "RUN x\nRUN pip install a\n\n# the end\n"},
		{"comments alone", "# hello\n\n", "# hello\n\nRUN pip install a\n"},
		{"CRLF and a byte order mark", "\ufeffRUN x\r\n# y\r\n", "\ufeffRUN x\r\nRUN pip install a\r\n# y\r\n"},
		{"no line end", "RUN x", "RUN x\nRUN pip install a\n"},
		{"spacing", "run   x \\\n\n  y\t\n\n\n", "run   x \\\n\n  y\t\nRUN pip install a\n\n\n"},
		{"a heredoc last", "RUN <<EOF\nx\nEOF\n", "RUN <<EOF\nx\nEOF\nRUN pip install a\n"},
		{"USER before what starts later", "RUN x\n\n# who\nUSER app\nCMD y\n", "RUN x\nRUN pip install a\n\n# who\nUSER app\nCMD y\n"},
		{"USER first", "# syntax=x\n\nUSER app\n", "# syntax=x\n\nRUN pip install a\nUSER app\n"},
		{"several USERs at the end", "RUN x\nUSER a\nUSER b", "RUN x\nRUN pip install a\nUSER a\nUSER b"},
		{"RUN after USER", "USER app:grp\nRUN x\nCMD y\n", "USER app:grp\nRUN x\nCMD y\nUSER root\nRUN pip install a\nUSER app:grp\n"},
		{"RUN between USERs", "USER a\nRUN x\nUSER ${B}\n", "USER a\nRUN x\nUSER root\nRUN pip install a\nUSER ${B}\n"},
		{"USER root at the end", "USER a\nRUN x\nUSER root\n", "USER a\nRUN x\nUSER root\nRUN pip install a\n"},
		{"USER of another stage", "FROM x\nUSER a\nFROM y\nRUN z\n", "FROM x\nUSER a\nFROM y\nRUN z\nRUN pip install a\n"},
		{"USER of the stage below", "FROM x AS b\nUSER a\nFROM b\n", "FROM x AS b\nUSER a\nFROM b\nUSER root\nRUN pip install a\nUSER a\n"},
		{"ADD of files", "ADD a b /d/\n", "ADD a b /d/\nRUN pip install a\n"},
		{"COPY from a stage", "FROM x AS b\nRUN y\nFROM z\nCOPY --from=b /c /d\n", "FROM x AS b\nRUN y\nFROM z\nCOPY --from=b /c /d\nRUN pip install a\n"},
		{"what is no instruction", "RUNN x\nRUN y\n", "RUNN x\nRUN y\nRUN pip install a\n"},
	} {
		if got := session(t, tt.file, Place{}, "pip install a"); got != tt.want {
			t.Errorf("%s: %q, want %q", tt.name, got, tt.want)
		}
	}
	for _, tt := range []struct{ name, file string }{
		{"goes on", "RUN x \\\n"},
		{"goes on, without a line end", "RUN x \\"},
		{"an open heredoc", "RUN <<EOF\nx\n"},
		{"no text", "RUN \xff\n"},
		{"nothing that can be read", "\x00"},
	} {
		in := Read([]string{"pip", "install", "a"}, Place{}).Install
		if out, _, err := Capture([]byte(tt.file), in, nil); !errors.Is(err, ErrUnwritable) {
			t.Errorf("%s: %v\n%s", tt.name, err, out)
		}
	}
}

// Any words, in any file: the instructions that were there stay, the new RUN has
// the words, and a second time changes nothing.
func TestCaptureIsExact(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		src := rapid.SliceOf(rapid.SampledFrom([]string{
			"RUN x\n", "# c\n", "\n", "ENV A=b\n", "RUN a \\\n  b\n", "RUN <<E\nz\nE\n", "  \t\n", "CMD x\r\n", "RUN pip install a\n", "COPY a b", "USER a\n", "USER root\n", "FROM x\n",
		})).Draw(t, "file")
		packages := rapid.SliceOfN(rapid.StringMatching(`[a-z][a-zA-Z0-9$<>=!'"\\ #*\[\]{}~|&;()^%éß-]{0,9}`), 1, 4).Draw(t, "packages")
		exact(t, strings.Join(src, ""), packages)
	})
}

func exact(t interface {
	Fatalf(string, ...any)
}, src string, packages []string) {
	r := Read(append([]string{"npm", "install", "-g"}, packages...), Place{})
	if r.Verdict != Captured {
		return
	}
	out, _, err := Capture([]byte(src), r.Install, nil)
	if errors.Is(err, ErrUnwritable) {
		return
	}
	if err != nil {
		t.Fatalf("%v", err)
	}
	if again, _, err := Capture(out, r.Install, nil); err != nil || string(again) != string(out) {
		t.Fatalf("a second time: %v\n%q\n%q", err, out, again)
	}
	if string(out) == src {
		return
	}
	g, err := frontend.Parse("Containerfile", out)
	if g == nil || len(g.Instructions) == 0 {
		t.Fatalf("%v", err)
	}
	var run *frontend.Run
	for _, in := range slices.Backward(g.Instructions) {
		if in, ok := in.(*frontend.Run); ok {
			run = in
			break
		}
	}
	want := slices.Concat(r.Install.Command, slices.Concat(r.Install.Options...), r.Install.Packages)
	if got := argvs(run); len(got) != 1 || !slices.Equal(got[0], want) {
		t.Fatalf("%q reads back as %q, want %q", out, got, want)
	}
	before, _ := frontend.Parse("Containerfile", []byte(src))
	now := g.Instructions
	for _, in := range before.Instructions {
		i := slices.IndexFunc(now, func(b frontend.Instruction) bool { return b.Base().Text == in.Base().Text })
		if i < 0 {
			t.Fatalf("%q is not in %q any more, or elsewhere", in.Base().Text, out)
		}
		now = now[i+1:]
	}
}

func FuzzCapture(f *testing.F) {
	f.Add("RUN x\n", "pandas", "numpy<2")
	f.Add("# escape=`\nRUN x `\n y\n", "a b", "$HOME")
	f.Add("USER a\nRUN x\nUSER b\n", "a", "b")
	f.Add("\ufeffRUN x\r\n", "<<EOF", "'")
	f.Fuzz(func(t *testing.T, src, a, b string) {
		exact(t, src, []string{a, b})
	})
}

func ExampleRead() {
	r := Read([]string{"apt-get", "-qq", "install", "jq"}, Place{})
	out, _, _ := Capture(nil, r.Install, nil)
	fmt.Print(string(out))
	// Output: RUN apt-get update && apt-get install -y jq
}
