package git_test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git"
	"github.com/clayer/clayer/cache/storetest"
	"github.com/clayer/clayer/internal/gittest"
	"github.com/clayer/clayer/internal/hosttest"
)

// versions are two snapshots of a step, of which one frame of 24 differs.
func versions() (older, newer storetest.Frames) {
	var sizes []int
	for i := range 25 {
		sizes = append(sizes, 90<<10+i<<10)
	}
	all := storetest.RandomFrames(9, sizes...)
	newer = append(storetest.Frames{}, all[:24]...)
	newer[11] = all[24]
	return all[:24], newer
}

// openSmall opens a store with pieces so small that tests have several.
func openSmall(t *testing.T, url string) *git.Store {
	t.Helper()
	opt := options(t)
	opt.PieceSize, opt.PushSize = 2<<20, 1<<20
	return git.New(parse(t, url), opt)
}

func putStep(t *testing.T, s cache.Store, f storetest.Frames, name string) cache.Descriptor {
	t.Helper()
	d, b := f.Step(name)
	defer b.Close()
	if err := s.Put(t.Context(), d, b); err != nil {
		t.Fatal(err)
	}
	return d
}

// A session that has nothing of the branch pushes the pieces that changed alone, and one with
// the older snapshot at hand fetches these alone; without, all of them.
func TestPiecesAreReused(t *testing.T) {
	t.Parallel()
	for _, sha256 := range []bool{false, true} {
		srv := gittest.New(t, gittest.Options{})
		url := repository(t, srv, "env.git")
		if sha256 {
			dir := filepath.Join(srv.Dir, "env.git")
			if err := os.RemoveAll(dir); err != nil {
				t.Fatal(err)
			}
			if err := gittest.Git("init", "-q", "--bare", "--object-format=sha256", "--template=", dir); err != nil {
				t.Fatal(err)
			}
			if err := gittest.Git("-C", dir, "config", "http.receivepack", "true"); err != nil {
				t.Fatal(err)
			}
		}
		relay := hosttest.NewRelay(t, url, hosttest.Link{})
		older, newer := versions()
		putStep(t, openSmall(t, relay.URL), older, "older")
		relay.Up.Store(0)
		d := putStep(t, openSmall(t, relay.URL), newer, "newer")
		if up := relay.Up.Load(); up > 900<<10 {
			t.Errorf("%d bytes were sent of %d", up, d.Size)
		}
		want := string(bytes.Join(newer, nil))
		if storetest.Read(t, openSmall(t, relay.URL), d) != want {
			t.Error("other bytes")
		}
		relay.Down.Store(0)
		var b cache.Blob
		near := storetest.NearStore{Blobs: []storetest.Frames{older}}
		if err := cache.FetchNear(t.Context(), openSmall(t, relay.URL), d, &b, []cache.Store{near}); err != nil || b.State() != cache.Verified {
			t.Errorf("%v; the blob is %s", err, b.State())
		}
		b.Close()
		if down := relay.Down.Load(); down > 900<<10 {
			t.Errorf("%d bytes came of %d", down, d.Size)
		}
	}
}

// A snapshot has all its bytes after the one that it shares pieces with was removed, and what
// the other has alone is gone.
func TestPiecesOutliveRemove(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	older, newer := versions()
	a, b := putStep(t, openSmall(t, url), older, "older"), putStep(t, openSmall(t, url), newer, "newer")
	layers := []cache.Manifest{storetest.Layer("a", 0, a), storetest.Layer("b", 1, b)}
	for _, m := range layers {
		if err := openSmall(t, url).Complete(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := openSmall(t, url).Remove(t.Context(), layers[:1]); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(srv.Dir, "env.git")
	if err := gittest.Git("-C", dir, "gc", "-q", "--prune=now"); err != nil {
		t.Fatal(err)
	}
	if storetest.Read(t, openSmall(t, url), b) != string(bytes.Join(newer, nil)) {
		t.Error("other bytes")
	}
	out, err := exec.Command("git", "-C", dir, "count-objects", "-v").CombinedOutput()
	_, packed, _ := strings.Cut(string(out), "size-pack: ")
	packed, _, _ = strings.Cut(packed, "\n")
	if kb, cerr := strconv.ParseInt(packed, 10, 64); err != nil || cerr != nil || kb > b.Size>>10+50 {
		t.Errorf("after the older one was removed: %v, %s", err, out)
	}
}

// If the server lacks a piece that the branch lists, all pieces are sent.
func TestPiecesThatAreMissing(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	dir := filepath.Join(srv.Dir, "env.git")
	if err := gittest.Git("-C", dir, "config", "receive.unpackLimit", "1000"); err != nil { // loose objects
		t.Fatal(err)
	}
	older, newer := versions()
	putStep(t, openSmall(t, url), older, "older")
	removed := 0
	loose, err := filepath.Glob(filepath.Join(dir, "objects", "??", "*"))
	for _, name := range loose {
		if info, serr := os.Stat(name); serr == nil && info.Size() > 100<<10 {
			err = os.Remove(name)
			removed++
		}
	}
	if err != nil || removed < 4 {
		t.Fatal(removed, err)
	}
	d := putStep(t, openSmall(t, url), newer, "newer")
	if storetest.Read(t, openSmall(t, url), d) != string(bytes.Join(newer, nil)) {
		t.Error("other bytes")
	}
}

// Two sessions push at the same time what shares pieces with what is there.
func TestPiecesOfSeveralWriters(t *testing.T) {
	t.Parallel()
	srv := gittest.New(t, gittest.Options{})
	url := repository(t, srv, "env.git")
	older, newer := versions()
	putStep(t, openSmall(t, url), older, "older")
	third := append(storetest.Frames{older[0]}, newer[3:]...)
	type put struct {
		frames storetest.Frames
		d      cache.Descriptor
	}
	puts := []*put{{frames: newer}, {frames: third}}
	ended := make(chan error, len(puts))
	for i, p := range puts {
		d, b := p.frames.Step(strings.Repeat("n", i+1))
		defer b.Close()
		p.d = d
		s := openSmall(t, url)
		go func() { ended <- s.Put(t.Context(), d, b) }()
	}
	for range puts {
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
	for _, p := range puts {
		if storetest.Read(t, openSmall(t, url), p.d) != string(bytes.Join(p.frames, nil)) {
			t.Error("other bytes")
		}
	}
	if err := gittest.Git("-C", filepath.Join(srv.Dir, "env.git"), "fsck", "--full", "--strict"); err != nil {
		t.Error(err)
	}
}
