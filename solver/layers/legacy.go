package layers

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"fmt"
	"strings"

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

// A Legacy resolves layers to releases of container-layer. The zero value of URL
// finds none.
type Legacy struct {
	URL func(tag string) string // where layer.tar.gz of a release would be

	// Fetch reports whether what a FETCH names is there and can be used.
	Fetch func(ctx context.Context, in *frontend.Fetch, tag string) bool

	asked map[*frontend.File]*frontend.File // the answers, nil among them
	made  map[*frontend.File]bool
}

// Made reports whether a file fetches such a release.
func (l *Legacy) Made(f *frontend.File) bool { return l.made[f] }

// Fetches reports whether a FETCH is the one of such a file.
func (l *Legacy) Fetches(in *frontend.Fetch) bool {
	for f := range l.made {
		if f.Instructions[0].(*frontend.Fetch).Source == in.Source {
			return true
		}
	}
	return false
}

// Resolve returns a file that fetches the release of f; nil where there is none, or
// none that can be used. It asks once for each file.
func (l *Legacy) Resolve(ctx context.Context, f *frontend.File, commits []string) (*frontend.File, error) {
	if made, ok := l.asked[f]; ok || l.made[f] {
		return made, nil
	}
	made, err := l.find(ctx, f, commits)
	if ctx.Err() != nil {
		return nil, context.Cause(ctx)
	}
	if err != nil {
		return nil, err
	}
	if l.asked == nil {
		l.asked, l.made = make(map[*frontend.File]*frontend.File), make(map[*frontend.File]bool)
	}
	l.asked[f] = made
	if made != nil {
		l.made[made] = true
	}
	return made, nil
}

func (l *Legacy) find(ctx context.Context, f *frontend.File, commits []string) (*frontend.File, error) {
	for _, name := range []string{f.Name, ""} {
		tag := LegacyTag(name, f.Source, commits)
		made, err := frontend.Parse(f.Path, fmt.Appendf(nil, "FETCH --extract=true %s /\n", l.URL(tag)))
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
		if !l.Fetch(ctx, in[0].(*frontend.Fetch), tag) {
			continue // as without it
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
