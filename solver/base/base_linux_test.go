package base

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/opencontainers/go-digest"
	specs "github.com/opencontainers/image-spec/specs-go/v1"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/image"
	"github.com/clayer/clayer/cache/snapshot"
)

// canary is in each file that is to be left out.
const canary = "correct-horse-battery-staple"

// plant writes the file with the canary in it.
func plant(t *testing.T, root, name, text string) {
	t.Helper()
	p := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(p), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(p, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// makeRoot makes a root with something in each place that is left out, and of each kind that
// is not.
func makeRoot(t *testing.T) string {
	t.Helper()
	root := t.TempDir()
	for dir := range emptied {
		plant(t, root, dir+"/x/deep", canary)
		plant(t, root, dir+"/file", canary)
	}
	for p := range absent {
		p = strings.ReplaceAll(p, "*", "any")
		if strings.Contains(path.Base(p), ".") || strings.HasPrefix(path.Base(p), "ssh_") || strings.HasSuffix(p, "-") {
			plant(t, root, p, canary)
		} else {
			plant(t, root, p+"/below", canary)
		}
	}
	for _, n := range named {
		for _, at := range []string{"home/me/", "root/", "opt/tool/", "usr/share/x/", "data/agent/", ""} {
			if at != "" || !strings.HasPrefix(n, ".docker") {
				plant(t, root, at+n+".d/no-place", "stays")
			}
			if strings.Contains(n, ".") && len(n)%2 == 0 {
				plant(t, root, at+n, canary)
			} else {
				plant(t, root, at+n+"/below", canary)
			}
		}
	}
	for _, name := range []string{".bash_history", ".python_history", ".lesshst", ".viminfo", ".wget-hsts"} {
		plant(t, root, "opt/"+name, canary)
	}
	for name, text := range map[string]string{
		"etc/passwd":             "root:x:0:0::/root:/bin/sh\nme:x:1000:1000::/srv/people/me:/bin/sh\ndaemon:x:1:1::/usr/sbin:/bin/sh\nold:" + canary + ":1001:1:::\nlinked:x:1002:1::/people/linked:/bin/sh\n",
		"etc/shadow":             "root:$6$" + canary + ":1::::::\nme:!$6$" + canary + ":1::::::\nnew:*:1::::::\n",
		"etc/gshadow":            "staff:" + canary + "::me\n",
		"etc/passwd-":            "root:" + canary + ":0:0::/root:/bin/sh\n",
		"etc/security/opasswd":   "me:1000:1:" + canary + "\n",
		"etc/tool/server.pem":    "-----BEGIN PRIVATE KEY-----\n" + canary + "\n-----END PRIVATE KEY-----\n",
		"etc/pip.conf":           "[global]\nindex-url = https://me:" + canary + "@pypi.example/simple\n",
		"etc/pip-public.conf":    "[global]\nindex-url = https://pypi.example/simple\n",
		"srv/people/me/notes":    canary,
		"srv/people/other/notes": "stays",
		"var/log/syslog":         canary,
		"var/log/apt/term.log":   canary,
		"var/cache/mine/x":       canary,
		"opt/named/x":            canary,
		"real/linked/notes":      canary,
		"usr/sbin/daemon":        "stays",
	} {
		plant(t, root, name, text)
	}
	must(t, os.Symlink("real", filepath.Join(root, "people")))
	return root
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func read(t *testing.T, root string) *Base {
	t.Helper()
	b, err := Read(t.Context(), Options{Root: root, Exclude: []string{"/opt/named"}, Own: []string{filepath.Join(root, "var/cache/mine"), filepath.Join(root, "out")}})
	must(t, err)
	return b
}

// layer returns the entries of the layer of a layout, by path, and its tar.
func layer(t *testing.T, dir string) (map[string]*snapshot.Entry, []byte) {
	t.Helper()
	var index specs.Index
	var manifest specs.Manifest
	load := func(name string, v any) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		must(t, err)
		must(t, json.Unmarshal(data, v))
	}
	blob := func(d digest.Digest) string { return "blobs/sha256/" + d.Encoded() }
	load("index.json", &index)
	load(blob(index.Manifests[0].Digest), &manifest)
	if len(manifest.Layers) != 1 {
		t.Fatalf("%d layers", len(manifest.Layers))
	}
	data, err := os.ReadFile(filepath.Join(dir, blob(manifest.Layers[0].Digest)))
	must(t, err)
	all := make(map[string]*snapshot.Entry)
	for e, err := range snapshot.Read(bytes.NewReader(data)) {
		must(t, err)
		c := *e
		if e.Kind == snapshot.File {
			f, err := e.Open()
			must(t, err)
			c.Content, err = io.ReadAll(f)
			must(t, err)
			f.Close()
		}
		all[e.Path] = &c
	}
	var tar bytes.Buffer
	unzstd := exec.Command("zstd", "-dc")
	unzstd.Stdin, unzstd.Stdout = bytes.NewReader(data), &tar
	if err := unzstd.Run(); err != nil {
		t.Logf("without zstd only the contents are searched: %v", err)
		for _, e := range all {
			fmt.Fprint(&tar, e.Path, e.Target, string(e.Content), e.Xattrs)
		}
	}
	return all, tar.Bytes()
}

// TestNoCredentialLeaves plants credentials in every place that is listed, and finds no byte of
// them in what is written, nor the name of a file that has them.
func TestNoCredentialLeaves(t *testing.T) {
	root := makeRoot(t)
	b := read(t, root)
	dir := filepath.Join(t.TempDir(), "base")
	_, err := b.Write(t.Context(), dir, nil, false)
	must(t, err)
	all, tar := layer(t, dir)
	if bytes.Contains(tar, []byte(canary)) {
		for p, e := range all {
			if bytes.Contains(e.Content, []byte(canary)) {
				t.Errorf("%s holds it", p)
			}
		}
		t.Error("the layer holds the canary")
	}
	must(t, filepath.WalkDir(dir, func(p string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		if bytes.Contains(data, []byte(canary)) {
			t.Errorf("%s holds the canary", p)
		}
		return err
	}))
	for _, p := range []string{"dev", "proc", "run", "sys", "tmp", "root", "home", "var/tmp", "srv/people/me", "real/linked", "var/log/apt", "usr/sbin/daemon", "srv/people/other/notes", "etc/pip-public.conf", "etc/shadow"} {
		if all[p] == nil {
			t.Errorf("/%s is not in the base", p)
		}
	}
	if text := string(all["etc/shadow"].Content); text != "root:*omitted*:1::::::\nme:!*omitted*:1::::::\nnew:*:1::::::\n" {
		t.Errorf("etc/shadow:\n%s", text)
	}
	left := make(map[string]string)
	for _, l := range b.LeftOut {
		left[l.Path] = l.Why
	}
	for p, why := range map[string]string{"/root": ofHome, "/srv/people/me": ofHome, "/etc/tool/server.pem": ofKey, "/etc/pip.conf": ofLogin, "/opt/tool/.aws": ofCredential, "/opt/named": ofUser, "/var/cache/mine": ofClayer} {
		if left[p] != why {
			t.Errorf("%s is left out as %q, want %q", p, left[p], why)
		}
	}
	if p, err := image.PlatformOf(dir); err != nil || p != b.Platform {
		t.Errorf("platform of the layout: %q, %v, want %q", p, err, b.Platform)
	}
}

// TestWhatIsWritten writes files of each kind, and finds them with all that they are.
func TestWhatIsWritten(t *testing.T) {
	root := t.TempDir()
	for _, d := range []string{"usr/bin", "dev", "opt/sub", "root", "home", "tmp"} {
		must(t, os.MkdirAll(filepath.Join(root, d), 0o755))
	}
	at := func(p string) string { return filepath.Join(root, p) }
	must(t, os.WriteFile(at("usr/bin/tool"), []byte("tool"), 0o755))
	must(t, os.Chmod(at("usr/bin/tool"), 0o755|os.ModeSetuid))
	must(t, os.Link(at("usr/bin/tool"), at("opt/sub/hard")))
	must(t, os.Symlink("/root/gone", at("opt/soft")))
	must(t, unix.Mkfifo(at("opt/fifo"), 0o644))
	sparse, err := os.Create(at("opt/sparse"))
	must(t, err)
	_, err = sparse.WriteAt([]byte("end"), 4<<20)
	must(t, errors.Join(err, sparse.Close()))
	l, err := net.Listen("unix", at("opt/docker.sock"))
	must(t, err)
	defer l.Close()
	hasXattr := unix.Setxattr(at("opt/sub"), "user.test", []byte("v"), 0) == nil
	hasCap := unix.Setxattr(at("usr/bin/tool"), "security.capability", []byte{1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0}, 0) == nil
	hasDevice := unix.Mknod(at("opt/null"), unix.S_IFCHR|0o666, int(unix.Mkdev(1, 3))) == nil
	want := time.Unix(1_000_000_000, 123456789)
	must(t, os.Chtimes(at("opt/sparse"), want, want))

	first := read(t, root)
	dir := filepath.Join(t.TempDir(), "base")
	w, err := first.Write(t.Context(), dir, nil, false)
	must(t, err)
	all, _ := layer(t, dir)
	hard, tool := all["opt/sub/hard"], all["usr/bin/tool"]
	if hard == nil || tool == nil || hard.Kind != snapshot.File || tool.Kind != snapshot.Link || tool.Target != "opt/sub/hard" || hard.Mode != 0o4755 {
		t.Errorf("hard links: %+v, %+v", hard, tool)
	}
	if e := all["opt/sparse"]; e == nil || len(e.Data) == 0 || e.Size != 4<<20+3 || !e.ModTime.Equal(want) {
		t.Errorf("sparse: %+v", e)
	}
	if e := all["opt/soft"]; e == nil || e.Target != "/root/gone" {
		t.Errorf("symlink: %+v", e)
	}
	if e := all["opt/fifo"]; e == nil || e.Kind != snapshot.Fifo {
		t.Errorf("fifo: %+v", e)
	}
	if all["opt/docker.sock"] != nil {
		t.Error("a socket is in the base")
	}
	if hasXattr && all["opt/sub"].Xattrs["user.test"] != "v" {
		t.Errorf("xattrs: %v", all["opt/sub"].Xattrs)
	}
	if hasCap && len(hard.Xattrs["security.capability"]) != 20 {
		t.Errorf("capabilities: %v", hard.Xattrs)
	}
	if e := all["opt/null"]; hasDevice && (e == nil || e.Kind != snapshot.Char || e.Major != 1 || e.Minor != 3) {
		t.Errorf("device: %+v", e)
	}

	// The same root gives the same digest, also when what is left out has changed.
	plant(t, root, "root/.cache/new", "x")
	plant(t, root, "tmp/new", "x")
	plant(t, root, "home/me/new", "x")
	again, err := read(t, root).Write(t.Context(), filepath.Join(t.TempDir(), "again"), nil, false)
	must(t, err)
	if again.Digest != w.Digest {
		t.Errorf("digest %s, and then %s", w.Digest, again.Digest)
	}
	zipped, err := read(t, root).Write(t.Context(), filepath.Join(t.TempDir(), "zipped"), nil, true)
	must(t, err)
	if zipped.Digest == w.Digest {
		t.Error("gzip changed nothing")
	}
	plant(t, root, "usr/new", "x")
	if more, err := read(t, root).Write(t.Context(), filepath.Join(t.TempDir(), "more"), nil, false); err != nil || more.Digest == w.Digest {
		t.Errorf("another root: %s, %v", more.Digest, err)
	}
}

// TestCredentialOfTheSession refuses a file that holds one, and leaves nothing.
// A file of an etc is left out by what it holds.
func TestTextWithCredentials(t *testing.T) {
	for text, want := range map[string]string{
		"[url \"https://ghp_0123456789abcdefghijABCDEFGHIJ012345@github.com/\"]": ofSecret,
		"[url \"https://abcdef0123456789abcdef@git.example.com/\"]":              ofSecret,
		"//registry.npmjs.org/:_authToken=0123456":                               ofSecret,
		"export OPENAI_API_KEY=sk-abcdefgh":                                      ofSecret,
		"LANG=C\nGH_TOKEN=\"abcdefgh\"":                                          ofSecret,
		"[client]\npassword = hunter22":                                          ofSecret,
		"key: AKIAABCDEFGHIJKLMNOP":                                              ofSecret,
		"proxy=http://me:hunter2@proxy.example.com":                              ofLogin,

		"insteadOf = ssh://git@github.com/":          "",
		"export GH_TOKEN=$TOKEN\nAPI_KEY=${X}abcdef": "",
		"# password = hunter22":                      "",
		"//registry.npmjs.org/:_authToken=${NPM}ab":  "",
		"password requisite pam_deny.so":             "",
		"input_password =\n":                         "",
	} {
		dir := t.TempDir()
		if err := errors.Join(os.MkdirAll(filepath.Join(dir, "usr/local/etc"), 0o755), os.WriteFile(filepath.Join(dir, "usr/local/etc/x"), []byte(text), 0o644)); err != nil {
			t.Fatal(err)
		}
		if why := newFilter(dir).why("usr/local/etc/x"); why != want {
			t.Errorf("%q is left out as %q, want %q", text, why, want)
		}
	}
}

func TestCredentialOfTheSession(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "opt/settings", "token="+canary)
	credentials, err := cache.Credentials([]string{"MY_TOKEN=" + canary}, nil, nil)
	must(t, err)
	out := t.TempDir()
	_, err = read(t, root).Write(t.Context(), filepath.Join(out, "base"), credentials, false)
	var secret *cache.SecretError
	if !errors.As(err, &secret) || secret.Path != "opt/settings" || secret.Name != "MY_TOKEN" {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestInterrupted leaves nothing where a base would be.
func TestInterrupted(t *testing.T) {
	root := t.TempDir()
	for i := range 50 {
		plant(t, root, fmt.Sprintf("opt/%d", i), strings.Repeat("x", 1<<16))
	}
	b := read(t, root)
	ctx, cancel := context.WithCancel(t.Context())
	changes := b.changes
	b.changes = func(yield func(*snapshot.Entry, error) bool) {
		n := 0
		for e, err := range changes {
			if n++; n == 20 {
				cancel()
			}
			if !yield(e, err) {
				return
			}
		}
	}
	out := t.TempDir()
	if _, err := b.Write(ctx, filepath.Join(out, "base"), nil, false); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
	if left, err := os.ReadDir(out); err != nil || len(left) > 0 {
		t.Errorf("left: %v, %v", left, err)
	}
}

// TestWhatAUserMayNotRead is left out and named.
func TestWhatAUserMayNotRead(t *testing.T) {
	if os.Geteuid() == 0 {
		// As a plain user, in a process of its own.
		program, err := os.Executable()
		must(t, err)
		tmp := t.TempDir()
		for dir := tmp; dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
			must(t, os.Chmod(dir, 0o777))
		}
		for dir := filepath.Dir(program); dir != "/" && dir != os.TempDir(); dir = filepath.Dir(dir) {
			must(t, os.Chmod(dir, 0o755))
		}
		cmd := exec.Command(program, "-test.run=^TestWhatAUserMayNotRead$", "-test.v")
		cmd.Dir, cmd.Env = tmp, append(os.Environ(), "TMPDIR="+tmp, "HOME="+tmp)
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
		out, err := cmd.CombinedOutput()
		if err != nil || !bytes.Contains(out, []byte("--- PASS")) {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	root := t.TempDir()
	plant(t, root, "opt/ok", "ok")
	plant(t, root, "opt/closed", "closed")
	plant(t, root, "opt/dir/in", "in")
	must(t, os.Link(filepath.Join(root, "opt/closed"), filepath.Join(root, "opt/other")))
	must(t, os.Chmod(filepath.Join(root, "opt/closed"), 0))
	must(t, os.Chmod(filepath.Join(root, "opt/dir"), 0))
	t.Cleanup(func() { _ = os.Chmod(filepath.Join(root, "opt/dir"), 0o700) })
	b := read(t, root)
	if got := b.Unreadable(); !slices.Equal(got, []string{"/opt/closed", "/opt/dir", "/opt/other"}) {
		t.Errorf("unreadable: %v", got)
	}
	dir := filepath.Join(t.TempDir(), "base")
	_, err := b.Write(t.Context(), dir, nil, false)
	must(t, err)
	all, _ := layer(t, dir)
	if all["opt/ok"] == nil || all["opt/closed"] != nil || all["opt/dir"] != nil {
		t.Errorf("%v", slices.Sorted(maps.Keys(all)))
	}
}

// TestIncluded leaves what is named of a home directory, but for credentials.
func TestIncluded(t *testing.T) {
	root := t.TempDir()
	plant(t, root, "root/.pyenv/bin/python3", "stays")
	plant(t, root, "root/.pyenv/.netrc", canary)
	plant(t, root, "root/.other", canary)
	b, err := Read(t.Context(), Options{Root: root, Include: []string{"/root/.pyenv"}})
	must(t, err)
	dir := filepath.Join(t.TempDir(), "base")
	_, err = b.Write(t.Context(), dir, nil, false)
	must(t, err)
	all, tar := layer(t, dir)
	if e := all["root/.pyenv/bin/python3"]; e == nil || string(e.Content) != "stays" {
		t.Errorf("%v", slices.Sorted(maps.Keys(all)))
	}
	if bytes.Contains(tar, []byte(canary)) {
		t.Error("the layer holds the canary")
	}
}
