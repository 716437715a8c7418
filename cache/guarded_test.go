package cache_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/cache/storetest"
)

// sink is a store that counts what gets in.
type sink struct {
	cache.Store
	puts, completed int
}

func (s *sink) Put(context.Context, cache.Descriptor, *cache.Blob) error { s.puts++; return nil }
func (s *sink) Complete(context.Context, cache.Manifest) error           { s.completed++; return nil }

// packed returns a step's snapshot of one entry.
func packed(t testing.TB, e *snapshot.Entry, content string) (cache.Descriptor, *cache.Blob) {
	t.Helper()
	if e.Kind == snapshot.File {
		e.Size = int64(len(content))
		e.Open = func() (io.ReadCloser, error) { return io.NopCloser(strings.NewReader(content)), nil }
	}
	e.ModTime = time.Unix(1, 0)
	var b bytes.Buffer
	if _, err := snapshot.Pack(t.Context(), &b, func(yield func(*snapshot.Entry, error) bool) { yield(e, nil) }, snapshot.PackOptions{}); err != nil {
		t.Fatal(err)
	}
	d, _ := storetest.Step(e.Path, "")
	d.Digest, d.Size = digest.FromBytes(b.Bytes()), int64(b.Len())
	return d, storetest.Blob(b.String())
}

func TestCredentials(t *testing.T) {
	file := filepath.Join(t.TempDir(), "netrc")
	if err := os.WriteFile(file, []byte("machine x password y\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	environ := []string{
		"GH_TOKEN=ghp_0123456789", "AWS_SECRET=0123456789", "api_key=0123456789", "DB_PASSWORD_OLD=0123456789",
		"SHORT_KEY=1234567", "KEYBOARD=0123456789", "TOKENS=0123456789", "PATH_KEY=" + file, "EMPTY_TOKEN=", "PROXIED_TOKEN=proxy-injected", "ALLOWED_TOKEN=0123456789",
	}
	all, err := cache.Credentials(environ, map[string]string{"netrc": file}, []string{"ALLOWED_TOKEN"})
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, c := range all {
		names = append(names, c.Name)
	}
	if got := strings.Join(names, " "); got != "AWS_SECRET DB_PASSWORD_OLD GH_TOKEN api_key netrc" {
		t.Errorf("names: %s", got)
	}
	if _, err := cache.Credentials(nil, map[string]string{"gone": file + "x"}, nil); err == nil {
		t.Error("a file that is not there: no error")
	}
}

func TestGuarded(t *testing.T) {
	const value = "ghp_0123456789abcdef"
	credentials, err := cache.Credentials([]string{"GH_TOKEN=" + value, "OTHER_KEY=zzzzzzzzzzzzzzzzzzzzzz"}, nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	// Across the border of two pieces that are searched.
	far := strings.Repeat("x", 256<<10-7) + value + strings.Repeat("y", 1000)
	tests := []struct {
		name    string
		entry   snapshot.Entry
		content string
		text    string
		want    string // path; "-" for none
	}{
		{"nothing", snapshot.Entry{Path: "etc/x", Kind: snapshot.File}, "token=ghp_", "", "-"},
		{"an empty file", snapshot.Entry{Path: "etc/x", Kind: snapshot.File}, "", "", "-"},
		{"in a file", snapshot.Entry{Path: "root/.netrc", Kind: snapshot.File}, "password " + value + "\n", "", "/root/.netrc"},
		{"at the end of a large file", snapshot.Entry{Path: "var/log/x", Kind: snapshot.File}, strings.Repeat("log\n", 1<<18) + value, "", "/var/log/x"},
		{"across a border", snapshot.Entry{Path: "var/log/x", Kind: snapshot.File}, far, "", "/var/log/x"},
		{"in a name", snapshot.Entry{Path: "tmp/" + value, Kind: snapshot.Dir, Mode: 0o755}, "", "", "/tmp/..."},
		{"in a link", snapshot.Entry{Path: "x", Kind: snapshot.Symlink, Target: "https://" + value + "@host"}, "", "", "/x"},
		{"in the instruction", snapshot.Entry{Path: "x", Kind: snapshot.File}, "", "RUN curl -H " + value, "the instruction"},
	}
	for _, tt := range tests {
		s := &sink{}
		g := cache.Guarded(s, credentials)
		d, b := packed(t, &tt.entry, tt.content)
		d.Text, d.Record = tt.text, nil
		err := g.Put(t.Context(), d, b)
		if tt.want == "-" {
			if err != nil || s.puts != 1 {
				t.Errorf("%s: %v, %d puts", tt.name, err, s.puts)
			}
			continue
		}
		var secret *cache.SecretError
		if !errors.As(err, &secret) || secret.Name != "GH_TOKEN" || !strings.Contains(err.Error(), tt.want) || s.puts != 0 {
			t.Errorf("%s: %v, %d puts", tt.name, err, s.puts)
		}
		if strings.Contains(err.Error(), value) {
			t.Errorf("%s: the error holds the value: %v", tt.name, err)
		}
		// All of the layer is stopped, and no other.
		clean, cb := packed(t, &snapshot.Entry{Path: "clean", Kind: snapshot.File}, "x")
		if err := g.Put(t.Context(), clean, cb); !errors.As(err, &secret) {
			t.Errorf("%s: the next step of the layer: %v", tt.name, err)
		}
		if err := g.Complete(t.Context(), storetest.Layer("base", 0, clean)); !errors.As(err, &secret) {
			t.Errorf("%s: Complete: %v", tt.name, err)
		}
		clean.Layer = "other"
		if err := g.Put(t.Context(), clean, cb); err != nil {
			t.Errorf("%s: another layer: %v", tt.name, err)
		}
	}
	d, b := storetest.Step("x", "no snapshot")
	if err := cache.Guarded(&sink{}, credentials).Put(t.Context(), d, b); err == nil {
		t.Error("what can't be searched got in")
	}
}

func BenchmarkGuarded(b *testing.B) {
	var environ []string
	for _, n := range []string{"A", "B", "C", "D", "E"} {
		environ = append(environ, n+"_TOKEN=ghp_"+n+"0123456789abcdef0123456789abcdef")
	}
	credentials, err := cache.Credentials(environ, nil, nil)
	if err != nil {
		b.Fatal(err)
	}
	g := cache.Guarded(&sink{}, credentials)
	content := strings.Repeat("some text that is no secret, ghp_ neither\n", 1<<20)
	d, blob := packed(b, &snapshot.Entry{Path: "x", Kind: snapshot.File}, content)
	b.SetBytes(int64(len(content)))
	for b.Loop() {
		if err := g.Put(b.Context(), d, blob); err != nil {
			b.Fatal(err)
		}
	}
}
