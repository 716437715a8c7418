package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/clayer/clayer/frontend"
	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/frontend/imageref"
	"github.com/clayer/clayer/internal/pathname"
)

// fetches returns the instructions that fetch bytes, and where they stand.
func (p *pass) fetches() (list []*frontend.Fetch, index []int) {
	for i, in := range p.file.Instructions {
		if f, ok := in.(*frontend.Fetch); ok {
			list, index = append(list, f), append(index, i)
		}
	}
	return list, index
}

func fetchNoChecksum(p *pass) {
	list, _ := p.fetches()
	for _, f := range list {
		if isGit(f.Source) || strings.HasPrefix(f.Source, imageScheme) || f.Given("checksum") || strings.HasPrefix(f.Source, "$") && !strings.Contains(f.Source, "/") {
			continue
		}
		p.report(f.Base(), nil, "no --checksum: whatever is there is taken, and plan downloads it to know the key",
			f.Word+" --checksum=sha256:...; sha256sum of the file prints it")
	}
}

// imageScheme begins the source of a FETCH that is an image.
const imageScheme = "oci:"

// movingTag returns which tag of an image a FETCH follows, "" where it names a digest, or has
// variables.
func movingTag(f *frontend.Fetch) string {
	name, ok := strings.CutPrefix(f.Source, imageScheme)
	if !ok || f.Given("checksum") {
		return ""
	}
	name, _, _ = strings.Cut(name, "//")
	ref, err := imageref.Parse(name)
	if err != nil || ref.Digest != "" {
		return ""
	}
	return "the tag " + ref.Tag
}

func isGit(source string) bool {
	return strings.HasPrefix(source, "github:") || gitsource.Is(source) || gitsource.InADD(source)
}

// branches are names that no tag has.
var branches = []string{"main", "master", "HEAD", "develop", "devel", "dev", "trunk", "next", "nightly"}

// moving returns what a Git source follows, "" where it is a tag, a
// commit, or a variable.
func moving(source string) string {
	if !isGit(source) {
		return ""
	}
	ref := ""
	if gitsource.Is(source) {
		tree, err := gitsource.Parse(source)
		if err != nil || strings.Contains(tree.Ref, "$") {
			return "" // it has variables
		}
		ref = tree.Ref
	} else if gitsource.InADD(source) {
		r, err := gitsource.ParseADD(source)
		if err != nil || gitsource.InADD(r.Source) || strings.Contains(r.Source, "$") {
			return ""
		}
		return moving(r.Source)
	} else {
		_, ref, _ = strings.Cut(source, "@")
		ref, _, _ = strings.Cut(ref, "//")
	}
	switch {
	case ref == "":
		return "the default branch"
	case slices.Contains(branches, ref):
		return "branch " + ref
	}
	return ""
}

func fetchMovingRef(p *pass) {
	list, _ := p.fetches()
	for _, f := range list {
		if follows := moving(f.Source); follows != "" {
			p.report(f.Base(), nil, "it follows "+follows+": each push there runs this step, and what follows it, again",
				"github:owner/repo@TAG, or @COMMIT")
		}
		if follows := movingTag(f); follows != "" {
			p.report(f.Base(), nil, "it follows "+follows+": when that moves, this step runs again, and what follows it",
				"oci:IMAGE@sha256:DIGEST, or --checksum=sha256:DIGEST")
		}
	}
}

// expensive are programs that take long, by name: they install or compile.
var expensive = []string{
	"apt-get", "apt", "dnf", "yum", "apk", "pacman", "brew", "conda", "mamba", "micromamba", "nix", "nix-env",
	"pip", "pip3", "pipx", "uv", "poetry", "npm", "pnpm", "yarn", "bun", "cargo", "rustup", "go", "gem", "bundle",
	"make", "cmake", "ninja", "meson", "bazel", "mvn", "gradle", "julia", "cabal", "stack", "ghc", "dotnet", "mojo", "R", "Rscript",
}

func cacheOrder(p *pass) {
	list, index := p.fetches()
	for i, f := range list {
		follows := moving(f.Source)
		if follows == "" {
			continue
		}
		for _, r := range p.runs {
			if r.index < index[i] || r.script == nil || p.uses(r, f) {
				continue
			}
			j := slices.IndexFunc(r.script.cmds, func(c command) bool {
				name, _, _ := c.args()
				return slices.Contains(expensive, name)
			})
			if j < 0 {
				continue
			}
			name, _, _ := r.script.cmds[j].args()
			p.report(f.Base(), nil, fmt.Sprintf("each push to %s runs line %d again (%s), which has no use for it", follows, r.Pos.Line, name),
				fmt.Sprintf("move it after line %d, or pin it", r.Pos.End))
			break
		}
	}
}

// uses reports whether a RUN may need what a FETCH fetches: it names the directory,
// or one on the way to it, or runs there, or that is not known.
func (p *pass) uses(r *run, f *frontend.Fetch) bool {
	dest := strings.TrimRight(f.Dest, "/")
	if dest == "" || strings.Contains(dest, "$") || strings.HasPrefix(r.Dir+"/", dest+"/") {
		return true
	}
	text := strings.Join(p.file.Lines[r.Pos.Line-1:r.Pos.End], "\n")
	if strings.Contains(text, dest) {
		return true
	}
	// A program in a directory that an ENV puts into PATH.
	for _, v := range r.Env {
		if strings.Contains(v.Value, dest) {
			return true
		}
	}
	return false
}

// messages of instructions whose writer expects something. LABEL, EXPOSE and
// their like say something about an image, and do nothing in Docker's build either.
var ineffective = map[string]string{
	"ONBUILD":     "a FROM of another file runs no triggers",
	"VOLUME":      "a directory of the root is no volume: it is captured as any other",
	"HEALTHCHECK": "nothing runs afterwards that could be checked",
	"CMD":         "nothing is started afterwards",
	"ENTRYPOINT":  "nothing is started afterwards",
}

func noEffect(p *pass) {
	for _, in := range p.file.Instructions {
		m := in.Base()
		if m.Word == "ONBUILD" && (p.file.Stage != "" || p.file.StageAt(m.Pos.Line) != nil) {
			continue // a stage that builds on it runs it
		}
		if why, ok := ineffective[m.Word]; ok {
			p.report(m, nil, "no effect here: "+why, "")
		}
	}
}

// addNotUnpacked finds URLs of archives that ADD stores as they are.
func addNotUnpacked(p *pass) {
	for _, in := range p.file.Instructions {
		m := in.Base()
		var sources []string
		switch in := in.(type) {
		case *frontend.Fetch:
			sources = []string{in.Source}
		case *frontend.Copy:
			sources = in.Sources
		}
		text := strings.Join(p.file.Lines[max(m.Pos.Line-1, 0):m.Pos.End], "\n")
		if m.Word != "ADD" || strings.Contains(text, "--unpack") {
			continue
		}
		for _, source := range sources {
			source, _, _ = strings.Cut(strings.Trim(source, `"'`), "?")
			if (strings.Contains(source, "://") || strings.HasPrefix(source, "$")) && pathname.IsPacked(source) {
				hint := "FETCH unpacks it, and so does ADD --unpack=true"
				if strings.HasSuffix(strings.ToLower(source), ".zip") {
					hint = "FETCH unpacks it"
				}
				p.report(m, nil, "the archive is stored as it is, as in Docker", hint)
				break
			}
		}
	}
}

// stageImage finds stages of images that are copied from.
func stageImage(p *pass) {
	if p.file.Stage == "" || p.file.Image != nil {
		return
	}
	for _, in := range p.file.Own() {
		from, ok := in.(*frontend.From)
		if !ok || from.Stage || from.Image == "scratch" || slices.ContainsFunc(p.files, func(f *frontend.File) bool { return f.Name == from.Image }) {
			continue
		}
		p.report(from.Base(), nil, fmt.Sprintf("the image %s is not used: the stage is built on the machine, as it is", from.Image), "RUN what the image has, or FROM a layer that does")
	}
}
