package frontend

import (
	"path"
	"slices"
	"strings"

	"github.com/moby/buildkit/frontend/dockerfile/parser"

	"github.com/clayer/clayer/frontend/gitsource"
	"github.com/clayer/clayer/frontend/internal/address"
	"github.com/clayer/clayer/frontend/internal/fault"
	"github.com/clayer/clayer/frontend/internal/lexical"
	"github.com/clayer/clayer/internal/pathname"
)

// COPY and ADD, as Docker has them.

var (
	copyFlags = []string{"chown", "chmod", "link", "parents", "exclude", "from"}
	addFlags  = []string{"chown", "chmod", "link", "exclude", "checksum", "keep-git-dir", "unpack"}
)

// An addition is what the flags of an ADD say of sources that are no local files.
type addition struct {
	gitDir *bool
	unpack *bool
}

func buildCopy(m Meta, s *source) (Instruction, error) {
	c := &Copy{Meta: m, Unpack: m.Word == "ADD"}
	var add addition
	for _, f := range s.flags {
		if err := c.flag(f, &add); err != nil {
			return nil, err
		}
	}
	words, err := s.words()
	if err != nil {
		return nil, err
	}
	if len(words) < 2 {
		missing := []string{"source", "dest"}[len(words)]
		return nil, fault.Errorf("%s is missing", missing).WithHint("%s source... dest", m.Word)
	}
	c.Dest = words[len(words)-1]
	if err := c.divide(words[:len(words)-1], s.node.Heredocs); err != nil {
		return nil, err
	}
	if c.From != "" && len(c.Inline) > 0 {
		return nil, fault.Errorf("--from copies files of a stage or an image, and <<%s is part of this file", c.Inline[0].Name).WithHint("two COPYs")
	}
	if m.Word != "ADD" {
		return c, nil
	}
	c.Remote = func(source string) (*Fetch, error) { return c.fetch(source, add) }
	if len(c.Sources) == 1 && len(c.Inline) == 0 {
		// What is a URL whatever its variables are is one in the file, too.
		if text := lexical.Unquote(c.Sources[0], s.escape); address.IsRemote(text) {
			return &Fetch{Meta: m, Source: c.Sources[0], Dest: c.Dest, Extract: ExtractAuto, remote: c, flags: c.flags}, nil
		}
	}
	return c, nil
}

// flag takes a flag of COPY or ADD.
func (c *Copy) flag(f lexical.Flag, add *addition) error {
	known := copyFlags
	if c.Word == "ADD" {
		known = addFlags
	}
	if !slices.Contains(known, f.Name) {
		switch {
		case f.Name == "from":
			return fault.Errorf("--from is of COPY").WithHint("COPY --from=%s", f.Value)
		case slices.Contains(copyFlags, f.Name) || slices.Contains(addFlags, f.Name):
			return fault.Errorf("--%s is not of %s", f.Name, c.Word)
		case c.Word == "ADD" && slices.Contains(fetchFlags, f.Name):
			return fault.Errorf("--%s is of FETCH", f.Name).WithHint("FETCH --%s", f.Name)
		}
		return unknownFlag(f, known...)
	}
	switch f.Name {
	case "link", "parents", "keep-git-dir", "unpack":
		f.Value = strings.ToLower(f.Value)
		if !slices.Contains([]string{"", "true", "false"}, f.Value) || f.HasValue && f.Value == "" {
			return fault.Errorf("--%s=%s: want true or false", f.Name, f.Value)
		}
		set := f.Value != "false"
		switch f.Name {
		case "link":
			c.Link = set
		case "parents":
			c.Parents = set
		case "keep-git-dir":
			add.gitDir = &set
		case "unpack":
			c.Unpack, add.unpack = set, &set
		}
		return nil
	}
	if f.Value == "" {
		return fault.Errorf("--%s requires a value", f.Name).WithHint("--%s=...", f.Name)
	}
	switch f.Name {
	case "exclude":
		if err := checkPattern(f.Value); err != nil {
			return err
		}
		c.Exclude = append(c.Exclude, f.Value) // as in Docker, which expands nothing in it
	case "from":
		c.From = f.Value
	default:
		c.flags = append(c.flags, f)
	}
	return nil
}

// checkPattern refuses a pattern that is none.
func checkPattern(pattern string) error {
	if _, err := path.Match(strings.TrimPrefix(pattern, "!"), "."); err != nil || strings.TrimSpace(pattern) == "!" {
		return fault.Errorf("malformed pattern %q of what is excluded", pattern).WithHint("a [ opens a list of characters, which ] closes")
	}
	return nil
}

// divide divides what is copied into files and heredocs.
func (c *Copy) divide(words []string, docs []parser.Heredoc) error {
	if h := parser.MustParseHeredoc(c.Dest); h != nil && len(docs) > 0 {
		return fault.Errorf("dest is missing").WithHint("%s <<%s dest", c.Word, h.Name)
	}
	for _, w := range words {
		if h := parser.MustParseHeredoc(w); h != nil && len(docs) > 0 && docs[0].Name == h.Name {
			content := docs[0].Content
			if docs[0].Chomp {
				content = parser.ChompHeredocContent(content)
			}
			c.Inline = append(c.Inline, Inline{Name: h.Name, Content: content, Expand: docs[0].Expand})
			docs = docs[1:]
			continue
		}
		c.Sources = append(c.Sources, w)
	}
	return nil
}

// fetch returns the part of an ADD that is of one source, a URL or a repository.
func (c *Copy) fetch(source string, add addition) (*Fetch, error) {
	f := &Fetch{Meta: c.Meta, Source: source, Dest: c.Dest, Add: true, Extract: ExtractFalse, Exclude: c.Exclude, Unpack: add.unpack}
	if add.unpack != nil && *add.unpack {
		f.Extract = ExtractAuto
	}
	f.GitDir = add.gitDir != nil && *add.gitDir
	if !gitsource.InADD(source) {
		if !address.IsDownload(source) { // as FETCH has them: Docker knows no such source
			f.Add, f.Extract = false, ExtractAuto
		}
		if f.GitDir && address.IsDownload(source) {
			f.GitDir = false // as in Docker, of no effect
		}
		return f, nil
	}
	g, err := gitsource.ParseADD(source)
	if err != nil {
		return nil, fault.Errorf("%v", err).WithHint("%s", gitsource.ADDForm)
	}
	if g.GitDir != nil {
		if add.gitDir != nil && *add.gitDir != *g.GitDir {
			return nil, fault.Errorf("--keep-git-dir=%t, and keep-git-dir=%t in the source", *add.gitDir, *g.GitDir)
		}
		f.GitDir = *g.GitDir
	}
	f.Source, f.Submodules, f.Extract, f.Commit = g.Source, g.Submodules, ExtractAuto, g.Checksum
	return f, nil
}

// resolveAdd divides an ADD whose variables are expanded into steps: Docker copies one
// source after the other.
func (r *resolver) resolveAdd(in *Copy) ([]Instruction, error) {
	var all []Instruction
	local := *in
	local.Sources, local.Remote = nil, nil
	dest := r.expand(in.Dest)
	flush := func() error {
		if len(local.Sources)+len(local.Inline) == 0 {
			return nil
		}
		out, err := r.resolveCopy(&local)
		if err == nil {
			all = append(all, out)
		}
		local.Sources = nil
		return err
	}
	local.Inline = nil
	several := len(in.Sources)+len(in.Inline) > 1
	if several && slices.ContainsFunc(in.flags, func(f lexical.Flag) bool { return f.Name == "checksum" }) {
		return nil, fault.Errorf("--checksum is for one source alone")
	}
	for _, s := range in.Sources {
		source := r.expand(s)
		if !address.IsRemote(source) {
			local.Sources = append(local.Sources, s)
			continue
		}
		if several && !isDirectory(dest) {
			return nil, fault.Errorf("with several sources dest is a directory, and ends in a slash").WithHint("%s/", dest)
		}
		if err := flush(); err != nil {
			return nil, err
		}
		f, err := in.Remote(source)
		if err == nil {
			err = r.finishAdd(f, in)
		}
		if err != nil {
			return nil, err
		}
		all = append(all, f)
	}
	local.Inline = in.Inline
	return all, flush()
}

// isDirectory reports whether a dest is that of a directory, by its text.
func isDirectory(dest string) bool {
	return strings.HasSuffix(dest, "/") || strings.HasSuffix(dest, "/.") || dest == "."
}

// finishAdd sets the flags of an ADD of a URL or a repository.
func (r *resolver) finishAdd(f *Fetch, in *Copy) error {
	f.flags = in.flags
	for _, fl := range in.flags {
		value, err := r.flag(fl)
		switch {
		case err != nil, value == "":
		case fl.Name != "checksum":
			err = setOwnership(&f.Owner, fl.Name, value)
		case address.IsDownload(f.Source):
			err = setFetchFlag(f, fl.Name, value)
		case f.Commit != "" && f.Commit != value:
			err = fault.Errorf("--checksum=%s, and checksum=%s in the source", value, f.Commit)
		default:
			f.Commit, err = value, address.CheckPart(value)
		}
		if err != nil {
			return err
		}
	}
	dest, err := r.destOf(in.Dest)
	if err != nil {
		return err
	}
	if f.Dest = dest; !f.Add {
		f.Dest = path.Clean(dest)
	}
	return checkFetch(f)
}

// destOf returns the path of a dest, which ends in a slash where it is to be a directory.
func (r *resolver) destOf(text string) (string, error) {
	dest, err := r.pathOf(text)
	if err != nil {
		return "", err
	}
	out := pathname.Absolute(r.scope.Dir, dest)
	if isDirectory(dest) && out != "/" {
		out += "/"
	}
	return out, nil
}

// pathOf expands a path. As in Docker, nothing may remain of it: then it is the context, or
// the working directory.
func (r *resolver) pathOf(text string) (string, error) {
	expanded := r.expand(text)
	if expanded == "" && r.lacks(text) {
		return "", errEmpty
	}
	return expanded, nil
}

// cleanSource returns a source in its shortest form, so that "./a" and "a" have one key;
// "/a" is "a", as in Docker. With --parents it may have a /./, below which paths stay as they are.
func (c *Copy) cleanSource(s string) (string, error) {
	if c.Parents {
		above, below, found := strings.Cut(s, "/./")
		if !found {
			above, below = "", s
		}
		if err := checkCopySource(above+"/"+below, c.IsRoot()); err != nil {
			return "", err
		}
		above, below = path.Join("/", above)[1:], path.Join("/", below)[1:]
		if above == "" {
			return below, nil
		}
		return above + "/./" + below, nil
	}
	if err := checkCopySource(s, c.IsRoot()); err != nil {
		return "", err
	}
	if !c.IsRoot() {
		return path.Clean(strings.TrimLeft(s, "/")), nil
	}
	if s = path.Join("/", s)[1:]; s == "" {
		s = "."
	}
	return s, nil
}
