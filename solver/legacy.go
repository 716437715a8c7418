package solver

import (
	"context"
	"slices"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/dag"
	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/survey"
	"github.com/clayer/clayer/solver/layers"
)

// LegacyTags returns the tags of the options' files; names says which have one.
func LegacyTags(ctx context.Context, opt Options, named func(*frontend.File) bool) ([]string, error) {
	r := newReadOnly(opt)
	commits, err := r.sources().Commits(ctx, r.InvalidateOn, r.jobs())
	if err != nil {
		return nil, err
	}
	var tags []string
	for _, f := range opt.Files {
		name := ""
		if named(f) {
			name = f.Name
		}
		tags = append(tags, layers.LegacyTag(name, f.Source, commits))
	}
	return tags, nil
}

// legacyFiles returns the files with those layers that no store, and not the root, has
// a step of replaced by such as fetch them from a release of container-layer; nil where
// there is none.
func (r *session) legacyFiles(ctx context.Context, g *dag.Graph, keys *dag.Keys, present map[*dag.Step]bool, found map[key.Key]cache.Found) ([]*frontend.File, error) {
	if r.LegacyURL == nil || r.Rebuild || r.Report.RemoteFailed() {
		return nil, nil // a store that does not answer is not asked in another way
	}
	var files []*frontend.File
	var commits []string
	for _, l := range g.Layers {
		if r.legacy.Made(l.File) || !survey.StandsAlone(g, l) || slices.ContainsFunc(l.Steps, func(s *dag.Step) bool {
			_, cached := found[keys.Step[s]]
			return s.ChangesRoot() && (present[s] || cached)
		}) || !slices.ContainsFunc(l.Steps, (*dag.Step).ChangesRoot) {
			continue
		}
		if commits == nil && len(r.InvalidateOn) > 0 {
			var err error
			if commits, err = r.sources().Commits(ctx, r.InvalidateOn, r.jobs()); err != nil {
				return nil, err
			}
		}
		file, err := r.legacy.Resolve(ctx, l.File, commits)
		if err != nil {
			return nil, err
		}
		if file != nil {
			if files == nil {
				files = slices.Clone(r.files)
			}
			files[slices.Index(files, l.File)] = file
		}
	}
	return files, nil
}

// fetchLegacy reports whether a release is there and can be used. Where nobody
// answers it is as if there were none.
func (r *session) fetchLegacy(ctx context.Context, in *frontend.Fetch, tag string) bool {
	pin, err := r.sources().Fetch(ctx, in)
	if err == nil && !r.readOnly {
		_, err = r.sources().FetchChanges(ctx, in, pin)
		if err != nil && ctx.Err() == nil {
			r.warn("%s: the release %s cannot be used, so the layer is built again: %v", in.Pos.File, tag, err)
		}
	}
	return err == nil
}
