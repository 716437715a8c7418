//go:build linux

package main

import (
	"bytes"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"

	"pgregory.net/rapid"
)

// badLines are lines that plan refuses, here and there among good ones. What the
// network would answer is not asked for: checksums are given.
var (
	goodLines = []string{
		"RUN true", "ENV A=1", "ARG B=2", "WORKDIR /app", "WORKDIR sub", "COPY file /opt/", "COPY dir /opt/d", "COPY file /opt/f", "ADD file /opt/g",
		"RUN --mount=type=cache,target=/c true", "SNAPSHOT /opt", "FROM base", "FROM debian:12", `SHELL ["/bin/sh", "-c"]`, "CMD true", "USER me",
		"FETCH --checksum=sha256:" + strings.Repeat("1", 64) + " https://example.com/x /opt/x", "COPY <<EOF /opt/e\ntext\nEOF",
	}
	badLines = []string{
		"FROM other", "FROM base AS x", "FROM a b", "FROM base # why", "RUN", "RUNN true", "RUN --mount=type=bind,target=/x true", "RUN --mount=type=cache true",
		"RUN --mount=type=cache,target=/x,from=y true", "RUN --network=none true", "COPY nosuch /x", "COPY file nosuch /x/", "COPY *.none /x", "COPY ../up /x",
		"COPY link /x", "COPY ignored /x", "COPY file /app", "COPY file /opt/d", "COPY <<EOF /app\ntext\nEOF", "COPY dir file2/ /z", "COPY [a /x", "COPY pipe /x", "COPY --chown=a:b:c file /x",
		"COPY $NOSUCH /x", "COPY file $NOSUCH", "COPY --from=x file /x", "ADD nosuch /x", "WORKDIR $NOSUCH", "WORKDIR ${NOSUCH:?is not set}", "ENV A=${PATH%%:*}", "ENV 1=2", "ARG 1",
		"FETCH ftp://example.com/x /opt", "FETCH github:o /opt", "FETCH github:o/r//../x /opt", "FETCH https://example.com/x opt", "FETCH --strip=x https://example.com/x /opt",
		"FETCH --checksum=md5:12 https://example.com/x /opt", "SNAPSHOT", "SHELL bash", "RUN <<EOF", "COPY dir/a dir2/a /opt/", "COPY . /x",
	}
)

// TestCheckFindsWhatPlanRefuses: what plan refuses without asking the network is
// an error of check's, on the same lines.
func TestCheckFindsWhatPlanRefuses(t *testing.T) {
	w := newWorkspace(t)
	dir := w.path("ctx")
	for name, text := range map[string]string{
		"file": "x", "file2": "y", "dir/a": "z", "dir2/a/b": "z", ".dockerignore": "ignored\n", "ignored": "",
		"Containerfile": "RUN true\nWORKDIR /below\nCOPY file /opt/base\n",
	} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(filepath.Join(dir, "pipe"), 0o644); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "Containerfile.x")
	lines := func(text []byte) map[string]bool {
		at := make(map[string]bool)
		for _, m := range problemLine.FindAllSubmatch(text, -1) {
			at[string(m[1])] = true
		}
		return at
	}
	compare := func(t interface {
		Errorf(format string, args ...any)
		Fatal(args ...any)
	}, text string) {
		if err := os.WriteFile(file, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		var planned, checked, said bytes.Buffer
		code := run([]string{"plan", "-f", file, "--root=" + w.path("root"), "--cache-dir=" + w.path("cache")}, &said, &planned)
		if code != exitUsage {
			return
		}
		said.Reset()
		if code := run([]string{"check", file}, &checked, &said); code != exitUsage {
			t.Errorf("check exits with %d for\n%s\nwhich plan refuses:\n%s\ncheck says:\n%s%s", code, text, planned.String(), checked.String(), said.String())
		}
		found := lines(checked.Bytes())
		for at := range lines(planned.Bytes()) {
			if !found[at] {
				t.Errorf("check finds nothing at %s of\n%s\nplan:\n%s\ncheck:\n%s", at, text, planned.String(), checked.String())
			}
		}
	}
	for _, bad := range badLines {
		compare(t, bad+"\n")
		compare(t, "WORKDIR /app\nCOPY dir /opt/d\n"+bad+"\n")
		for _, other := range badLines { // one error must not hide another
			compare(t, "FROM base\n"+other+"\n"+bad+"\n")
		}
	}
	rapid.Check(t, func(t *rapid.T) {
		pool := append(append([]string{}, goodLines...), badLines...)
		compare(t, strings.Join(rapid.SliceOfN(rapid.SampledFrom(pool), 1, 8).Draw(t, "lines"), "\n")+"\n")
	})
}

// problemLine is where a problem stands: "Containerfile.x:3: ".
var problemLine = regexp.MustCompile(`(?m)^(?:clayer: )?(\S*Containerfile\S*?:\d+): `)
