//go:build linux

package sharedmounts

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/dir"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/mount"
	"github.com/clayer/clayer/internal/treetest"
	"github.com/clayer/clayer/solver/internal/mounts"
	"github.com/clayer/clayer/solver/report"
)

func serveFiles(t *testing.T, dir string) string {
	srv := httptest.NewServer(http.FileServer(http.Dir(dir)))
	t.Cleanup(srv.Close)
	return srv.URL
}

// testMounts are the mounts of one machine.
type testMounts struct{ Mounts }

func newMounts(t *testing.T) *testMounts {
	return &testMounts{Mounts{Cache: t.TempDir(), Platform: "linux/amd64 debian 12"}}
}

func (m *testMounts) dir(id string) string {
	return filepath.Join(m.Cache, "mounts", mounts.Name(id))
}

// write writes files of a mount, as a RUN does that has it at /root/.cache/ID.
func (m *testMounts) write(t *testing.T, id string, files map[string]string) {
	t.Helper()
	src := &mounts.Source{Dir: filepath.Join(m.Cache, "mounts"), Failed: func(err error) { t.Error(err) }}
	run := &frontend.Run{Mounts: []frontend.Mount{{Mount: mount.Mount{Type: mount.Cache, ID: id, Target: "/root/.cache/" + id, Sharing: "shared", Mode: 0o755}}}}
	prepared, err := src.Prepare(t.Context(), run, new([]string))
	if err != nil {
		t.Fatal(err)
	}
	defer prepared.Release()
	for name, content := range files {
		path := filepath.Join(prepared.List[0].Source, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if target, ok := strings.CutPrefix(content, "-> "); ok {
			err = os.Symlink(target, path)
		} else {
			err = os.WriteFile(path, []byte(content), 0o644)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (m *testMounts) pack(t *testing.T, id string) *Packed {
	t.Helper()
	p, err := m.Pack(t.Context(), id, nil)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func (m *testMounts) push(t *testing.T, s cache.Store, id string) bool {
	t.Helper()
	p := m.pack(t, id)
	defer p.Close()
	sent, err := p.Push(t.Context(), s, func() {})
	if err != nil {
		t.Fatal(err)
	}
	return sent
}

func (m *testMounts) pull(t *testing.T, s cache.Store, id string) {
	t.Helper()
	from, d, err := m.Find(t.Context(), []cache.Store{s}, id, func(_ cache.Store, err error) { t.Error(err) })
	if err == nil {
		err = m.Pull(t.Context(), from, id, d, false)
	}
	if err != nil {
		t.Fatal(err)
	}
}

func (m *testMounts) read(t *testing.T, id, name string) string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join(m.dir(id), name))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func dirStore(t *testing.T) *dir.Dir {
	d, err := dir.Open(t.TempDir(), dir.Options{MaxSize: 1 << 30})
	return must(t, d, err)
}

// What was pulled is what was pushed, with links, modes and times.
func TestRoundTrip(t *testing.T) {
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	a.write(t, "uv", map[string]string{
		"archive/abc/six.py": "code", "empty": "", "wheels/six": "-> /root/.cache/uv/archive/abc", "rel": "-> archive/abc",
		"out": "-> ../../etc", "abs": "-> /etc/passwd", "tricky": "-> archive/../../x",
	})
	if err := errors.Join(os.Link(a.dir("uv")+"/archive/abc/six.py", a.dir("uv")+"/archive/same.py"),
		os.Chmod(a.dir("uv")+"/archive/abc/six.py", 0o4755), os.Chmod(a.dir("uv"), 0o770),
		os.Chtimes(a.dir("uv")+"/archive", time.Time{}, time.Unix(1_600_000_000, 5))); err != nil {
		t.Fatal(err)
	}
	a.push(t, s, "uv")
	b.pull(t, s, "uv")
	want := strings.ReplaceAll(treetest.Describe(t, a.dir("uv"), func(p string) bool { return p == "out" || p == "abs" || p == "tricky" }), "-> /root/.cache/uv/", "-> ../")
	want = strings.NewReplacer("04755", "00755", "/root/.cache/uv/archive", "../archive").Replace(want)
	got := treetest.Describe(t, b.dir("uv"), nil)
	// Symbolic links do not get their times.
	treetest.Diff(t, withoutTimes(want), withoutTimes(got))
	if info, err := os.Stat(b.dir("uv")); err != nil || info.Mode().Perm() != 0o770 {
		t.Errorf("the mount itself: %v, %v", info.Mode(), err)
	}
	if b.push(t, s, "uv") {
		t.Error("what was pulled is sent again")
	}
}

func withoutTimes(lines string) string {
	var all []string
	for l := range strings.Lines(lines) {
		if words := strings.Fields(l); words[1] == "symlink" {
			l = strings.Join(append(words[:4], words[5:]...), " ") + "\n"
		}
		all = append(all, l)
	}
	return strings.Join(all, "")
}

// Other times are no other content.
func TestTimes(t *testing.T) {
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	for _, m := range []*testMounts{a, b} {
		m.write(t, "uv", map[string]string{"x/y": "content"})
	}
	old := time.Unix(1_500_000_000, 0)
	if err := os.Chtimes(a.dir("uv")+"/x/y", old, old); err != nil {
		t.Fatal(err)
	}
	if !a.push(t, s, "uv") || b.push(t, s, "uv") {
		t.Error("want that the first is sent, and the second is not")
	}
}

// Files that are here stay, and nothing is written through a link that is here.
func TestMerge(t *testing.T) {
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	outside := t.TempDir()
	a.write(t, "uv", map[string]string{"both/new": "theirs", "both/same": "theirs", "only/deep/er": "theirs", "link/in": "theirs", "kind/x": "theirs"})
	a.push(t, s, "uv")
	b.write(t, "uv", map[string]string{"both/same": "ours", "link": "-> " + outside, "kind": "a file", "mine": "ours"})
	if err := os.Chmod(b.dir("uv")+"/both", 0o755); err != nil {
		t.Fatal(err)
	}
	b.pull(t, s, "uv")
	for name, want := range map[string]string{"both/new": "theirs", "both/same": "ours", "only/deep/er": "theirs", "mine": "ours", "kind": "a file"} {
		if got := b.read(t, "uv", name); got != want {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
	if names, err := os.ReadDir(outside); err != nil || len(names) > 0 {
		t.Errorf("outside: %v, %v", names, err)
	}
	if _, err := os.Lstat(b.dir("uv") + staged); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("what was unpacked stays beside it: %v", err)
	}
}

// Logins never travel; files of packages that have such names do.
func TestLogins(t *testing.T) {
	for _, tt := range []struct {
		path    string
		targets string
		is      bool
	}{
		{"pip.conf", "/x", true}, {".npmrc", "/root/.npm", true}, {"credentials.toml", "/cargo", true}, {"credentials", "/root/.gem", true},
		{".config/pip/pip.conf", "/root", true}, {"pip/pip.conf", "/root/.config", true}, {".cargo/credentials.toml", "/home/me", true},
		{"config.json", "/root/.docker", true}, {"config.json", "/root/.cache/uv", false}, {"sessions/x", "/root/.aws", true}, {"id_ed25519", "/root/.ssh", true},
		{"gh/hosts.yml", "/root/.config", true}, {"hosts.yml", "/root/.config/gh", true}, {"uv/credentials/x", "/root/.local/share", true},
		{"archive/abc/pkg/.npmrc", "/root/.cache/uv", false}, {"archive/abc/credentials.toml", "/root/.cache/uv", false},
		{"registry/cache/serde.crate", "/root/.cargo", false}, {"auth.conf.d/x", "/etc/apt", true}, {"etc/apt/auth.conf", "/", true},
		{"_cacache/content-v2/sha512/ab", "/root/.npm", false}, {"http-v2/a/b", "/root/.cache/pip", false},
	} {
		if got := isLogin(tt.path, []string{tt.targets}); got != tt.is {
			t.Errorf("%s at %s: %v, want %v", tt.path, tt.targets, got, tt.is)
		}
	}
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	a.write(t, "npm", map[string]string{".npmrc": "//registry/:_authToken=secret", "pip.conf": "secret", "x": "y"})
	if err := os.Link(a.dir("npm")+"/.npmrc", a.dir("npm")+"/other"); err != nil {
		t.Fatal(err)
	}
	a.push(t, s, "npm")
	b.pull(t, s, "npm")
	for _, name := range []string{".npmrc", "pip.conf", "other"} {
		if _, err := os.Lstat(filepath.Join(b.dir("npm"), name)); err == nil {
			t.Errorf("%s travelled", name)
		}
	}
}

// A blob that reaches out of the mount changes nothing.
func TestHostile(t *testing.T) {
	file := func(p string) *snapshot.Entry {
		return &snapshot.Entry{Path: p, Kind: snapshot.File, Mode: 0o644, ModTime: time.Unix(1, 0)}
	}
	at := func(p string, kind snapshot.Kind, target string) *snapshot.Entry {
		return &snapshot.Entry{Path: p, Kind: kind, Mode: 0o755, Target: target, ModTime: time.Unix(1, 0)}
	}
	big := file("mount/x")
	big.Size, big.Open = 100, nil
	for name, entries := range map[string][]*snapshot.Entry{
		"beside the mount":         {at("mount", snapshot.Dir, ""), file("elsewhere")},
		"a link out of it":         {at("mount", snapshot.Dir, ""), at("mount/l", snapshot.Symlink, "../../x")},
		"an absolute link":         {at("mount", snapshot.Dir, ""), at("mount/l", snapshot.Symlink, "/etc")},
		"a link by way of another": {at("mount", snapshot.Dir, ""), at("mount/a", snapshot.Dir, ""), at("mount/a/up", snapshot.Symlink, ".."), at("mount/q", snapshot.Symlink, "a/up/../x")},
		"the mount is a link":      {at("mount", snapshot.Symlink, "/etc"), file("mount/passwd")},
		"a device":                 {at("mount", snapshot.Dir, ""), at("mount/null", snapshot.Char, "")},
		"a FIFO":                   {at("mount", snapshot.Dir, ""), at("mount/fifo", snapshot.Fifo, "")},
		"a deletion":               {at("mount", snapshot.Dir, ""), at("mount/x", snapshot.Delete, "")},
		"a hard link to nothing":   {at("mount", snapshot.Dir, ""), at("mount/x", snapshot.Link, "mount/y")},
		"a directory is missing":   {at("mount", snapshot.Dir, ""), file("mount/a/b")},
	} {
		t.Run(name, func(t *testing.T) {
			m, s := newMounts(t), dirStore(t)
			p := &Packed{ID: "uv", desc: cache.Descriptor{Version: cache.Version, Key: keyOf("uv", m.Platform), Layer: nameOf("uv"), Record: recordOf("uv", m.Platform, "x"), Created: time.Now()}, platform: m.Platform, known: &memory{&m.Mounts, "x"}}
			blob, err := cache.Create("")
			must(t, blob, err)
			defer blob.Close()
			packed, err := snapshot.Pack(t.Context(), blob, func(yield func(*snapshot.Entry, error) bool) {
				for _, e := range entries {
					if !yield(e, nil) {
						return
					}
				}
			}, snapshot.PackOptions{})
			if err != nil { // it cannot even be packed
				return
			}
			blob.Packed(packed.Digest)
			p.blob, p.desc.Digest, p.desc.Size, p.desc.DiffID, p.desc.Bytes = blob, packed.Digest, packed.Size, packed.DiffID, packed.Bytes
			if _, err := p.Push(t.Context(), s, func() {}); err != nil {
				t.Fatal(err)
			}
			m.write(t, "uv", map[string]string{"mine": "ours"})
			before := treetest.Describe(t, m.dir("uv"), nil)
			_, d, err := m.Find(t.Context(), []cache.Store{s}, "uv", func(cache.Store, error) {})
			must(t, d, err)
			err = m.Pull(t.Context(), s, "uv", d, false)
			var unsafe *snapshot.UnsafeError
			if !errors.As(err, &unsafe) {
				t.Errorf("%v, want that an entry is unsafe", err)
			}
			treetest.Diff(t, before, treetest.Describe(t, m.dir("uv"), nil))
			if left, err := filepath.Glob(m.Cache + "/mounts/*" + staged); err != nil || len(left) > 0 {
				t.Errorf("left: %v, %v", left, err)
			}
		})
	}
}

// What is larger than it says, or than is taken, is not unpacked; what a store has under
// another id is not that of this one; bytes that are not those of the digest are none.
func TestLimits(t *testing.T) {
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	a.write(t, "uv", map[string]string{"x": strings.Repeat("0", 5000)})
	a.push(t, s, "uv")
	_, d, err := b.Find(t.Context(), []cache.Store{s}, "uv", func(cache.Store, error) {})
	must(t, d, err)
	b.Most = 4000
	var large *TooLargeError
	for _, says := range []int64{d.Bytes, 1} {
		d.Bytes = says
		if err := b.Pull(t.Context(), s, "uv", d, true); !errors.As(err, &large) {
			t.Errorf("it says %d bytes: %v", says, err)
		}
	}
	a.Most = 4000
	if _, err := a.Pack(t.Context(), "uv", nil); !errors.As(err, &large) {
		t.Errorf("packed: %v", err)
	}
	b.Most = 0
	d.Digest = digest.Digest("sha256:" + strings.Repeat("0", 64))
	d.Key[0]++ // nobody has another one
	if err := b.Pull(t.Context(), s, "uv", d, true); !errors.Is(err, cache.ErrNotCached) {
		t.Errorf("of another digest: %v", err)
	}
	if empty, err := b.IsEmpty("uv"); err != nil || !empty {
		t.Errorf("the mount is empty: %v, %v", empty, err)
	}
}

// While a RUN has a mount, it is neither packed nor replaced; a RUN that begins meanwhile waits.
func TestInUse(t *testing.T) {
	m := newMounts(t)
	m.write(t, "uv", map[string]string{"x": "y"})
	src := &mounts.Source{Dir: filepath.Join(m.Cache, "mounts"), Failed: func(err error) { t.Error(err) }}
	run := &frontend.Run{Mounts: []frontend.Mount{{Mount: mount.Mount{Type: mount.Cache, ID: "uv", Target: "/c", Sharing: "shared"}}}}
	prepared, err := src.Prepare(t.Context(), run, new([]string))
	must(t, prepared, err)
	if _, err := m.Pack(t.Context(), "uv", nil); !errors.Is(err, ErrInUse) {
		t.Errorf("packed: %v", err)
	}
	waits := make(chan string, 1)
	m.Waiting = func(what string) { waits <- what; prepared.Release() }
	m.pack(t, "uv").Close()
	if what := <-waits; !strings.Contains(what, "cache mount uv") {
		t.Errorf("waited for %q", what)
	}

	root, err := mounts.Open(src.Dir, 0)
	must(t, root, err)
	defer root.Close()
	l, err := m.alone(t.Context(), root, "uv")
	must(t, l, err)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := src.Prepare(ctx, run, new([]string)); !errors.Is(err, context.Canceled) {
		t.Errorf("a RUN begins while the mount is replaced: %v", err)
	}
	l.Close()
}

// What has nothing in it is not packed, and no mount of this machine is a mistake.
func TestEmptyAndUnknown(t *testing.T) {
	m := newMounts(t)
	if _, err := m.Pack(t.Context(), "nobody", nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("one that is not there: %v", err)
	}
	m.write(t, "uv", nil)
	if _, err := m.Pack(t.Context(), "uv", nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("an empty one: %v", err)
	}
	m.write(t, "pip", map[string]string{"pip.conf": "secret"})
	if _, err := m.Pack(t.Context(), "pip", nil); !errors.Is(err, ErrEmpty) {
		t.Errorf("one with nothing but a login: %v", err)
	}
	if ids, err := m.IDs(); err != nil || strings.Join(ids, " ") != "pip uv" {
		t.Errorf("ids %v, %v", ids, err)
	}
	if was, err := m.Remove(t.Context(), "uv"); err != nil || !was {
		t.Errorf("removed: %v, %v", was, err)
	}
	if ids, err := m.IDs(); err != nil || strings.Join(ids, " ") != "pip" {
		t.Errorf("ids %v, %v", ids, err)
	}
}

// The same content is packed to the same bytes.
func TestDeterministic(t *testing.T) {
	m := newMounts(t)
	m.write(t, "uv", map[string]string{"b": "1", "a/x": "2", "a/y": "3"})
	var all [][]byte
	for range 2 {
		p := m.pack(t, "uv")
		data := make([]byte, p.Size())
		if _, err := p.blob.ReadAt(data, 0); err != nil {
			t.Fatal(err)
		}
		p.Close()
		all = append(all, data)
	}
	if !bytes.Equal(all[0], all[1]) {
		t.Error("the bytes differ")
	}
}

// A countingStore counts what is fetched from it, and fails if it is to.
type countingStore struct {
	cache.Store
	fetched atomic.Int32
	fail    error
}

func (s *countingStore) Find(ctx context.Context, tag string, keys []key.Key) (map[key.Key]cache.Found, error) {
	if s.fail != nil {
		return nil, s.fail
	}
	return s.Store.Find(ctx, tag, keys)
}

func (s *countingStore) Fetch(ctx context.Context, d cache.Descriptor, b *cache.Blob) error {
	s.fetched.Add(1)
	return s.Store.Fetch(ctx, d, b)
}

// RUNs that run side by side wait until a mount is there, which is fetched once; a store that
// fails is reported once, and the next one is asked.
func TestSharing(t *testing.T) {
	a, b := newMounts(t), newMounts(t)
	a.Platform = Platform(t.Context())
	s := &countingStore{Store: dirStore(t)}
	a.write(t, "uv", map[string]string{"x": "theirs"})
	a.push(t, s, "uv")
	var mu sync.Mutex
	var texts []string
	r := report.New(func(e report.Event) {
		mu.Lock()
		defer mu.Unlock()
		texts = append(texts, string(e.Kind)+" "+e.Text)
	})
	failing := &countingStore{Store: named{dirStore(t), "git"}, fail: errors.New("no such branch")}
	sharing := NewSharing(true, b.Cache, []cache.Store{failing, s}, true, r)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for _, id := range []string{"uv", "unknown"} {
				if err := sharing.Fill(t.Context(), id); err != nil {
					t.Error(err)
				}
			}
			if data, err := os.ReadFile(b.dir("uv") + "/x"); err != nil || string(data) != "theirs" {
				t.Errorf("a RUN begins before the mount is there: %q, %v", data, err)
			}
		})
	}
	wg.Wait()
	if n := s.fetched.Load(); n != 1 {
		t.Errorf("fetched %d times", n)
	}
	sharing.Push(t.Context()) // nothing has changed
	want := "warning store git: no such branch|pulled cache mount uv"
	if got := strings.Join(texts, "|"); got != want {
		t.Errorf("reported %q, want %q", got, want)
	}
	b.write(t, "uv", map[string]string{"y": "ours"})
	sharing.Push(t.Context())
	if got := texts[len(texts)-1]; !strings.HasPrefix(got, "pushing cache mount uv, ") {
		t.Errorf("after a change: %q", got)
	}
	var none *Sharing
	none.Push(t.Context())
	if err := none.Fill(t.Context(), "uv"); err != nil {
		t.Error(err)
	}
}

type named struct {
	cache.Store
	name string
}

func (s named) Name() string     { return s.name }
func (s named) Location() string { return s.name + ":x" }

// A mount that the disk has no space for is not fetched.
func TestFullDisk(t *testing.T) {
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	a.write(t, "uv", map[string]string{"x": "theirs"})
	a.push(t, s, "uv")
	_, d, err := b.Find(t.Context(), []cache.Store{s}, "uv", func(cache.Store, error) {})
	must(t, d, err)
	b.Most, d.Bytes = 1<<62, 1<<61
	if err := b.Pull(t.Context(), s, "uv", d, true); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("%v, want ENOSPC", err)
	}
}

// The mount of a store that is replaced between Find and Fetch is the new one.
func TestReplaced(t *testing.T) {
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	a.write(t, "uv", map[string]string{"x": "old"})
	a.push(t, s, "uv")
	_, d, err := b.Find(t.Context(), []cache.Store{s}, "uv", func(cache.Store, error) {})
	must(t, d, err)
	a.write(t, "uv", map[string]string{"x": "new"})
	a.push(t, s, "uv")
	if err := b.Pull(t.Context(), s, "uv", d, true); err != nil || b.read(t, "uv", "x") != "new" {
		t.Errorf("pulled: %v", err)
	}
}

// A pull that was cut off in the middle of unpacking is completed by the next pull.
func TestCutOff(t *testing.T) {
	a, b, s := newMounts(t), newMounts(t), dirStore(t)
	a.write(t, "uv", map[string]string{"x": "theirs"})
	a.push(t, s, "uv")
	left := b.dir("uv") + staged
	if err := errors.Join(os.MkdirAll(left+"/ro", 0o700), os.WriteFile(left+"/ro/half", nil, 0o600), os.Chmod(left+"/ro", 0o500), os.Chmod(b.Cache+"/mounts", 0o700)); err != nil {
		t.Fatal(err)
	}
	b.pull(t, s, "uv")
	if names, err := os.ReadDir(b.dir("uv")); err != nil || len(names) != 1 {
		t.Errorf("%v, %v", names, err)
	}
}
