package main

import (
	"archive/zip"
	"bytes"
	"crypto/sha256"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os/exec"
	"path"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"
)

// A packageIndex has wheels of a package for each name that it is asked for, and counts those
// that are downloaded. What it answers may be cached, as what PyPI answers.
type packageIndex struct {
	*httptest.Server
	mu     sync.Mutex
	wheels []string
}

func newPackageIndex(t *testing.T) *packageIndex {
	x := &packageIndex{}
	x.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		name := strings.TrimSuffix(strings.TrimPrefix(r.URL.Path, "/simple/"), "/")
		if file := path.Base(r.URL.Path); strings.HasSuffix(file, ".whl") {
			x.mu.Lock()
			x.wheels = append(x.wheels, strings.TrimSuffix(file, "-1.0-py3-none-any.whl"))
			x.mu.Unlock()
			w.Header().Set("Cache-Control", "max-age=365000000, immutable, public")
			w.Header().Set("ETag", `"`+file+`"`)
			http.ServeContent(w, r, file, time.Unix(1_600_000_000, 0), bytes.NewReader(wheel(t, strings.TrimSuffix(file, "-1.0-py3-none-any.whl"))))
			return
		}
		w.Header().Set("Content-Type", "text/html")
		w.Header().Set("Cache-Control", "max-age=600, public")
		file := name + "-1.0-py3-none-any.whl"
		fmt.Fprintf(w, `<!DOCTYPE html><a href="/files/%s#sha256=%x">%[1]s</a>`, file, sha256.Sum256(wheel(t, name)))
	}))
	t.Cleanup(x.Close)
	return x
}

// downloaded returns which packages were, sorted, and forgets them. One may come in pieces.
func (x *packageIndex) downloaded() string {
	x.mu.Lock()
	defer x.mu.Unlock()
	slices.Sort(x.wheels)
	all := strings.Join(slices.Compact(x.wheels), " ")
	x.wheels = nil
	return all
}

// wheel returns a package with one module.
func wheel(t *testing.T, name string) []byte {
	var b bytes.Buffer
	z := zip.NewWriter(&b)
	info := name + "-1.0.dist-info/"
	record := ""
	for _, f := range [][2]string{
		{name + ".py", "x = 1\n"}, {info + "METADATA", "Metadata-Version: 2.1\nName: " + name + "\nVersion: 1.0\n"},
		{info + "WHEEL", "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n"}, {info + "RECORD", ""},
	} {
		w, err := z.CreateHeader(&zip.FileHeader{Name: f[0], Method: zip.Deflate, Modified: time.Unix(1_600_000_000, 0)})
		if err != nil {
			t.Error(err)
			return nil
		}
		record += f[0] + ",,\n"
		if f[1] == "" {
			f[1] = record
		}
		if _, err := w.Write([]byte(f[1])); err != nil {
			t.Error(err)
		}
	}
	if err := z.Close(); err != nil {
		t.Error(err)
	}
	return b.Bytes()
}

// TestSharedMountsOfPackageManagers installs from an index that counts, with a changed list of
// packages on a machine that has nothing but the mount of another one: it downloads what is new, as
// the other one does.
func TestSharedMountsOfPackageManagers(t *testing.T) {
	managers := map[string]struct {
		command []string // says whether it is here
		install string
	}{
		"pip": {[]string{"python3", "-m", "pip", "--version"}, "python3 -m pip install -q --cache-dir /cache/it --disable-pip-version-check --no-compile --no-deps --trusted-host 127.0.0.1 --target /opt/x --index-url %s/simple %s"},
		"uv":  {[]string{"uv", "--version"}, "uv pip install -q --cache-dir /cache/it --no-config --target /opt/x --index-url %s/simple %s"},
	}
	for name, m := range managers {
		t.Run(name, func(t *testing.T) {
			if err := exec.Command(m.command[0], m.command[1:]...).Run(); err != nil {
				t.Skip(err)
			}
			index := newPackageIndex(t)
			store := t.TempDir()
			lines := map[string]string{"Containerfile": "aa bb cc", "changed": "aa bb cc dd"}
			solve := func(w *workspace, file, want string, args ...string) {
				t.Helper()
				w.write(file, "RUN --mount=type=cache,id=it,target=/cache/it "+fmt.Sprintf(m.install, index.URL, lines[file])+"\n")
				if _, stderr, code := w.run(append([]string{"solve", "-f", file, "--dest", w.path("out")}, args...)...); code != 0 {
					t.Fatal(stderr)
				}
				if got := index.downloaded(); got != want {
					t.Errorf("%s: downloaded %q, want %q", args, got, want)
				}
			}
			first, fresh, shared := newWorkspace(t), newWorkspace(t), newWorkspace(t)
			solve(first, "Containerfile", "aa bb cc", "--share-mounts", "--store=dir:"+store)
			solve(fresh, "changed", "aa bb cc dd")
			solve(shared, "changed", "dd", "--share-mounts", "--store=dir:"+store)
			solve(first, "changed", "dd")
		})
	}
}
