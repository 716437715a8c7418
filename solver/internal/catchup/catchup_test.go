package catchup

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/solver/report"
)

// A store counts what it is asked.
type store struct {
	cache.Store
	finds, puts int
	has         map[key.Key]bool
	locked      error // without a request
	bad         error // of Find
	refuses     error // of Complete, and what is written from then on
}

func (s *store) Name() string     { return "github" }
func (s *store) Location() string { return "github:me/env" }
func (s *store) Writable() error  { return s.locked }

func (s *store) Find(_ context.Context, _ string, keys []key.Key) (map[key.Key]cache.Found, error) {
	s.finds++
	found := make(map[key.Key]cache.Found)
	for _, k := range keys {
		if s.has[k] {
			found[k] = cache.Found{Descriptor: cache.Descriptor{Key: k}, Store: s.Name()}
		}
	}
	return found, s.bad
}

func (s *store) Complete(context.Context, cache.Manifest) error {
	s.puts++
	if s.refuses != nil {
		s.locked = s.refuses
	}
	return s.refuses
}

func layer(name string) Layer {
	k, err := key.Parse(strings.Repeat("ab", 32))
	if err != nil {
		panic(err)
	}
	return Layer{Manifest: cache.Manifest{Name: name, Key: k, Steps: []cache.Descriptor{{Key: k}}}}
}

// push returns the warnings of a Push in a session of its own.
func push(t *testing.T, m Memory, s *store, again bool) (warned string) {
	t.Helper()
	p := &Pusher{Memory: m, Again: again, Report: report.New(func(e report.Event) { warned += e.Text + "\n" })}
	if err := p.Push(t.Context(), s, []Layer{layer("base")}); err != nil {
		t.Fatal(err)
	}
	return warned
}

func TestWhatIsThereIsAskedOnce(t *testing.T) {
	m := Memory(filepath.Join(t.TempDir(), "stores"))
	s := &store{has: map[key.Key]bool{layer("").Manifest.Key: true}}
	for range 3 {
		if warned := push(t, m, s, false); warned != "" {
			t.Errorf("it warns of %q", warned)
		}
	}
	if s.finds != 1 || s.puts != 1 {
		t.Errorf("asked %d times and completed %d times, want once", s.finds, s.puts)
	}
	if push(t, m, s, true); s.finds != 2 {
		t.Errorf("asked %d times, and then again by request, want 2", s.finds)
	}
}

func TestRefusalsAreRemembered(t *testing.T) {
	m := Memory(filepath.Join(t.TempDir(), "stores"))
	s := &store{has: map[key.Key]bool{layer("").Manifest.Key: true}, refuses: errors.New("403")}
	for range 2 {
		s.locked = nil // another process
		if warned := push(t, m, s, false); !strings.Contains(warned, "of layer base is not there: 403") {
			t.Errorf("it warns of %q", warned)
		}
	}
	if s.finds != 1 {
		t.Errorf("asked %d times, want once", s.finds)
	}
}

// An outage says nothing of the next session.
func TestOutagesAreNotRemembered(t *testing.T) {
	m := Memory(filepath.Join(t.TempDir(), "stores"))
	s := &store{bad: errors.New("connection refused")}
	for range 2 {
		if warned := push(t, m, s, false); !strings.Contains(warned, "1 step of layer base not there") {
			t.Errorf("it warns of %q", warned)
		}
	}
	if s.finds != 2 {
		t.Errorf("asked %d times, want twice", s.finds)
	}
}

// A store that can be written since gets what it lacks.
func TestAStoreThatCouldNotBeWritten(t *testing.T) {
	m := Memory(filepath.Join(t.TempDir(), "stores"))
	s := &store{locked: errors.New("no token")}
	for range 2 {
		if warned := push(t, m, s, false); !strings.Contains(warned, "1 step of layer base not there: no token") {
			t.Errorf("it warns of %q", warned)
		}
	}
	if s.finds != 1 {
		t.Errorf("asked %d times, want once", s.finds)
	}
	s.locked = nil
	if warned := push(t, m, s, false); !strings.Contains(warned, errGone.Error()) || s.finds != 2 {
		t.Errorf("it warns of %q, and asked %d times", warned, s.finds)
	}
}

// What stands in the memory's place is not opened, and fails nothing.
func TestDamagedMemory(t *testing.T) {
	s := &store{has: map[key.Key]bool{layer("").Manifest.Key: true}}
	dir := t.TempDir()
	m := Memory(dir)
	path := filepath.Join(dir, m.name(s.Location()))
	for name, damage := range map[string]func() error{
		"text":   func() error { return os.WriteFile(path, []byte("no JSON"), 0o600) },
		"null":   func() error { return os.WriteFile(path, []byte("null"), 0o600) },
		"a FIFO": func() error { return syscall.Mkfifo(path, 0o600) },
		"a link": func() error { return os.Symlink("/etc/passwd", path) },
		"a future": func() error {
			return os.WriteFile(path, []byte(`{"base `+strings.Repeat("ab", 32)+`":{"asked":"2999-01-01T00:00:00Z"}}`), 0o600)
		},
		"directory": func() error { return os.Mkdir(path, 0o700) },
	} {
		if err := damage(); err != nil {
			t.Fatal(err)
		}
		s.finds = 0
		if warned := push(t, m, s, false); warned != "" || s.finds != 1 {
			t.Errorf("%s: it warns of %q, and asked %d times", name, warned, s.finds)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}
