package main

import (
	"bytes"
	"crypto/rand"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// A cache directory that takes nothing fails no build: the root is as it would be
// otherwise, nothing is stored, and one warning says so.
func TestCacheDirectoryThatTakesNothing(t *testing.T) {
	requireMounts(t)
	large := make([]byte, 1<<20) // larger than all that is mounted below, and no smaller when it is packed
	rand.Read(large)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.Write(large) }))
	defer srv.Close()
	const file = `ARG URL
FETCH $URL/large /opt
COPY given /etc/given
RUN --mount=type=cache,target=/cache --mount=type=cache,sharing=locked,target=/locked cp /opt/large /cache/ && cp /opt/large /locked/ && cat /cache/large /cache/large > /made
`
	for _, tt := range []struct{ name, mount string }{
		{"no bytes", `mount -t tmpfs -o size=64k disk "$0"`},
		{"no bytes at all", `mount -t tmpfs -o size=4k disk "$0" && head -c 4096 /dev/zero > "$0/x"`},
		{"no inodes", `mount -t tmpfs -o nr_inodes=8 disk "$0"`},
		{"no inodes at all", `mount -t tmpfs -o nr_inodes=2 disk "$0" && : > "$0/x"`},
		{"read-only", `mount -t tmpfs disk "$0" && mount -o remount,ro "$0"`},
		{"read-only, with what a solve makes", `mount -t tmpfs disk "$0" && mkdir -p "$0/store/tmp" "$0/store/keys" "$0/store/blobs/sha256" "$0/downloads" "$0/mounts" "$0/tmp" && mount -o remount,ro "$0"`},
		{"no directory", `rmdir "$0" && : > "$0"`},
		{"a link to nothing", `rmdir "$0" && ln -s /nonexistent/cache "$0"`},
	} {
		for _, sandbox := range []string{"overlay", "inplace"} {
			for _, required := range []bool{false, true} {
				t.Run(tt.name+"/"+sandbox+"/required "+strconv.FormatBool(required), func(t *testing.T) {
					w := newWorkspace(t)
					w.write("Containerfile", file)
					w.write("given", "given\n")
					temp := t.TempDir()
					if err := os.Mkdir(w.path("cache"), 0o755); err != nil {
						t.Fatal(err)
					}
					args := []string{"solve", "--root", w.path("root"), "--build-arg", "URL=" + srv.URL, "--sandbox", sandbox}
					want := 0
					if required {
						args, want = append(args, "--require-cache"), 3
					}
					cmd := w.command(args...)
					cmd.Env = append(cmd.Env, "TMPDIR="+temp, "CLAYER_PROGRESS=plain")
					script := tt.mount + ` && exec -a clayer "$@"`
					disk := exec.CommandContext(t.Context(), "unshare", append([]string{"--mount", "--propagation", "private", "bash", "-c", script, w.path("cache"), cmd.Path}, cmd.Args[1:]...)...)
					disk.Env, disk.Dir = cmd.Env, cmd.Dir
					out, _ := disk.CombinedOutput()
					if code := disk.ProcessState.ExitCode(); code != want {
						t.Errorf("exit code %d, want %d\n%s", code, want, out)
					}
					if n := strings.Count(string(out), "warning:"); n != 1 || !strings.Contains(string(out), "warning: store dir: ") {
						t.Errorf("%d warnings, want one of the store:\n%s", n, out)
					}
					for name, want := range map[string][]byte{"opt/large": large, "etc/given": []byte("given\n"), "made": append(bytes.Clone(large), large...)} {
						if got, err := os.ReadFile(w.path("root/" + name)); err != nil || !bytes.Equal(got, want) {
							t.Errorf("%s: %d bytes, %v", name, len(got), err)
						}
					}
					if left, err := os.ReadDir(temp); err != nil || len(left) > 0 {
						t.Errorf("left in TMPDIR: %v, %v", left, err)
					}
				})
			}
		}
	}
}

// What other users can write to, or have made, is not used unless it is named.
func TestCacheDirectoryOfSomebodyElse(t *testing.T) {
	requireMounts(t)
	type prep func(t *testing.T, cache string) error
	mine := func(_ *testing.T, cache string) error { return os.MkdirAll(cache, 0o755) }
	chown := func(uid int) prep {
		return func(t *testing.T, cache string) error {
			if err := mine(t, cache); err != nil {
				return err
			}
			return os.Chown(cache, uid, uid)
		}
	}
	for _, tt := range []struct {
		name string
		prep prep
		env  string
		used bool
		want string
	}{
		{"none yet", func(*testing.T, string) error { return nil }, "", true, ""},
		{"the user's", mine, "", true, ""},
		{"that of who called sudo", chown(1234), "SUDO_UID=1234", true, ""},
		{"another user's", chown(1234), "", false, "belongs to another user (uid 1234)"},
		{"that of another than who called sudo", chown(1234), "SUDO_UID=1235", false, "belongs to another user (uid 1234)"},
		{"one that all may write to", func(t *testing.T, cache string) error {
			if err := mine(t, cache); err != nil {
				return err
			}
			return os.Chmod(cache, 0o777)
		}, "", false, "other users can write to it"},
		{"a link", func(t *testing.T, cache string) error {
			if err := os.MkdirAll(filepath.Dir(cache), 0o755); err != nil {
				return err
			}
			return os.Symlink(t.TempDir(), cache)
		}, "", false, "a symbolic link"},
	} {
		for _, named := range []bool{false, true} {
			t.Run(tt.name+"/named "+strconv.FormatBool(named), func(t *testing.T) {
				w := newWorkspace(t)
				cache := w.path("home/cache/clayer")
				if err := tt.prep(t, cache); err != nil {
					t.Fatal(err)
				}
				before := ""
				if real, err := filepath.EvalSymlinks(cache); err == nil {
					before = real
				}
				w.write("Containerfile", "RUN echo one > /one\n")
				args := []string{"solve", "--root", w.path("root")}
				if named {
					args = append(args, "--cache-dir", cache)
				}
				cmd := w.command(args...)
				env := []string{"XDG_CACHE_HOME=" + w.path("home/cache"), tt.env}
				for _, kv := range cmd.Env {
					if !strings.HasPrefix(kv, "CLAYER_CACHE_DIR=") && !strings.HasPrefix(kv, "SUDO_") && !strings.HasPrefix(kv, "XDG_CACHE_HOME=") {
						env = append(env, kv)
					}
				}
				cmd.Env = env
				out, err := cmd.CombinedOutput()
				if err != nil {
					t.Fatalf("%v\n%s", err, out)
				}
				if _, err := os.Stat(w.path("root/one")); err != nil {
					t.Error(err)
				}
				used := tt.used || named
				if warned := strings.Contains(string(out), "warning: "); warned == used || !used && !strings.Contains(string(out), tt.want) {
					t.Errorf("used: %t, want a warning with %q\n%s", used, tt.want, out)
				}
				if before == "" {
					before = cache
				}
				if _, err := os.Stat(filepath.Join(before, "store", "index.json")); (err == nil) != used {
					t.Errorf("used: %t, want %t: %v", err == nil, used, err)
				}
				if left, _ := os.ReadDir(before); !used && len(left) > 0 {
					t.Errorf("made in it: %v", left)
				}
			})
		}
	}
}

// Whoever is not root has a cache directory too.
func TestCacheDirectoryThatCannotBeWritten(t *testing.T) {
	requireMounts(t)
	f := &fall{workspace: newWorkspace(t), t: t, user: 65534}
	for dir := f.dir; dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		if err := os.Chmod(dir, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(f.path("cache"), 0o755); err != nil { // root's
		t.Fatal(err)
	}
	if err := os.Mkdir(f.path("out"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Chown(f.path("out"), 65534, 65534); err != nil {
		t.Fatal(err)
	}
	f.write("Containerfile", "COPY given /given\nWORKDIR /opt/x\n")
	f.write("given", "given\n")
	f.env = append(f.env, "TMPDIR=/tmp", "HOME="+f.path("out"))
	out, code := f.clayer("solve --dest=out")
	if code != 0 || strings.Count(out, "warning:") != 1 || !strings.Contains(out, "warning: store dir: ") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if data, err := os.ReadFile(f.path("out/given")); err != nil || string(data) != "given\n" {
		t.Errorf("%q, %v", data, err)
	}
}

// No link in the cache directory is followed: what is made, changed or removed
// there stays there.
func TestLinksInTheCacheDirectory(t *testing.T) {
	requireMounts(t)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"1"`)
		w.Write([]byte("content of " + r.URL.Path))
	}))
	defer srv.Close()
	const file = `ARG URL
FETCH $URL /opt/fetched
RUN --mount=type=cache,id=a,target=/cache --mount=type=cache,id=b,sharing=locked,target=/locked echo "$URL" >> /cache/log && echo >> /locked/log && echo > /ran
`
	for _, name := range []string{"store", "tmp", "downloads", "downloads/sha256", "downloads/url", "mounts", "mounts/*", "run", "github"} {
		t.Run(name, func(t *testing.T) {
			w := newWorkspace(t)
			w.write("Containerfile", file)
			solve := func(url string) string {
				t.Helper()
				_, stderr, code := w.run("solve", "--root", w.path("root"), "--build-arg", "URL="+srv.URL+url)
				if code != 0 {
					t.Errorf("exit code %d\n%s", code, stderr)
				}
				return stderr
			}
			solve("/one")
			elsewhere := t.TempDir()
			precious := filepath.Join(elsewhere, strings.Repeat("ab", 32))
			if err := os.WriteFile(precious, []byte("precious"), 0o644); err != nil {
				t.Fatal(err)
			}
			old := time.Now().Add(-1000 * time.Hour)
			if err := os.Chtimes(precious, old, old); err != nil {
				t.Fatal(err)
			}
			links, err := filepath.Glob(w.path("cache/" + name))
			if err != nil || len(links) == 0 {
				links = []string{w.path("cache/" + name)}
			}
			for _, link := range links {
				if err := errors.Join(os.RemoveAll(link), os.Symlink(elsewhere, link)); err != nil {
					t.Fatal(err)
				}
			}
			out := solve("/two")
			if _, stderr, code := w.run("run", "--root", w.path("root"), "--build-arg", "URL="+srv.URL+"/two", "--", "true"); code != 0 {
				t.Errorf("run: exit code %d\n%s", code, stderr)
			}
			w.run("cache", "prune", "--keep=0")
			if list, err := os.ReadDir(elsewhere); err != nil || len(list) != 1 {
				t.Errorf("elsewhere: %v, %v\n%s", list, err, out)
			}
			if data, err := os.ReadFile(w.path("root/opt/fetched/two")); err != nil || string(data) != "content of /two" {
				t.Errorf("%q, %v\n%s", data, err, out)
			}
		})
	}
}
