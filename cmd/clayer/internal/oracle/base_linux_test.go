package oracle

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"

	"github.com/opencontainers/go-digest"
	"github.com/opencontainers/image-spec/specs-go"
	ocispec "github.com/opencontainers/image-spec/specs-go/v1"
	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/testexec"
)

// searchPath is PATH in an image that sets none.
const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// applets are the commands that a RUN may use.
var applets = strings.Fields("sh ash cat cp mv ln ls rm rmdir mkdir touch chmod chown mkfifo true false echo find sort stat readlink id env cut sed grep tr tar head seq dd truncate [ test sha256sum cmp")

// makeBase makes the root that cases are built on: a shell, a user database, and
// files, directories and links for instructions to meet.
func makeBase(dir string) error {
	in := func(p string) string { return filepath.Join(dir, p) }
	for _, d := range []string{
		"bin", "dev", "etc", "out", "proc", "root", "run", "sys", "tmp", "var/lib", "var/tmp",
		"opt", "srv/dir/sub", "srv/empty", "srv/closed", "usr/share",
	} {
		if err := os.MkdirAll(in(d), 0o755); err != nil {
			return err
		}
	}
	busybox, err := exec.LookPath("busybox")
	if err != nil {
		return err
	}
	data, err := os.ReadFile(busybox)
	if err != nil {
		return err
	}
	if err := testexec.WriteFile(in("bin/busybox"), data); err != nil {
		return err
	}
	for name, content := range map[string]string{
		"etc/passwd":      "root:x:0:0:root:/root:/bin/sh\napp:x:1000:1001::/srv:/bin/sh\n",
		"etc/group":       "root:x:0:\napp:x:1001:\nstaff:x:50:app\n",
		"etc/os-release":  "ID=oracle\nVERSION_ID=1\n",
		"etc/hosts":       "127.0.0.1 localhost\n",
		"etc/resolv.conf": "",
		"srv/file":        "file of the base\n",
		"srv/dir/a":       "a of the base\n",
		"srv/dir/sub/b":   "b of the base\n",
		"srv/able":        "with a capability\n",
	} {
		if err := os.WriteFile(in(name), []byte(content), 0o644); err != nil {
			return err
		}
	}
	for name, minor := range map[string]uint32{"null": 3, "zero": 5} {
		if err := unix.Mknod(in("dev/"+name), unix.S_IFCHR|0o666, int(unix.Mkdev(1, minor))); err != nil {
			return err
		}
	}
	links := map[string]string{
		"srv/ldir": "dir", "srv/labs": "/srv/dir", "srv/lfile": "dir/a", "srv/lnone": "none",
		"srv/lup": "../opt/made", "srv/lout": "../../../../opt", "srv/lloop": "lloop", "srv/dir/lback": "..",
	}
	for _, name := range applets {
		links["bin/"+name] = "busybox"
	}
	for name, target := range links {
		if err := os.Symlink(target, in(name)); err != nil {
			return err
		}
	}
	return errors.Join(
		os.Chmod(in("tmp"), 0o777|os.ModeSticky), os.Chmod(in("var/tmp"), 0o777|os.ModeSticky),
		os.Chown(in("srv/dir"), 1000, 50), os.Chmod(in("srv/dir"), 0o775),
		os.Chown(in("srv/dir/a"), 1000, 1001), os.Chmod(in("srv/dir/a"), 0o640),
		os.Chmod(in("srv/closed"), 0o700),
		unix.Setxattr(in("srv/able"), "security.capability", []byte("\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"), 0),
	)
}

// makeLayout makes an OCI image layout of the root in dir, and returns the digest of its
// manifest.
func makeLayout(root, dir string) (digest.Digest, error) {
	blobs := filepath.Join(dir, "blobs/sha256")
	if err := os.MkdirAll(blobs, 0o755); err != nil {
		return "", err
	}
	put := func(mediaType string, data []byte) (ocispec.Descriptor, error) {
		d := ocispec.Descriptor{MediaType: mediaType, Size: int64(len(data)), Digest: digest.FromBytes(data)}
		return d, os.WriteFile(filepath.Join(blobs, d.Digest.Encoded()), data, 0o644)
	}
	putJSON := func(mediaType string, v any) (ocispec.Descriptor, error) {
		data, err := json.Marshal(v)
		if err != nil {
			return ocispec.Descriptor{}, err
		}
		return put(mediaType, data)
	}
	layer, err := exec.Command("tar", "-C", root, "--numeric-owner", "--xattrs", "--xattrs-include=*", "--format=pax", "-cf", "-", ".").Output()
	if err != nil {
		return "", fmt.Errorf("tar: %w", err)
	}
	l, err := put(ocispec.MediaTypeImageLayer, layer)
	if err != nil {
		return "", err
	}
	config, err := putJSON(ocispec.MediaTypeImageConfig, ocispec.Image{
		Platform: ocispec.Platform{OS: "linux", Architecture: runtime.GOARCH},
		Config:   ocispec.ImageConfig{Env: []string{"PATH=" + searchPath}},
		RootFS:   ocispec.RootFS{Type: "layers", DiffIDs: []digest.Digest{l.Digest}},
	})
	if err != nil {
		return "", err
	}
	manifest, err := putJSON(ocispec.MediaTypeImageManifest, ocispec.Manifest{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageManifest, Config: config, Layers: []ocispec.Descriptor{l},
	})
	if err != nil {
		return "", err
	}
	index, err := json.Marshal(ocispec.Index{
		Versioned: specs.Versioned{SchemaVersion: 2}, MediaType: ocispec.MediaTypeImageIndex, Manifests: []ocispec.Descriptor{manifest},
	})
	if err != nil {
		return "", err
	}
	return manifest.Digest, errors.Join(
		os.WriteFile(filepath.Join(dir, "index.json"), index, 0o644),
		os.WriteFile(filepath.Join(dir, "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644))
}
