package cache

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/internal/credential"
	"github.com/clayer/clayer/internal/ctxio"
	"github.com/clayer/clayer/internal/order"
	"github.com/clayer/clayer/internal/safefile"
)

// A Credential is a value that must not leave the machine.
type Credential struct {
	Name  string // of the variable, or the id of the secret file
	value []byte
}

// shortestCredential is what is long enough to be searched for: a shorter
// value stands in many files by chance.
const shortestCredential = 8

// largestCredential bounds a secret file.
const largestCredential = 64 << 10

// Credentials returns those of a session: the values of its variables that are
// called as credential.IsName has it, and of the files, by name. The
// names in allow are left out, and so are values of less than 8 bytes, and
// those that are the path of a file which is there, or a placeholder.
func Credentials(environ []string, files map[string]string, allow []string) ([]Credential, error) {
	var all []Credential
	add := func(name string, value []byte) {
		value = bytes.TrimSpace(value)
		if len(value) >= shortestCredential && !slices.Contains(allow, name) {
			all = append(all, Credential{name, value})
		}
	}
	for _, v := range environ {
		name, value, _ := strings.Cut(v, "=")
		if !credential.IsName(name) {
			continue
		}
		if _, err := os.Lstat(value); err == nil || value == credential.Placeholder {
			continue
		}
		add(name, []byte(value))
	}
	for name, path := range files {
		f, err := safefile.Open(path)
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		value, err := io.ReadAll(io.LimitReader(f, largestCredential+1))
		f.Close()
		if err != nil {
			return nil, fmt.Errorf("secret %s: %w", name, err)
		}
		if len(value) > largestCredential {
			value = value[:largestCredential]
		}
		add(name, value)
	}
	order.Stable(all, func(a, b Credential) int { return strings.Compare(a.Name, b.Name) })
	return all, nil
}

// A SecretError says that a snapshot holds a credential, and so is not put into
// a store that is not on this machine.
type SecretError struct {
	Path string // of the file; "" where the instruction itself holds it
	Name string // of the variable or secret

	// Unsearched says that the file is of a step or a stage that it was built on, and that
	// nobody gave the credential to search it for.
	Unsearched bool
}

func (e *SecretError) Error() string {
	where := "the instruction"
	if e.Path != "" {
		where = "/" + e.Path
	}
	if e.Unsearched {
		return fmt.Sprintf("built, not pushed: %s, in a step or a stage that it was built on, holds the value of %s, for which it cannot be searched now", where, e.Name)
	}
	return fmt.Sprintf("built, not pushed: %s holds the value of %s", where, e.Name)
}

// guard is a store that no credential gets into.
type guard struct {
	Store
	credentials []Credential
	longest     int
	known       *Withheld
}

// Guarded returns a store that refuses snapshots which hold a credential, and
// with one all of its layer: the error is a *SecretError. What is compressed or
// encoded in a file is not seen.
func Guarded(s Store, credentials []Credential) Store {
	return OpenWithheld("", credentials, nil).Guard(s)
}

// Guard is Guarded, which refuses what is known from before too.
func (w *Withheld) Guard(s Store) Store { return newGuard(s, w) }

func newGuard(s Store, w *Withheld) *guard {
	g := &guard{Store: s, credentials: w.credentials, known: w}
	for _, c := range w.credentials {
		g.longest = max(g.longest, len(c.value))
	}
	return g
}

// Put searches the snapshot, also one of a layer that is stopped, so that it is known of
// what holds a credential, and stores it if it holds nothing of the kind.
func (g *guard) Put(ctx context.Context, d Descriptor, blob *Blob) error {
	if err := g.known.Examine(ctx, d, blob); err != nil {
		var secret *SecretError
		if errors.As(err, &secret) {
			g.known.Stop(d.Layer, secret)
		}
		return err
	}
	if err := g.known.stopped(d.Layer); err != nil {
		return err
	}
	if err := g.known.Has(d.Key); err != nil && err.Unsearched && !g.known.Searches(err.Name) {
		return err
	}
	return g.Store.Put(ctx, d, blob)
}

// Complete completes a layer that was not stopped.
func (g *guard) Complete(ctx context.Context, m Manifest) error {
	if err := g.known.stopped(m.Name); err != nil {
		return err
	}
	return g.Store.Complete(ctx, m)
}

// Search searches a snapshot for credentials: the error is a *SecretError if it holds one.
func Search(ctx context.Context, credentials []Credential, blob io.ReaderAt, size int64) error {
	return newGuard(nil, &Withheld{credentials: credentials}).search(ctx, Descriptor{Size: size}, blob)
}

func (g *guard) search(ctx context.Context, d Descriptor, blob io.ReaderAt) error {
	if len(g.credentials) == 0 {
		return nil
	}
	if name := g.in([]byte(d.Text)); name != "" {
		return &SecretError{Name: name}
	}
	for _, in := range d.Record {
		if name := g.in([]byte(in.Value)); name != "" {
			return &SecretError{Name: name}
		}
	}
	r := ctxio.Reader(ctx, io.NewSectionReader(blob, 0, d.Size))
	buf := make([]byte, 256<<10+g.longest)
	for e, err := range snapshot.Read(r) {
		if err != nil {
			return fmt.Errorf("search for credentials: %w", err)
		}
		name := g.in([]byte(e.Path + "\x00" + e.Target))
		for _, v := range e.Xattrs {
			name = cmp.Or(name, g.in([]byte(v)))
		}
		if name == "" && e.Kind == snapshot.File {
			if name, err = g.inFile(e, buf); err != nil {
				return fmt.Errorf("search for credentials: /%s: %w", e.Path, err)
			}
		}
		if name != "" {
			return &SecretError{Path: g.without(e.Path), Name: name}
		}
	}
	return nil
}

// without returns a name as it may be shown.
func (g *guard) without(path string) string {
	for _, c := range g.credentials {
		path = strings.ReplaceAll(path, string(c.value), "...")
	}
	return path
}

// in returns the name of a credential that is in b, or "".
func (g *guard) in(b []byte) string {
	for _, c := range g.credentials {
		if bytes.Contains(b, c.value) {
			return c.Name
		}
	}
	return ""
}

// inFile searches a file piece by piece; the end of each goes before the next.
func (g *guard) inFile(e *snapshot.Entry, buf []byte) (string, error) {
	f, err := e.Open()
	if err != nil {
		return "", err
	}
	defer f.Close()
	carried := 0 // bytes of the piece before
	for {
		n, err := io.ReadFull(f, buf[carried:])
		if name := g.in(buf[:carried+n]); name != "" {
			return name, nil
		}
		if err == io.EOF || err == io.ErrUnexpectedEOF {
			return "", nil
		}
		if err != nil {
			return "", err
		}
		carried = g.longest - 1
		copy(buf, buf[len(buf)-carried:])
	}
}
