package solver

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/reference"
	"github.com/clayer/clayer/solver/internal/environ"
)

// write makes files of a map in a new directory.
func write(t *testing.T, files map[string]string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o755)); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func compositionOf(t *testing.T, session map[string]string, texts ...string) *dag.Graph {
	t.Helper()
	var files []*frontend.File
	for i, text := range texts {
		f, err := frontend.Parse([]string{"Containerfile", "Containerfile.a", "Containerfile.b"}[i], []byte(text))
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, f)
	}
	g, err := dag.Build(files, dag.Options{Session: session})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

func TestCompositionEnv(t *testing.T) {
	session := map[string]string{"PATH": "/bin", "HOME": "/root"}
	tests := []struct {
		name  string
		texts []string
		want  map[string]string // references shown as ${NAME}
	}{
		{"one layer", []string{"ENV A=1 PATH=/x:$PATH\nENV B=$A$HOME\n"},
			map[string]string{"A": "1", "PATH": "/x:${PATH}", "B": "1${HOME}"}},
		{"later layers win", []string{"ENV A=1\n", "ENV A=2\n"}, map[string]string{"A": "2"}},
		{"PATH of several layers", []string{"ENV PATH=/x:$PATH\n", "FROM base\nENV PATH=/a:$PATH\n", "FROM base\nENV PATH=/b:$PATH\n"},
			map[string]string{"PATH": "/b:/x:/a:${PATH}"}},
		{"what a layer refers to and one before it sets", []string{"ENV PATH=/x:$PATH\n", "ENV PATH=/a:$PATH\n"},
			map[string]string{"PATH": "/a:/x:${PATH}"}},
		{"inherited by FROM, unchanged", []string{"ENV A=1\n", "ENV A=2\n", "FROM base\nENV B=3\n"}, map[string]string{"A": "2", "B": "3"}},
	}
	for _, tt := range tests {
		got := make(map[string]string)
		g := compositionOf(t, session, tt.texts...)
		for _, v := range g.Env(len(g.Layers)) {
			got[v.Name] = reference.Substitute(v.Value, func(name string) string { return "${" + name + "}" })
		}
		if diff := cmp.Diff(tt.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestEnvironmentOfARun(t *testing.T) {
	const texts = "ENV PATH=/base:$PATH A=$FOO\n|ARG V=arg\nARG B=arg\nENV B=env PATH=/a:$PATH\nRUN echo $S\n|FROM scratch\nENV HERE=$PWD\nRUN true\n"
	session := []string{"PATH=/bin", "S=session", "T=secret", "FOO=foo", "PWD=/here", "UV_LINK_MODE=hardlink", "CURL_CA_BUNDLE=/ca", "odd"}
	constant := []string{"CLAYER_SHIM=off", "DEBIAN_FRONTEND=noninteractive", "PIP_BREAK_SYSTEM_PACKAGES=1", "SOURCE_DATE_EPOCH=315619200", "UV_BREAK_SYSTEM_PACKAGES=1"}
	python := []string{"UV_LINK_MODE=hardlink", "UV_SYSTEM_PYTHON=1"}
	for _, tt := range []struct {
		name  string
		opt   Options
		layer int
		want  []string
	}{
		{name: "after base", layer: 1, want: append(python, "A=foo", "B=env", "CURL_CA_BUNDLE=/ca", "PATH=/a:/base:/bin", "S=session", "V=arg")},
		{name: "FROM scratch", layer: 2, want: append(python, "CURL_CA_BUNDLE=/ca", "HERE=", "PATH=/bin")},
		{name: "all", layer: 2, opt: Options{InheritEnv: true}, want: append(python, "CURL_CA_BUNDLE=/ca", "FOO=foo", "HERE=/here", "PATH=/bin", "PWD=/here", "S=session", "T=secret")},
		{name: "hermetic", layer: 2, opt: Options{Hermetic: true}, want: []string{"CURL_CA_BUNDLE=/ca", "HERE=", "HOME=/root", "PATH=" + environ.DefaultPath, "UV_LINK_MODE=copy", "UV_SYSTEM_PYTHON=1"}},
	} {
		tt.opt.Environ = session
		r := newSession(tt.opt)
		for i, text := range strings.Split(texts, "|") {
			f, err := frontend.Parse(fmt.Sprintf("Containerfile.l%d", i), []byte(text))
			if err != nil {
				t.Fatal(err)
			}
			r.files = append(r.files, f)
		}
		g, err := r.graph()
		if err != nil {
			t.Fatal(err)
		}
		s := g.Layers[tt.layer].Last()
		got := slices.DeleteFunc(r.environ().Of(s, s.Instr.(*frontend.Run)), func(kv string) bool {
			return slices.Contains(constant, kv) || os.Geteuid() != 0 && strings.HasPrefix(kv, "HOME=")
		})
		want := slices.DeleteFunc(slices.Sorted(slices.Values(tt.want)), func(kv string) bool { return os.Geteuid() != 0 && strings.HasPrefix(kv, "HOME=") })
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

// What a store lists from before the encoding of keys changed explains why all is built.
func TestPlanSaysThatTheEncodingOfAStoreChanged(t *testing.T) {
	for version, want := range map[int]string{0: dag.EncodingChanged, cache.Version: "RUN changed"} {
		store, err := dir.Open(t.TempDir(), dir.Options{})
		if err != nil {
			t.Fatal(err)
		}
		d := cache.Descriptor{Version: version, Key: key.Sum("before", func(key.Writer) {}), Layer: "base", Record: key.Record{{Name: "instruction", Value: "RUN"}}}
		var b bytes.Buffer
		packed, err := snapshot.Pack(t.Context(), &b, func(func(*snapshot.Entry, error) bool) {}, snapshot.PackOptions{})
		if err != nil {
			t.Fatal(err)
		}
		d.Digest, d.Size, d.DiffID = packed.Digest, packed.Size, packed.DiffID
		m := cache.Manifest{Version: version, Name: "base", Key: d.Key, Steps: []cache.Descriptor{d}}
		if err := errors.Join(store.Put(t.Context(), d, storetest.Blob(b.String())), store.Complete(t.Context(), m)); err != nil {
			t.Fatal(err)
		}
		f, err := frontend.Parse("Containerfile", []byte("RUN true\n"))
		if err != nil {
			t.Fatal(err)
		}
		p, err := Plan(t.Context(), Options{Files: []*frontend.File{f}, Root: t.TempDir(), Local: store})
		if err != nil {
			t.Fatal(err)
		}
		if it := p.Layers[0].Items[0]; it.State != dag.ToRun || it.Why != want {
			t.Errorf("version %d: %s, %s; want %s", version, it.State, it.Why, want)
		}
	}
}
