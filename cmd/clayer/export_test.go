//go:build linux

package main

import (
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/internal/treetest"
)

// What skopeo reads from an exported image, unpacked by tar over the root as
// it was before, is the root as clayer left it: files, links, times, modes,
// capabilities, and what was deleted.
func TestExportedLayersMakeTheRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("not root: tar could not give files their owners")
	}
	for _, tool := range []string{"skopeo", "tar", "zstd", "cp"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skip(tool + " is not installed")
		}
	}
	w := newWorkspace(t)
	for _, dir := range []string{"root/data/sub", "root/data/whole"} {
		if err := os.MkdirAll(w.path(dir), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, file := range []string{"root/data/gone", "root/data/sub/gone", "root/data/whole/gone", "root/data/kept", "root/was-file"} {
		w.write(file, file)
	}
	w.write("Containerfile", `RUN rm /data/gone /data/sub/gone; rm -r /data/whole; mkdir -p /opt/a && echo one > /opt/a/one && chmod 4755 /opt/a/one
RUN ln /opt/a/one /opt/a/two; ln -s /nowhere /opt/link; mkfifo /opt/fifo; chown 12:34 /data/kept; touch -d @12345 /data/kept
RUN rm /was-file; mkdir /was-file; echo x > /was-file/x; mkdir /data/whole; echo new > /data/whole/new
RUN rm -r /opt/a; head -c 3000000 /dev/urandom > "/opt/a file"
`)
	if out, err := exec.Command("cp", "-a", w.path("root"), w.path("unpacked")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	if _, stderr, code := w.run("solve", "--root=root", "-f", "Containerfile"); code != 0 {
		t.Fatal(stderr)
	}
	want := treetest.Describe(t, w.path("root"), notOfTheImage)
	for _, gzip := range []string{"--gzip=false", "--gzip"} {
		archive := w.path("env" + strings.ReplaceAll(gzip, "=", "") + ".tar")
		if _, stderr, code := w.run("cache", "export", "--root=root", "--oci", archive, gzip, "-f", "Containerfile"); code != 0 {
			t.Fatal(stderr)
		}
		copied := archive + ".copied"
		if out, err := exec.Command("skopeo", "copy", "--insecure-policy", "oci-archive:"+archive, "dir:"+copied).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		root := archive + ".root"
		if out, err := exec.Command("cp", "-a", w.path("unpacked"), root).CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
		unpackImage(t, copied, root)
		treetest.Diff(t, want, treetest.Describe(t, root, notOfTheImage))
	}
}

// notOfTheImage are what is clayer's own, and the directories whose times alone change.
func notOfTheImage(path string) bool { return path == "var/lib/clayer" }

// unpackImage does what the specification says an image's layers are for: each
// is unpacked over what is there, and its whiteouts take away what the layers
// before it, or the root, had.
func unpackImage(t *testing.T, image, root string) {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(image, "manifest.json"))
	if err != nil {
		t.Fatal(err)
	}
	var m specs.Manifest
	if err := json.Unmarshal(data, &m); err != nil {
		t.Fatal(err)
	}
	if len(m.Layers) != 4 {
		t.Fatalf("%d layers, want 4", len(m.Layers))
	}
	for _, l := range m.Layers {
		packing := "--gzip"
		if strings.HasSuffix(l.MediaType, "zstd") {
			packing = "--zstd"
		}
		blob := filepath.Join(image, l.Digest.Encoded())
		list, err := exec.Command("tar", packing, "--quoting-style=literal", "-tf", blob).Output()
		if err != nil {
			t.Fatal(err)
		}
		for name := range strings.Lines(string(list)) {
			dir, base := filepath.Split(strings.TrimRight(name, "/\n"))
			if gone, ok := strings.CutPrefix(base, ".wh."); ok {
				if err := os.RemoveAll(filepath.Join(root, dir, gone)); err != nil {
					t.Fatal(err)
				}
			}
		}
		// A file where a directory was, or the reverse: tar preserves a directory
		// that is not empty.
		cmd := exec.Command("tar", packing, "--exclude=.wh.*", "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", blob, "-C", root)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v\n%s", err, out)
		}
	}
	err = filepath.WalkDir(root, func(path string, _ fs.DirEntry, err error) error {
		if strings.HasPrefix(filepath.Base(path), ".wh.") {
			return errors.New(path + " is left")
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
