package filelist

import (
	"context"
	"strconv"
	"strings"

	"github.com/opencontainers/go-digest"

	"github.com/clayer/clayer/dag/key"
	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/solver/internal/contextdir"
)

// Mounted returns what reads the files that a mount of a RUN shows, as if it were a COPY: all
// that is at its source, which is a name and no pattern.
func Mounted(run *frontend.Run, m *frontend.Mount) *frontend.Copy {
	source := "."
	if m.Source != "" {
		source = literal.Replace(strings.TrimPrefix(m.Source, "/"))
	}
	return &frontend.Copy{Meta: run.Meta, Sources: []string{source}, Origin: m.Origin, Dest: "/mounted"}
}

// literal makes a name the pattern that it alone matches.
var literal = strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`)

// ReadMounted finds the files that a mount shows, in the directory dir, and hashes them. Its
// digest is also of the mode of the directory that is mounted.
func ReadMounted(ctx context.Context, in *contextdir.Contexts, dir string, c *frontend.Copy, exclude []string) (*List, error) {
	fs, err := Read(ctx, in, dir, c, exclude)
	if err != nil {
		return nil, err
	}
	k := key.Sum("mounted", func(w key.Writer) {
		w.Field("files", fs.Digest.String())
		w.Field("directory", strconv.FormatUint(uint64(fs.Top.Mode), 8))
	})
	fs.Digest = digest.NewDigestFromBytes(digest.SHA256, k[:])
	return fs, nil
}

// DigestOf returns one digest of several, in order; "" of none.
func DigestOf(what string, all []digest.Digest) digest.Digest {
	if len(all) == 0 {
		return ""
	}
	k := key.Sum(what, func(w key.Writer) {
		for _, d := range all {
			w.Field("digest", d.String())
		}
	})
	return digest.NewDigestFromBytes(digest.SHA256, k[:])
}
