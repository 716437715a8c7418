package oracle

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"

	"github.com/clayer/clayer/internal/gittest"
)

// The files of these names are archives, whatever content they have.
var archives = map[string]func() []byte{
	"pack.tar":  func() []byte { return packed },
	"pack.tgz":  func() []byte { return compressed(gzipped, packed) },
	"pack.txz":  func() []byte { return compressed(xzed, packed) },
	"pack.tzst": func() []byte { return compressed(zstded, packed) },
	"skip.tzst": func() []byte {
		return append([]byte("\x5a\x2a\x4d\x18\x04\x00\x00\x00skip"), compressed(zstded, packed)...)
	},
	"odd.tar":   func() []byte { return odd },
	"cut.tgz":   func() []byte { return compressed(gzipped, packed)[:20] },
	"empty.tar": func() []byte { return make([]byte, 10240) },
	"text.gz":   func() []byte { return compressed(gzipped, []byte("no archive\n")) },
	"out.tar":   func() []byte { return tarOf(tar.Header{Name: "../out", Typeflag: tar.TypeReg, Size: 7}) },
}

var packed = tarOf(
	tar.Header{Name: "packed/", Typeflag: tar.TypeDir, Mode: 0o750, Uid: 7, Gid: 8},
	tar.Header{Name: "packed/file", Typeflag: tar.TypeReg, Mode: 0o640, Uid: 7, Gid: 8, Size: 7},
	tar.Header{Name: "packed/run", Typeflag: tar.TypeReg, Mode: 0o4755, Size: 7},
	tar.Header{Name: "packed/link", Typeflag: tar.TypeSymlink, Linkname: "file"},
	tar.Header{Name: "packed/same", Typeflag: tar.TypeLink, Linkname: "packed/file", Mode: 0o640, Uid: 7, Gid: 8},
)

// odd has what the archives of others have: names that begin with / or ./, directories that
// have no entry, or come late, a file twice, pipes, and attributes.
var odd = tarOf(
	tar.Header{Name: "./", Typeflag: tar.TypeDir, Mode: 0o700, Uid: 9, Gid: 9},
	tar.Header{Name: "./made/by/nobody", Typeflag: tar.TypeReg, Mode: 0o666, Uid: 1, Gid: 2, Size: 7},
	tar.Header{Name: "/absolute", Typeflag: tar.TypeReg, Mode: 0o600, Size: 7},
	tar.Header{Name: "twice", Typeflag: tar.TypeReg, Mode: 0o600, Size: 7},
	tar.Header{Name: "made/by/", Typeflag: tar.TypeDir, Mode: 0o2711, Uid: 3, Gid: 4},
	tar.Header{Name: "twice", Typeflag: tar.TypeReg, Mode: 0o644, Size: 0},
	tar.Header{Name: "pipe", Typeflag: tar.TypeFifo, Mode: 0o622},
	tar.Header{Name: "able", Typeflag: tar.TypeReg, Mode: 0o755, Size: 7, PAXRecords: map[string]string{"SCHILY.xattr.user.note": "noted"}},
	tar.Header{Name: "sub/x", Typeflag: tar.TypeReg, Mode: 0o644, Size: 7},
)

func tarOf(headers ...tar.Header) []byte {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	for _, h := range headers {
		h.ModTime = time.Unix(1_000_000_000, 0)
		if err := w.WriteHeader(&h); err != nil {
			panic(err)
		}
		if h.Size > 0 {
			if _, err := w.Write([]byte("packed\n")); err != nil {
				panic(err)
			}
		}
	}
	if err := w.Close(); err != nil {
		panic(err)
	}
	return out.Bytes()
}

type writer interface {
	Write(p []byte) (int, error)
	Close() error
}

func gzipped(to *bytes.Buffer) (writer, error) { return gzip.NewWriter(to), nil }
func xzed(to *bytes.Buffer) (writer, error)    { return xz.NewWriter(to) }
func zstded(to *bytes.Buffer) (writer, error)  { return zstd.NewWriter(to) }

func compressed(by func(*bytes.Buffer) (writer, error), data []byte) []byte {
	var out bytes.Buffer
	z, err := by(&out)
	if err == nil {
		_, err = z.Write(data)
	}
	if err == nil {
		err = z.Close()
	}
	if err != nil {
		panic(err)
	}
	return out.Bytes()
}

// serverName stands in a case for the server of files and repositories.
const serverName = "http://oracle.invalid"

var serverURL string

// atServer is a text with the address of the server.
func atServer(text string) string { return strings.ReplaceAll(text, serverName, serverURL) }

// serve starts the server: of archives, of a file at any other path, and of a repository.
func serve(t testing.TB) error {
	dir := t.TempDir()
	repositories, err := gittest.Start(dir, gittest.Options{ReadOnly: true, AnyID: true})
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(repositories.Close)
	if err := makeRepositories(repositories); err != nil {
		return err
	}
	files := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := path.Base(r.URL.Path)
		switch make, ok := archives[name]; {
		case strings.Contains(r.URL.Path, ".git"):
			repositories.ServeHTTP(w, r)
		case strings.Contains(name, "nosuch"):
			http.NotFound(w, r)
		case ok:
			_, _ = w.Write(make())
		default:
			w.Header().Set("Last-Modified", "Sat, 01 Jan 2000 00:00:00 GMT")
			fmt.Fprintf(w, "served as %s\n", name)
		}
	}))
	t.Cleanup(files.Close)
	serverURL = files.URL
	return nil
}

// makeRepositories makes one with a branch, tags, a submodule, and attributes.
func makeRepositories(s *gittest.Server) error {
	script := `set -e
export GIT_CONFIG_NOSYSTEM=1 GIT_CONFIG_GLOBAL=/dev/null HOME="$1" GIT_AUTHOR_DATE=1000000000+0000 GIT_COMMITTER_DATE=1000000000+0000
git="git -c user.name=a -c user.email=a@a -c protocol.file.allow=always -c init.defaultBranch=main"
cd "$1"; mkdir work; cd work
$git init -q sub; cd sub; echo sub > s; git add -A; $git commit -qm sub; cd ..
$git init -q r; cd r; mkdir -p dir/deep
echo a > a; echo b > dir/b; echo d > dir/deep/d; echo '#!/bin/sh' > run; chmod 755 run; ln -s dir/b link
echo '$Format:%H$' > subst; echo ignored > left; printf 'left export-ignore\nsubst export-subst\n*.crlf text eol=crlf\n' > .gitattributes
printf 'one\n' > one.crlf
git add -A; $git commit -qm one; git tag light; $git tag -a -m tag v1
$git submodule --quiet add ../sub module; $git commit -qm two
git config -f .gitmodules submodule.module.url ../sub.git; git add -A; $git commit -qm three
git checkout -q -b side; echo side > side; git add -A; $git commit -qm side; git checkout -q main
cd ..; for n in r sub; do git clone -q --bare $n "$1/$n.git"; done; rm -rf "$1/work"`
	out, err := exec.Command("sh", "-c", script, "sh", s.Dir).CombinedOutput()
	if err != nil {
		return fmt.Errorf("repositories: %w\n%s", err, out)
	}
	_, err = os.Stat(filepath.Join(s.Dir, "r.git", "HEAD"))
	return err
}
