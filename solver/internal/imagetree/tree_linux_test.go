package imagetree

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/clayer/clayer/internal/ocitest"
)

func layersOf(tars ...[]byte) (all []Layer) {
	for i, data := range tars {
		all = append(all, Layer{fmt.Sprint("layer ", i), func(context.Context) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(data)), nil }})
	}
	return all
}

// listing is what a directory holds, a line a file.
func listing(t *testing.T, dir string) string {
	t.Helper()
	var lines []string
	first := make(map[uint64]string)
	err := filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || path == dir {
			return err
		}
		rel, _ := filepath.Rel(dir, path)
		info, err := d.Info()
		if err != nil {
			return err
		}
		st := info.Sys().(*syscall.Stat_t)
		line := fmt.Sprintf("%s %o", rel, st.Mode&0o7777)
		if st.Uid != 0 && os.Geteuid() == 0 {
			line += fmt.Sprintf(" %d:%d", st.Uid, st.Gid)
		}
		switch {
		case d.IsDir():
			line = "dir " + line
		case d.Type() == fs.ModeSymlink:
			target, _ := os.Readlink(path)
			line = "symlink " + rel + " " + target
		case d.Type().IsRegular():
			data, err := os.ReadFile(path)
			if err != nil {
				return err
			}
			line = "file " + line + " " + string(data)
			if to := first[st.Ino]; to != "" {
				line = "link " + rel + " " + to
			}
			first[st.Ino] = rel
		default:
			line = "other " + rel
		}
		lines = append(lines, line)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return strings.Join(lines, "\n")
}

func TestLayers(t *testing.T) {
	for _, tt := range []struct {
		name    string
		layers  []string
		sources []string
		want    string // or what the error holds
	}{
		{name: "a file is replaced, another stays", layers: []string{"dir a 755\nfile a/x 644 one\nfile a/y 600 two", "file a/x 755 three"}, want: "dir a 755\nfile a/x 755 three\nfile a/y 600 two"},
		{name: "a directory is merged, and has the upper's mode", layers: []string{"dir a 700\nfile a/x 644 one", "dir a 1777\nfile a/y 644 two"}, want: "dir a 1777\nfile a/x 644 one\nfile a/y 644 two"},
		{name: "whiteouts of a file and a directory", layers: []string{"file x 644 1\ndir a 755\nfile a/y 644 2\nfile z 644 3", "file .wh.x 644 _\nfile .wh.a 644 _"}, want: "file z 644 3"},
		{name: "a whiteout is for the layers below alone", layers: []string{"dir a 755\nfile a/old 644 1", "dir a 755\nfile a/new 644 2\nfile .wh.a 644 _"}, want: "dir a 755\nfile a/new 644 2"},
		{name: "opaque, wherever it stands", layers: []string{"dir a 755\nfile a/old 644 1\ndir a/b 755\nfile a/b/old 644 1", "dir a 755\nfile a/new 644 2\nfile a/.wh..wh..opq 644 _\ndir a/b 755"}, want: "dir a 755\ndir a/b 755\nfile a/new 644 2"},
		{name: "of aufs's own", layers: []string{"file x 644 1", "file .wh..wh.plnk 644 _\nfile .wh..wh.aufs 644 _"}, want: "file x 644 1"},
		{name: "a file becomes a directory, and back", layers: []string{"file x 644 1\ndir y 755\nfile y/z 644 1", "dir x 755\nfile x/in 644 2\nfile y 644 3"}, want: "dir x 755\nfile x/in 644 2\nfile y 644 3"},
		{name: "hard links, in a layer and across", layers: []string{"file x 644 1\nlink y x", "dir d 755\nlink d/z y"}, want: "dir d 755\nfile d/z 644 1\nlink x d/z\nlink y x"},
		{name: "one of several names is replaced", layers: []string{"file x 644 1\nlink y x", "file x 644 2"}, want: "file x 644 2\nfile y 644 1"},
		{name: "a hard link to what is deleted later", layers: []string{"file x 644 1\nlink y x", "file .wh.x 644 _"}, want: "file y 644 1"},
		{name: "through a link of a lower layer", layers: []string{"dir usr/lib 755\nsymlink lib usr/lib", "file lib/a 644 1"}, want: "symlink lib usr/lib\ndir usr 755\ndir usr/lib 755\nfile usr/lib/a 644 1"},
		{name: "an absolute link stays inside", layers: []string{"symlink out /../../etc\nfile out/passwd 644 1"}, want: "dir etc 755\nfile etc/passwd 644 1\nsymlink out /../../etc"},
		{name: "a directory replaces a link", layers: []string{"dir usr 755\nsymlink lib usr", "dir lib 755\nfile lib/a 644 1"}, want: "dir lib 755\nfile lib/a 644 1\ndir usr 755"},
		{name: "absolute names, and ./", layers: []string{"dir ./ 755\nfile /x 644 1\nfile ./y 644 2"}, want: "file x 644 1\nfile y 644 2"},
		{name: "setuid and owners", layers: []string{"file x 4755 1 12:34"}, want: "file x 4755 12:34 1"},
		{name: "a name that leads out", layers: []string{"file ../x 644 1"}, want: `layer 0: "../x" leads out of the image`},
		{name: "a hard link that leads out", layers: []string{"link x ../../etc/passwd"}, want: "leads out of the image"},
		{name: "a hard link to nothing", layers: []string{"link x y"}, want: "no file before it"},
		{name: "a hard link to a directory", layers: []string{"dir y 755\nlink x y"}, want: "no file before it"},
		{name: "below a file", layers: []string{"file x 644 1\nfile x/y 644 2"}, want: "a file"},
		{name: "links in a circle", layers: []string{"symlink a b\nsymlink b a\nfile a/x 644 1"}, want: "too many links"},
		{name: "a pipe", layers: []string{"fifo p"}, want: "other p"},

		{name: "a file alone", layers: []string{"dir a 755\nfile a/x 644 1\nfile a/y 644 2"}, sources: []string{"/a/x"}, want: "dir a 755\nfile a/x 644 1"},
		{name: "a directory", layers: []string{"dir a/b 755\nfile a/b/x 644 1\nfile a/y 644 2\nfile z 644 3"}, sources: []string{"a/b/"}, want: "dir a 755\ndir a/b 755\nfile a/b/x 644 1"},
		{name: "a pattern", layers: []string{"dir a 755\nfile a/x1 644 1\nfile a/y 644 2\ndir b 755\nfile b/x2 644 3"}, sources: []string{"*/x?"}, want: "dir a 755\nfile a/x1 644 1\ndir b 755\nfile b/x2 644 3"},
		{name: "where links lead", layers: []string{"dir opt/v1 755\nfile opt/v1/x 644 1\nsymlink opt/v /opt/v1\nsymlink x opt/v/x\nfile y 644 2"}, sources: []string{"x"}, want: "dir opt 755\nsymlink opt/v /opt/v1\ndir opt/v1 755\nfile opt/v1/x 644 1\nsymlink x opt/v/x"},
		{name: "a target is no pattern", layers: []string{"symlink x y*\nfile y* 644 1\nfile yy 644 2"}, sources: []string{"x"}, want: "symlink x y*\nfile y* 644 1"},
		{name: "nothing", layers: []string{"file y 644 2"}, sources: []string{"nosuch", "no/such"}, want: ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var tars [][]byte
			for i, lines := range tt.layers {
				data := ocitest.Tar(lines)
				switch i % 3 {
				case 1:
					data = ocitest.Gzip(data)
				case 2:
					data = ocitest.Zstd(data)
				}
				tars = append(tars, data)
			}
			dir := t.TempDir()
			tree, err := Read(t.Context(), layersOf(tars...))
			if err == nil {
				_, err = tree.Unpack(t.Context(), dir, tt.sources)
			}
			got := ""
			if err == nil {
				got = listing(t, dir)
			}
			if os.Geteuid() != 0 {
				tt.want = strings.ReplaceAll(tt.want, " 12:34", "")
			}
			if err == nil && got != tt.want || err != nil && !strings.Contains(err.Error(), tt.want) || err != nil && tt.want == "" {
				t.Errorf("error %v\n%s\nwant\n%s", err, got, tt.want)
			}
		})
	}
}

func TestLayersThatAreCut(t *testing.T) {
	whole := ocitest.Gzip(ocitest.Tar("file a 644 " + strings.Repeat("some_content_", 500)))
	for name, data := range map[string][]byte{
		"compressed": whole[:len(whole)-20], "plain": ocitest.Tar("file a 644 " + strings.Repeat("x", 5000))[:2000], "no tar": []byte(strings.Repeat("nothing of a tar", 100)),
	} {
		if _, err := Read(t.Context(), layersOf(data)); err == nil || !strings.HasPrefix(err.Error(), "layer 0: ") {
			t.Errorf("%s: error %v", name, err)
		}
	}
	tree, err := Read(t.Context(), layersOf())
	if err != nil || len(tree.root.children) != 0 {
		t.Errorf("an image without layers: %v", err)
	}
}

func TestAttributesAndDevices(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	tree, err := Read(t.Context(), layersOf(ocitest.Tar("xattr x user.a value\nxattr y security.selinux label\nchar null")))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	leftOut, err := tree.Unpack(t.Context(), dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Lstat(filepath.Join(dir, "null")); (err != nil || info.Mode()&fs.ModeCharDevice == 0) && !slices.Contains(leftOut, "null") {
		t.Errorf("the device: %v, %v, left out %v", info, err, leftOut)
	}
	value := make([]byte, 20)
	n, err := syscall.Getxattr(filepath.Join(dir, "x"), "user.a", value)
	if err != nil && err != syscall.ENOTSUP || err == nil && string(value[:n]) != "value" {
		t.Errorf("the attribute: %q, %v", value[:max(n, 0)], err)
	}
}
