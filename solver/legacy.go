package solver

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
)

// Releases that container-layer made, which clayer comes from, hold a whole
// layer as one file, layer.tar.gz, under a tag that is a digest of the
// Containerfile's text. A layer of which no store has a step is looked up there;
// where it is found, it is made by a FETCH of that file to /. So it is undone as
// one when the file is edited, and no key of a step ever names what an archive
// of several of them held.

// LegacyTag returns the tag that container-layer gave a layer: of its text, and
// the salts of --invalidate-on. An unnamed layer has "" for a name.
func LegacyTag(name, text string, commits []string) string {
	// As Python reads a text file: line ends are "\n".
	text = strings.ReplaceAll(strings.ReplaceAll(text, "\r\n", "\n"), "\r", "\n")
	text = strings.TrimSpace(text)
	if len(commits) > 0 {
		salts := make([]string, len(commits))
		for i, c := range commits { // "owner/repo@commit"
			repo, id, _ := strings.Cut(c, "@")
			salts[i] = repo + "@" + id[:min(12, len(id))]
		}
		text += "\n# salt: " + strings.Join(salts, "|")
	}
	sum := sha256.Sum256([]byte(text))
	h := hex.EncodeToString(sum[:8])
	if name == "" {
		return "layer-" + h
	}
	return "layer-" + name + "-" + h
}

// LegacyTags returns the tags of the request's files; names says which have one.
func LegacyTags(ctx context.Context, opt Options, named func(*frontend.File) bool) ([]string, error) {
	commits, err := newReadOnly(opt).commits(ctx)
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, f := range opt.Files {
		name := ""
		if named(f) {
			name = f.Name
		}
		tags = append(tags, LegacyTag(name, f.Source, commits))
	}
	return tags, nil
}

// legacy replaces the files of layers that no store, and not the root, has a
// step of by such as fetch them from a release of container-layer's. It reports
// whether there is one.
func (r *session) legacy(ctx context.Context, g *dag.Graph, keys *dag.Keys, present map[*dag.Step]bool, found map[key.Key]cache.Found) (bool, error) {
	if r.LegacyURL == nil || r.Rebuild || r.Report.RemoteFailed() {
		return false, nil // a store that does not answer is not asked in another way
	}
	var commits []string
	hit := false
	for _, l := range g.Layers {
		if r.asked[l.File] || !standsAlone(g, l) || slices.ContainsFunc(l.Steps, func(s *dag.Step) bool {
			_, cached := found[keys.Step[s]]
			return s.ChangesRoot() && (present[s] || cached)
		}) || !slices.ContainsFunc(l.Steps, (*dag.Step).ChangesRoot) {
			continue
		}
		if r.asked == nil {
			r.asked = make(map[*frontend.File]bool)
		}
		r.asked[l.File] = true
		if commits == nil && len(r.InvalidateOn) > 0 {
			var err error
			if commits, err = r.commits(ctx); err != nil {
				return false, err
			}
		}
		file, err := r.legacyFile(ctx, l.File, commits)
		if ctx.Err() != nil {
			return false, context.Cause(ctx)
		}
		if err != nil {
			return false, err
		}
		if file != nil {
			r.asked[file] = true
			if r.fetched == nil {
				r.fetched = make(map[*frontend.File]bool)
			}
			r.fetched[file] = true
			r.files[slices.Index(r.files, l.File)] = file
			hit = true
		}
	}
	return hit, nil
}

// standsAlone reports whether neither a layer builds on l by FROM, nor l on one.
func standsAlone(g *dag.Graph, l *dag.Layer) bool {
	if l.On != nil && !l.Ordered {
		return false
	}
	return !slices.ContainsFunc(g.Layers, func(x *dag.Layer) bool { return x.On == l && !x.Ordered })
}

// legacyFile returns the file that fetches a layer, and nil where there is none
// to fetch, or none that can be read.
func (r *session) legacyFile(ctx context.Context, f *frontend.File, commits []string) (*frontend.File, error) {
	for _, name := range []string{f.Name, ""} {
		tag := LegacyTag(name, f.Source, commits)
		made, err := frontend.Parse(f.Path, fmt.Appendf(nil, "FETCH --extract=true %s /\n", r.LegacyURL(tag)))
		if err != nil {
			return nil, err
		}
		fetch := made.Instructions[0].(*frontend.Fetch)
		fetch.Text = "FETCH " + tag + "/" + LegacyAsset
		// Resolved by itself: it is the same with or without the rest.
		in, _, err := made.Resolve(frontend.Scope{})
		if err != nil {
			return nil, err
		}
		pin, err := r.sources().Fetch(ctx, in[0].(*frontend.Fetch))
		if err == nil && !r.readOnly {
			_, err = r.sources().FetchChanges(ctx, in[0].(*frontend.Fetch), pin)
			if err != nil && ctx.Err() == nil {
				r.warn("%s: the release %s can't be used, so the layer is built anew: %v", f.Path, tag, err)
			}
		}
		if err != nil {
			continue // not there, or nobody answers: as without it
		}
		made.Dir, made.Name, made.Source, made.Lines = f.Dir, f.Name, f.Source, f.Lines
		made.Instructions = []frontend.Instruction{fetch}
		for _, in := range f.Instructions {
			switch in.(type) {
			case *frontend.Env, *frontend.Arg, *frontend.Workdir, *frontend.From:
				made.Instructions = append(made.Instructions, in)
			}
		}
		return made, nil
	}
	return nil, nil
}

// LegacyAsset is the file of such a release.
const LegacyAsset = "layer.tar.gz"
