package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"testing/iotest"
	"testing/synctest"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
)

// However the pieces come, what is read is the blob, and no more than has come.
func TestArrival(t *testing.T) {
	for seed := range uint64(200) {
		r := rand.New(rand.NewPCG(seed, 0))
		blob := make([]byte, r.IntN(5000))
		for i := range blob {
			blob[i] = byte(1 + r.IntN(255)) // what has not come reads as zero
		}
		synctest.Test(t, func(t *testing.T) {
			place := holes(t, len(blob))
			a := cache.NewArrival(int64(len(blob)))
			got := make(chan []byte)
			go func() {
				data, err := io.ReadAll(a.Reader(t.Context()))
				if err != nil {
					t.Errorf("seed %d: %v", seed, err)
				}
				got <- data
			}()
			a.From(place)
			for _, i := range r.Perm(len(blob)/97 + 1) {
				from, to := i*97, min(i*97+97+r.IntN(20), len(blob)) // some bytes come twice
				if _, err := place.WriteAt(blob[from:to], int64(from)); err != nil {
					t.Fatal(err)
				}
				a.Came(int64(from), int64(to-from))
				synctest.Wait()
			}
			if !bytes.Equal(<-got, blob) {
				t.Errorf("seed %d: not what came", seed)
			}
		})
	}
}

// holes is a file of n bytes, none of which is there.
func holes(t *testing.T, n int) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "blob"))
	if err == nil {
		err = f.Truncate(int64(n))
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestArrivalIsLost(t *testing.T) {
	why := errors.New("cut off")
	tests := []struct {
		name string
		lose func(a *cache.Arrival, other *os.File)
		lost bool
	}{
		{"the store fails", func(a *cache.Arrival, _ *os.File) { a.Fail(why) }, true},
		{"it begins anew", func(a *cache.Arrival, _ *os.File) { a.Restart() }, true},
		{"another store has it", func(a *cache.Arrival, other *os.File) { a.From(other); a.Came(0, 4) }, true},
		{"nothing of it", func(a *cache.Arrival, _ *os.File) { a.Came(2, 2) }, false},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				a := cache.NewArrival(4)
				a.From(holes(t, 4))
				a.Restart() // nobody has read anything
				a.Came(0, 2)
				ctx, stop := a.Context(t.Context())
				defer stop()
				r := a.Reader(ctx)
				if n, err := r.Read(make([]byte, 4)); n != 2 || err != nil {
					t.Fatalf("read %d bytes, %v", n, err)
				}
				tt.lose(a, holes(t, 4))
				synctest.Wait()
				if lost := errors.Is(context.Cause(ctx), cache.ErrLost); lost != tt.lost {
					t.Errorf("the context says %v", context.Cause(ctx))
				}
				_, err := r.Read(make([]byte, 4))
				if lost := errors.Is(err, cache.ErrLost); lost != tt.lost {
					t.Errorf("read: %v", err)
				}
				select {
				case <-a.Sound():
					t.Error("sound")
				default:
				}
			})
		})
	}
	var none *cache.Arrival // nobody asked to be told
	none.From(holes(t, 1))
	none.Came(0, 1)
	none.Restart()
	none.Fail(why)
}

// OpenVerified tells of a blob before it is verified, and says that it is sound
// only then.
func TestOpenVerifiedTellsAnArrival(t *testing.T) {
	blob := bytes.Repeat([]byte("blob"), 1000)
	good := cache.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	bad := cache.Descriptor{Digest: digest.FromString("another"), Size: int64(len(blob))}
	file := t.TempDir() + "/blob"
	if err := os.WriteFile(file, blob, 0o644); err != nil {
		t.Fatal(err)
	}
	for name, open := range map[string]func() io.Reader{
		"a stream": func() io.Reader { return iotest.HalfReader(bytes.NewReader(blob)) },
		"a file":   func() io.Reader { f, _ := os.Open(file); return f },
	} {
		t.Run(name, func(t *testing.T) {
			for _, d := range []cache.Descriptor{good, bad} {
				a := cache.NewArrival(d.Size)
				ctx := cache.WithArrival(t.Context(), a)
				read := make(chan error, 1)
				go func() {
					got, err := io.ReadAll(a.Reader(ctx))
					if err == nil && !bytes.Equal(got, blob) {
						err = errors.New("not the blob")
					}
					read <- err
				}()
				f, err := cache.OpenVerified(ctx, opener{open: open}, d, t.TempDir())
				sound := false
				select {
				case <-a.Sound():
					sound = true
				default:
				}
				if sound != (err == nil) || sound != (d.Digest == good.Digest) {
					t.Errorf("sound: %t, error %v", sound, err)
				}
				if err != nil {
					a.Fail(err)
				}
				if rerr := <-read; rerr != nil && (err == nil || !errors.Is(rerr, cache.ErrLost)) {
					t.Errorf("read: %v", rerr)
				}
				if f != nil {
					f.Close()
				}
			}
		})
	}
}

// What is brought anew over what came is not what was read and hashed before: a blob
// that turns bad is found out, and one that turns good was read as a bad one.
func TestOpenVerifiedOfWhatComesTwice(t *testing.T) {
	blob := bytes.Repeat([]byte("blob"), 1000)
	other := bytes.Repeat([]byte("BLOB"), 1000)
	d := cache.Descriptor{Digest: digest.FromBytes(blob), Size: int64(len(blob))}
	for name, tt := range map[string]struct {
		pieces  []piece
		corrupt bool
		sound   bool // of a reader that waits for each piece
	}{
		"once":                      {[]piece{{0, blob[:1500]}, {1500, blob[1500:]}}, false, true},
		"a gap that is filled":      {[]piece{{2000, blob[2000:]}, {0, blob[:2000]}}, false, true},
		"good, then bad":            {[]piece{{0, blob[:1500]}, {0, other}}, true, false},
		"whole, then bad":           {[]piece{{0, blob}, {0, other}}, true, false},
		"whole, then bad behind":    {[]piece{{0, blob}, {3000, other[3000:]}}, true, false},
		"bad, then good":            {[]piece{{0, other[:1500]}, {0, blob}}, false, false},
		"bad behind a gap":          {[]piece{{2000, other[2000:]}, {0, blob}}, false, false},
		"cut off, and the rest new": {[]piece{{0, blob}, {2000, nil}, {2000, blob[2000:]}}, false, false},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				place := holes(t, 0)
				a := cache.NewArrival(d.Size)
				ctx := cache.WithArrival(t.Context(), a)
				read := make(chan []byte, 1)
				go func() {
					got, _ := io.ReadAll(a.Reader(ctx))
					read <- got
				}()
				store := opener{open: func() io.Reader {
					a.From(place)
					part := a.Part(place, 0)
					for _, p := range tt.pieces {
						var err error
						if p.data == nil {
							err = part.Truncate(p.at)
						} else {
							_, err = part.WriteAt(p.data, p.at)
						}
						if err != nil {
							t.Error(err)
						}
						synctest.Wait()
					}
					return place
				}}
				_, err := cache.OpenVerified(ctx, store, d, "")
				var corrupt *cache.CorruptError
				if errors.As(err, &corrupt) != tt.corrupt || (err != nil) != tt.corrupt {
					t.Errorf("corrupt: %t, want %t; %v", !tt.corrupt, tt.corrupt, err)
				}
				sound := false
				select {
				case <-a.Sound():
					sound = true
				default:
				}
				if err != nil {
					a.Fail(err)
				}
				if got := <-read; sound && !bytes.Equal(got, blob) {
					t.Error("it is said to be sound, and another was read")
				}
				if sound != tt.sound {
					t.Errorf("sound: %t, want %t", sound, tt.sound)
				}
			})
		})
	}
}

// What was told of, and hashed, has to be what is opened.
func TestOpenVerifiedOfAnotherFile(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := cache.Descriptor{Digest: digest.FromString("blob"), Size: 4}
		told, opened := holes(t, 0), holes(t, 4)
		a := cache.NewArrival(d.Size)
		store := opener{open: func() io.Reader {
			a.From(told)
			if _, err := a.Part(told, 0).WriteAt([]byte("blob"), 0); err != nil {
				t.Error(err)
			}
			synctest.Wait()
			return opened
		}}
		var corrupt *cache.CorruptError
		if _, err := cache.OpenVerified(cache.WithArrival(t.Context(), a), store, d, ""); !errors.As(err, &corrupt) {
			t.Errorf("error = %v", err)
		}
	})
}

// piece is written at an offset; without data what is behind it is cut off.
type piece struct {
	at   int64
	data []byte
}

// opener is a store that opens a stream, or a file.
type opener struct {
	cache.Store
	open func() io.Reader
}

func (o opener) Open(context.Context, cache.Descriptor, int64) (io.ReadCloser, error) {
	r := o.open()
	if f, ok := r.(*os.File); ok {
		return f, nil
	}
	return io.NopCloser(r), nil
}
