package needs

import (
	"io"
	"maps"
	"slices"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/cache/snapshot"
	"github.com/clayer/clayer/solver/internal/databases"
	"github.com/clayer/clayer/solver/internal/names"
)

// noteLink notes a link of alternatives: where it leads, and what it was, if that is known.
func (r *Recorder) noteLink(e *snapshot.Entry, dir, base string) {
	if !databases.IsAlternative(e.Path) {
		return
	}
	n := snapshot.Need{Kind: snapshot.NeedAlternative, Path: e.Path, By: e.Target}
	if was, err := r.was(dir, base); err == nil && was.Kind == names.Link {
		n.Digest = digest.FromString(was.Target)
		if e.Kind == snapshot.Delete {
			n.By = was.Target
		}
	}
	r.links[e.Path] = n
}

// groupNeeds adds as needs the links of groups that the step changed and that were there:
// the link is not in its snapshot, and what it leads to may be another machine's.
func (r *Recorder) groupNeeds() error {
	for _, p := range slices.Sorted(maps.Keys(r.changed)) {
		group := databases.GroupOf(p)
		if group == "" || r.changed[p] == nil {
			continue
		}
		if err := r.leadsOut(databases.AlternativesLink(group), p); err != nil {
			return err
		}
	}
	return nil
}

// alternativeNeeds returns by which choices the links lead where they do.
func (r *Recorder) alternativeNeeds() (list []snapshot.Need) {
	groups := make(map[string][]byte)
	for p, data := range r.databases {
		if group := databases.GroupOf(p); group != "" {
			groups[group] = data
		}
	}
	for p, open := range r.changed {
		group := databases.GroupOf(p)
		if group == "" || open == nil {
			continue // of one that is gone, what it was says more
		}
		if f, err := open(); err == nil {
			groups[group], _ = io.ReadAll(io.LimitReader(f, databases.MaxSize))
			f.Close()
		}
	}
	for _, p := range slices.Sorted(maps.Keys(r.links)) {
		n := r.links[p]
		c, ok := databases.ChoiceOf(groups, p, n.By)
		if ok && (r.Covered(p) || r.Before != nil && r.Before(p) != names.Missing) {
			// What it was is not in the view, or gone; in automatic mode it follows from what
			// there was to choose.
			was := databases.Automatic(r.databases[databases.AlternativesFile(c.Group)], c.Group, p)
			n.Digest, ok = digest.FromString(was), was != ""
		}
		if ok {
			n.Name, n.Version = c.Group, c.Priority
			list = append(list, n)
		}
	}
	return list
}
