package cache

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"slices"
	"strings"
	"sync"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/internal/safefile"
)

// Withheld knows which snapshots hold a credential, also those that an earlier session
// found: the next one may not have the credential to search for. Its methods are safe for
// concurrent use. A nil one knows nothing.
type Withheld struct {
	credentials []Credential
	allow       []string // names of credentials that may leave the machine
	dir         string   // of the notes; "": they are not retained

	mu     sync.Mutex
	notes  map[key.Key]note
	layers map[string]*SecretError // that get into no store, by name
	clean  map[examined]bool
}

// examined is the snapshot of a step, whose descriptor is searched too.
type examined struct {
	key    key.Key
	digest digest.Digest
}

// A note says that a snapshot holds a credential, or that it was built where one was.
type note struct {
	Digest digest.Digest `json:"digest,omitempty"` // "": of any snapshot of the step, none of which was searched
	Path   string        `json:"path,omitempty"`
	Name   string        `json:"name"`
}

const (
	maxNote  = 64 << 10
	partNote = "part-"
)

// OpenWithheld returns what is noted in a directory, which need not be there; "" is none.
func OpenWithheld(dir string, credentials []Credential, allow []string) *Withheld {
	w := &Withheld{credentials: credentials, allow: allow, dir: dir,
		notes: make(map[key.Key]note), layers: make(map[string]*SecretError), clean: make(map[examined]bool)}
	if dir == "" {
		return w
	}
	root, err := safefile.OpenDir(dir)
	if err != nil {
		return w // nothing was noted yet
	}
	defer root.Close()
	f, err := root.Open(".")
	if err != nil {
		return w
	}
	defer f.Close()
	names, _ := f.Readdirnames(-1)
	for _, name := range names {
		hex, ok := strings.CutSuffix(name, ".json")
		k, err := key.Parse(hex)
		if !ok || err != nil {
			continue
		}
		// A note that can't be read is still one.
		n := note{Name: "a secret"}
		if data, err := safefile.ReadFile(root, name, maxNote); err == nil {
			_ = json.Unmarshal(data, &n)
		}
		w.notes[k] = n
	}
	return w
}

// Has returns what is known of a step's snapshots: nil is nothing.
func (w *Withheld) Has(k key.Key) *SecretError {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	n, ok := w.notes[k]
	if !ok || slices.Contains(w.allow, n.Name) {
		return nil
	}
	return &SecretError{Path: n.Path, Name: n.Name, Unsearched: n.Digest == ""}
}

// Searches reports whether snapshots are searched for a credential.
func (w *Withheld) Searches(name string) bool {
	return w != nil && slices.ContainsFunc(w.credentials, func(c Credential) bool { return c.Name == name })
}

// Examine searches a snapshot, and notes what it holds. The error is a *SecretError then.
func (w *Withheld) Examine(ctx context.Context, d Descriptor, blob io.ReaderAt) error {
	if w == nil {
		return nil
	}
	w.mu.Lock()
	id := examined{d.Key, d.Digest}
	clean := w.clean[id]
	w.mu.Unlock()
	var err error
	if !clean {
		err = newGuard(nil, w).search(ctx, d, blob)
	}
	var secret *SecretError
	if err != nil && !errors.As(err, &secret) {
		return err
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if secret != nil {
		for _, k := range d.keys() {
			w.note(k, note{d.Digest, secret.Path, secret.Name})
		}
		return err
	}
	w.clean[id] = true
	n, ok := w.notes[d.Key]
	switch {
	case ok && n.Digest == d.Digest && !slices.Contains(w.allow, n.Name):
		return &SecretError{Path: n.Path, Name: n.Name}
	case ok && n.Digest != "" && n.Digest != d.Digest && w.Searches(n.Name): // it was built again, without
		for _, k := range d.keys() {
			delete(w.notes, k)
			w.forget(k)
		}
	}
	return nil
}

// Suspect notes that a step was built where a credential is, and was not searched for it.
func (w *Withheld) Suspect(k key.Key, why *SecretError) {
	if w == nil || why == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if _, ok := w.notes[k]; !ok {
		w.note(k, note{Path: why.Path, Name: why.Name})
	}
}

// Stop has no more of a layer get into a store.
func (w *Withheld) Stop(layer string, why *SecretError) {
	if w == nil {
		return
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.layers[layer] == nil {
		w.layers[layer] = why
	}
}

func (w *Withheld) note(k key.Key, n note) {
	if w.notes[k] == n {
		return
	}
	w.notes[k] = n
	data, err := json.Marshal(n)
	if w.dir == "" || err != nil {
		return
	}
	root, err := safefile.MakeDir(w.dir, 0o700)
	if err != nil {
		return // then the cache directory has no snapshot either
	}
	defer root.Close()
	_ = safefile.WriteFile(root, k.String()+".json", partNote, data)
}

func (w *Withheld) forget(k key.Key) {
	if w.dir == "" {
		return
	}
	if root, err := safefile.OpenDir(w.dir); err == nil {
		_ = root.Remove(k.String() + ".json") // or it is withheld for longer
		root.Close()
	}
}

// IsEmpty reports whether nothing is known.
func (w *Withheld) IsEmpty() bool {
	if w == nil {
		return true
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.notes) == 0
}

// stopped returns why a layer is stopped; nil if it is not.
func (w *Withheld) stopped(layer string) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if err := w.layers[layer]; err != nil {
		return err
	}
	return nil
}
