package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"testing"
	"testing/synctest"

	"github.com/opencontainers/go-digest"
)

func describe(content string) Descriptor {
	return Descriptor{Digest: digest.FromString(content), Size: int64(len(content))}
}

// filled returns a blob that Fill left with the first bytes of content.
func filled(t *testing.T, content string, n int) *Blob {
	t.Helper()
	b := &Blob{}
	t.Cleanup(func() { b.Close() })
	if err := fill(b, content, n); (err == nil) != (n == len(content)) {
		t.Fatal(err)
	}
	return b
}

func fill(b *Blob, content string, n int) error {
	return b.Fill("", describe(content), func(w Writer) error {
		_, err := w.WriteAt([]byte(content[:n]), 0)
		return err
	})
}

// Every call in every state: where it leads, or that it panics.
func TestBlobTransitions(t *testing.T) {
	const content = "content"
	states := map[State]func(t *testing.T) *Blob{
		Empty:    func(*testing.T) *Blob { return &Blob{} },
		Partial:  func(t *testing.T) *Blob { return filled(t, content, 3) },
		Complete: func(t *testing.T) *Blob { return filled(t, content, len(content)) },
		Verified: func(t *testing.T) *Blob {
			b := filled(t, content, len(content))
			if err := b.Verify(t.Context(), describe(content)); err != nil {
				t.Fatal(err)
			}
			return b
		},
		Aborted: func(t *testing.T) *Blob {
			b := filled(t, content, 3)
			b.Abort(errors.New("cut off"))
			return b
		},
	}
	open := func(t *testing.T) *os.File {
		f, err := os.Open(os.Args[0])
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	const panics = State(99)
	for _, tt := range []struct {
		call string
		do   func(t *testing.T, b *Blob)
		want [5]State // from Empty, Partial, Complete, Verified, Aborted
	}{
		{"Fill, in part", func(_ *testing.T, b *Blob) { fill(b, content, 2) }, [5]State{Partial, Partial, Partial, panics, panics}},
		{"Fill", func(_ *testing.T, b *Blob) { fill(b, content, len(content)) }, [5]State{Complete, Complete, Complete, panics, panics}},
		{"Fill, with nothing", func(_ *testing.T, b *Blob) { fill(b, "", 0) }, [5]State{Complete, Complete, Complete, panics, panics}},
		{"Open", func(t *testing.T, b *Blob) { b.Open(open(t), describe(content), false) }, [5]State{Complete, Complete, Complete, panics, panics}},
		{"Verify", func(t *testing.T, b *Blob) { _ = b.Verify(t.Context(), describe(content)) }, [5]State{panics, panics, Verified, panics, panics}},
		{"Verify, of other bytes", func(t *testing.T, b *Blob) { _ = b.Verify(t.Context(), describe("CONTENT")) }, [5]State{panics, panics, Partial, panics, panics}},
		{"Abort", func(_ *testing.T, b *Blob) { b.Abort(io.ErrUnexpectedEOF) }, [5]State{Aborted, Aborted, Aborted, Verified, Aborted}},
		{"Close", func(_ *testing.T, b *Blob) { b.Close(); b.Close() }, [5]State{Aborted, Aborted, Aborted, Verified, Aborted}},
		{"Link", func(t *testing.T, b *Blob) { _, _ = b.Link(root(t), "name") }, [5]State{panics, panics, panics, Verified, panics}},
		{"ReadAt", func(_ *testing.T, b *Blob) { _, _ = b.ReadAt(make([]byte, 1), 0) }, [5]State{panics, panics, Complete, Verified, Aborted}},
		{"Reader", func(t *testing.T, b *Blob) { b.Reader(t.Context()).Close() }, [5]State{Empty, Partial, Complete, Verified, Aborted}},
	} {
		for from, want := range tt.want {
			t.Run(fmt.Sprint(tt.call, " when ", State(from)), func(t *testing.T) {
				b := states[State(from)](t)
				got := panics
				func() {
					defer func() {
						if e := recover(); e != nil && want != panics {
							t.Errorf("panic: %v", e)
						}
					}()
					tt.do(t, b)
					got = b.State()
				}()
				if got != want {
					t.Errorf("the blob is %d, want %d", got, want)
				}
			})
		}
	}
}

func root(t *testing.T) *os.Root {
	t.Helper()
	r, err := os.OpenRoot(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

// A writer that a store left behind changes no other file, and nothing that is verified.
func TestWriterOfAnEarlierFill(t *testing.T) {
	b := &Blob{}
	defer b.Close()
	var old Writer
	if err := b.Fill("", describe("content"), func(w Writer) error { old = w; return io.ErrUnexpectedEOF }); err == nil {
		t.Fatal("no error")
	}
	if err := fill(b, "content", 7); err != nil {
		t.Fatal(err)
	}
	if _, err := old.WriteAt([]byte("C"), 0); !errors.Is(err, ErrAborted) {
		t.Errorf("WriteAt: %v", err)
	}
	if err := old.Truncate(0); !errors.Is(err, ErrAborted) {
		t.Errorf("Truncate: %v", err)
	}
	if err := b.Verify(t.Context(), describe("content")); err != nil {
		t.Error(err)
	}
}

func TestWriterBeyondTheEnd(t *testing.T) {
	b := &Blob{}
	defer b.Close()
	var corrupt *CorruptError
	err := b.Fill("", describe("content"), func(w Writer) error {
		_, err := w.From(3).WriteAt([]byte("tent and more"), 0)
		return err
	})
	if !errors.As(err, &corrupt) || corrupt.GotSize != 16 {
		t.Errorf("error = %v", err)
	}
}

// However the pieces come, what is read is the blob, and no more than has come.
func TestReaderFollowsTheBytes(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		content := make([]byte, r.IntN(5000))
		for i := range content {
			content[i] = byte(1 + r.IntN(255)) // what has not come reads as zero
		}
		synctest.Test(t, func(t *testing.T) {
			b := &Blob{}
			defer b.Close()
			got := make(chan []byte)
			go func() {
				reader := b.Reader(t.Context())
				defer reader.Close()
				data, err := io.ReadAll(reader)
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				got <- data
			}()
			err := b.Fill("", describe(string(content)), func(w Writer) error {
				for _, i := range r.Perm(len(content)/97 + 1) {
					from, to := i*97, min(i*97+97, len(content))
					if _, err := w.From(int64(from)/2).WriteAt(content[from:to], int64(from)-int64(from)/2); err != nil {
						t.Fatal(err)
					}
					synctest.Wait()
				}
				return nil
			})
			if err != nil || !bytes.Equal(<-got, content) {
				t.Errorf("seed %d: not what came; %v", seed, err)
			}
		})
	}
}

func TestReaderOfABlobThatIsAborted(t *testing.T) {
	for name, tt := range map[string]struct {
		then    func(b *Blob, w Writer)
		aborted bool
	}{
		"it is aborted":           {func(b *Blob, _ Writer) { b.Abort(io.ErrUnexpectedEOF) }, true},
		"it is closed":            {func(b *Blob, _ Writer) { b.Close() }, true},
		"a byte is written again": {func(_ *Blob, w Writer) { w.WriteAt([]byte("c"), 0) }, true},
		"what is read is cut off": {func(_ *Blob, w Writer) { w.Truncate(1) }, true},
		"another store has it":    {func(b *Blob, _ Writer) { fill(b, "content", 7) }, true},
		"the rest of it":          {func(_ *Blob, w Writer) { w.WriteAt([]byte("ntent"), 2) }, false},
		"something after a gap":   {func(_ *Blob, w Writer) { w.WriteAt([]byte("nt"), 5) }, false},
		"the end is cut off":      {func(_ *Blob, w Writer) { w.Truncate(2) }, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &Blob{}
				defer b.Close()
				r, late := b.Reader(t.Context()), b.Reader(t.Context()) // late reads nothing before
				defer r.Close()
				defer late.Close()
				_ = b.Fill("", describe("content"), func(w Writer) error {
					if _, err := w.WriteAt([]byte("co"), 0); err != nil {
						t.Error(err)
					}
					if n, err := r.Read(make([]byte, 4)); n != 2 || err != nil {
						t.Errorf("read %d bytes, %v", n, err)
					}
					tt.then(b, w)
					synctest.Wait()
					return nil
				})
				if aborted := errors.Is(context.Cause(r.Context()), ErrAborted); aborted != tt.aborted {
					t.Errorf("the context ended with %v", context.Cause(r.Context()))
				}
				if tt.aborted {
					if _, err := r.Read(make([]byte, 4)); !errors.Is(err, ErrAborted) {
						t.Errorf("Read: %v", err)
					}
					if err := r.Wait(); !errors.Is(err, ErrAborted) {
						t.Errorf("Wait: %v", err)
					}
				}
				select {
				case <-r.Verified():
					t.Error("verified")
				default:
				}
				if want := b.State() == Aborted; errors.Is(context.Cause(late.Context()), ErrAborted) != want {
					t.Errorf("one who has read nothing: %v, in state %s", context.Cause(late.Context()), b.State())
				}
			})
		})
	}
}

// Waiting ends with the state, the abort, or the context.
func TestBlobWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		stop := errors.New("interrupted")
		ctx, cancel := context.WithCancelCause(t.Context())
		b, other := &Blob{}, &Blob{}
		defer b.Close()
		reached := make(map[State]bool)
		for _, s := range []State{Empty, Partial, Complete, Verified} {
			go func() {
				err := b.Wait(ctx, s)
				b.mu.Lock()
				defer b.mu.Unlock()
				reached[s] = true
				if want := s == Verified; errors.Is(err, stop) != want || !want && err != nil {
					t.Errorf("%s: %v", s, err)
				}
			}()
		}
		aborted := make(chan error)
		go func() { aborted <- other.Wait(ctx, Complete) }()
		check := func(want State) {
			t.Helper()
			synctest.Wait()
			b.mu.Lock()
			defer b.mu.Unlock()
			for s := Empty; s <= Verified; s++ {
				if reached[s] != (s <= want) {
					t.Errorf("%s: %t", s, reached[s])
				}
			}
		}
		check(Empty)
		err := b.Fill("", describe("content"), func(w Writer) error {
			check(Partial)
			_, err := w.WriteAt([]byte("content"), 0)
			check(Complete)
			return err
		})
		if err != nil {
			t.Error(err)
		}
		cancel(stop)
		check(Verified)
		if err := <-aborted; !errors.Is(err, stop) {
			t.Errorf("one that never came: %v", err)
		}
		other.Abort(io.ErrUnexpectedEOF)
		if err := other.Wait(t.Context(), Partial); !errors.Is(err, ErrAborted) || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("one that is aborted: %v", err)
		}
	})
}

// A store fills a blob with a function.
type filler struct {
	Store
	fill func(w Writer) error
}

func (filler) Name() string { return "filler" }

func (f filler) Fetch(_ context.Context, d Descriptor, b *Blob) error { return b.Fill("", d, f.fill) }

// piece is written at an offset; without data what is after it is cut off.
type piece struct {
	at   int64
	data string
}

// What is written again over what came is not what was read and hashed before: a blob
// that turns bad is found out, and one that turns good was read as a bad one.
func TestFetchOfWhatComesTwice(t *testing.T) {
	blob, other := string(bytes.Repeat([]byte("blob"), 1000)), string(bytes.Repeat([]byte("BLOB"), 1000))
	d := describe(blob)
	for name, tt := range map[string]struct {
		pieces  []piece
		corrupt bool
		read    bool // a reader that waits for each piece has read the blob
	}{
		"once":                      {[]piece{{0, blob[:1500]}, {1500, blob[1500:]}}, false, true},
		"a gap that is filled":      {[]piece{{2000, blob[2000:]}, {0, blob[:2000]}}, false, true},
		"bad":                       {[]piece{{0, other}}, true, false},
		"good, then bad":            {[]piece{{0, blob[:1500]}, {0, other}}, true, false},
		"whole, then bad":           {[]piece{{0, blob}, {0, other}}, true, false},
		"whole, then a bad end":     {[]piece{{0, blob}, {3000, other[3000:]}}, true, false},
		"bad, then good":            {[]piece{{0, other[:1500]}, {0, blob}}, false, false},
		"bad after a gap":           {[]piece{{2000, other[2000:]}, {0, blob}}, false, false},
		"cut off, and the rest new": {[]piece{{0, blob}, {2000, ""}, {0, blob}}, false, false},
		"cut off":                   {[]piece{{0, blob}, {2000, ""}}, true, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &Blob{}
				defer b.Close()
				reader := b.Reader(t.Context())
				defer reader.Close()
				read := make(chan string, 1)
				go func() {
					got, _ := io.ReadAll(reader)
					read <- string(got)
				}()
				err := Fetch(t.Context(), filler{fill: func(w Writer) error {
					for _, p := range tt.pieces {
						var err error
						if p.data == "" {
							err = w.Truncate(p.at)
						} else {
							_, err = w.WriteAt([]byte(p.data), p.at)
						}
						if err != nil {
							t.Error(err)
						}
						synctest.Wait()
					}
					return nil
				}}, d, b)
				var corrupt *CorruptError
				if errors.As(err, &corrupt) != tt.corrupt || (err != nil) != tt.corrupt {
					t.Errorf("corrupt: %t, want %t; %v", !tt.corrupt, tt.corrupt, err)
				}
				if verified := b.State() == Verified; verified == tt.corrupt {
					t.Errorf("the blob is %s", b.State())
				}
				if err != nil {
					b.Abort(err)
				}
				synctest.Wait()
				verified := false
				select {
				case <-reader.Verified():
					verified = true
				default:
				}
				if got := <-read; verified && got != blob {
					t.Error("it is said to be verified, and another was read")
				}
				if verified != tt.read || (reader.Wait() == nil) != tt.read {
					t.Errorf("verified: %t, want %t; %v", verified, tt.read, reader.Wait())
				}
			})
		})
	}
}

// A blob that one store had in part, or had bad, is fetched from the next one, and
// stored in those that are nearer.
func TestTierFillsABlobAgain(t *testing.T) {
	d := describe("content")
	for name, bad := range map[string]func(w Writer) error{
		"in part": func(w Writer) error {
			_, err := w.WriteAt([]byte("con"), 0)
			return errors.Join(err, errors.New("connection reset"))
		},
		"other bytes": func(w Writer) error { _, err := w.WriteAt([]byte("CONTENT"), 0); return err },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				b := &Blob{}
				defer b.Close()
				early := b.Reader(t.Context())
				defer early.Close()
				go io.Copy(io.Discard, early)
				put := 0
				tier := Tiered(func(string, error) {}, putting{filler{fill: func(w Writer) error {
					err := bad(w)
					synctest.Wait() // early has read it
					return err
				}}, &put}, filler{fill: func(w Writer) error { _, err := w.WriteAt([]byte("content"), 0); return err }})
				if err := tier.Fetch(t.Context(), d, b); err != nil || b.State() != Verified || put != 1 {
					t.Fatalf("%v; the blob is %s, put %d times", err, b.State(), put)
				}
				if got, err := io.ReadAll(io.NewSectionReader(b, 0, d.Size)); err != nil || string(got) != "content" {
					t.Errorf("%q, %v", got, err)
				}
				if err := early.Wait(); !errors.Is(err, ErrAborted) {
					t.Errorf("the reader of the first: %v", err)
				}
				late := b.Reader(t.Context())
				defer late.Close()
				if got, err := io.ReadAll(late); err != nil || string(got) != "content" || late.Wait() != nil {
					t.Errorf("a reader of the second: %q, %v, %v", got, err, late.Wait())
				}
			})
		})
	}
}

type putting struct {
	filler
	put *int
}

func (p putting) Put(context.Context, Descriptor, *Blob) error { *p.put++; return nil }

// The files of a blob are closed, and a name that it has is removed or moved, once.
func TestFilesOfABlob(t *testing.T) {
	dir := root(t)
	names := func() int {
		entries, err := os.ReadDir(dir.Name())
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	named := func() *Blob { // as where there are no anonymous files
		f, err := dir.OpenFile("blob", os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
		if err != nil {
			t.Fatal(err)
		}
		own, err := dir.OpenRoot(".")
		if err != nil {
			t.Fatal(err)
		}
		b := created(tempFile{f, own, "blob"})
		io.WriteString(b, "con")
		io.WriteString(b, "tent")
		return b
	}
	named().Close()
	if names() != 0 {
		t.Error("the name of a blob that was not packed stays")
	}
	anonymous, err := Create(dir.Name())
	if err != nil {
		t.Fatal(err)
	}
	io.WriteString(anonymous, "content")
	for name, b := range map[string]*Blob{"named": named(), "anonymous": anonymous} {
		b.Packed(digest.FromString("content"))
		to := root(t)
		f, err := b.Link(to, "linked")
		if err != nil {
			if name == "named" {
				t.Error(err)
			}
			continue // no anonymous files here
		}
		if _, err := b.Link(to, "again"); err == nil {
			t.Errorf("%s: linked twice", name)
		}
		here, _ := f.Stat()
		there, err := to.Stat("linked")
		if err != nil || !os.SameFile(here, there) {
			t.Errorf("%s: it was copied, %v", name, err)
		}
		b.Close()
		if got, err := to.ReadFile("linked"); err != nil || string(got) != "content" {
			t.Errorf("%s: %q, %v", name, got, err)
		}
		if _, err := b.ReadAt(make([]byte, 1), 0); !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s: read after it was closed: %v", name, err)
		}
	}
	if names() != 0 {
		t.Error("a name stays behind")
	}
}
