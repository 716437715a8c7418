package git

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"strings"

	"github.com/clayer/clayer/cache"
	"github.com/clayer/clayer/cache/git/internal/branch"
)

const (
	markName = "clayer.json"

	// version is that of the branch's form.
	version = 1

	// maxIndex bounds what is fetched of all files.
	maxIndex = 512 << 20
)

// What the branch lists is package branch's.
type (
	object = branch.Object
	piece  = branch.Piece
	stored = branch.Stored
	layer  = branch.Layer
	file   = branch.File
	index  = branch.Index
)

// mark is the content of clayer.json.
type mark struct {
	Version int `json:"version"`
}

const readme = `# Snapshots of clayer

clayer stores here what it built, so that other machines restore it in place of building. The snapshots are in the commits that the last one has as parents.

It is safe to delete this branch: what is missing is built again. ` + "`clayer cache prune`" + ` removes old layers.
`

func layerPath(m *cache.Manifest) string { return branch.LayerPath(m.Tag()) }

// newIndex reads the files of a commit.
func newIndex(ctx context.Context, r *repo, commit object, warn func(string)) (*index, error) {
	x := &index{Commit: commit, Files: make(map[string]object), Data: make(map[string][]byte)}
	if commit == "" {
		return x, nil
	}
	all, err := r.files(ctx, commit)
	if err != nil {
		return nil, err
	}
	var read []file
	var ids []object
	for _, f := range all {
		x.Files[f.Path] = f.ID
		top, _, _ := strings.Cut(f.Path, "/")
		if (top == branch.Keys || top == branch.Layers || top == markName) && strings.HasSuffix(f.Path, ".json") {
			read, ids = append(read, f), append(ids, f.ID)
		}
	}
	large := 0
	err = r.contents(ctx, ids, func(i int, kind string, size int64, content io.Reader) error {
		if kind != "blob" || size > branch.MaxFile {
			large++
			return nil
		}
		data := make([]byte, size)
		_, err := io.ReadFull(content, data)
		x.Data[read[i].Path] = data
		return err
	})
	if err != nil {
		return nil, err
	}
	if large > 0 {
		warn(fmt.Sprintf("%s: %d files of the branch are too large, or missing: they count as not there", r.git.where, large))
	}
	return x, check(x, r.git.where)
}

// check reports why the branch is not one of this package.
func check(x *index, where string) error {
	var m mark
	data, ok := x.Data[markName]
	switch {
	case x.Commit == "":
		return nil
	case !ok || json.Unmarshal(data, &m) != nil || m.Version == 0:
		return &Error{where: where, kind: foreign, said: where + ": the branch is not one of clayer's: name another one, as in git:URL#clayer-cache"}
	case m.Version > version:
		return &Error{where: where, kind: foreign, said: fmt.Sprintf("%s: the branch has version %d, and this program knows %d: use a later clayer, or name another branch", where, m.Version, version)}
	}
	return nil
}
