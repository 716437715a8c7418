package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
)

// packEntries packs entries as a step's changes are, and describes the blob.
func packEntries(t *testing.T, d *cache.Descriptor, entries ...*snapshot.Entry) []byte {
	t.Helper()
	var b bytes.Buffer
	p, err := snapshot.Pack(context.Background(), &b, func(yield func(*snapshot.Entry, error) bool) {
		for _, e := range entries {
			if !yield(e, nil) {
				return
			}
		}
	}, snapshot.PackOptions{})
	if err != nil {
		t.Fatal(err)
	}
	d.Digest, d.Size, d.CRC32C, d.DiffID, d.Entries, d.Bytes = p.Digest, p.Size, p.CRC32C, p.DiffID, p.Entries, p.Bytes
	return b.Bytes()
}

func fileEntry(path string, mode uint32, content string) *snapshot.Entry {
	return &snapshot.Entry{Path: path, Kind: snapshot.File, Mode: mode, Size: int64(len(content)), Open: func() (io.ReadCloser, error) {
		return io.NopCloser(strings.NewReader(content)), nil
	}}
}

// tocSize is how many bytes of a blob are its table of contents.
func tocSize(blob []byte) int {
	return int(binary.LittleEndian.Uint64(blob[len(blob)-16:]))
}

// contradicted is a Containerfile whose snapshots are forged in the store, and
// contradictedRoot what the root is in the end.
const contradicted = `ARG URL
COPY --chmod=0644 given /etc/given
FETCH --chmod=0755 $URL/tool /opt/bin
WORKDIR /srv/work
RUN echo run > /etc/run
COPY tree /opt/tree/
`

var contradictedRoot = map[string]string{
	"etc/given": "-rw-r--r-- given\n", "opt/bin/tool": "-rwxr-xr-x fetched\n", "etc/run": "-rw-r--r-- run\n",
	"opt/tree/a": "-rw-r--r-- a\n", "opt/tree/b": "-rwxr-xr-x b\n", "srv/work": "drwxr-xr-x ",
}

// A contradiction is a blob, or a descriptor, that differs from the step of its key.
type contradiction struct {
	name  string
	step  string // the instruction that the text of its key file begins with
	blob  func(t *testing.T, d *cache.Descriptor) []byte
	after func(d *cache.Descriptor)
}

func contradictions() []contradiction {
	state := &snapshot.Entry{Path: "opt/bin", Kind: snapshot.Dir, Implied: true, Mode: 0o755}
	tree := []*snapshot.Entry{{Path: "opt/tree", Kind: snapshot.Dir, Implied: true, Mode: 0o755}, fileEntry("opt/tree/a", 0o644, "a\n"), fileEntry("opt/tree/b", 0o755, "b\n")}
	evil := fileEntry("etc/run", 0o4755, "evil\n")
	return []contradiction{
		{name: "COPY with another mode", step: "COPY --chmod", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, fileEntry("etc/given", 0o4755, "given\n"))
		}},
		{name: "COPY with other content", step: "COPY --chmod", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, fileEntry("etc/given", 0o644, "GIVEN\n"))
		}},
		{name: "COPY under another name", step: "COPY --chmod", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, fileEntry("etc/taken", 0o644, "given\n"))
		}},
		{name: "COPY of nothing", step: "COPY --chmod", blob: func(t *testing.T, d *cache.Descriptor) []byte { return packEntries(t, d) }},
		{name: "COPY of a tree with more", step: "COPY tree", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, append(tree[:3:3], fileEntry("opt/tree/c", 0o755, "c\n"))...)
		}},
		{name: "COPY of a tree with less", step: "COPY tree", blob: func(t *testing.T, d *cache.Descriptor) []byte { return packEntries(t, d, tree[:2]...) }},
		{name: "COPY that deletes", step: "COPY tree", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, append([]*snapshot.Entry{{Path: "bin/busybox", Kind: snapshot.Delete}}, tree...)...)
		}},
		{name: "COPY of a link", step: "COPY --chmod", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, &snapshot.Entry{Path: "etc/given", Kind: snapshot.Symlink, Target: "/etc/shadow", Mode: 0o777})
		}},
		{name: "FETCH with another mode", step: "FETCH", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, state, fileEntry("opt/bin/tool", 0o4755, "fetched\n"))
		}},
		{name: "FETCH with other content", step: "FETCH", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, state, fileEntry("opt/bin/tool", 0o755, "evil\n"))
		}},
		{name: "FETCH elsewhere", step: "FETCH", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, state, fileEntry("etc/tool", 0o755, "fetched\n"))
		}},
		{name: "WORKDIR of a file", step: "WORKDIR", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, fileEntry("srv/work", 0o4755, "evil\n"))
		}},
		{name: "RUN whose descriptor is of another blob", step: "RUN", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			was := *d
			blob := packEntries(t, d, evil)
			d.Entries, d.Bytes = was.Entries, was.Bytes+100
			return blob
		}},
		{name: "RUN of more entries than its descriptor says", step: "RUN", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			was := *d
			blob := packEntries(t, d, fileEntry("etc/run", 0o644, ""), fileEntry("etc/run2", 0o644, "run\n"), fileEntry("etc/run3", 0o644, ""))
			d.Entries = was.Entries
			return blob
		}},
		{name: "RUN with a table of contents that lies", step: "RUN", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			other := packEntries(t, d, fileEntry("etc/ran", 0o644, "evil\n"))
			blob := packEntries(t, d, evil)
			blob = append(blob[:len(blob)-tocSize(blob):len(blob)-tocSize(blob)], other[len(other)-tocSize(other):]...)
			d.Digest, d.Size, d.CRC32C = digest.FromBytes(blob), int64(len(blob)), 0
			return blob
		}},
		{name: "RUN that is no snapshot", step: "RUN", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			blob := bytes.Repeat([]byte("garbage"), 1000)
			d.Digest, d.Size, d.CRC32C = digest.FromBytes(blob), int64(len(blob)), 0
			return blob
		}},
		{name: "RUN that is cut off", step: "RUN", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			blob := packEntries(t, d, evil)
			blob = blob[:40]
			d.Digest, d.Size, d.CRC32C = digest.FromBytes(blob), int64(len(blob)), 0
			return blob
		}},
		{name: "RUN that writes what is applied", step: "RUN", blob: func(t *testing.T, d *cache.Descriptor) []byte {
			return packEntries(t, d, fileEntry("var/lib/clayer/state.json", 0o644, "{}"))
		}},
		{name: "RUN with the record of another step", step: "RUN", after: func(d *cache.Descriptor) { d.Record[1] = key.Input{Name: "instruction", Value: "COPY"} }},
	}
}

// What a store says of a step that contradicts itself, or the step, is a miss, at
// once, with a warning: whatever is wrong with it, the root gets what the
// Containerfile says.
func TestStoreThatContradictsItself(t *testing.T) {
	requireMounts(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, "fetched\n") }))
	defer srv.Close()
	for _, tt := range contradictions() {
		for _, mode := range []string{"nothing to run", "something to run", "in place"} {
			t.Run(tt.name+"/"+mode, func(t *testing.T) { solveContradicted(t, srv.URL, tt, mode) })
		}
	}
}

func solveContradicted(t *testing.T, url string, tt contradiction, mode string) {
	w := newWorkspace(t)
	w.write("given", "given\n")
	if err := os.Mkdir(w.path("tree"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("tree/a", "a\n")
	w.write("tree/b", "b\n")
	if err := os.Chmod(w.path("tree/b"), 0o755); err != nil {
		t.Fatal(err)
	}
	w.write("Containerfile", contradicted)
	solve := func() string {
		t.Helper()
		args := []string{"solve", "--root", w.path("root"), "--build-arg", "URL=" + url, "--sandbox=overlay"}
		if mode == "in place" {
			args[len(args)-1] = "--sandbox=inplace"
		}
		_, stderr, code := w.run(args...)
		if code != 0 {
			t.Fatalf("exit code %d\n%s", code, stderr)
		}
		return stderr
	}
	solve()
	if _, stderr, code := w.run("undo", "--root", w.path("root")); code != 0 {
		t.Fatal(stderr)
	}
	tt.forge(t, w)
	if mode != "nothing to run" {
		w.write("Containerfile", contradicted+"RUN echo more > /etc/more\n")
	}
	out := solve()
	if strings.Count(out, "so it is built again") != 1 || strings.Count(out, "warning:") != 1 {
		t.Errorf("not one warning of it:\n%s", out)
	}
	for name, want := range contradictedRoot {
		info, err := os.Lstat(w.path("root/" + name))
		if err != nil {
			t.Errorf("%v\n%s", err, out)
			continue
		}
		got := info.Mode().String() + " "
		if !info.IsDir() {
			data, _ := os.ReadFile(w.path("root/" + name))
			got += string(data)
		}
		if got != want {
			t.Errorf("%s is %q, want %q\n%s", name, got, want, out)
		}
	}
	for _, name := range []string{"etc/taken", "etc/run2", "etc/tool", "opt/tree/c"} {
		if _, err := os.Lstat(w.path("root/" + name)); err == nil {
			t.Errorf("%s is there", name)
		}
	}
	if _, err := os.Lstat(w.path("root/bin/busybox")); err != nil {
		t.Error(err)
	}
	if stdout, stderr, code := w.run("verify", "--root", w.path("root")); code != 0 {
		t.Errorf("verify: exit code %d\n%s%s", code, stdout, stderr)
	}
	// What was built again has taken its place.
	if _, stderr, code := w.run("undo", "--root", w.path("root")); code != 0 {
		t.Fatal(stderr)
	}
	if out := solve(); strings.Contains(out, "warning") || !strings.Contains(out, "restored") {
		t.Errorf("the next solve:\n%s", out)
	}
}

// forge changes the one snapshot of the step in the local store.
func (tt *contradiction) forge(t *testing.T, w *workspace) {
	t.Helper()
	n := 0
	paths, _ := filepath.Glob(w.path("cache/store/keys/*/*.json"))
	for _, path := range paths {
		var d cache.Descriptor
		data, err := os.ReadFile(path)
		if err == nil {
			err = json.Unmarshal(data, &d)
		}
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasPrefix(d.Text, tt.step) || d.ByContent() {
			continue
		}
		n++
		if tt.blob != nil {
			blob := tt.blob(t, &d)
			w.write("cache/store/blobs/sha256/"+d.Digest.Encoded(), string(blob))
		}
		if tt.after != nil {
			tt.after(&d)
		}
		if data, err = json.Marshal(d); err != nil {
			t.Fatal(err)
		}
		w.write(strings.TrimPrefix(path, w.dir+"/"), string(data))
	}
	if n != 1 {
		t.Fatalf("%d steps %s", n, tt.step)
	}
}
