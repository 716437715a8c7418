package stores

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cmd/clayer/internal/usage"
	"github.com/clayer/clayer/internal/printable"
	"github.com/clayer/clayer/internal/sizes"
	"github.com/clayer/clayer/solver"
)

// A Copying is what is copied from one store to another, and how that is printed.
type Copying struct {
	From, To cache.Store
	Words    []string // names, tags and keys of layers; none: the newest of each name
	All      bool     // without Words: all layers
	Done     string   // what a line begins with: "copied"
	Where    string   // a store to name in each line; "" for none
	Warn     func(text string)
}

// Run copies what the other store lacks, and prints a line for each layer. A layer that
// holds a credential keeps no other from being copied.
func (c Copying) Run(ctx context.Context, out io.Writer) error {
	if err := c.To.Writable(); err != nil {
		return fmt.Errorf("%w: %s: %w", solver.ErrStore, c.To.Name(), err)
	}
	all, err := c.From.List(ctx)
	if err != nil && (len(all) == 0 || ctx.Err() != nil) {
		return fmt.Errorf("%w: %w", solver.ErrStore, err)
	}
	if err != nil { // of one of several
		c.Warn(err.Error())
	}
	if _, err := Lookup(all, c.Words); err != nil {
		return err
	}
	if !c.All || len(c.Words) > 0 {
		all = Newest(all, c.Words)
	}
	done := c.Done
	var refused error
	for _, m := range all {
		n, err := cache.Copy(ctx, c.From, c.To, m)
		if err != nil {
			err = fmt.Errorf("%w: %s: %w", solver.ErrStore, printable.Line(m.Tag()), err)
		}
		if secret := (*cache.SecretError)(nil); errors.As(err, &secret) {
			refused = errors.Join(refused, err)
			continue
		}
		if err != nil {
			return errors.Join(refused, err)
		}
		text := "already up to date"
		if n.Steps+n.Variants > 0 {
			text = fmt.Sprintf("%d of %d steps, %s", n.Steps, len(m.Steps), sizes.Format(n.Bytes))
		}
		if n.Variants > 0 {
			text += fmt.Sprintf(", with %s for machines that differ", sizes.Count(n.Variants, "snapshot"))
		}
		if c.Where != "" {
			text += ", " + c.Where
		}
		fmt.Fprintf(out, "%s %s: %s\n", done, printable.Line(m.Tag()), text)
	}
	return refused
}

// Push copies layers to each of several stores that can be written. One that fails keeps no
// other from getting them.
func Push(ctx context.Context, out io.Writer, local cache.Store, remote []cache.Store, words []string, warn func(string)) error {
	var writable []cache.Store
	var readOnly, failed error
	for _, s := range remote {
		if err := s.Writable(); errors.Is(err, cache.ErrReadOnly) {
			readOnly = fmt.Errorf("%w: %s: %w", solver.ErrStore, s.Name(), err)
			continue
		}
		writable = append(writable, s)
	}
	if len(writable) == 0 {
		return readOnly
	}
	for _, s := range writable {
		c := Copying{From: local, To: s, Words: words, Done: "pushed", Warn: warn}
		if len(writable) > 1 {
			c.Where = "to " + s.Location()
		}
		err := c.Run(ctx, out)
		var fault usage.Error
		if ctx.Err() != nil || errors.As(err, &fault) {
			return err
		}
		failed = errors.Join(failed, err)
	}
	return failed
}

// One returns the store that an argument names: as --store does, github:owner/repo as --repo,
// or local. reads says that nothing is written to it.
func (o *Opener) One(word string, reads bool, secrets map[string]solver.Secret) (cache.Store, error) {
	if word == "local" {
		local, err := o.UsableLocal()
		if err != nil {
			return nil, err
		}
		return local, nil
	}
	o.Transfer() // both ends share what is known of the network
	one := *o
	one.Stores, one.Repo, one.ByProject, one.Reads = []string{word}, "", ByProject{}, reads
	if repo, ok := strings.CutPrefix(word, "github:"); ok {
		one.Stores, one.Repo = nil, repo
	}
	found, err := one.Reachable(secrets)
	if err != nil {
		return nil, err
	}
	if len(found) == 0 { // why, is reported
		return nil, errors.Join(usage.ErrReported, solver.ErrStore)
	}
	return found[0], nil
}
