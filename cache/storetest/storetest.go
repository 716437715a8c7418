// Package storetest is the suite that every store passes.
package storetest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
)

// Step returns a descriptor and its blob: name decides the key, content the bytes.
func Step(name, content string) (cache.Descriptor, *cache.Blob) {
	return cache.Descriptor{
		Key: key.Sum("test", func(w key.Writer) { w.Field("name", name) }), Layer: "base",
		Digest: digest.FromString(content), Size: int64(len(content)), CRC32C: crc32.Checksum([]byte(content), crc32.MakeTable(crc32.Castagnoli)), DiffID: digest.FromString("plain " + content),
		Entries: 1, Bytes: 2, Text: "RUN " + name, Took: time.Second,
		Record:  key.Record{{Name: "command", Value: name}},
		Created: time.Unix(1_700_000_000, 0).UTC(),
	}, Blob(content)
}

// Blob returns a verified blob.
func Blob(content string) *cache.Blob {
	b, err := cache.Create("")
	if err == nil {
		_, err = io.WriteString(b, content)
	}
	if err != nil {
		panic(err)
	}
	b.Packed(digest.FromString(content))
	return b
}

// Unverified returns a blob that is complete, and is said to be that of d.
func Unverified(t testing.TB, d cache.Descriptor, content string) *cache.Blob {
	t.Helper()
	d.Size = int64(len(content))
	b := &cache.Blob{}
	if err := b.Fill(t.TempDir(), d, func(w cache.Writer) error {
		_, err := w.WriteAt([]byte(content), 0)
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { b.Close() })
	return b
}

// Open fetches a blob, verifies it, and returns its content.
func Open(t testing.TB, s cache.Store, d cache.Descriptor) (io.ReadCloser, error) {
	t.Helper()
	b := &cache.Blob{}
	if err := cache.Fetch(t.Context(), s, d, b); err != nil {
		b.Close()
		return nil, err
	}
	return struct {
		io.Reader
		io.Closer
	}{io.NewSectionReader(b, 0, d.Size), b}, nil
}

// Read returns the content of a blob that is fetched, and verified.
func Read(t testing.TB, s cache.Store, d cache.Descriptor) string {
	t.Helper()
	f, err := Open(t, s, d)
	if err != nil {
		t.Error(err)
		return ""
	}
	defer f.Close()
	data, err := io.ReadAll(f)
	if err != nil {
		t.Error(err)
	}
	return string(data)
}

// Layer returns the manifest of a layer of these steps, made at a minute.
func Layer(name string, minute int, steps ...cache.Descriptor) cache.Manifest {
	return cache.Manifest{
		Name: name, Key: steps[len(steps)-1].Key, Platform: "linux/amd64 debian 12",
		Project: "me/env", From: key.Sum("layer", func(w key.Writer) { w.Field("on", name) }),
		Steps: steps, Created: time.Unix(1_700_000_000+int64(minute)*60, 0).UTC(),
	}
}

// Run runs the suite on stores that open makes, each empty.
func Run(t *testing.T, open func(t *testing.T) cache.Store) {
	RunUnlisted(t, open)
	runListed(t, open)
}

// RunUnlisted runs what of the suite holds for stores that list nothing, and remove nothing,
// too: their List and Remove return cache.ErrUnlisted.
func RunUnlisted(t *testing.T, open func(t *testing.T) cache.Store) {
	t.Run("an empty store", func(t *testing.T) {
		s := open(t)
		d, _ := Step("a", "content")
		if found := find(t, s, d); len(found) != 0 {
			t.Errorf("found %v", found)
		}
		var b cache.Blob
		if err := s.Fetch(t.Context(), d, &b); !errors.Is(err, cache.ErrNotCached) || b.State() >= cache.Complete {
			t.Errorf("Fetch: %v, want ErrNotCached; the blob is %s", err, b.State())
		}
		list, err := s.List(t.Context())
		if listed(err) && err != nil || len(list) != 0 {
			t.Errorf("List: %v, %v", list, err)
		}
		if n, rerr := s.Remove(t.Context(), []cache.Manifest{Layer("base", 0, d)}); listed(rerr) != listed(err) || listed(rerr) && rerr != nil || n != 0 {
			t.Errorf("Remove: %d, %v", n, rerr)
		}
	})
	t.Run("what is put is found and fetched", func(t *testing.T) {
		s := open(t)
		a, blob := Step("a", "content of a")
		b, _ := Step("b", "never put")
		put(t, s, a, blob)
		if diff := cmp.Diff(map[key.Key]cache.Found{a.Key: {Descriptor: a, Store: s.Name()}}, find(t, s, a, b)); diff != "" {
			t.Errorf("Find (-want +got):\n%s", diff)
		}
		var fetched cache.Blob
		defer fetched.Close()
		if err := s.Fetch(t.Context(), a, &fetched); err != nil || fetched.State() < cache.Complete || fetched.State() == cache.Aborted {
			t.Errorf("Fetch: %v; the blob is %s", err, fetched.State())
		}
		if got := Read(t, s, a); got != "content of a" {
			t.Errorf("%q", got)
		}
	})
	t.Run("a blob is read while it arrives", func(t *testing.T) {
		s := open(t)
		a, blob := Step("a", "content of a")
		put(t, s, a, blob)
		var b cache.Blob
		defer b.Close()
		r := b.Reader(t.Context())
		defer r.Close()
		read := make(chan string)
		go func() {
			data, err := io.ReadAll(r)
			if err != nil {
				t.Error(err)
			}
			read <- string(data)
		}()
		if err := cache.Fetch(t.Context(), s, a, &b); err != nil || b.State() != cache.Verified {
			t.Errorf("%v; the blob is %s", err, b.State())
		}
		if got := <-read; got != "content of a" || r.Wait() != nil {
			t.Errorf("%q, %v", got, r.Wait())
		}
	})
	t.Run("a blob that another store left is fetched again", func(t *testing.T) {
		s := open(t)
		a, blob := Step("a", "content of a")
		put(t, s, a, blob)
		b := Unverified(t, a, "CONTENT OF A")
		if err := cache.Fetch(t.Context(), s, a, b); err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(io.NewSectionReader(b, 0, a.Size)); err != nil || string(got) != "content of a" {
			t.Errorf("%q, %v", got, err)
		}
	})
	t.Run("a fetch that is cancelled", func(t *testing.T) {
		s := open(t)
		a, blob := Step("a", "content of a")
		put(t, s, a, blob)
		ctx, cancel := context.WithCancelCause(t.Context())
		stop := errors.New("interrupted")
		cancel(stop)
		var b cache.Blob
		defer b.Close()
		if err := cache.Fetch(ctx, s, a, &b); err == nil {
			t.Error("no error")
		}
		if b.State() >= cache.Verified {
			t.Errorf("the blob is %s", b.State())
		}
	})
	t.Run("an empty blob and a large one", func(t *testing.T) {
		s := open(t)
		large := string(bytes.Repeat([]byte("0123456789abcdef"), 1<<17))
		for name, content := range map[string]string{"empty": "", "large": large} {
			d, blob := Step(name, content)
			put(t, s, d, blob)
			if got := Read(t, s, d); got != content {
				t.Errorf("%s: %d bytes, want %d", name, len(got), len(content))
			}
		}
	})
	t.Run("bytes that are not what is said are refused", func(t *testing.T) {
		s := open(t)
		d, _ := Step("a", "content")
		for name, blob := range map[string]*cache.Blob{
			"other bytes, verified": Blob("CONTENT"), "fewer bytes, verified": Blob("cont"),
			"other bytes": Unverified(t, d, "CONTENT"), "fewer bytes": Unverified(t, d, "cont"),
		} {
			if err := s.Put(t.Context(), d, blob); err == nil {
				t.Errorf("%s: no error", name)
			}
		}
		if found := find(t, s, d); len(found) != 0 {
			t.Errorf("found %v", found)
		}
	})
	t.Run("the same at the same time", func(t *testing.T) {
		s := open(t)
		var wg sync.WaitGroup
		for i := range 16 {
			wg.Go(func() {
				d, blob := Step(fmt.Sprint(i%4), fmt.Sprint("content ", i%4))
				if err := s.Put(t.Context(), d, blob); err != nil {
					t.Error(err)
				}
				if err := s.Complete(t.Context(), Layer(fmt.Sprint(i%4), i, d)); err != nil {
					t.Error(err)
				}
				if got := Read(t, s, d); got != fmt.Sprint("content ", i%4) {
					t.Errorf("%q", got)
				}
			})
		}
		wg.Wait()
		if list, err := s.List(t.Context()); listed(err) && (err != nil || len(list) != 4) {
			t.Errorf("List: %d, %v, want 4", len(list), err)
		}
	})
	t.Run("a layer without its steps is not complete", func(t *testing.T) {
		s := open(t)
		a, _ := Step("a", "never put")
		if err := s.Complete(t.Context(), Layer("base", 1, a)); !errors.Is(err, cache.ErrNotCached) {
			t.Errorf("error = %v, want ErrNotCached", err)
		}
	})
}

// listed reports whether an error of List, or of Remove, is of a store that lists.
func listed(err error) bool { return !errors.Is(err, cache.ErrUnlisted) }

// runListed runs the part of the suite about lists, and removal.
func runListed(t *testing.T, open func(t *testing.T) cache.Store) {
	t.Run("two keys of the same bytes", func(t *testing.T) {
		s := open(t)
		a, blob := Step("a", "same")
		b, _ := Step("b", "same")
		put(t, s, a, blob)
		put(t, s, b, blob)
		complete(t, s, Layer("one", 1, a), Layer("two", 2, b))
		remove(t, s, Layer("one", 1, a))
		if got := find(t, s, a, b); len(got) != 1 || Read(t, s, b) != "same" {
			t.Errorf("after one was removed: %v", got)
		}
	})
	t.Run("layers are listed, newest first, each once", func(t *testing.T) {
		s := open(t)
		a, blobA := Step("a", "a")
		b, blobB := Step("b", "b")
		put(t, s, a, blobA)
		put(t, s, b, blobB)
		one, two, unnamed := Layer("base", 1, a), Layer("base", 2, a, b), Layer("", 3, a)
		out, _ := Step("left out", "in no store")
		two.LeftOut = []cache.LeftOut{{Key: out.Key, Index: 1, Record: out.Record, Text: out.Text, Took: out.Took}}
		complete(t, s, two, one, unnamed, one)
		list, err := s.List(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		for i := range list { // a Tier says whose they are
			list[i].Store = ""
		}
		if diff := cmp.Diff([]cache.Manifest{unnamed, two, one}, list); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
	t.Run("removing keeps what others need", func(t *testing.T) {
		s := open(t)
		steps := make([]cache.Descriptor, 4)
		for i, name := range []string{"shared", "old", "new", "interrupted"} {
			d, blob := Step(name, "content of "+name)
			put(t, s, d, blob)
			steps[i] = d
		}
		complete(t, s, Layer("base", 1, steps[0], steps[1]), Layer("base", 2, steps[0], steps[2]))
		removed, freed, err := cache.Prune(t.Context(), s, 1, 0, false)
		if err != nil || len(removed) != 1 || removed[0].Key != steps[1].Key || freed < steps[1].Size {
			t.Errorf("Prune: %v, %d bytes, %v", removed, freed, err)
		}
		if found := find(t, s, steps...); len(found) != 3 || found[steps[1].Key].Size != 0 {
			t.Errorf("%d steps are left, want 3: not the one that only the removed layer had", len(found))
		}
		for _, i := range []int{0, 2, 3} {
			Read(t, s, steps[i])
		}
		if removed, _, err := cache.Prune(t.Context(), s, 0, 0, true); err != nil || len(removed) != 1 || find(t, s, steps[2])[steps[2].Key].Size == 0 {
			t.Errorf("a dry run: %v, %v", removed, err)
		}
	})
}

func find(t *testing.T, s cache.Store, ds ...cache.Descriptor) map[key.Key]cache.Found {
	t.Helper()
	var keys []key.Key
	for _, d := range ds {
		keys = append(keys, d.Key)
	}
	found, err := s.Find(t.Context(), cache.Tag("base", keys[len(keys)-1]), keys)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func put(t *testing.T, s cache.Store, d cache.Descriptor, blob *cache.Blob) {
	t.Helper()
	if err := s.Put(t.Context(), d, blob); err != nil {
		t.Fatal(err)
	}
}

func complete(t *testing.T, s cache.Store, ms ...cache.Manifest) {
	t.Helper()
	for _, m := range ms {
		if err := s.Complete(t.Context(), m); err != nil {
			t.Fatal(err)
		}
	}
}

func remove(t *testing.T, s cache.Store, ms ...cache.Manifest) {
	t.Helper()
	if _, err := s.Remove(t.Context(), ms); err != nil {
		t.Fatal(err)
	}
}
