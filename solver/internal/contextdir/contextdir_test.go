package contextdir

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/clayer/clayer/internal/rounds"
)

// all hashes the files of a directory, and returns their digests by path.
func all(t *testing.T, in *Contexts, dir string) map[string]Sum {
	t.Helper()
	top, err := os.Open(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer top.Close()
	r := in.Of(dir)
	var files []File
	var visit func(string)
	visit = func(at string) {
		nodes, err := r.List(top, at)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range nodes {
			switch name := path.Join(at, n.Name); {
			case n.IsDir():
				visit(name)
			case n.IsRegular():
				files = append(files, File{Path: name, Node: n})
			}
		}
	}
	visit(".")
	if err := r.Hash(t.Context(), top, files); err != nil {
		t.Fatal(err)
	}
	sums := make(map[string]Sum)
	for _, f := range files {
		sums[f.Path] = f.Sum
	}
	return sums
}

// read hashes files as one solve does, and saves what it learned.
func read(t *testing.T, store, dir string) map[string]Sum {
	t.Helper()
	c := &Contexts{Path: store}
	sums := all(t, c, dir)
	c.Save()
	return sums
}

// want reads files with nothing else than the system's own calls.
func want(t *testing.T, dir string) map[string]Sum {
	t.Helper()
	sums := make(map[string]Sum)
	err := filepath.WalkDir(dir, func(name string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		data, err := os.ReadFile(name)
		rel, _ := filepath.Rel(dir, name)
		sums[rel] = sha256.Sum256(data)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

func check(t *testing.T, got, want map[string]Sum) {
	t.Helper()
	for name, sum := range want {
		if is := got[name]; is != sum {
			t.Fatalf("%s has the digest %x, want %x", name, is[:4], sum[:4])
		}
	}
	if len(got) != len(want) {
		t.Fatalf("%d files, want %d", len(got), len(want))
	}
}

// makeTree makes n files of some bytes.
func makeTree(t testing.TB, dir string, n, size int) {
	t.Helper()
	for i := range n {
		name := filepath.Join(dir, fmt.Sprintf("d%d/e%d/f%d", i%5, i%7, i))
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, bytes.Repeat([]byte{byte(i)}, size), 0o644); err != nil {
			t.Fatal(err)
		}
	}
}

// must fails where a call of a test does.
func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// settle waits until the times of files lie before what is read next.
func settle() { time.Sleep(tick + 15*time.Millisecond) }

// What is known of files is right, whatever was done to them since: also within one tick of the
// clock, with the size and the mtime that they had.
func TestKnownIsRight(t *testing.T) {
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	dir, store := t.TempDir(), filepath.Join(t.TempDir(), "context")
	makeTree(t, dir, 150, 20)
	names := func() (files []string) {
		for name := range want(t, dir) {
			files = append(files, filepath.Join(dir, name))
		}
		return files
	}
	files := names()
	edits := []func(a, b string){
		func(a, _ string) { // same size, same mtime
			info, err := os.Stat(a)
			must(t, err)
			data, err := os.ReadFile(a)
			must(t, err)
			if len(data) == 0 {
				return
			}
			data[rnd.IntN(len(data))]++
			must(t, os.WriteFile(a, data, 0o644))
			must(t, os.Chtimes(a, info.ModTime(), info.ModTime()))
		},
		func(a, b string) { // the time of another file
			info, err := os.Stat(b)
			must(t, err)
			must(t, os.WriteFile(a, bytes.Repeat([]byte{byte(rnd.IntN(256))}, 20), 0o644))
			must(t, os.Chtimes(a, info.ModTime(), info.ModTime()))
		},
		func(a, b string) { must(t, os.Rename(a, b)) },
		func(a, b string) { // two names of one file
			if a != b {
				must(t, os.Remove(b))
				must(t, os.Link(a, b))
			}
		},
		func(a, _ string) { must(t, os.Chmod(a, fs.FileMode(0o600+rnd.IntN(0o200)))) },
		func(a, _ string) { // another file in its place
			data, err := os.ReadFile(a)
			must(t, err)
			must(t, os.WriteFile(a+".new", append(data[:0:0], bytes.Repeat([]byte{byte(rnd.IntN(256))}, len(data))...), 0o644))
			must(t, os.Rename(a+".new", a))
		},
		func(a, b string) { // two change places
			must(t, os.Rename(a, a+".tmp"))
			must(t, os.Rename(b, a))
			must(t, os.Rename(a+".tmp", b))
		},
		func(a, _ string) { must(t, os.Truncate(a, int64(rnd.IntN(40)))) },
		func(a, _ string) { must(t, os.WriteFile(filepath.Dir(a)+"/new", []byte{byte(rnd.IntN(256))}, 0o644)) },
	}
	for range rounds.Of(20, 150, 3000) {
		for range rnd.IntN(4) {
			a, b := files[rnd.IntN(len(files))], files[rnd.IntN(len(files))]
			if edit := rnd.IntN(len(edits)); a != b {
				edits[edit](a, b)
				files = names()
			}
		}
		if rnd.IntN(8) == 0 {
			settle()
		}
		check(t, read(t, store, dir), want(t, dir))
	}
}

// A file whose times are not older than the reading by a tick is read again.
func TestIsSettled(t *testing.T) {
	const s = int64(time.Second)
	at := func(ns int64) Time { return Time{1000 + ns/s, uint32(ns % s)} }
	for _, tt := range []struct {
		name              string
		mtime, ctime, now int64
		want              bool
	}{
		{"long ago", 1, 1, 60 * s, true},
		{"at the same time", 5*s + 1, 5*s + 1, 5*s + 1, false},
		{"within a tick", 5*s + 1, 5*s + 1, 5*s + int64(tick), false},
		{"a tick ago", 5*s + 1, 5*s + 1, 5*s + 1 + int64(tick), true},
		{"mtime was set back", 1, 5*s + 1, 5*s + 2, false},
		{"mtime lies ahead", 90*s + 1, 1, 60 * s, false},
		{"the clock was set back", 1, 90*s + 1, 60 * s, false},
		{"a file system of whole seconds", 5 * s, 5 * s, 6*s + 1, false},
		{"the same, later", 5 * s, 5 * s, 7*s + int64(tick), true},
	} {
		if got := isSettled(&Stat{MTime: at(tt.mtime), CTime: at(tt.ctime)}, at(tt.now)); got != tt.want {
			t.Errorf("%s: %t, want %t", tt.name, got, tt.want)
		}
	}
}

// Within one tick two contents of a file have the same times: the first one is not known.
func TestTickIsNotTrusted(t *testing.T) {
	dir, store := t.TempDir(), filepath.Join(t.TempDir(), "context")
	makeTree(t, dir, 100, 10)
	name := filepath.Join(dir, "d0/e0/f0")
	info, err := os.Stat(name)
	must(t, err)
	settle()
	for i := range 60 {
		must(t, os.WriteFile(name, fmt.Appendf(nil, "%010d", i), 0o644))
		must(t, os.Chtimes(name, info.ModTime(), info.ModTime()))
		if got := read(t, store, dir); got["d0/e0/f0"] != sha256.Sum256(fmt.Appendf(nil, "%010d", i)) {
			t.Fatalf("content %d has the digest of another one", i)
		}
	}
}

// learned counts the files of a directory that a solve reads.
func learned(t *testing.T, store, dir string) int {
	t.Helper()
	c := &Contexts{Path: store}
	all(t, c, dir)
	n := 0
	for _, recs := range c.Of(dir).fresh {
		n += len(recs)
	}
	c.Save()
	return n
}

func TestUnchangedIsNotRead(t *testing.T) {
	dir, store := t.TempDir(), filepath.Join(t.TempDir(), "context")
	makeTree(t, dir, 200, 10)
	settle()
	if n := learned(t, store, dir); n != 200 {
		t.Errorf("the first solve learns of %d files, want 200", n)
	}
	if n := learned(t, store, dir); n != 0 {
		t.Errorf("the second solve learns of %d files, want 0", n)
	}
	must(t, os.WriteFile(filepath.Join(dir, "d0/e0/f0"), []byte("0123456789"), 0o644))
	must(t, os.RemoveAll(filepath.Join(dir, "d1")))
	settle()
	if n := learned(t, store, dir); n != 1 {
		t.Errorf("after an edit a solve learns of %d files, want 1", n)
	}
	c := &Contexts{Path: store}
	all(t, c, dir)
	if k := c.Of(dir).known; k == nil || k.dirs["d1/e1"] != nil || k.dirs["d0/e0"] == nil {
		t.Error("what is gone is known still, or what is there is not")
	}
	check(t, read(t, store, dir), want(t, dir))
}

// A file that is written to while it is hashed is not known later, and what was read last counts.
func TestChangedWhileHashed(t *testing.T) {
	dir, store := t.TempDir(), filepath.Join(t.TempDir(), "context")
	makeTree(t, dir, 10, 4<<20)
	settle()
	name := filepath.Join(dir, "d0/e0/f0")
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Add(1)
	go func() {
		defer wg.Done()
		f, err := os.OpenFile(name, os.O_WRONLY, 0)
		if err != nil {
			t.Error(err)
			return
		}
		defer f.Close()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			default:
			}
			_, _ = f.WriteAt([]byte{byte(i), byte(i >> 8)}, int64(i%(4<<20)))
		}
	}()
	read(t, store, dir)
	close(stop)
	wg.Wait()
	check(t, read(t, store, dir), want(t, dir))
	settle()
	check(t, read(t, store, dir), want(t, dir))
	check(t, read(t, store, dir), want(t, dir))
}

// Solves beside each other, and one that finds the file of another directory, are right.
func TestConcurrentSolves(t *testing.T) {
	dir, store := t.TempDir(), filepath.Join(t.TempDir(), "context")
	makeTree(t, dir, 200, 10)
	settle()
	right := want(t, dir)
	var wg sync.WaitGroup
	for range 6 {
		wg.Go(func() {
			for range 5 {
				check(t, read(t, store, dir), right)
			}
		})
	}
	wg.Wait()
	shared := &Contexts{Path: store}
	for range 4 {
		wg.Go(func() { check(t, all(t, shared, dir), right) })
	}
	wg.Wait()
	left, err := os.ReadDir(store)
	must(t, err)
	if len(left) != 1 {
		t.Errorf("the directory holds %v, want one file", left)
	}
}

// Damage, what others could have written, links and directories are as good as nothing.
func TestStoredIsDamaged(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir, 100, 10)
	settle()
	right := want(t, dir)
	elsewhere := filepath.Join(t.TempDir(), "other")
	for name, damage := range map[string]func(t *testing.T, file string){
		"cut":     func(t *testing.T, file string) { must(t, os.Truncate(file, 100)) },
		"empty":   func(t *testing.T, file string) { must(t, os.Truncate(file, 0)) },
		"one bit": func(t *testing.T, file string) { flip(t, file) },
		"a link": func(t *testing.T, file string) {
			must(t, os.Rename(file, elsewhere))
			must(t, os.Symlink(elsewhere, file))
		},
		"a FIFO":        func(t *testing.T, file string) { must(t, os.Remove(file)); must(t, unix.Mkfifo(file, 0o600)) },
		"others' write": func(t *testing.T, file string) { must(t, os.Chmod(file, 0o666)) },
		"a directory":   func(t *testing.T, file string) { must(t, os.Remove(file)); must(t, os.MkdirAll(file+"/x", 0o755)) },
		"open to all":   func(t *testing.T, file string) { must(t, os.Chmod(filepath.Dir(file), 0o777)) },
	} {
		t.Run(name, func(t *testing.T) {
			store := filepath.Join(t.TempDir(), "context")
			read(t, store, dir)
			list, err := os.ReadDir(store)
			must(t, err)
			damage(t, filepath.Join(store, list[0].Name()))
			if n := learned(t, store, dir); n != 100 && name != "open to all" {
				t.Errorf("of %d files nothing was known, want 100", n)
			}
			check(t, read(t, store, dir), right)
			if n := learned(t, store, dir); n != 0 && name != "a directory" && name != "open to all" {
				t.Errorf("%d files were read again after the damage was replaced", n)
			}
		})
	}
}

func flip(t *testing.T, file string) {
	data, err := os.ReadFile(file)
	must(t, err)
	data[len(data)/2] ^= 4
	must(t, os.WriteFile(file, data, 0o600))
}

// A cache directory that cannot be written, or lies below a file, costs the shortcut alone.
func TestStoreCannotBeWritten(t *testing.T) {
	dir := t.TempDir()
	makeTree(t, dir, 100, 10)
	blocked := filepath.Join(t.TempDir(), "file")
	must(t, os.WriteFile(blocked, nil, 0o644))
	for range 2 {
		check(t, read(t, filepath.Join(blocked, "cache", "context"), dir), want(t, dir))
	}
}

// What nobody reads does not stay.
func TestSweep(t *testing.T) {
	store := t.TempDir()
	must(t, os.Chmod(store, 0o700))
	old := time.Now().Add(-unused - time.Hour)
	for i := range maxCount + 10 {
		name := filepath.Join(store, fmt.Sprintf("%02d", i))
		must(t, os.WriteFile(name, nil, 0o600))
		at := time.Now().Add(-time.Duration(i) * time.Minute)
		if i < 3 {
			at = old
		}
		must(t, os.Chtimes(name, at, at))
	}
	root, err := os.OpenRoot(store)
	must(t, err)
	defer root.Close()
	sweep(root, "00")
	list, err := os.ReadDir(store)
	must(t, err)
	if len(list) != maxCount || list[0].Name() != "00" || list[1].Name() != "03" {
		t.Errorf("%d files stay, from %s and %s on", len(list), list[0].Name(), list[1].Name())
	}
}

func FuzzDecode(f *testing.F) {
	rec := record{[]byte("name"), version{1, 2, 3, Time{4, 5}, Time{6, 7}}, Sum{8}}
	good := encode(Time{1, 2}, map[string][]byte{".": rec.append(nil), "a/b": rec.append(rec.append(nil))})
	f.Add(good[:len(good)-sha256.Size])
	f.Fuzz(func(t *testing.T, data []byte) {
		sum := sha256.Sum256(data)
		written, dirs, err := decode(append(data[:len(data):len(data)], sum[:]...))
		if err != nil {
			return
		}
		for _, recs := range dirs {
			r := reader{recs}
			for rec := (record{}); r.next(&rec); {
			}
		}
		if w, again, err := decode(encode(written, dirs)); err != nil || w != written || len(again) != len(dirs) {
			t.Fatalf("written again: %v, %d directories, want %d", err, len(again), len(dirs))
		}
	})
}

// 30,000 files that are known, and the same that are not.
func BenchmarkHash(b *testing.B) {
	dir := b.TempDir()
	makeTree(b, dir, 30000, 1500)
	settle()
	store := filepath.Join(b.TempDir(), "context")
	for _, known := range []bool{false, true} {
		b.Run(fmt.Sprintf("known=%t", known), func(b *testing.B) {
			for b.Loop() {
				if !known {
					os.RemoveAll(store)
				}
				c := &Contexts{Path: store}
				top, err := os.Open(dir)
				if err != nil {
					b.Fatal(err)
				}
				r := c.Of(dir)
				var files []File
				for d := range 5 {
					for e := range 7 {
						at := fmt.Sprintf("d%d/e%d", d, e)
						nodes, err := r.List(top, at)
						if err != nil {
							b.Fatal(err)
						}
						for _, n := range nodes {
							files = append(files, File{Path: at + "/" + n.Name, Node: n})
						}
					}
				}
				if err := r.Hash(b.Context(), top, files); err != nil {
					b.Fatal(err)
				}
				c.Save()
				top.Close()
			}
		})
	}
}
