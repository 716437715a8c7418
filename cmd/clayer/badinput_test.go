//go:build linux

package main

import (
	"os"
	"regexp"
	"strings"
	"testing"

	"github.com/clayer/clayer/internal/golden"
)

// Bad input of every kind: the error with its line, and what to do; exit code 2,
// and nothing changed. The texts are testdata/errors.golden.
func TestBadInput(t *testing.T) {
	t.Parallel()
	w := newWorkspace(t)
	w.write("Containerfile.good", "RUN true\n")
	if err := os.Mkdir(w.path("folder"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(w.path("other"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("other/Containerfile.good", "RUN true\n")
	w.write("Containerfile.a", "FROM b\nRUN a\n")
	w.write("Containerfile.b", "# first\nFROM a\nRUN b\n")
	tests := []struct {
		name  string
		text  string   // of the file Containerfile
		files []string // in place of it
	}{
		{name: "unknown instruction", text: "RUN true\nFECTH https://example.com/x /opt\n"},
		{name: "unknown instruction, nothing near", text: "FROBNICATE now\n"},
		{name: "missing argument", text: "FETCH https://example.com/x\n"},
		{name: "no argument", text: "RUN\n"},
		{name: "too many arguments", text: "SNAPSHOT /a /b\n"},
		{name: "bad flag", text: "FETCH --chekcsum=sha256:00 https://example.com/x /opt\n"},
		{name: "bad checksum", text: "FETCH --checksum=md5:12ab https://example.com/x /opt\n"},
		{name: "relative dest", text: "FETCH https://example.com/x opt/x\n"},
		{name: "source of no known kind", text: "FETCH ftp://example.com/x /opt/x\n"},
		{name: "password in a URL", text: "FETCH https://me:hunter2@example.com/x /opt/x\n"},
		{name: "unterminated heredoc", text: "RUN true\nRUN <<EOF\necho\n"},
		{name: "unknown mount type", text: "RUN --mount=type=npipe,target=/x true\n"},
		{name: "unknown mount option", text: "RUN --mount=type=cache,target=/x,color=red true\n"},
		{name: "COPY out of the folder", text: "COPY ../secret /x\n"},
		{name: "COPY of nothing", text: "COPY nosuch /x\n"},
		{name: "COPY --from", text: "COPY --from=3 /x /x\n"},
		{name: "SHELL without a list", text: "SHELL bash\n"},
		{name: "a variable that must be set", text: "WORKDIR ${NOSUCHVAR:?is missing}\n"},
		{name: "several at once", text: "RUNN true\nFETCH x\nENV =1\n"},
		{name: "empty file", text: ""},
		{name: "only comments", text: "# nothing\n\n"},
		{name: "binary rubbish", text: "\x7fELF\x00\x01\x02\xff\xfe"},
		{name: "missing file", files: []string{"nosuch"}},
		{name: "folder", files: []string{"folder"}},
		{name: "cycle", files: []string{"Containerfile.a"}},
		{name: "two layers of one name", files: []string{"Containerfile.good", "other/Containerfile.good"}},
	}
	elsewhere := regexp.MustCompile(regexp.QuoteMeta(w.dir) + `/?`)
	var got strings.Builder
	for _, tt := range tests {
		files := tt.files
		if files == nil {
			files = []string{"Containerfile"}
			w.write("Containerfile", tt.text)
		}
		args := []string{"solve", "--root=root"}
		for _, f := range files {
			args = append(args, "-f", f)
		}
		stdout, stderr, code := w.run(args...)
		if code != 2 || stdout != "" {
			t.Errorf("%s: exit code %d, stdout %q, want 2 and nothing\n%s", tt.name, code, stdout, stderr)
		}
		if strings.Contains(stderr, "hunter2") {
			t.Errorf("%s: the error shows a password", tt.name)
		}
		got.WriteString("== " + tt.name + "\n" + elsewhere.ReplaceAllString(stderr, "") + "\n")
	}
	for _, name := range []string{"cache", "root/var/lib/clayer"} {
		if _, err := os.Stat(w.path(name)); err == nil {
			t.Errorf("%s was made", name)
		}
	}

	golden.Check(t, "../../testdata/errors.golden", got.String())
}
